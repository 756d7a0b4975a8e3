"""A journal has every event before anybody sees it, whole, whatever happens to the disk, the store or the process."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disks import fill, mounted
from everturn.errors import Corrupt, Denied, EverturnError, Invalid, Unavailable
from everturn.journal.events import Ended, Event, Prompt, TextDelta
from everturn.journal.file import JournalFile
from everturn.journal.journal import Journal
from everturn.journal.lines import line_of
from everturn.journal.reading import RunRef
from everturn.journal.shipping import Appender, Shipper
from everturn.testing import Fault
from journal.desk import QUICK_S, Desk, delta, shippers
from polling import wait_until

# --- Written before it is shown ---


def test_an_event_is_in_the_file_as_soon_as_it_is_written(desk: Desk) -> None:
    journal = desk.open()
    journal.write(Prompt("Count.", False))
    assert [line["type"] for line in desk.lines()] == ["prompt"]
    journal.write(delta(1))
    journal.write(delta(2))
    assert [(line["seq"], line["type"]) for line in desk.lines()] == [
        (1, "prompt"),
        (2, "text_delta"),
        (3, "text_delta"),
    ]
    journal.close(5)


def test_only_its_owner_can_read_it(desk: Desk) -> None:
    desk.open().close(5)
    assert desk.path.stat().st_mode & 0o777 == 0o600


def test_a_journal_that_is_there_is_not_begun_again(desk: Desk) -> None:
    desk.path.write_text("somebody's\n")
    with pytest.raises(Denied, match="cannot be made"):
        desk.open()
    assert desk.path.read_text() == "somebody's\n"


def test_with_fsync_an_event_is_on_the_disk_before_it_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda file: synced.append(os.fstat(file).st_size))
    desk = Desk(tmp_path, journal_durability="fsync")
    journal = desk.open()
    journal.write(delta(1))
    journal.settle()
    assert synced == [desk.path.stat().st_size]
    journal.close(5)


def test_with_store_an_event_is_in_the_store_before_it_is_shown(tmp_path: Path) -> None:
    desk = Desk(tmp_path, journal_durability="store")
    journal = desk.open()
    for number in range(3):
        journal.write(delta(number))
        journal.settle()
        assert desk.events() == [delta(each) for each in range(number + 1)]
    journal.close(5)


@pytest.mark.slow
def test_with_store_an_event_that_cannot_be_stored_must_not_be_shown(tmp_path: Path) -> None:
    desk = Desk(tmp_path, journal_durability="store")
    desk.objects.faults.append(Fault("fail", "create", times=None))
    journal = desk.open()
    journal.write(delta(1))
    with pytest.raises(Unavailable):
        journal.settle()
    desk.objects.faults.clear()
    journal.settle()  # it is in the file, and tried again
    assert desk.events() == [delta(1)]
    journal.close(5)


# --- Into the store ---


def test_events_that_wait_for_each_other_share_a_part(desk: Desk) -> None:
    journal = desk.open()
    for number in range(50):
        journal.write(delta(number))
    journal.close(10)
    assert desk.stored().tail == 1
    assert desk.events() == [delta(number) for number in range(50)]


def test_events_are_shipped_while_the_run_goes_on(tmp_path: Path) -> None:
    desk = Desk(tmp_path, journal_ship_s=QUICK_S)
    journal = desk.open()
    journal.write(delta(1))
    wait_until(lambda: len(desk.events()) == 1, "the first event is stored")
    journal.write(delta(2))
    wait_until(lambda: len(desk.events()) == 2, "the second, too")
    journal.close(5)
    assert desk.stored().tail == 2


def test_a_part_is_about_as_large_as_a_frame_and_a_line_is_never_cut(desk: Desk) -> None:
    journal = desk.open()
    events = [delta(number, "x" * size) for number, size in enumerate((700_000, 700_000, 3_000_000, 10, 10))]
    for event in events:
        journal.write(event)
    journal.close(10)
    assert desk.events() == events
    assert desk.stored().tail == 4


@pytest.mark.slow
def test_a_line_of_50_mb_is_an_event_like_any_other(desk: Desk) -> None:
    journal = desk.open()
    large = delta(1, "x" * 50_000_000)
    for event in (delta(0), large, delta(2)):
        journal.write(event)
    journal.close(60)
    assert desk.events() == [delta(0), large, delta(2)]


def test_while_the_store_is_away_events_are_kept_and_shipped_later(tmp_path: Path) -> None:
    desk = Desk(tmp_path, journal_ship_s=QUICK_S, append_deadline_s=0.01)
    desk.objects.faults.append(Fault("fail", "create", times=None))
    journal = desk.open()
    for number in range(10):
        journal.write(delta(number))
    wait_until(lambda: desk.metrics.journal_ship_failures._value.get() >= 2, "it was tried twice")
    wait_until(lambda: desk.metrics.journal_unshipped_bytes._value.get() > 0, "it is told")
    desk.objects.faults.clear()
    wait_until(lambda: desk.events() == [delta(number) for number in range(10)], "all are stored")
    journal.close(30)
    wait_until(lambda: desk.metrics.journal_unshipped_bytes._value.get() == 0, "nothing is left")


@pytest.mark.parametrize("effect", ["fail", "lose_reply", "busy"])
def test_a_request_whose_outcome_is_not_known_stores_no_event_twice(tmp_path: Path, effect: str) -> None:
    desk = Desk(tmp_path)
    desk.objects.faults.append(Fault(effect, "create", times=2))  # type: ignore[arg-type]
    journal = desk.open()
    journal.write(delta(1))
    journal.write(delta(2))
    journal.close(30)
    assert desk.events() == [delta(1), delta(2)]
    assert desk.stored().tail == 1


def test_a_journal_that_cannot_be_shipped_by_its_end_says_so_and_stays(desk: Desk) -> None:
    desk.objects.faults.append(Fault("fail", "create", times=None))
    journal = desk.open()
    journal.write(delta(1))
    with pytest.raises(EverturnError):
        journal.close(0.1)
    desk.objects.faults.clear()
    wait_until(lambda: not shippers(), "its thread ends")
    assert desk.look_after()[0] in (0, 1)  # its last attempt may have come through
    assert desk.events() == [delta(1)]


# --- Disks ---


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    with mounted(folder, "size=1m"):
        yield folder
        wait_until(lambda: not shippers(), "nobody reads a file on it any more")


def filled(desk: Desk) -> tuple[Journal, Path]:
    """Write a few events, then one that the disk cannot take."""
    journal = desk.open()
    journal.write(delta(1))
    filler = fill(desk.path.parent, left_bytes=5000)
    for number in range(2, 6):
        journal.write(delta(number, "x" * 900))
    assert not journal.settles
    journal.write(delta(6, "x" * 9000))
    return journal, filler


def test_a_disk_that_is_full_in_mid_line_leaves_whole_lines_and_the_store_has_the_rest_before_it_is_shown(
    small: Path,
) -> None:
    desk = Desk(small)
    journal, filler = filled(desk)
    assert desk.path.read_bytes().endswith(b"}\n")
    assert [line["seq"] for line in desk.lines()] == [1, 2, 3, 4, 5]
    assert desk.metrics.journal_write_failures._value.get() == 1
    assert journal.settles
    journal.settle()
    assert desk.events()[-1] == delta(6, "x" * 9000)
    filler.unlink()
    journal.write(Ended("completed"))  # not into the file, which would have a hole
    journal.close(10)
    assert len(desk.lines()) == 5
    assert desk.stored().missing == ()
    assert desk.events()[-1] == Ended("completed")


@pytest.mark.slow
def test_an_event_that_neither_disk_nor_store_takes_must_not_be_shown(small: Path) -> None:
    desk = Desk(small)
    desk.objects.faults.append(Fault("fail", "create", times=None))
    journal, _ = filled(desk)
    with pytest.raises(Unavailable):
        journal.settle()
    desk.objects.faults.clear()
    journal.close(10)
    assert [event.seq for event in desk.stored().events] == [1, 2, 3, 4, 5, 6]


def test_a_full_disk_is_a_clear_error_and_nothing_of_the_line_stays(small: Path) -> None:
    file = JournalFile(small / "journal.jsonl")
    file.append(b"whole\n")
    fill(small, left_bytes=0)
    with pytest.raises(Unavailable, match="cannot be written: No space left"):
        file.append(b"x" * 9000 + b"\n")
    assert file.path.read_bytes() == b"whole\n"
    file.close()


def test_a_store_that_is_away_for_days_gets_all_of_it_in_the_end(desk: Desk) -> None:
    stored: list[bytes] = []
    tried = threading.Event()

    def append(lines: bytes) -> None:
        if not tried.is_set():
            tried.set()
            raise Unavailable("the store is away", hint="wait")
        stored.append(lines)

    file = JournalFile(desk.path)
    shipper = Shipper(file, append, ship_s=QUICK_S, metrics=desk.metrics)
    shipper._failures_in_a_row = 5000
    file.append(b"a line\n")
    shipper._hurried = True
    shipper.start()
    assert tried.wait(10)
    shipper.settle(10)
    shipper.close(10)
    file.close()
    assert stored == [b"a line\n"]


def test_a_file_that_is_deleted_or_replaced_while_it_is_written_is_stored_all_the_same(desk: Desk) -> None:
    journal = desk.open()
    journal.write(delta(1))
    desk.path.unlink()
    desk.path.write_text("somebody else's\n")
    journal.write(delta(2))
    journal.close(10)
    assert desk.events() == [delta(1), delta(2)]


def test_of_a_file_that_somebody_cuts_nothing_wrong_is_stored_and_the_next_start_stores_what_is_left(
    tmp_path: Path,
) -> None:
    desk = Desk(tmp_path, journal_ship_s=QUICK_S)
    journal = desk.open()
    journal.write(delta(1))
    journal._shipper.settle(10)
    desk.objects.faults.append(fault := Fault("fail", "create", times=None))
    journal.write(delta(2))
    os.truncate(desk.path, 0)
    journal.write(delta(3, "a word that is as long as what was cut off " * 9))
    desk.objects.faults.remove(fault)
    os.truncate(desk.path, desk.path.stat().st_size)
    journal.write(delta(4))
    with pytest.raises(Corrupt, match="was cut by somebody else"):
        journal.close(10)
    assert desk.stored().tail == 1
    assert desk.look_after() == (2, 0, 0)
    assert [event.seq for event in desk.stored().events] == [1, 3, 4]


def test_whoever_still_waits_for_the_store_at_the_end_waits_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    monkeypatch.setattr(Appender, "append", lambda *_: go.wait(60))
    journal = Desk(tmp_path, journal_durability="store", append_deadline_s=20).open()
    journal.write(delta(1))
    failed: list[EverturnError] = []

    def settle() -> None:
        try:
            journal.settle()
        except EverturnError as error:
            failed.append(error)

    waiting = threading.Thread(target=settle)
    waiting.start()
    with pytest.raises(Unavailable, match="in time"):
        journal.close(0.1)
    waiting.join(10)
    assert len(failed) == 1
    go.set()


def test_what_is_written_after_the_end_goes_into_no_other_file(desk: Desk, tmp_path: Path) -> None:
    journal = desk.open()
    journal.close(10)
    with (tmp_path / "other").open("wb", buffering=0):
        journal.write(delta(1))
    assert (tmp_path / "other").read_bytes() == b""


@pytest.mark.parametrize("there", [True, False], ids=["Linux", "macOS"])
def test_what_an_event_is_on_the_disk_by_is_there_on_every_system(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    synced: list[str] = []
    for name in ("fdatasync", "fsync"):
        monkeypatch.setattr(os, name, lambda _, name=name: synced.append(name))
    if not there:
        monkeypatch.delattr(os, "fdatasync")
    file = JournalFile(desk.path)
    file.sync()
    file.close()
    assert synced == ["fdatasync" if there else "fsync"]


def test_a_journal_that_cannot_be_begun_leaves_no_descriptor_and_for_a_wrong_name_no_file(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Invalid):
        Journal.open(desk.objects, RunRef("", "run-1"), desk.path, settings=desk.settings)
    assert not desk.path.exists()

    def refuse(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "dup", refuse)
    before = len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(Denied, match="Too many open files"):
        desk.open()
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_a_journal_leaves_no_thread_and_no_descriptor(desk: Desk) -> None:
    def held() -> tuple[int, int]:
        names = [thread.name for thread in threading.enumerate() if thread.name.startswith("everturn-journal")]
        return len(names), len(list(Path("/proc/self/fd").iterdir()))

    before = held()
    journal = desk.open()
    journal.write(delta(1))
    journal.close(10)
    is_gone = lambda: all(now <= then for now, then in zip(held(), before, strict=True))  # noqa: E731
    wait_until(is_gone, "the thread is gone, and what it had open")


# --- Any sequence ---


@pytest.mark.slow
@given(
    texts=st.lists(st.text(max_size=40), min_size=1, max_size=30),
    kept=st.integers(0, 30),
    torn=st.integers(0, 200),
)
def test_whatever_was_written_and_however_much_was_shipped_nothing_is_missing(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], kept: int, torn: int
) -> None:
    desk = Desk(tmp_path_factory.mktemp("any"))
    events: list[Event] = [TextDelta("m", 0, text) for text in texts]
    lines = [line_of(event, seq, 1) for seq, event in enumerate(events, 1)]
    journal = desk.open()
    for event in events[: max(1, kept)]:
        journal.write(event)
    journal.close(10)
    desk.path.write_bytes(b"".join([*lines, lines[0][:torn].rstrip(b"\n")]))
    desk.look_after()
    assert desk.events() == events
    assert desk.stored().missing == ()
