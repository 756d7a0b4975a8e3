"""The mirror follows runs of this machine while they last, and no run ever waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from everturn.clock import Ids, ManualClock
from everturn.errors import NotFound
from everturn.journal.events import Prompt
from everturn.journal.reading import RunRef
from everturn.mirrors.base import Batch
from everturn.mirrors.feed import MirrorFeed
from everturn.mirrors.keeping import catch_up, rebuild
from everturn.mirrors.sqlite import SqliteMirror
from mirrors.ground import LABEL, REF, Ground, a_run, as_file, dump, lines_of_events, matches, rows
from polling import wait_until

CLOSE_S = 10.0


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


@pytest.fixture
def feed(ground: Ground) -> Iterator[MirrorFeed]:
    feed = MirrorFeed(ground.mirror(), metrics=ground.metrics, pause_s=0.05, retry_s=0.05)
    yield feed
    feed.close(CLOSE_S)


def events_in(mirror: SqliteMirror) -> int:
    try:
        return sum(number for (number,) in rows(mirror, "SELECT events FROM runs"))
    except NotFound:
        return 0


def wait_for(ground: Ground, events: int) -> SqliteMirror:
    mirror = ground.mirror()
    wait_until(lambda: events_in(mirror) == events, f"{events} events")
    return mirror


def test_events_are_in_the_mirror_soon_after_they_are_written(ground: Ground, feed: MirrorFeed) -> None:
    file, lines = ground.folder / "journal.jsonl", lines_of_events(a_run(words="needle"))
    as_file(file, lines[:4])
    feed.note(REF, file)
    assert [partial for *_, partial in matches(wait_for(ground, 4), "needle")] == [0, 1]
    as_file(file, lines[4:])
    feed.wake()
    assert [partial for *_, partial in matches(wait_for(ground, len(lines)), "needle")] == [0, 0, 0]


def test_a_run_that_cannot_be_folded_does_not_keep_the_others_out(ground: Ground) -> None:
    class Picky(SqliteMirror):
        def fold(self, batch: Batch) -> bool:
            if batch.ref == REF:
                raise ValueError("not this one")
            return super().fold(batch)

    feed = MirrorFeed(Picky(ground.mirror().path.parent, LABEL), metrics=ground.metrics, pause_s=0.02, retry_s=0.02)
    file, lines = ground.folder / "journal.jsonl", lines_of_events(a_run())
    as_file(file, lines)
    feed.note(REF, file)
    feed.note(RunRef("task:other", "run-2"), file)
    wait_for(ground, len(lines))
    feed.close(CLOSE_S)


def test_a_line_that_is_not_whole_waits_for_the_rest_of_it(ground: Ground, feed: MirrorFeed) -> None:
    file, lines = ground.folder / "journal.jsonl", lines_of_events(a_run())
    as_file(file, lines)
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    feed.note(REF, file)
    wait_for(ground, len(lines) - 1)
    with file.open("ab") as opened:
        opened.write(whole[-7:])
    wait_for(ground, len(lines))


def test_a_journal_that_is_deleted_at_once_is_folded_all_the_same(ground: Ground, feed: MirrorFeed) -> None:
    file, lines = ground.folder / "journal.jsonl", lines_of_events(a_run())
    as_file(file, lines)
    feed.note(REF, file)
    file.unlink()
    wait_for(ground, len(lines))
    wait_until(lambda: feed._thread is None, "the thread has ended with the last run")


def test_closing_folds_what_is_left(ground: Ground) -> None:
    feed = MirrorFeed(ground.mirror(), metrics=ground.metrics, pause_s=60)
    file, lines = ground.folder / "journal.jsonl", lines_of_events(a_run())
    as_file(file, lines[:3])
    feed.note(REF, file)
    wait_for(ground, 3)
    as_file(file, lines[3:-1])
    feed.close(CLOSE_S)
    assert events_in(ground.mirror()) == len(lines) - 1


def test_what_was_told_live_is_what_the_store_says_later(ground: Ground, feed: MirrorFeed) -> None:
    file, lines = ground.folder / "journal.jsonl", lines_of_events(a_run())
    as_file(file, lines)
    feed.note(REF, file)
    mirror = wait_for(ground, len(lines))
    assert mirror.unusable() == "missing"  # nobody has looked into the store yet
    ground.store(REF, lines, parts=3)
    catch_up(ground.journals, mirror)
    assert events_in(mirror) == len(lines)


def test_a_mirror_that_is_rebuilt_meanwhile_gets_the_whole_run_again(ground: Ground, feed: MirrorFeed) -> None:
    file, lines = ground.folder / "journal.jsonl", lines_of_events([*a_run()[:-1], *a_run()])
    as_file(file, lines[:8])
    feed.note(REF, file)
    wait_for(ground, 8)
    ground.store(REF, lines[:3])
    rebuild(ground.journals, ground.mirror())
    as_file(file, lines[8:])
    mirror = wait_for(ground, len(lines))
    ground.store(REF, lines[3:])
    catch_up(ground.journals, mirror)
    again = ground.mirror("again")
    rebuild(ground.journals, again)
    assert dump(mirror) == dump(again)


def test_a_mirror_that_is_deleted_meanwhile_is_made_again(ground: Ground, feed: MirrorFeed) -> None:
    file, lines = ground.folder / "journal.jsonl", lines_of_events(a_run())
    as_file(file, lines[:4])
    feed.note(REF, file)
    mirror = wait_for(ground, 4)
    mirror.path.unlink()
    as_file(file, lines[4:])
    wait_for(ground, len(lines))


def test_a_mirror_that_fails_is_logged_counted_and_tried_again(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    folder = ground.folder / "mirror"
    folder.write_text("in the way")
    feed = MirrorFeed(
        SqliteMirror(folder, LABEL, clock=ManualClock(), ids=Ids(), metrics=ground.metrics),
        metrics=ground.metrics,
        pause_s=0.01,
        retry_s=0.01,
    )
    file, lines = ground.folder / "journal.jsonl", lines_of_events(a_run())
    as_file(file, lines)
    feed.note(REF, file)
    wait_until(lambda: ground.counted("mirror_update_failures") >= 2, "two failures")
    assert "mirror_not_updated" in caplog.text
    folder.unlink()
    wait_for(ground, len(lines))
    feed.close(CLOSE_S)


def test_a_journal_that_is_not_there_is_a_failure_and_no_error(ground: Ground, feed: MirrorFeed) -> None:
    feed.note(REF, ground.folder / "nothing")
    assert ground.counted("mirror_update_failures") == 1


def test_a_mirror_of_another_release_is_left_alone(ground: Ground, feed: MirrorFeed) -> None:
    mirror = ground.mirror()
    rebuild(ground.journals, mirror)
    with mirror._writing() as connection:
        connection.execute("UPDATE meta SET value = '999' WHERE name = 'fold_version'")
    file = ground.folder / "journal.jsonl"
    as_file(file, lines_of_events(a_run()))
    feed.note(REF, file)
    wait_until(lambda: ground.counted("mirror_update_failures"), "a failure")
    assert mirror.unusable() == "fold_changed"


def test_a_hole_in_the_file_is_a_hole_in_the_mirror(
    ground: Ground, feed: MirrorFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everturn.mirrors.feed.CHUNK_BYTES", 300)
    file, lines = ground.folder / "journal.jsonl", lines_of_events([*a_run()[:-1], *a_run()])
    as_file(file, [line for line in lines if line["seq"] not in (5, 6, 12)])
    feed.note(REF, file)
    mirror = wait_for(ground, len(lines) - 3)
    assert rows(mirror, "SELECT missing_events FROM runs") == [(3,)]


def test_lines_that_are_damaged_are_counted(ground: Ground, feed: MirrorFeed) -> None:
    file, lines = ground.folder / "journal.jsonl", lines_of_events([Prompt("a", resumed=False), *a_run()])
    as_file(file, lines[:1])
    with file.open("ab") as opened:
        opened.write(b"rubbish\n[]\n")
    as_file(file, lines[1:])
    feed.note(REF, file)
    wait_for(ground, len(lines))
    wait_until(lambda: ground.counted("mirror_events", outcome="unreadable") == 2, "both are counted")
