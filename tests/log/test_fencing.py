"""Who may write when claims change hands, sessions are deleted and parts are damaged (docs/format.md, section 5)."""

from __future__ import annotations

from typing import Any

import pytest

from everturn.errors import Corrupt, Fenced, Unavailable
from everturn.log.objects import run
from everturn.log.writer import PASSES_BEFORE_LOOKING, LogWriter
from everturn.testing.faults import Fault
from log.bench import DAY_S, FOLDER, Bench


def append(writer: LogWriter, *entries: Any) -> int:
    return run(writer.append(entries))


def test_opening_writes_a_fence_and_returns_what_was_there(bench: Bench) -> None:
    append(bench.writer(), "a", "b")
    log = run(bench.writer(1).open())
    assert log.entries() == ["a", "b"]
    assert log.tail == 2
    assert [(header.kind, header.epoch) for header in bench.headers()] == [("data", 0), ("fence", 1)]


def test_a_log_with_nothing_but_a_fence_does_not_exist(bench: Bench) -> None:
    assert not run(bench.writer(1).open()).exists
    assert not bench.read().exists


def test_a_claimed_writer_is_fenced_by_a_newer_epoch(bench: Bench) -> None:
    old = bench.opened(1)
    append(old, "a")
    new = bench.opened(2)
    for _ in range(2):
        with pytest.raises(Fenced) as refusal:
            append(old, "late")
    assert "epoch 2" in str(refusal.value)
    append(new, "b")
    with pytest.raises(Fenced):
        append(old, "later")
    assert bench.entries() == ["a", "b"]


def test_a_claimed_writer_is_fenced_though_guests_wrote_in_between(bench: Bench) -> None:
    old = bench.opened(1)
    guest = bench.writer()
    append(guest, "g1")
    bench.opened(2)
    append(guest, "g2")
    with pytest.raises(Fenced):
        append(old, "late")
    assert bench.entries() == ["g1", "g2"]


def test_a_guest_is_not_fenced(bench: Bench) -> None:
    guest = bench.writer()
    append(guest, "a")
    bench.opened(5)
    append(guest, "b")
    assert bench.entries() == ["a", "b"]


def test_a_guest_does_not_fence(bench: Bench) -> None:
    claimed = bench.opened(1)
    append(bench.writer(), "guest")
    append(claimed, "a")
    assert bench.entries() == ["guest", "a"]


def test_a_lost_write_of_an_older_epoch_that_took_effect_is_part_of_what_the_newer_one_loads(bench: Bench) -> None:
    old = bench.opened(1)
    bench.fault(Fault("lose_reply", "create"), Fault("fail", "create", times=None, after=1))
    with pytest.raises(Unavailable):
        append(old, "a")
    bench.objects.faults.clear()
    assert run(bench.writer(2).open()).entries() == ["a"]
    assert append(old, "a") == 2  # it is in: to say so is the truth
    with pytest.raises(Fenced):
        append(old, "b")
    assert bench.entries() == ["a"]


def test_a_lost_write_of_an_older_epoch_that_took_no_effect_never_does(bench: Bench) -> None:
    old = bench.opened(1)
    bench.fault(Fault("fail", "create", times=None))
    with pytest.raises(Unavailable):
        append(old, "a")
    bench.objects.faults.clear()
    bench.opened(2)
    with pytest.raises(Fenced):
        append(old, "a")
    with pytest.raises(Fenced):
        append(old, "b")
    assert bench.entries() == []


@pytest.mark.parametrize("newer", [2, 1])  # or given a second time
@pytest.mark.parametrize("retried", [True, False])
def test_a_writer_whose_lost_write_took_effect_long_ago_is_fenced_all_the_same(
    bench: Bench, retried: bool, newer: int
) -> None:
    old = bench.opened(1)
    bench.fault(Fault("lose_reply", "create"), Fault("fail", "create", times=None, after=1))
    with pytest.raises(Unavailable):
        append(old, "a")
    bench.objects.faults.clear()
    bench.opened(newer)
    bench.clock.advance(DAY_S)
    if retried:
        assert append(old, "a") == 2  # it is in: to say so is the truth
    with pytest.raises(Fenced):
        append(old, "b")
    assert bench.entries() == ["a"]


def test_a_fence_that_met_a_late_write_loads_it(bench: Bench) -> None:
    old = bench.opened(1)
    bench.fault(Fault("hide", keys="*/0000000002*"))  # the newer one's first look is older than this write
    append(old, "a")
    log = run(bench.writer(2).open())
    assert log.entries() == ["a"]
    assert log.tail == 3


def test_a_fence_whose_answer_was_lost_stands_once(bench: Bench) -> None:
    bench.fault(Fault("lose_reply", "create", times=2))
    bench.opened(1)
    assert bench.files() == ["0000000001.jsonl.zst"]


def test_opening_with_an_older_epoch_than_the_log_has_seen_is_refused(bench: Bench) -> None:
    new = bench.opened(2)
    append(new, "a")
    with pytest.raises(Fenced):
        bench.opened(1)
    append(new, "b")
    assert bench.entries() == ["a", "b"]


def test_opening_with_an_older_epoch_is_refused_though_the_newer_one_is_in_a_segment(bench: Bench) -> None:
    append(bench.opened(2), "a")
    bench.compact(1, 2)
    with pytest.raises(Fenced):
        bench.opened(1)


def test_a_writer_that_was_refused_when_it_opened_writes_nothing_afterwards(bench: Bench) -> None:
    bench.opened(2)
    writer = bench.writer(1)
    with pytest.raises(Fenced):
        run(writer.open())
    with pytest.raises(Fenced):
        append(writer, "late")
    assert bench.entries() == []


def test_opening_with_the_same_epoch_again_goes_on(bench: Bench) -> None:
    append(bench.opened(3), "a")
    append(bench.opened(3), "b")
    assert bench.entries() == ["a", "b"]


def test_of_two_claims_with_the_same_epoch_the_one_that_opened_last_goes_on(bench: Bench) -> None:
    old = bench.opened(3)
    append(old, "a")
    new = bench.opened(3)  # by a registry that was restored from an older copy
    for _ in range(2):
        with pytest.raises(Fenced, match="with epoch 3"):
            append(old, "late")
    append(new, "b")
    assert bench.entries() == ["a", "b"]


@pytest.mark.parametrize("compacted", [False, True])
def test_a_claim_is_fenced_by_an_equal_one_far_behind_its_tail(bench: Bench, compacted: bool) -> None:
    old = bench.opened(3)
    guest = bench.writer()
    for number in range(PASSES_BEFORE_LOOKING + 1):
        append(guest, number)
    bench.opened(3)
    append(guest, "last")
    if compacted:
        bench.compact(1, PASSES_BEFORE_LOOKING + 3)
    with pytest.raises(Fenced):
        append(old, "late")
    assert bench.entries() == [*range(PASSES_BEFORE_LOOKING + 1), "last"]


def test_a_claim_that_looks_whether_it_was_taken_over_finds_an_equal_one(bench: Bench) -> None:
    old = bench.opened(3)
    run(old.check())
    bench.opened(3)
    with pytest.raises(Fenced):
        run(old.check())


def test_a_claim_that_could_not_read_what_it_fenced_opens_the_log_again(bench: Bench) -> None:
    writer = bench.writer(3)
    bench.fault(Fault("fail", "listing", times=None, after=1))
    with pytest.raises(Unavailable):
        run(writer.open())
    bench.objects.faults.clear()
    bench.clock.advance(DAY_S)
    run(writer.open())
    append(writer, "a")
    assert bench.entries() == ["a"]


def test_opening_does_not_trust_a_listing_that_is_older_than_its_fence(bench: Bench) -> None:
    append(bench.writer(), "a")
    append(bench.writer(), "b")
    bench.fault(Fault("hide", keys="*/000000000[23]*", after=1))
    log = run(bench.writer(1).open())
    assert log.entries() == ["a", "b"]
    assert log.tail == 3


def test_reading_disturbs_no_writer(bench: Bench) -> None:
    writer = bench.opened(1)
    append(writer, "a")
    before = bench.files()
    assert bench.entries() == ["a"]
    assert bench.files() == before
    append(writer, "b")


# --- Deletion -------------------------------------------------------------------------------------------------------


def test_a_claimed_writer_is_fenced_by_a_truncation(bench: Bench) -> None:
    claimed = bench.opened(1)
    append(claimed, "a")
    bench.delete_log()
    for _ in range(2):
        with pytest.raises(Fenced):
            append(claimed, "b")
    assert not bench.read().exists


def test_a_guest_goes_on_after_a_truncation(bench: Bench) -> None:
    guest = bench.writer()
    append(guest, "a")
    bench.delete_log()
    append(guest, "b")
    assert bench.entries() == ["b"]


def test_a_claimed_writer_that_opens_a_deleted_log_starts_anew(bench: Bench) -> None:
    append(bench.opened(1), "a")
    bench.delete_log()
    writer = bench.writer(2)
    assert not run(writer.open()).exists
    append(writer, "b")
    assert bench.entries() == ["b"]


def test_a_guests_write_that_fell_on_a_number_freed_by_a_deletion_is_not_lost(bench: Bench) -> None:
    guest = bench.writer()
    append(guest, "a")
    append(bench.writer(), "b")
    append(bench.writer(), "c")
    bench.delete_log()
    append(guest, "acknowledged")
    assert bench.entries() == ["acknowledged"]


def test_a_claimed_writer_is_fenced_though_its_number_was_freed_by_a_deletion(bench: Bench) -> None:
    claimed = bench.opened(1)
    append(bench.writer(), "b")
    bench.opened(2)
    bench.delete_log()
    with pytest.raises(Fenced):
        append(claimed, "late")


def test_a_writer_is_not_misled_by_numbers_freed_by_compaction(bench: Bench) -> None:
    guest = bench.writer()
    append(guest, "a")
    other = bench.writer()
    append(other, "b")
    append(other, "c")
    bench.compact(1, 3)
    append(guest, "acknowledged")
    assert bench.entries() == ["a", "b", "c", "acknowledged"]


def test_a_claimed_writer_is_fenced_though_the_fence_was_compacted(bench: Bench) -> None:
    old = bench.opened(1)
    append(bench.opened(2), "a")
    bench.compact(1, 3)
    with pytest.raises(Fenced):
        append(old, "late")


# --- Damage ---------------------------------------------------------------------------------------------------------


def test_a_claimed_writer_is_fenced_though_a_late_guest_took_the_number_of_the_freed_fence(bench: Bench) -> None:
    old = bench.opened(1)
    bench.opened(2)
    append(bench.writer(), "guest")
    bench.compact(1, 2)
    bench.put_part(2, "late")
    with pytest.raises(Fenced):
        append(old, "late, too")
    assert bench.entries() == ["guest"]


def test_a_lost_write_that_was_compacted_is_found_though_a_late_guest_took_its_number(bench: Bench) -> None:
    guest = bench.writer()
    bench.fault(Fault("lose_reply", "create"), Fault("fail", "create", times=None, after=1))
    with pytest.raises(Unavailable):
        append(guest, "a")
    bench.objects.faults.clear()
    append(bench.writer(), "b")
    bench.compact(1, 2)
    bench.put_part(1, "late")
    assert append(guest, "a") == 1
    assert append(guest, "c") == 3
    assert bench.entries() == ["a", "b", "c"]


def test_a_guest_goes_on_after_a_damaged_part(bench: Bench) -> None:
    guest = bench.writer()
    append(guest, "a")
    bench.put_bytes("0000000002.jsonl.zst", b"damaged")
    assert append(guest, "b") == 3
    assert bench.recorder.others == [None]
    with pytest.raises(Corrupt, match=f"{FOLDER}/0000000002.jsonl.zst"):
        bench.read()


def test_a_claimed_writer_stops_at_a_damaged_part(bench: Bench) -> None:
    claimed = bench.opened(1)
    bench.put_bytes("0000000002.jsonl.zst", b"damaged")
    for _ in range(2):
        with pytest.raises(Corrupt, match=f"{FOLDER}/0000000002.jsonl.zst"):
            append(claimed, "a")
    assert bench.files() == ["0000000001.jsonl.zst", "0000000002.jsonl.zst"]


def test_a_claimed_writer_goes_on_when_the_damaged_part_is_restored(bench: Bench) -> None:
    claimed = bench.opened(1)
    bench.put_bytes("0000000002.jsonl.zst", b"damaged")
    with pytest.raises(Corrupt):
        append(claimed, "a")
    bench.put_part(2, "restored")
    append(claimed, "a")
    assert bench.entries() == ["restored", "a"]


def test_a_claimed_writer_does_not_open_a_damaged_log(bench: Bench) -> None:
    bench.put_bytes("0000000001.jsonl.zst", b"damaged")
    with pytest.raises(Corrupt, match=f"{FOLDER}/0000000001.jsonl.zst"):
        bench.opened(1)


def test_objects_in_folders_below_a_log_do_not_move_its_end(bench: Bench) -> None:
    append(bench.writer(), "a")
    bench.put_bytes("copies/0000000099.jsonl.zst", b"whatever")
    assert append(bench.writer(), "b") == 2
    assert bench.entries() == ["a", "b"]
