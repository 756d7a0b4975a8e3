"""Mirrors follow the store, and are thrown away when they cannot be trusted."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from disks import fill, mounted, remount
from everturn.errors import Corrupt, Denied, NotFound, Unavailable
from everturn.journal.events import Ended, Prompt
from everturn.journal.reading import RunRef
from everturn.log.objects import run
from everturn.mirrors import database
from everturn.mirrors.base import Batch
from everturn.mirrors.keeping import Progress, catch_up, follow, rebuild
from everturn.mirrors.sqlite import SqliteMirror
from mirrors.ground import LABEL, REF, Ground, a_run, check_index, dump, lines_of_events, matches, rows

MORE = RunRef("task:t", "run-2")


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    ground = Ground(tmp_path)
    ground.store(REF, lines_of_events(a_run(words="needle")), parts=2)
    return ground


def caught_up(ground: Ground, mirror: SqliteMirror | None = None, **more: object) -> SqliteMirror:
    mirror = mirror or ground.mirror()
    catch_up(ground.journals, mirror, metrics=ground.metrics, **more)  # type: ignore[arg-type]
    return mirror


def runs(mirror: SqliteMirror) -> list[str]:
    return [run_id for (run_id,) in rows(mirror, "SELECT run_id FROM runs ORDER BY run_id")]


def test_only_runs_that_have_grown_are_read(ground: Ground) -> None:
    mirror = caught_up(ground)
    assert catch_up(ground.journals, mirror).runs_to_do == 0
    ground.store(MORE, lines_of_events(a_run("run-2")))
    told: list[Progress] = []
    done = catch_up(ground.journals, mirror, told=told.append)
    assert (done.runs, done.runs_to_do, done.events) == (1, 1, len(a_run()))
    assert told[0].runs == 0
    assert told[-1] == done
    assert runs(mirror) == ["run-1", "run-2"]


def test_some_runs_can_be_followed_alone(ground: Ground) -> None:
    mirror = caught_up(ground)
    ground.store(MORE, lines_of_events(a_run("run-2")))
    unseen = RunRef("task:t", "run-3")
    ground.store(unseen, lines_of_events(a_run("run-3")))
    before = mirror.checkpoints_of([REF, MORE, RunRef("task:elsewhere", REF.run_id)])
    assert [(each.ref, each.part) for each in before] == [(REF, mirror.checkpoints()[REF].part), (MORE, 0)]
    done = follow(ground.journals, mirror, before)
    assert (done.runs_to_do, done.events) == (2, len(a_run()))
    assert runs(mirror) == ["run-1", "run-2"]
    again = follow(ground.journals, mirror, mirror.checkpoints_of([REF, MORE]))
    assert again.events == 0


def test_a_run_that_is_deleted_goes_from_the_mirror(ground: Ground) -> None:
    ground.store(MORE, lines_of_events(a_run("run-2")))
    mirror = caught_up(ground)
    ground.delete(REF)
    caught_up(ground, mirror)
    assert runs(mirror) == ["run-2"]
    assert {found[0] for found in matches(mirror, "hello OR needle")} == {"run-2"}
    check_index(mirror)


def test_a_run_whose_journal_was_truncated_goes_from_the_mirror_and_is_not_read_again(ground: Ground) -> None:
    ground.store(MORE, lines_of_events(a_run("run-2")))
    mirror = caught_up(ground)
    ground.truncate(REF)
    assert catch_up(ground.journals, mirror).runs == 1
    assert runs(mirror) == ["run-2"]
    assert not matches(mirror, "needle")
    assert catch_up(ground.journals, mirror).runs_to_do == 0
    assert dump(mirror) == dump(caught_up(ground, ground.mirror("again")))


def test_a_run_that_is_not_shipped_yet_stays_while_its_machine_has_it(ground: Ground) -> None:
    mirror = caught_up(ground)
    assert mirror.fold(Batch(MORE, lines_of_events(a_run("run-2"))))
    ahead = [*lines_of_events([*a_run(), Prompt("more", resumed=False)])]
    assert mirror.fold(Batch(REF, ahead))
    caught_up(ground, mirror, is_live=lambda ref: True)
    assert runs(mirror) == ["run-1", "run-2"]
    caught_up(ground, mirror)
    assert runs(mirror) == ["run-1"]
    assert dump(mirror) == dump(caught_up(ground, ground.mirror("again")))


def test_a_run_that_is_ahead_of_its_journal_is_replayed_alone(ground: Ground) -> None:
    mirror = caught_up(ground)
    wrong = lines_of_events([*a_run(), Prompt("never stored", resumed=False)])
    assert mirror.fold(Batch(REF, wrong))
    caught_up(ground, mirror)
    assert not matches(mirror, "never")
    assert ground.counted("mirror_rebuilds", reason="asked") == 0
    assert dump(mirror) == dump(caught_up(ground, ground.mirror("again")))


def test_a_copy_of_a_run_in_another_scope_is_passed_over(ground: Ground) -> None:
    ground.store(RunRef("task:z", "run-1"), lines_of_events(a_run(words="copied")))
    mirror = caught_up(ground)
    assert rows(mirror, "SELECT work_key FROM runs") == [("task:t",)]
    assert not matches(mirror, "copied")


def test_a_mirror_that_somebody_else_has_rebuilt_is_not_rebuilt_again(ground: Ground) -> None:
    mirror, other = ground.mirror(), ground.mirror()
    before = mirror._place.locked

    def locked_late(*, wait: bool = True) -> object:
        mirror._place.locked = before  # type: ignore[method-assign]
        caught_up(ground, other)
        return before(wait=wait)

    mirror._place.locked = locked_late  # type: ignore[method-assign, assignment]
    caught_up(ground, mirror)
    assert ground.counted("mirror_rebuilds", reason="missing") == 1
    assert runs(mirror) == ["run-1"]


def test_readers_have_the_old_answer_while_a_mirror_is_rebuilt(ground: Ground) -> None:
    mirror = caught_up(ground)
    with mirror.reading() as reader:
        with mirror.rebuilding("asked") as fresh:
            assert fresh is not None
            assert runs(mirror) == ["run-1"]
        assert runs(mirror) == []
        assert reader.execute("SELECT run_id FROM runs").fetchall() == [("run-1",)]


def test_a_rebuild_that_fails_leaves_the_old_mirror(ground: Ground) -> None:
    def told(progress: Progress) -> None:
        if progress.runs:
            raise Unavailable("the store is away", hint="try again")

    mirror = caught_up(ground)
    ground.store_part(MORE, lines_of_events(a_run("run-2")))
    with pytest.raises(Unavailable, match="away"):
        rebuild(ground.journals, mirror, metrics=ground.metrics, told=told)
    assert runs(mirror) == ["run-1"]


@pytest.mark.parametrize("how", [catch_up, rebuild])
def test_a_damaged_journal_keeps_no_other_out(ground: Ground, how: Callable[..., Progress]) -> None:
    mirror = caught_up(ground)
    last = RunRef("task:t", "run-9")
    for ref in (MORE, last):
        ground.store(ref, lines_of_events(a_run(ref.run_id)), parts=2)
    run(ground.objects.put(f"{MORE.folder}/0000000001.jsonl.zst", b"rubbish"))
    done = how(ground.journals, mirror, metrics=ground.metrics)
    (problem,) = done.damaged
    assert MORE.folder in problem
    assert runs(mirror) == ["run-1", "run-9"]
    assert catch_up(ground.journals, mirror, metrics=ground.metrics).damaged == done.damaged
    ground.delete(MORE)
    assert catch_up(ground.journals, mirror, metrics=ground.metrics).damaged == ()
    check_index(mirror)


def test_what_was_known_of_a_journal_before_it_was_damaged_stays(ground: Ground) -> None:
    lines = lines_of_events(a_run("run-2"))
    ground.store(MORE, lines[:5])
    mirror = caught_up(ground)
    run(ground.objects.put(f"{MORE.folder}/0000000002.jsonl.zst", b"rubbish"))
    assert len(catch_up(ground.journals, mirror, metrics=ground.metrics).damaged) == 1
    assert rows(mirror, "SELECT run_id, events FROM runs ORDER BY run_id") == [("run-1", 12), ("run-2", 5)]


def test_only_one_database_is_left_after_a_rebuild(ground: Ground) -> None:
    mirror = caught_up(ground)
    mirror.fold(Batch(MORE, lines_of_events(a_run("run-2"))))
    rebuild(ground.journals, ground.mirror(), metrics=ground.metrics)
    mirror.close()
    names = sorted(path.name for path in mirror.path.parent.iterdir())
    assert [name for name in names if name.startswith("sqlite-")] == [str(mirror.path.readlink())]


def test_whoever_has_the_old_file_open_notices_that_it_was_replaced(ground: Ground) -> None:
    mirror = caught_up(ground)
    assert mirror.fold(Batch(MORE, lines_of_events(a_run("run-2"))))
    rebuild(ground.journals, ground.mirror(), metrics=ground.metrics)
    late = lines_of_events([*a_run("run-2"), Prompt("late", resumed=False)])
    assert not mirror.fold(
        Batch(MORE, late[-1:], after=len(late) - 1)
    )  # nothing of the run is in the new file: from its start
    assert mirror.fold(Batch(MORE, late))
    assert runs(ground.mirror()) == ["run-1", "run-2"]


# --- Bad input ------------------------------------------------------------------------------------------------------


def spoil(mirror: SqliteMirror, how: str) -> None:
    """Do something to a mirror's file."""
    file = mirror.path.resolve()
    if how == "deleted":
        mirror.path.unlink()
    elif how == "target deleted":
        file.unlink()
    elif how == "a text file":
        mirror.path.unlink()
        mirror.path.write_text("to be done\n")
    elif how == "a folder":
        mirror.path.unlink()
        mirror.path.mkdir()
        (mirror.path / "more").touch()
    elif how == "overwritten":
        file.write_text("to be done\n" * 1000)
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "cut off":
        os.truncate(file, file.stat().st_size // 2)
    else:
        with database.connect(file) as connection:
            connection.execute(how)
            connection.commit()
        connection.close()


SPOILED = {
    "deleted": "missing",
    "target deleted": "missing",
    "a text file": "corrupt",
    "a folder": "corrupt",
    "overwritten": "corrupt",
    "empty": "fold_changed",
    "UPDATE meta SET value = '0' WHERE name = 'fold_version'": "fold_changed",
    "UPDATE meta SET value = '999' WHERE name = 'fold_version'": "fold_changed",
    "PRAGMA user_version = 999": "fold_changed",
    "UPDATE meta SET value = 's3://other' WHERE name = 'store'": "other_store",
    "DROP TABLE meta": "corrupt",
}


@pytest.mark.parametrize("how", SPOILED)
def test_what_cannot_be_used_is_purged_and_replayed(ground: Ground, how: str) -> None:
    mirror = caught_up(ground)
    before = dump(mirror)
    spoil(mirror, how)
    assert mirror.unusable() == SPOILED[how]
    caught_up(ground, mirror)
    assert dump(mirror) == before
    assert ground.counted("mirror_rebuilds", reason=SPOILED[how]) == 1 + (SPOILED[how] == "missing")


def test_damage_deep_inside_is_found_when_it_is_met(ground: Ground) -> None:
    ground.store(MORE, lines_of_events([Prompt("word " * 40_000, resumed=False)]))
    mirror = caught_up(ground)
    before = dump(mirror)
    file = mirror.path.resolve()
    half = file.stat().st_size // 2
    with file.open("r+b") as opened:
        opened.seek(half)
        opened.write(b"\xff" * half)
    assert mirror.unusable() is None
    assert mirror.unusable(thoroughly=True) == "corrupt"
    with pytest.raises(Corrupt, match="damaged"):
        dump(mirror)
    assert mirror.unusable() == "missing"
    caught_up(ground, mirror)
    assert dump(mirror) == before


def test_a_file_that_is_deleted_while_it_is_open_is_noticed(ground: Ground) -> None:
    mirror = caught_up(ground)
    lines = lines_of_events(a_run("run-2"))
    assert mirror.fold(Batch(MORE, lines[:4]))
    mirror.path.unlink()
    with pytest.raises(NotFound):
        mirror.fold(Batch(MORE, lines[4:], after=4))
    caught_up(ground, mirror)
    assert runs(mirror) == ["run-1"]


def test_a_folder_that_cannot_be_written_gives_one_clear_error(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=8m"):
        ground = Ground(tmp_path / "disk")
        ground.store(REF, lines_of_events(a_run()))
        mirror = caught_up(ground)
        before = dump(mirror)
        remount(tmp_path / "disk", "ro")
        try:
            with pytest.raises(Denied, match="mirror") as raised:
                rebuild(ground.journals, mirror, metrics=ground.metrics)
            assert "permissions" in raised.value.hint
            with pytest.raises(Denied):
                mirror.fold(Batch(MORE, lines_of_events(a_run("run-2"))))
        finally:
            remount(tmp_path / "disk", "rw")
        assert dump(mirror) == before
        mirror.close()


def test_a_full_disk_gives_one_clear_error_and_the_rest_stays(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=8m"):
        ground = Ground(tmp_path / "disk")
        ground.store(REF, lines_of_events(a_run()))
        mirror = caught_up(ground)
        ground.store(MORE, lines_of_events([Prompt(os.urandom(400_000).hex(), resumed=False)]))
        filler = fill(tmp_path / "disk", 200_000)
        with pytest.raises(Unavailable, match="no room"):
            caught_up(ground, mirror)
        with pytest.raises(Unavailable, match="no room"):
            rebuild(ground.journals, mirror, metrics=ground.metrics)
        assert not list(mirror.path.parent.glob("sqlite.new"))
        assert runs(mirror) == ["run-1"]
        filler.unlink()
        caught_up(ground, mirror)
        assert runs(mirror) == ["run-1", "run-2"]
        mirror.close()


@pytest.mark.slow
def test_a_line_of_fifty_megabytes_is_taken_in(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    text = "a long line " * (50 << 20 >> 3) + "needle"
    ground.store(REF, lines_of_events([Prompt(text[-(50 << 20) :], resumed=False), Ended("completed")]))
    mirror = caught_up(ground)
    assert len(matches(mirror, "needle")) == 1
    assert rows(mirror, "SELECT sum(length(text)) FROM texts") == [(50 << 20,)]


def test_datasette_and_others_find_plain_tables(ground: Ground) -> None:
    mirror = caught_up(ground)
    connection = sqlite3.connect(mirror.path)
    try:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert connection.execute("PRAGMA foreign_key_list(texts)").fetchall()
        assert connection.execute("SELECT value FROM meta WHERE name = 'store'").fetchone() == (LABEL,)
        (made,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'texts_fts'").fetchone()
        assert 'content="texts"' in made  # by which Datasette knows
        assert connection.execute("SELECT count(*) FROM texts_fts WHERE texts_fts MATCH 'needle'").fetchone() == (3,)
    finally:
        connection.close()
