"""Compaction changes what a log is made of, never what it says."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everturn.clock import Ids
from everturn.errors import Corrupt, Unavailable
from everturn.log.compaction import GROWTH, Outcome, collect, compact, plan
from everturn.log.frames import assemble, compress
from everturn.log.names import Span, part
from everturn.log.objects import run
from everturn.testing.faults import Fault
from log.bench import DAY_S, FOLDER, Bench

LATER_MS = 10 * 60 * 1000


def merge(bench: Bench, *, everything: bool = True, at_least: int = 2) -> Outcome:
    return run(compact(bench.objects, FOLDER, writer="tests", ids=Ids(7), everything=everything, at_least=at_least))


def newest_ms(bench: Bench) -> int:
    return max(item.modified_ms for item in run(bench.objects.listing(FOLDER)))


def free(bench: Bench, later_ms: int = LATER_MS) -> int:
    return run(collect(bench.objects, FOLDER, now_ms=newest_ms(bench) + later_ms))


def fill(bench: Bench, count: int) -> list[Any]:
    """Append this many entries, one a part, and return all entries of the log."""
    writer = bench.writer()
    for number in range(count):
        run(writer.append([{"uuid": f"{writer.tail or 0}-{number}", "text": "some words " * (number % 7)}]))
    return bench.entries()


def test_a_compacted_log_reads_the_same_with_one_get(bench: Bench) -> None:
    entries = fill(bench, 50)
    outcome = merge(bench)
    bench.objects.counts.clear()
    assert bench.entries() == entries
    assert bench.objects.counts == {"listing": 1, "get": 1}
    assert (outcome.merged, outcome.segments) == (50, (Span(1, 50, segment=True),))


def test_nothing_is_freed_by_compacting_itself(bench: Bench) -> None:
    fill(bench, 5)
    before = bench.files()
    merge(bench)
    assert set(bench.files()) == {*before, "0000000001-0000000005.jsonl.zst"}


def test_covered_parts_are_freed_when_the_segment_is_older_than_twice_the_grace_period(bench: Bench) -> None:
    entries = fill(bench, 5)
    merge(bench)
    assert free(bench, later_ms=119_000) == 0
    assert free(bench, later_ms=120_000) == 5
    assert bench.files() == ["0000000001-0000000005.jsonl.zst"]
    assert bench.entries() == entries


def test_in_a_log_that_rests_nothing_is_freed_without_being_told_the_time(bench: Bench) -> None:
    fill(bench, 5)
    merge(bench)
    assert run(collect(bench.objects, FOLDER)) == 0


def test_a_damaged_segment_frees_nothing_and_is_named(bench: Bench) -> None:
    entries = fill(bench, 5)
    merge(bench)
    name = "0000000001-0000000005.jsonl.zst"
    data = bench.get_bytes(name)
    bench.put_bytes(name, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Corrupt, match=name):
        free(bench)
    assert len(bench.files()) == 6
    bench.objects_delete(name)
    assert bench.entries() == entries


def test_a_part_whose_lines_are_not_those_it_promises_is_named_and_not_compacted(bench: Bench) -> None:
    fill(bench, 3)
    header = {"v": 1, "kind": "data", "seq": 4, "epoch": 0, "writer": "", "write_id": "4" * 16, "count": 2, "size": 2}
    bench.put_bytes(part(4).file_name, assemble(header, compress(b"1\n")))
    with pytest.raises(Corrupt, match=r"0000000004\.jsonl\.zst is damaged: it holds 1 entries"):
        merge(bench)
    assert len(bench.files()) == 4


def test_a_writer_goes_on_behind_the_segment(bench: Bench) -> None:
    entries = fill(bench, 5)
    merge(bench)
    free(bench)
    run(bench.writer().append([{"uuid": "next"}]))
    assert bench.files() == ["0000000001-0000000005.jsonl.zst", "0000000006.jsonl.zst"]
    assert bench.entries() == [*entries, {"uuid": "next"}]


def test_a_writer_that_slept_while_its_number_was_freed_appends_at_the_end(bench: Bench) -> None:
    late = bench.writer()
    run(late.append([{"uuid": "before"}]))
    entries = fill(bench, 5)
    merge(bench)
    free(bench)
    bench.clock.advance(DAY_S)
    run(late.append([{"uuid": "late"}]))
    assert bench.entries() == [*entries, {"uuid": "late"}]


def test_a_late_writer_that_meets_a_part_left_over_does_not_believe_in_the_number_after_it(bench: Bench) -> None:
    late = bench.writer()
    run(late.append([{"uuid": "before"}]))
    entries = fill(bench, 5)
    merge(bench)
    bench.clock.advance(DAY_S)
    bench.delete(1, 3, 4, 5, 6)  # a collection that died in the middle: number 2 is still taken, 3 is free
    run(late.append([{"uuid": "late"}]))
    assert bench.entries() == [*entries, {"uuid": "late"}]


def test_a_late_claimed_writer_is_fenced_by_a_claim_inside_a_segment(bench: Bench) -> None:
    late = bench.opened(1)
    run(bench.opened(2).append([{"uuid": "newer"}]))
    merge(bench)
    free(bench)
    bench.clock.advance(DAY_S)
    with pytest.raises(Exception, match="taken over"):
        run(late.append([{"uuid": "zombie"}]))
    assert bench.entries() == [{"uuid": "newer"}]


def test_two_compactors_that_do_the_same_work_agree(bench: Bench) -> None:
    entries = fill(bench, 5)
    first = merge(bench)
    bench.fault(Fault("hide", keys="*-*"))  # the second one listed before the first one wrote
    second = merge(bench)
    assert (len(first.segments), len(second.segments)) == (1, 0)
    assert bench.entries() == entries


def test_segments_that_overlap_are_merged_without_repeating_anything(bench: Bench) -> None:
    fill(bench, 9)
    for first, last in ((1, 4), (3, 7)):
        bench.segment(first, last)
    entries = bench.entries()
    assert merge(bench).segments == (Span(1, 9, segment=True),)
    free(bench)
    assert bench.files() == ["0000000001-0000000009.jsonl.zst"]
    assert bench.entries() == entries


def test_entries_without_uuid_in_overlapping_segments_come_once(bench: Bench) -> None:
    writer = bench.writer()
    for number in range(9):
        run(writer.append([{"n": number}, {"m": number}]))
    for first, last in ((1, 4), (3, 7)):
        bench.segment(first, last)
    merge(bench)
    free(bench)
    assert [entry.get("n") for entry in bench.entries() if "n" in entry] == list(range(9))


def test_what_stands_before_a_truncation_is_not_compacted(bench: Bench) -> None:
    fill(bench, 3)
    run(bench.writer().truncate())
    entries = fill(bench, 3)
    assert merge(bench).segments == (Span(5, 7, segment=True),)
    free(bench)
    assert bench.entries() == entries


def test_a_log_that_is_deleted_while_it_is_compacted_stays_deleted(bench: Bench) -> None:
    fill(bench, 5)
    bench.after_next("create", lambda: run(bench.writer().truncate()))
    merge(bench)
    assert not any("-" in name for name in bench.files())
    assert not bench.read().exists


def test_a_segment_whose_reply_was_lost_does_not_stay_in_a_log_that_is_deleted_meanwhile(bench: Bench) -> None:
    fill(bench, 5)
    bench.after_next("get", lambda: run(bench.writer().truncate()))
    bench.fault(Fault("lose_reply", "create", f"{FOLDER}/*-*"))
    with pytest.raises(Unavailable):
        merge(bench)
    assert not any("-" in name for name in bench.files())


@pytest.mark.parametrize("operation", ["listing", "get", "create"])
@pytest.mark.parametrize("effect", ["fail", "lose_reply"])
def test_a_compaction_that_fails_at_any_request_changes_nothing_that_is_read(
    bench: Bench, operation: str, effect: Any
) -> None:
    entries = fill(bench, 5)
    bench.fault(Fault(effect, operation))
    with pytest.raises(Unavailable):
        merge(bench)
    assert bench.entries() == entries
    merge(bench)
    assert bench.entries() == entries


@pytest.mark.parametrize("operation", ["listing", "get", "delete"])
@pytest.mark.parametrize("effect", ["fail", "lose_reply"])
def test_a_collection_that_fails_at_any_request_changes_nothing_that_is_read(
    bench: Bench, operation: str, effect: Any
) -> None:
    entries = fill(bench, 5)
    merge(bench)
    bench.fault(Fault(effect, operation))
    with pytest.raises(Unavailable):
        run(collect(bench.objects, FOLDER, now_ms=newest_ms(bench) + LATER_MS))
    assert bench.entries() == entries
    free(bench)
    assert bench.entries() == entries


def test_a_reader_that_listed_before_parts_were_freed_looks_again(bench: Bench) -> None:
    entries = fill(bench, 5)
    merge(bench)
    bench.fault(Fault("hide", keys="*-*"))
    bench.after_next("listing", lambda: free(bench))
    assert bench.entries() == entries


def test_a_part_that_vanishes_under_the_compactor_ends_its_attempt(bench: Bench) -> None:
    entries = fill(bench, 5)
    bench.fault(Fault("gone", keys=f"*/{part(5).file_name}"))
    assert merge(bench) == Outcome()
    assert bench.entries() == entries


def test_few_parts_are_left_alone(bench: Bench) -> None:
    fill(bench, 5)
    assert merge(bench, everything=False, at_least=6) == Outcome()
    assert merge(bench, everything=False, at_least=5).merged == 5


def test_an_empty_log_is_left_alone(bench: Bench) -> None:
    assert merge(bench) == Outcome()
    assert free_of_nothing(bench) == 0


def free_of_nothing(bench: Bench) -> int:
    return run(collect(bench.objects, FOLDER))


def test_a_log_too_large_for_one_segment_becomes_several(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everturn.log.compaction.MAX_SIZE_BYTES", 500)
    entries = fill(bench, 30)
    segments = merge(bench).segments
    assert len(segments) > 1
    assert all(left.last < right.first for left, right in pairwise(segments))
    assert bench.entries() == entries
    assert free(bench) > 0
    assert bench.entries() == entries


# --- Tiers ---------------------------------------------------------------------------------------------------------


def grow(parts: int, threshold: int, sizes: list[int]) -> tuple[int, int, int]:
    """Let a log grow by compacting it whenever it has `threshold` loose parts.

    Returns:
        The most objects it ever had, the bytes that were written by compaction, and the bytes that were appended.
    """
    pieces: list[tuple[Span, int]] = []
    most = rewritten = appended = 0
    for seq in range(1, parts + 1):
        size = sizes[seq % len(sizes)]
        pieces.append((Span(seq, seq), size))
        appended += size
        most = max(most, len(pieces))
        if sum(not span.segment for span, _ in pieces) >= threshold:
            chosen = plan(pieces)
            merged = sum(size for span, size in pieces if span in chosen)
            rewritten += merged
            pieces = pieces[: len(pieces) - len(chosen)]
            pieces.append((Span(chosen[0].first, seq, segment=True), merged))
    return most, rewritten, appended


@pytest.mark.slow
@pytest.mark.parametrize("parts", [100, 3_000, 30_000])
@pytest.mark.parametrize("sizes", [[1], [600, 20, 5_000], [1] * 999 + [1_000_000]], ids=["even", "mixed", "bursts"])
def test_a_growing_log_has_few_objects_and_is_rewritten_a_logarithm_of_times(parts: int, sizes: list[int]) -> None:
    threshold = 64
    most, rewritten, appended = grow(parts, threshold, sizes)
    doublings = math.log2(max(parts / threshold, 2)) + 1
    assert most <= threshold + math.log(sum(sizes) * parts, 1 + GROWTH) + 1
    assert rewritten <= appended * (doublings / math.log2(1 + 1 / GROWTH) + 1)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 1000)), max_size=60))
def test_a_plan_is_a_run_up_to_the_end_and_what_remains_before_it_shrinks(pieces: list[tuple[bool, int]]) -> None:
    numbered = [
        (Span(10 * index + 1, 10 * index + (10 if segment else 1), segment=segment), size)
        for index, (segment, size) in enumerate(pieces)
    ]
    chosen = plan(numbered)
    spans = [span for span, _ in numbered]
    assert chosen == spans[len(spans) - len(chosen) :]
    rest = numbered[: len(numbered) - len(chosen)]
    merged = sum(size for _, size in numbered[len(rest) :])
    assert len(rest) <= 32
    assert not rest or (rest[-1][0].segment and rest[-1][1] > GROWTH * merged)
