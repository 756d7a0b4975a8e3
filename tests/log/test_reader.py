"""Reading gives everything, or an error that names what is wrong (docs/format.md, sections 6 and 7)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore

from everturn.errors import Corrupt, Unavailable
from everturn.log.format import encode_part
from everturn.log.objects import BlockingObjects, Item, run
from everturn.log.reader import ERASED, list_spans, read
from everturn.testing.faults import Fault
from log.bench import FOLDER, Bench


def fill(bench: Bench, last: int, first: int = 1) -> None:
    """Write parts that hold their own number."""
    for seq in range(first, last + 1):
        bench.put_part(seq, seq)


def test_a_log_that_was_never_written_does_not_exist(bench: Bench) -> None:
    log = bench.read()
    assert (log.exists, log.tail, log.parts, log.entries()) == (False, 0, (), [])


def test_entries_are_read_in_order(bench: Bench) -> None:
    fill(bench, 40)
    assert bench.entries() == list(range(1, 41))
    assert bench.read().tail == 40


def test_a_read_is_one_listing_and_one_request_a_part(bench: Bench) -> None:
    fill(bench, 3)
    bench.objects.counts.clear()
    bench.read()
    assert dict(bench.objects.counts) == {"listing": 1, "get": 3}


def test_the_order_of_a_listing_plays_no_part() -> None:
    class Unsorted(BlockingObjects):
        async def listing(self, folder: str) -> list[Item]:
            items = await super().listing(folder)
            return items[1::2] + items[::2]

    bench = Bench()
    objects = Unsorted(MemoryStore(), "memory://")
    fill(bench, 12)
    for name in bench.files():
        run(objects.create(f"{FOLDER}/{name}", bench.get_bytes(name)))
    assert run(read(objects, FOLDER)).entries() == list(range(1, 13))
    assert [span.first for span in run(list_spans(objects, FOLDER))] == list(range(1, 13))


# --- Holes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_hole_that_heals_when_listed_again_is_none(bench: Bench, missing: int) -> None:
    fill(bench, 4)
    bench.fault(Fault("hide", keys=f"*/{missing:010}.*", times=2))
    assert bench.entries() == [1, 2, 3, 4]


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_hole_that_stays_is_corruption_and_is_named(bench: Bench, missing: int) -> None:
    fill(bench, 4)
    bench.delete(missing)
    with pytest.raises(Corrupt, match=f"{FOLDER} has no part {missing}") as refusal:
        bench.read()
    assert refusal.value.hint


def test_a_log_that_shows_another_hole_each_time_is_not_called_corrupt(bench: Bench) -> None:
    fill(bench, 6)
    bench.fault(*(Fault("hide", keys=f"*/{missing:010}.*") for missing in (2, 3, 4, 5)))
    with pytest.raises(Unavailable):
        bench.read()
    assert bench.entries() == [1, 2, 3, 4, 5, 6]


def test_an_object_that_is_gone_once_is_looked_for_again(bench: Bench) -> None:
    fill(bench, 3)
    bench.fault(Fault("gone", keys="*/0000000002.*"))
    assert bench.entries() == [1, 2, 3]
    assert bench.objects.counts["listing"] == 2


def test_parts_that_are_compacted_during_a_read_are_read_from_the_segment(bench: Bench) -> None:
    fill(bench, 3)
    bench.compact(1, 3)
    fill(bench, 3)  # what the first listing shows
    bench.fault(Fault("hide", keys="*-*"), Fault("gone", keys="*/0000000001.*"))
    assert bench.entries() == [1, 2, 3]


def test_an_object_that_is_listed_but_never_there_is_corruption_and_is_named(bench: Bench) -> None:
    fill(bench, 3)
    bench.fault(Fault("gone", keys="*/0000000002.*", times=None))
    with pytest.raises(Corrupt, match=f"{FOLDER}/0000000002.jsonl.zst"):
        bench.read()


@pytest.mark.parametrize("operation", ["listing", "get"])
def test_a_store_that_does_not_answer_is_no_corruption(bench: Bench, operation: str) -> None:
    fill(bench, 3)
    bench.fault(Fault("fail", operation))
    with pytest.raises(Unavailable):
        bench.read()


# --- Damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damaged", [1, 2, 3])
def test_a_damaged_part_is_named(bench: Bench, damaged: int) -> None:
    fill(bench, 3)
    name = f"{damaged:010}.jsonl.zst"
    bench.put_bytes(name, bench.get_bytes(name)[:-1])
    with pytest.raises(Corrupt, match=f"{FOLDER}/{name}"):
        bench.read()


def test_a_damaged_segment_is_named(bench: Bench) -> None:
    fill(bench, 3)
    bench.compact(1, 3)
    name = "0000000001-0000000003.jsonl.zst"
    bench.put_bytes(name, bench.get_bytes(name) + b"\0")
    with pytest.raises(Corrupt, match=f"{FOLDER}/{name}"):
        bench.read()


def test_a_part_under_the_name_of_another_is_corrupt(bench: Bench) -> None:
    fill(bench, 2)
    bench.put_bytes("0000000003.jsonl.zst", bench.get_bytes("0000000002.jsonl.zst"))
    with pytest.raises(Corrupt, match=f"{FOLDER}/0000000003.jsonl.zst"):
        bench.read()


# --- What comes twice -----------------------------------------------------------------------------------------------


def test_of_entries_with_one_uuid_the_first_is_kept(bench: Bench) -> None:
    bench.put_part(1, {"uuid": "a", "n": 1}, {"uuid": "a", "n": 2}, {"uuid": "b"})
    bench.put_part(2, {"uuid": "c"}, {"uuid": "a", "n": 3}, {"uuid": ""}, {"uuid": ""})
    assert bench.entries() == [{"uuid": "a", "n": 1}, {"uuid": "b"}, {"uuid": "c"}, {"uuid": ""}]


def test_a_uuid_counts_from_the_last_truncation_only(bench: Bench) -> None:
    bench.put_part(1, {"uuid": "a", "n": 1})
    bench.put_part(2, kind="truncate")
    bench.put_part(3, {"uuid": "a", "n": 2})
    assert bench.entries() == [{"uuid": "a", "n": 2}]


def test_entries_without_a_uuid_of_text_are_all_kept(bench: Bench) -> None:
    entries: list[Any] = [
        {},
        {},
        {"uuid": None},
        {"uuid": None},
        {"uuid": 1},
        {"uuid": 1},
        {"uuid": ["a"]},
        {"uuid": ["a"]},
    ]
    entries += [[], [], "a", "a", None, None, {"UUID": "a"}, {"UUID": "a"}]
    bench.put_part(1, *entries)
    assert bench.entries() == entries


def test_the_end_of_a_log_can_be_read_alone(bench: Bench) -> None:
    fill(bench, 4)
    assert [bench.read().entries(after=seq) for seq in (0, 1, 3, 4, 9)] == [[1, 2, 3, 4], [2, 3, 4], [4], [], []]


def test_the_end_of_a_log_holds_no_entry_whose_uuid_stands_before_it(bench: Bench) -> None:
    bench.put_part(1, {"uuid": "a"})
    bench.put_part(2, {"uuid": "a"}, {"uuid": "b"})
    assert bench.read().entries(after=1) == [{"uuid": "b"}]


# --- Segments and truncations ---------------------------------------------------------------------------------------


def test_a_segment_stands_for_its_parts(bench: Bench) -> None:
    fill(bench, 6)
    bench.compact(2, 4)
    assert bench.files() == [
        f"{name}.jsonl.zst" for name in ("0000000001", "0000000002-0000000004", "0000000005", "0000000006")
    ]
    assert bench.entries() == [1, 2, 3, 4, 5, 6]


def test_the_smaller_of_two_nested_segments_is_not_read(bench: Bench) -> None:
    fill(bench, 6)
    bench.compact(1, 6, keep=range(1, 7))
    bench.compact(1, 3, keep=range(1, 7))
    bench.compact(4, 6)
    bench.delete(1, 2, 3)
    bench.objects.counts.clear()
    assert bench.entries() == [1, 2, 3, 4, 5, 6]
    assert bench.objects.counts["get"] == 1


def test_overlapping_segments_agree(bench: Bench) -> None:
    fill(bench, 8)
    bench.compact(1, 5, keep=range(1, 9))
    bench.compact(3, 7)
    bench.delete(1, 2)
    assert bench.entries() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [bench.read().entries(after=seq) for seq in (2, 4, 5, 6)] == [
        [3, 4, 5, 6, 7, 8],
        [5, 6, 7, 8],
        [6, 7, 8],
        [7, 8],
    ]


def test_covered_parts_are_not_even_looked_at(bench: Bench) -> None:
    fill(bench, 4)
    bench.compact(1, 3)
    for seq in (1, 2, 3):
        bench.put_bytes(f"{seq:010}.jsonl.zst", b"written by a writer that came late")
    assert bench.entries() == [1, 2, 3, 4]


def test_a_segment_of_one_part_goes_before_the_part(bench: Bench) -> None:
    fill(bench, 1)
    bench.compact(1, 1, keep=[1])
    assert [header.kind for header in bench.headers()] == ["segment"]
    assert bench.entries() == [1]


def test_everything_up_to_the_last_truncation_is_dropped(bench: Bench) -> None:
    bench.put_part(1, "a")
    bench.put_part(2, kind="truncate")
    bench.put_part(3, "b")
    bench.put_part(4, kind="truncate")
    log = bench.read()
    assert (log.exists, log.entries(), log.tail) == (False, [], 4)
    bench.put_part(5, "c")
    assert bench.entries() == ["c"]


def test_a_log_may_begin_with_a_truncation(bench: Bench) -> None:
    bench.put_part(7, kind="truncate")
    assert not bench.read().exists
    bench.put_part(8, "a")
    log = bench.read()
    assert (log.exists, log.entries(), log.tail) == (True, ["a"], 8)


def test_holes_before_a_truncation_are_none(bench: Bench) -> None:
    bench.put_part(2, "left over from a deletion that did not end")
    bench.put_part(4, kind="truncate")
    bench.put_part(5, "a")
    assert bench.entries() == ["a"]


def test_a_hole_after_a_truncation_is_one(bench: Bench) -> None:
    bench.put_part(4, kind="truncate")
    bench.put_part(6, "a")
    with pytest.raises(Corrupt, match="part 5"):
        bench.read()


def test_a_truncation_inside_a_segment_counts(bench: Bench) -> None:
    bench.put_part(1, "a")
    bench.put_part(2, kind="truncate")
    bench.put_part(3, "b")
    bench.compact(1, 3)
    assert bench.entries() == ["b"]
    bench.put_part(4, "c")
    assert bench.entries() == ["b", "c"]
    assert bench.read().entries(after=3) == ["c"]


def test_a_segment_with_a_truncation_may_begin_a_log(bench: Bench) -> None:
    bench.put_part(5, kind="truncate")
    bench.put_part(6, "b")
    bench.compact(5, 6)
    assert bench.entries() == ["b"]


def test_a_segment_that_ends_with_a_truncation_leaves_nothing(bench: Bench) -> None:
    bench.put_part(1, "a")
    bench.put_part(2, kind="truncate")
    bench.compact(1, 2)
    assert not bench.read().exists


runs = st.tuples(st.integers(1, 12), st.integers(0, 6))


@pytest.mark.slow
@given(st.lists(st.sampled_from(["data", "fence", "truncate"]), min_size=1, max_size=12), st.lists(runs), st.data())
def test_compaction_changes_nothing_that_is_read(
    kinds: list[Any], segments: list[tuple[int, int]], data: st.DataObject
) -> None:
    bench = Bench()
    for seq, kind in enumerate(kinds, 1):
        bench.put_part(seq, *([seq, {"big": 2 ** (60 + seq)}] if kind == "data" else []), kind=kind)
    plain = bench.read()
    covered: set[int] = set()
    everything = range(1, len(kinds) + 1)
    for first, more in segments:
        if first + more <= len(kinds):
            bench.compact(first, first + more, keep=everything)
            covered.update(range(first, first + more + 1))
    if covered:
        bench.delete(*data.draw(st.sets(st.sampled_from(sorted(covered)))))
    log = bench.read()
    assert (log.exists, log.tail) == (plain.exists, plain.tail)
    assert [log.entries(after) for after in everything] == [plain.entries(after) for after in everything]


# --- Foreign objects ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "README",
        "0000000009.jsonl",
        "0000000009.jsonl.zst.part",
        "9.jsonl.zst",
        "0000000000.jsonl.zst",
        "0000000009-0000000008.jsonl.zst",
        "copies/0000000009.jsonl.zst",
        "copies/0000000001-0000000003.jsonl.zst",
    ],
)
def test_foreign_objects_are_ignored(bench: Bench, name: str) -> None:
    fill(bench, 2)
    bench.put_bytes(name, b"not ours")
    assert bench.entries() == [1, 2]
    assert bench.read().tail == 2


def test_a_neighbour_whose_name_begins_alike_is_another_log(bench: Bench) -> None:
    fill(bench, 2)
    run(bench.objects.create(f"{FOLDER}2/0000000009.jsonl.zst", b"another log"))
    assert bench.entries() == [1, 2]


def test_a_part_that_was_written_over_in_mid_read_makes_the_reader_look_again(bench: Bench) -> None:
    fill(bench, 4)
    _, erased = encode_part(2, (), epoch=0, writer="", write_id=ERASED, kind="truncate")
    bench.put_bytes("0000000002.jsonl.zst", erased)
    with pytest.raises(Corrupt, match=r"0000000002\.jsonl\.zst was deleted while it was read"):
        bench.read()
    bench.put_part(5, kind="truncate")  # what a deletion writes first, and an old listing does not show
    assert not bench.read().exists
