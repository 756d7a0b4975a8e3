"""Acts, sweeps and samples are noted, and go with age; what is still needed stays."""

from __future__ import annotations

import pytest

from everturn.clock import ManualClock
from everturn.logbook.entries import Act, Done, SampleEntry, SweepEntry
from everturn.logbook.logbook import Logbook
from everturn.logbook.pruning import DAY_S, ROWS

HOUR_S = 3600.0


def test_an_act_is_noted_before_it_is_done_and_ends_once(logbook: Logbook, clock: ManualClock) -> None:
    began_at = clock.now()
    number = logbook.acts.add("127.0.0.1", "reset", {"agent": "fixer", "dry_run": False}).result()
    begun = Act(number, began_at, "127.0.0.1", "reset", {"agent": "fixer", "dry_run": False}, "begun")
    assert logbook.acts.page(10) == [begun]
    clock.advance(5)
    logbook.acts.end(number, "done", ["removed a workdir"]).result()
    logbook.acts.end(number, "failed", ["too late"]).result()
    (act,) = logbook.acts.page(10)
    assert (act.state, act.details, act.done_at) == ("done", ("removed a workdir",), began_at + 5)


def test_an_act_that_is_refused_is_at_its_end(logbook: Logbook, clock: ManualClock) -> None:
    logbook.acts.add("10.0.0.9", "sweep", {}, state="refused", details=["wrong token"]).result()
    (act,) = logbook.acts.page(10)
    assert (act.state, act.details, act.done_at) == ("refused", ("wrong token",), clock.now())


def test_acts_come_in_pages_the_newest_first(logbook: Logbook) -> None:
    numbers = [logbook.acts.add("me", "sweep", {}).result() for _ in range(5)]
    assert [act.number for act in logbook.acts.page(2)] == numbers[:2:-1]
    assert [act.number for act in logbook.acts.page(9, numbers[2])] == [numbers[1], numbers[0]]


def test_the_last_sweep_that_was_done_is_known_to_the_next_process(logbook: Logbook, clock: ManualClock) -> None:
    first = logbook.sweeps.begin("start").result()
    logbook.sweeps.end(first, "done", {"removed": 3}).result()
    clock.advance(HOUR_S)
    failed = logbook.sweeps.begin("daily").result()
    logbook.sweeps.end(failed, "failed", {"error": "the registry does not answer"}).result()
    logbook.sweeps.end(failed, "done", {}).result()
    logbook.sweeps.begin("admin").result()
    last = Logbook(logbook.path).sweeps.last()
    assert last == SweepEntry(first, "start", clock.now() - HOUR_S, "done", clock.now() - HOUR_S, {"removed": 3})
    assert [sweep.state for sweep in logbook.sweeps.page(9)] == ["begun", "failed", "done"]
    found = logbook.sweeps.last("failed")
    assert found is not None
    assert found.facts == {"error": "the registry does not answer"}


def test_samples_are_told_in_their_order(logbook: Logbook, clock: ManualClock) -> None:
    logbook.samples.add({"trees_bytes": 10, "caches_bytes": 2**62}).result()
    clock.advance(60)
    logbook.samples.add({"trees_bytes": 11, "caches_bytes": 0}).result()
    first, second = logbook.samples.since(0)
    assert first == SampleEntry(clock.now() - 60, {"caches_bytes": 2**62, "trees_bytes": 10})
    assert logbook.samples.since(clock.now()) == [second]


def test_what_is_old_goes_and_what_is_not_done_stays(logbook: Logbook, clock: ManualClock) -> None:
    for name in ("done", "failed", "queued", "waiting"):
        logbook.deliveries.put("github", name, "push", {}).result()
    logbook.deliveries.put("github", "ignored", "ping", None, "a ping").result()
    numbers = {entry.delivery_id: entry.number for entry in logbook.deliveries.page(9)}
    logbook.deliveries.finish(
        [Done(numbers["done"], "done"), Done(numbers["failed"], "failed"), Done(numbers["waiting"], "waiting")]
    ).result()
    logbook.acts.add("me", "sweep", {}).result()
    for outcome in ("done", "done", "failed"):
        logbook.sweeps.end(logbook.sweeps.begin("daily").result(), outcome, {}).result()  # type: ignore[arg-type]
    clock.advance(30 * DAY_S)
    assert logbook.prune(30 * DAY_S).result() == 0
    clock.advance(1)
    assert logbook.prune(30 * DAY_S).result() == 6
    assert [entry.delivery_id for entry in logbook.deliveries.page(9)] == ["waiting", "queued"]
    assert logbook.acts.page(9) == []
    assert [(sweep.number, sweep.state) for sweep in logbook.sweeps.page(9)] == [(2, "done")]


def test_sweeps_go_with_age_also_where_none_was_ever_done(logbook: Logbook, clock: ManualClock) -> None:
    logbook.sweeps.end(logbook.sweeps.begin("daily").result(), "failed", {}).result()
    clock.advance(2 * DAY_S)
    assert logbook.prune(DAY_S).result() == 1
    assert logbook.sweeps.page(9) == []


@pytest.mark.parametrize(("days", "answer"), [(7.5, "duplicate"), (8.5, "queued")])
def test_ids_are_known_for_as_long_as_forges_send_again_whatever_is_set(
    logbook: Logbook, clock: ManualClock, days: float, answer: str
) -> None:
    logbook.deliveries.put("github", "d-1", "ping", None, "a ping").result()
    clock.advance(days * DAY_S)
    logbook.prune(DAY_S).result()
    assert logbook.deliveries.put("github", "d-1", "push", {}).result() == answer


def test_a_lot_goes_a_little_at_a_time(logbook: Logbook, clock: ManualClock) -> None:
    puts = [logbook.deliveries.put("github", f"d-{number}", "ping", None) for number in range(2 * ROWS + 1)]
    assert {put.result() for put in puts} == {"ignored"}
    clock.advance(40 * DAY_S)
    assert logbook.prune(30 * DAY_S).result() == 2 * ROWS + 1
    assert logbook.deliveries.page(1) == []


def test_a_logbook_that_is_closed_prunes_no_more(logbook: Logbook) -> None:
    logbook.close()
    assert "closed" in str(logbook.prune(DAY_S).exception())


def test_samples_get_fewer_with_age(logbook: Logbook, clock: ManualClock) -> None:
    def sample_for(seconds: float, every_s: float) -> None:
        for _ in range(int(seconds / every_s)):
            logbook.samples.add({"trees_bytes": 1})
            clock.advance(every_s)

    sample_for(20 * DAY_S, 6 * HOUR_S)
    sample_for(10 * DAY_S, HOUR_S / 4)
    logbook.prune(DAY_S).result()
    ages = [clock.now() - sample.at for sample in logbook.samples.since(0)]
    assert sum(age <= 2 * DAY_S for age in ages) == 2 * 24 * 4
    assert sum(2 * DAY_S < age <= 10 * DAY_S for age in ages) in range(8 * 24, 8 * 24 + 2)
    assert sum(10 * DAY_S < age <= 14 * DAY_S for age in ages) == 4 * 4
    assert sum(age > 14 * DAY_S for age in ages) in range(16, 18)
    before = logbook.samples.since(0)
    logbook.prune(DAY_S).result()
    assert logbook.samples.since(0) == before
    clock.advance(500 * DAY_S)
    logbook.prune(DAY_S).result()
    assert logbook.samples.since(0) == []
