"""A check finds everything that is missing, damaged or contradictory, and names it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everturn.errors import Corrupt, Fenced
from everturn.log.entries import Batch
from everturn.log.format import decode, encode_batch, encode_part, encode_segment
from everturn.log.names import Span, part
from everturn.log.objects import run
from everturn.log.reader import ERASED
from everturn.log.stock import gaps, uncovered
from everturn.log.verification import Finding, LogReport, verify_log
from everturn.testing.faults import Fault
from log.bench import FOLDER, Bench


def fill(bench: Bench, last: int, first: int = 1) -> None:
    for seq in range(first, last + 1):
        bench.put_part(seq, seq)


def verify(bench: Bench) -> LogReport:
    return run(verify_log(bench.objects, FOLDER))


def found(bench: Bench) -> list[tuple[str, str, str, int | None]]:
    """Return severity, kind, file name and number of each finding."""
    return [
        (each.severity, each.kind, each.key.removeprefix(FOLDER).lstrip("/"), each.number)
        for each in verify(bench).findings
    ]


def the_one(bench: Bench) -> Finding:
    (finding,) = verify(bench).findings
    assert finding.message
    assert finding.advice
    return finding


def spoil(bench: Bench, file_name: str, at: int = -3) -> None:
    """Flip a bit."""
    data = bytearray(bench.get_bytes(file_name))
    data[at] ^= 4
    bench.put_bytes(file_name, bytes(data))


def entries_of(report: LogReport) -> list[Any]:
    return [entry for row in report.rows for entry in row.entries]


def test_nothing_is_wrong_with_a_log_that_was_never_written_or_is_whole(bench: Bench) -> None:
    assert verify(bench).findings == ()
    assert not verify(bench).exists
    fill(bench, 5)
    bench.compact(1, 3, keep=[2])
    report = verify(bench)
    assert report.findings == ()
    assert report.exists
    assert entries_of(report) == bench.entries() == [1, 2, 3, 4, 5]


def test_every_hole_is_named_with_its_numbers(bench: Bench) -> None:
    fill(bench, 9)
    bench.delete(1, 4, 5, 8)
    report = verify(bench)
    assert [(each.kind, each.number) for each in report.findings] == [("hole", 1), ("hole", 4), ("hole", 8)]
    assert "numbers 4 to 5 are missing" in report.findings[1].message
    assert report.is_damaged
    assert entries_of(report) == [2, 3, 6, 7, 9]


def test_a_hole_that_heals_when_listed_again_is_none(bench: Bench) -> None:
    fill(bench, 4)
    bench.fault(Fault("hide", keys="*/0000000002.*", times=2), Fault("gone", keys="*/0000000003.*"))
    assert verify(bench).findings == ()


def test_a_flipped_bit_a_cut_end_and_another_number_than_in_the_name_are_damage(bench: Bench) -> None:
    fill(bench, 5)
    spoil(bench, part(1).file_name)
    bench.put_bytes(part(2).file_name, bench.get_bytes(part(2).file_name)[:-5])
    bench.put_bytes(part(3).file_name, bench.get_bytes(part(4).file_name))
    bench.put_bytes(part(5).file_name, b"")
    report = verify(bench)
    assert [(each.severity, each.kind, each.number) for each in report.findings] == [
        ("damage", "damaged", number) for number in (1, 2, 3, 5)
    ]
    assert "SHA-256" in report.findings[0].message
    assert "another number" in report.findings[2].message
    assert entries_of(report) == [4]


def test_entries_that_are_fewer_than_the_header_says_and_half_lines_are_damage(bench: Bench) -> None:
    for seq, lines in ((1, b"1\n2\n"), (2, b'{"half":')):
        bench.put_bytes(part(seq).file_name, odd_part(seq, lines, count=1))
    messages = [each.message for each in verify(bench).findings]
    assert "holds 2 entries, its header says 1" in messages[0]
    assert "cut off" in messages[1]


def odd_part(seq: int, lines: bytes, count: int) -> bytes:
    batch = Batch(lines, count, exact=False)
    return encode_batch(seq, batch, epoch=0, writer="odd", write_id=f"{seq:016x}")[1]


def test_a_damaged_segment_is_damage_even_if_its_parts_stand_as_readers_take_it(bench: Bench) -> None:
    fill(bench, 4)
    bench.compact(1, 3, keep=[1, 2, 3])
    spoil(bench, Span(1, 3, segment=True).file_name)
    assert found(bench) == [("damage", "damaged", "0000000001-0000000003.jsonl.zst", 1)]
    with pytest.raises(Corrupt):
        bench.read()


def test_a_damaged_part_that_a_segment_holds_is_a_warning_as_readers_pass_over_it(bench: Bench) -> None:
    fill(bench, 4)
    bench.compact(1, 3, keep=[2])
    spoil(bench, part(2).file_name)
    assert found(bench) == [("warning", "damaged", part(2).file_name, 2)]
    assert bench.entries() == [1, 2, 3, 4]


def test_damage_before_a_truncation_is_only_a_leftover(bench: Bench) -> None:
    fill(bench, 4)
    spoil(bench, part(2).file_name)
    bench.put_part(5, kind="truncate")
    bench.put_part(6, 6)
    bench.delete(3)
    assert found(bench) == [("info", "leftover", part(2).file_name, 2), ("info", "leftover", "", 1)]
    assert bench.entries() == [6]


def test_what_a_deletion_has_written_over_is_damage_if_the_deletions_mark_is_gone(bench: Bench) -> None:
    fill(bench, 3)
    _, data = encode_part(2, (), epoch=0, writer="", write_id=ERASED, kind="truncate")
    bench.put_bytes(part(2).file_name, data)
    assert found(bench) == [("damage", "damaged", part(2).file_name, 2)]
    bench.put_part(4, kind="truncate")
    assert {severity for severity, *_ in found(bench)} == {"info"}


# --- Segments that disagree -----------------------------------------------------------------------------------


def put_wrong_segment(bench: Bench, first: int, last: int, **wrong: Any) -> None:
    """Write a segment of parts that never were."""
    parts = []
    for seq in range(first, last + 1):
        facts = {"epoch": 0, "write_id": f"{seq:016x}", "entries": [seq], "kind": "data"}
        if seq == wrong.get("seq"):
            facts |= wrong
        _, data = encode_part(
            seq,
            facts["entries"],  # type: ignore[arg-type]
            epoch=facts["epoch"],  # type: ignore[arg-type]
            writer="w",
            write_id=str(facts["write_id"]),
        )
        parts.append(decode(data, part(seq)))
    data = encode_segment(parts, writer="c", write_id=f"{first:08x}{last:08x}")
    bench.put_bytes(Span(first, last, segment=True).file_name, data)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"epoch": 3}, "epochs are 3 and 0"),
        ({"write_id": "f" * 16}, "write ids"),
        ({"entries": [2, 2]}, "counts are 2 and 1"),
        ({"entries": ["two"]}, "entries differ"),
    ],
)
def test_a_segment_that_says_something_else_than_a_part_that_stands_is_damage(
    bench: Bench, wrong: dict[str, Any], said: str
) -> None:
    fill(bench, 3)
    put_wrong_segment(bench, 1, 3, seq=2, **wrong)
    finding = the_one(bench)
    assert (finding.severity, finding.kind, finding.number) == ("damage", "disagreement", 2)
    assert said in finding.message


def test_segments_that_overlap_have_to_agree(bench: Bench) -> None:
    put_wrong_segment(bench, 1, 4)
    put_wrong_segment(bench, 3, 6)
    assert found(bench) == []
    put_wrong_segment(bench, 3, 6, seq=4, entries=["four"])
    finding = the_one(bench)
    assert (finding.severity, finding.kind, finding.number) == ("damage", "disagreement", 4)


def test_a_number_that_a_stalled_writer_took_after_it_was_freed_is_a_warning(bench: Bench) -> None:
    fill(bench, 4)
    bench.compact(1, 3)
    wait_a_tick(bench)
    _, data = encode_part(2, ["late"], epoch=0, writer="stalled", write_id="f" * 16)
    bench.put_bytes(part(2).file_name, data)
    assert found(bench) == [("warning", "late", part(2).file_name, 2)]
    assert bench.entries() == [1, 2, 3, 4]
    _, data = encode_part(5, ["late"], epoch=0, writer="stalled", write_id="f" * 16)
    bench.put_bytes(part(5).file_name, data)
    assert found(bench) == []  # it has noticed, and written again at the end


def wait_a_tick(bench: Bench) -> None:
    """Write until the store's clock has gone on by a millisecond."""

    def now_ms() -> int:
        bench.put_bytes("tick", b"")
        (item,) = [each for each in run(bench.objects.listing(FOLDER)) if each.key.endswith("tick")]
        return item.modified_ms

    begin = now_ms()
    while now_ms() == begin:
        pass
    run(bench.objects.delete([f"{FOLDER}/tick"]))


# --- The rest -------------------------------------------------------------------------------------------------


def test_an_older_claim_after_a_newer_fence_is_a_warning(bench: Bench) -> None:
    for seq, epoch in ((1, 1), (2, 2), (3, 0), (4, 1), (5, 2)):
        bench.put_part(seq, seq, epoch=epoch)
    assert found(bench) == [("warning", "epoch", part(4).file_name, 4)]


def test_the_fence_of_a_claim_that_came_too_late_is_nothing_odd(bench: Bench) -> None:
    bench.opened(5)
    with pytest.raises(Fenced):
        bench.opened(4)
    bench.put_part(3, 3, epoch=5)
    assert [row.note[0] for row in verify(bench).rows] == [5, 4, 5]
    assert found(bench) == []


def test_a_truncation_carries_the_epoch_that_claims_may_not_go_back_behind(bench: Bench) -> None:
    bench.put_part(1, kind="truncate", epoch=7)
    bench.put_part(2, 2, epoch=6)
    assert found(bench) == [("warning", "epoch", part(2).file_name, 2)]


def test_uuids_that_came_before_are_told_as_information(bench: Bench) -> None:
    bench.put_part(1, {"uuid": "a"}, {"uuid": "b"})
    bench.put_part(2, {"uuid": "b"}, {"uuid": 1}, {"uuid": 1}, "uuid")
    finding = the_one(bench)
    assert (finding.severity, finding.kind, finding.number) == ("info", "duplicate", 2)
    assert "b is the first" in finding.message


def test_objects_with_other_names_than_ours_are_named(bench: Bench) -> None:
    fill(bench, 1)
    bench.put_bytes("0000000001.jsonl.zst.bak", b"x")
    assert found(bench) == [("warning", "foreign", "0000000001.jsonl.zst.bak", None)]


def test_numbers_that_were_accepted_as_lost_are_told_as_information(bench: Bench) -> None:
    fill(bench, 3)
    lost = [bench.part(2)]
    bench.delete(2)
    bench.put_bytes(
        Span(2, 2, segment=True).file_name,
        encode_segment(lost, writer="x", write_id="d" * 16, repaired="lost"),
    )
    assert found(bench) == [("info", "repaired", Span(2, 2, segment=True).file_name, 2)]


@pytest.mark.slow
@settings(max_examples=50)
@given(st.data())
def test_what_can_be_read_of_a_log_is_what_readers_show_however_it_is_compacted(data: st.DataObject) -> None:
    bench = Bench()
    last = data.draw(st.integers(1, 9))
    for seq in range(1, last + 1):
        kind = data.draw(st.sampled_from(["data", "data", "data", "truncate"]))
        bench.put_part(seq, *(range(seq) if kind == "data" else ()), kind=kind)
    for _ in range(data.draw(st.integers(0, 3))):
        first = data.draw(st.integers(1, last))
        upto = data.draw(st.integers(first, last))
        if all(part(seq).file_name in bench.files() for seq in range(first, upto + 1)):
            bench.compact(first, upto, keep=data.draw(st.lists(st.integers(first, upto))))
    report = verify(bench)
    assert entries_of(report) == bench.entries()
    assert not report.is_damaged


@given(st.lists(st.builds(lambda a, n: Span(a, a + n, segment=n > 0), st.integers(1, 12), st.integers(0, 5))))
def test_gaps_are_the_numbers_that_nothing_covers(spans: list[Span]) -> None:
    covered = {seq for span in spans for seq in range(span.first, span.last + 1)}
    listed = [seq for gap in gaps(spans, 3, 15) for seq in range(gap.first, gap.last + 1)]
    assert listed == [seq for seq in range(3, 16) if seq not in covered]
    assert {seq for span in uncovered(spans) for seq in range(span.first, span.last + 1)} == covered
