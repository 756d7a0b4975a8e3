"""What a dead run has left of its journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from everturn.clock import Ids
from everturn.errors import Denied, EverturnError
from everturn.journal.file import cut
from everturn.journal.shipping import Appender
from everturn.testing import Fault
from journal.desk import REF, Desk, delta, shippers
from polling import wait_until


def left_behind(desk: Desk, count: int = 3, shipped: int = 0) -> bytes:
    """Write a journal of which only some events were stored, and return its file."""
    journal = desk.open()
    for number in range(shipped):
        journal.write(delta(number))
    if shipped:
        journal._shipper.settle(10)
    desk.objects.faults.append(Fault("fail", "create", times=None))
    for number in range(shipped, count):
        journal.write(delta(number))
    with pytest.raises(EverturnError):
        journal.close(0.0)
    wait_until(lambda: not shippers(), "its thread ends")
    desk.objects.faults.clear()
    return desk.path.read_bytes()


@pytest.mark.parametrize("shipped", [0, 1, 4])
def test_what_was_not_shipped_is_shipped_by_the_next_start(desk: Desk, shipped: int) -> None:
    left_behind(desk, count=5, shipped=shipped)
    assert desk.look_after() == (5 - shipped, 0, 0)
    assert desk.events() == [delta(number) for number in range(5)]
    assert desk.look_after() == (0, 0, 0)


@pytest.mark.parametrize("torn", [1, 10, 50])
def test_a_torn_last_line_is_cut_off_and_told_and_every_whole_line_stays(desk: Desk, torn: int) -> None:
    whole = left_behind(desk)
    last = whole.splitlines(keepends=True)[-1]
    desk.path.write_bytes(whole + last[:torn])
    assert desk.look_after() == (3, torn, 0)
    assert desk.path.read_bytes() == whole
    assert desk.events() == [delta(number) for number in range(3)]
    assert desk.metrics.journal_lines_damaged._value.get() == 1


def test_a_journal_cut_at_any_byte_keeps_every_line_before_it(tmp_path: Path) -> None:
    whole = left_behind(Desk(tmp_path))
    ends = [0, *(index + 1 for index, byte in enumerate(whole) if byte == 10)]
    path = tmp_path / "cut.jsonl"
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        found = cut(path)
        expected = max(end for end in ends if end <= size)
        assert (found.size_bytes, found.torn_bytes) == (expected, size - expected)
        assert path.read_bytes() == whole[:expected]


@pytest.mark.parametrize("damage", [b"\x00" * 300 + b"\n", b'{"v":1,"seq":"two"}\n', b"\xff\xfe\n", b"[]\n", b"\n"])
def test_a_line_that_cannot_be_read_is_kept_as_it_is_and_told(desk: Desk, damage: bytes) -> None:
    lines = left_behind(desk).splitlines(keepends=True)
    desk.path.write_bytes(lines[0] + damage + lines[2])
    assert desk.look_after() == (3, 0, 1)
    stored = desk.stored()
    assert [event.type for event in stored.events] == ["text_delta", "damaged", "text_delta"]
    assert stored.missing == ()


def test_an_event_of_a_newer_release_is_kept_as_it_is(desk: Desk) -> None:
    lines = left_behind(desk).splitlines(keepends=True)
    newer = b'{"v":2,"seq":2,"at_ms":5,"type":"hologram","colour":"red"}\n'
    desk.path.write_bytes(lines[0] + newer + lines[2])
    assert desk.look_after() == (3, 0, 0)
    found = desk.stored().events[1]
    assert (found.event, found.type, found.raw["colour"]) == (None, "hologram", "red")


def appended(desk: Desk, lines: bytes) -> None:
    late = Appender(
        desk.objects, REF.folder, settings=desk.settings, clock=desk.clock, ids=Ids(), metrics=desk.metrics
    )
    late.append(lines)
    late.close()


def test_a_part_that_a_dead_run_stores_late_brings_no_event_twice(desk: Desk) -> None:
    lines = left_behind(desk, count=3)
    desk.look_after()
    appended(desk, lines)
    assert desk.stored().tail == 2
    assert desk.events() == [delta(number) for number in range(3)]


def test_events_come_in_their_order_whatever_the_order_of_their_parts(desk: Desk) -> None:
    lines = left_behind(desk, count=6).splitlines(keepends=True)
    for numbers in ((4, 5), (0, 1, 2), (2, 3)):
        appended(desk, b"".join(lines[number] for number in numbers))
    assert desk.events() == [delta(number) for number in range(6)]
    assert desk.stored().missing == ()


def test_an_event_that_is_missing_is_told(desk: Desk) -> None:
    lines = left_behind(desk, count=9).splitlines(keepends=True)
    desk.path.write_bytes(b"".join([*lines[1:3], *lines[5:7], lines[8]]))
    desk.look_after()
    assert desk.stored().missing == ((1, 1), (4, 5), (8, 8))


def test_a_journal_that_is_not_there_or_not_ours_is_refused_with_a_reason(desk: Desk) -> None:
    with pytest.raises(Denied, match="cannot be mended"):
        desk.look_after()
