"""What a writer does when the store, or another writer, gets in its way (docs/format.md, section 5)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from everturn.errors import Denied, Fenced, Invalid, Unavailable
from everturn.log.objects import run
from everturn.log.writer import LogWriter
from everturn.testing.faults import Fault
from log.bench import Bench

# What becomes of the first creation when its writer is left without an answer until it gives up.
WORLDS = {
    "it took effect": [Fault("lose_reply", "create"), Fault("fail", "create", times=None, after=1)],
    "it did not": [Fault("fail", "create", times=None)],
}


def append(writer: LogWriter, *entries: Any) -> int:
    return run(writer.append(entries))


def give_up(bench: Bench, writer: LogWriter, entries: Sequence[Any], world: str) -> None:
    """Let an append run out of time; then the store is well again."""
    bench.fault(*map(replace, WORLDS[world]))
    with pytest.raises(Unavailable):
        append(writer, *entries)
    bench.objects.faults.clear()


# --- Numbers and order ----------------------------------------------------------------------------------------------


def test_numbers_are_dense_from_one(bench: Bench) -> None:
    writer = bench.writer()
    assert [append(writer, n) for n in range(5)] == [1, 2, 3, 4, 5]
    assert [header.span.first for header in bench.headers()] == [1, 2, 3, 4, 5]
    assert bench.entries() == [0, 1, 2, 3, 4]
    assert writer.tail == 5


def test_a_new_writer_goes_on_after_the_last_number(bench: Bench) -> None:
    append(bench.writer(), "first")
    writer = bench.writer()
    assert writer.tail is None
    assert append(writer, "second") == 2


def test_a_new_writer_goes_on_after_a_segment(bench: Bench) -> None:
    writer = bench.writer()
    for n in range(3):
        append(writer, n)
    bench.compact(1, 3)
    assert append(bench.writer(), 3) == 4
    assert bench.entries() == [0, 1, 2, 3]


def test_guests_interleave_in_the_order_of_commit(bench: Bench) -> None:
    one, two = bench.writer(), bench.writer()
    assert [append(one, "a"), append(two, "b"), append(two, "c"), append(one, "d"), append(two, "e")] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert bench.entries() == ["a", "b", "c", "d", "e"]
    assert [other.span.first for other in bench.recorder.others if other] == [2, 3, 4]


def test_a_batch_is_one_part(bench: Bench) -> None:
    assert append(bench.writer(), 1, 2, 3) == 1
    assert [header.count for header in bench.headers()] == [3]


def test_a_warm_append_is_one_request(bench: Bench) -> None:
    writer = bench.writer()
    append(writer, 1)
    bench.objects.counts.clear()
    append(writer, 2)
    assert dict(bench.objects.counts) == {"create": 1}


def test_nothing_to_append_asks_nothing_of_the_store(bench: Bench) -> None:
    writer = bench.writer()
    append(writer)
    append(bench.opened(1), 1)
    bench.objects.counts.clear()
    append(writer)
    assert not bench.objects.counts


def test_an_entry_that_is_not_json_writes_nothing_and_the_next_append_is_fine(bench: Bench) -> None:
    writer = bench.writer()
    for wrong in (float("nan"), {1: 2}, b"bytes"):
        with pytest.raises(Invalid):
            append(writer, "fine", wrong)
    assert bench.objects.counts["create"] == 0
    append(writer, "next")
    with pytest.raises(Invalid):
        append(writer, float("nan"))
    append(writer, "after")
    assert bench.entries() == ["next", "after"]


def test_two_threads_on_one_log_lose_nothing_and_keep_their_order(bench: Bench) -> None:
    def work(name: str) -> None:
        writer = bench.writer()
        for n in range(200):
            append(writer, [name, n])

    in_threads(lambda: work("a"), lambda: work("b"))
    entries = bench.entries()
    assert [n for name, n in entries if name == "a"] == list(range(200))
    assert [n for name, n in entries if name == "b"] == list(range(200))
    assert [header.span.first for header in bench.headers()] == list(range(1, 401))


def in_threads(*work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- Answers that are lost ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 3])
def test_an_own_write_is_recognised_after_a_lost_reply(bench: Bench, times: int) -> None:
    writer = bench.writer()
    bench.fault(Fault("lose_reply", "create", times=times))
    assert [append(writer, "a"), append(writer, "b")] == [1, 2]
    assert bench.entries() == ["a", "b"]
    assert not bench.recorder.others


def test_an_own_write_is_recognised_after_a_lost_reply_though_somebody_has_gone_on(bench: Bench) -> None:
    writer = bench.writer()
    give_up(bench, writer, ["a"], "it took effect")
    append(bench.writer(), "b")
    assert append(writer, "a") == 1
    assert append(writer, "c") == 3
    assert bench.entries() == ["a", "b", "c"]


def test_an_error_before_the_effect_is_tried_again_at_the_same_number_with_the_same_bytes(bench: Bench) -> None:
    writer = bench.writer()
    bench.fault(Fault("fail", "create", times=3))
    assert append(writer, "a") == 1
    assert bench.objects.counts["create"] == 4
    assert bench.entries() == ["a"]


def test_every_attempt_at_a_number_has_the_same_bytes(bench: Bench) -> None:
    writer = bench.writer()
    give_up(bench, writer, ["a"], "it took effect")
    first = bench.get_bytes("0000000001.jsonl.zst")
    bench.delete(1)
    append(writer, "a")
    assert bench.get_bytes("0000000001.jsonl.zst") == first


def test_a_busy_store_is_asked_again_for_the_same_number(bench: Bench) -> None:
    writer = bench.writer()
    bench.fault(Fault("busy", times=2))
    assert append(writer, "a") == 1
    assert bench.files() == ["0000000001.jsonl.zst"]


def test_a_part_that_cannot_be_read_yet_is_read_again(bench: Bench) -> None:
    writer = bench.writer()
    append(writer, "a")
    append(bench.writer(), "b")
    bench.fault(Fault("fail", "get", times=2), Fault("gone", after=1))
    assert append(writer, "c") == 3
    assert bench.entries() == ["a", "b", "c"]


def test_waiting_times_grow_and_stay_below_the_deadline(bench: Bench) -> None:
    writer = bench.writer()
    started = bench.clock.elapsed()
    give_up(bench, writer, ["a"], "it did not")
    assert 15 < bench.clock.elapsed() - started <= 20
    assert 10 < bench.objects.counts["create"] < 40
    assert [type(error) for error in bench.recorder.failures] == [Unavailable]


def test_credentials_that_are_refused_are_not_tried_again(bench: Bench) -> None:
    writer = bench.writer()
    bench.fault(Fault("fail", "create", times=None, error=Denied("no", hint="mend it")))
    with pytest.raises(Denied):
        append(writer, "a")
    assert bench.objects.counts["create"] == 1


# --- Attempts that were left behind ---------------------------------------------------------------------------------


@pytest.mark.parametrize("world", WORLDS)
def test_a_batch_that_gave_up_is_not_written_twice_when_it_comes_again(bench: Bench, world: str) -> None:
    writer = bench.writer()
    append(writer, "before")
    give_up(bench, writer, ["a", {"no": "uuid"}], world)
    assert append(writer, "a", {"no": "uuid"}) == 2
    assert append(writer, "after") == 3
    assert bench.entries() == ["before", "a", {"no": "uuid"}, "after"]


@pytest.mark.parametrize("world", WORLDS)
def test_another_batch_is_written_after_the_one_that_gave_up(bench: Bench, world: str) -> None:
    writer = bench.writer()
    give_up(bench, writer, ["a"], world)
    assert append(writer, "b") == 2
    assert bench.entries() == ["a", "b"]


@pytest.mark.parametrize("world", WORLDS)
def test_a_batch_that_gave_up_gives_way_to_what_took_its_number(bench: Bench, world: str) -> None:
    writer = bench.writer()
    give_up(bench, writer, ["a"], world)
    append(bench.writer(), "guest")
    append(writer, "a")
    assert bench.entries() == (["a", "guest"] if world == "it took effect" else ["guest", "a"])


@pytest.mark.parametrize("world", WORLDS)
def test_giving_up_again_and_again_changes_nothing(bench: Bench, world: str) -> None:
    writer = bench.writer()
    give_up(bench, writer, ["a"], world)
    for entries in (["a"], ["b"], ["a"], ["b"]):
        give_up(bench, writer, entries, "it did not")
    append(writer, "b")
    assert bench.entries() == ["a", "b"]


@pytest.mark.parametrize("world", WORLDS)
def test_the_same_batch_twice_on_purpose_is_written_twice(bench: Bench, world: str) -> None:
    writer = bench.writer()
    give_up(bench, writer, ["a"], world)
    assert [append(writer, "a"), append(writer, "a")] == [1, 2]
    assert bench.entries() == ["a", "a"]


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_a_batch_too_deep_to_compare_is_recognised_when_it_comes_again(bench: Bench, world: str) -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    writer = bench.writer()
    give_up(bench, writer, [deep], world)
    assert append(writer, deep) == 1
    assert bench.files() == ["0000000001.jsonl.zst"]


@pytest.mark.parametrize("world", WORLDS)
def test_a_truncation_that_gave_up_is_written_once(bench: Bench, world: str) -> None:
    writer = bench.writer()
    append(writer, "a")
    bench.fault(*map(replace, WORLDS[world]))
    with pytest.raises(Unavailable):
        run(writer.truncate())
    bench.objects.faults.clear()
    assert run(writer.truncate()) == 2
    assert len(bench.files()) == 2


def test_a_batch_stays_as_it_was_although_its_list_is_changed_afterwards(bench: Bench) -> None:
    writer = bench.writer()
    batch: list[Any] = [{"n": 1}]
    bench.fault(Fault("fail", "create", times=None))
    with pytest.raises(Unavailable):
        run(writer.append(batch))
    bench.objects.faults.clear()
    append(bench.writer(), "guest")  # so that the batch has to be encoded for another number
    batch[0]["n"] = 2
    batch.append({"n": 3})
    run(writer.append(batch))
    assert bench.entries() == ["guest", {"n": 1}, {"n": 2}, {"n": 3}]


def test_a_batch_that_was_refused_for_its_credentials_is_written_once_when_it_comes_again(bench: Bench) -> None:
    writer = bench.writer()
    bench.fault(Fault("fail", "create", error=Denied("no", hint="mend it")))
    with pytest.raises(Denied):
        append(writer, "a")
    append(writer, "a")
    append(writer, "b")
    assert bench.entries() == ["a", "b"]


def test_a_guest_far_behind_the_tail_catches_up_in_a_few_requests(bench: Bench) -> None:
    stale, busy = bench.writer(), bench.writer()
    run(stale.append(["first"]))
    for number in range(300):
        run(busy.append([number]))
    bench.objects.counts.clear()
    run(stale.append(["last"]))
    assert sum(bench.objects.counts.values()) < 12
    assert bench.entries() == ["first", *range(300), "last"]


def test_a_claimed_writer_far_behind_is_fenced_by_what_it_passes(bench: Bench) -> None:
    old = bench.opened(1)
    guest = bench.writer()
    for number in range(40):
        run(guest.append([number]))
    bench.opened(2)
    for number in range(40, 80):
        run(guest.append([number]))
    with pytest.raises(Fenced):
        run(old.append(["zombie"]))
    assert bench.entries() == list(range(80))


def test_an_append_after_a_long_pause_looks_once_and_reads_nothing(bench: Bench) -> None:
    writer = bench.writer()
    for number in range(50):
        run(writer.append([number]))
    bench.clock.advance(3_600)
    bench.objects.counts.clear()
    run(writer.append(["late"]))
    assert dict(bench.objects.counts) == {"create": 1, "listing": 1}
    assert bench.entries() == [*range(50), "late"]


# --- Refusals after an unknown outcome ------------------------------------------------------------------------------

REFUSAL = Invalid("the store refuses to write", hint="a test wanted this")


def test_a_refusal_after_an_answer_was_lost_is_no_refusal_of_what_is_there(bench: Bench) -> None:
    writer = bench.writer()
    bench.fault(Fault("lose_reply", "create"), Fault("fail", "create", error=REFUSAL, after=1))
    assert append(writer, {"n": 1}) == 1
    assert append(writer, {"n": 2}) == 2
    assert bench.entries() == [{"n": 1}, {"n": 2}]


def test_a_refusal_after_nothing_was_written_is_told_and_over(bench: Bench) -> None:
    writer = bench.writer()
    bench.fault(Fault("fail", "create"), Fault("fail", "create", error=REFUSAL))
    with pytest.raises(Invalid, match="refuses to write"):
        append(writer, {"n": 1})
    assert writer.unresolved is None
    assert append(writer, {"n": 2}) == 1
    assert bench.entries() == [{"n": 2}]
