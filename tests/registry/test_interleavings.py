"""Workers that do anything in any order, while time passes and clocks jump: what must never happen does not."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from everturn.errors import Fenced, Held
from everturn.model import Claim, Holder, WorkItem
from everturn.registry import Registry
from registry.dynamo import Dynamo, DynamoPlace
from registry.places import DAY_S, TTL_S, Place, SqlitePlace

WORKERS = ("w1", "w2", "w3")
WORKS = (WorkItem("fixer", "/r", 1), WorkItem("hasty", "/r", 1))
A_LITTLE_LONGER_S = 3.0


@dataclass
class Hold:
    """A claim, as its holder sees it."""

    worker: str
    claim: Claim
    until: float
    evicted: bool = False


class Workers(RuleBasedStateMachine):
    """Three workers and two work items. Each worker is a process of its own, with runs one after the other."""

    def __init__(self, make_place: Callable[[], Place]) -> None:
        super().__init__()
        self.place = make_place()
        self.clock = self.place.clock
        self.registries: dict[str, Registry] = {worker: self.place.connect() for worker in WORKERS}
        self.holds: list[Hold] = []
        self.epochs: dict[str, int] = {}
        self.forgotten: set[str] = set()
        self.runs = 0

    def alive(self, work: WorkItem) -> list[Hold]:
        """Those who think rightly that they hold a work item: their time is not over, and nobody evicted them."""
        now = self.clock.elapsed()
        return [hold for hold in self.holds if hold.claim.work == work and hold.until > now and not hold.evicted]

    def took(self, worker: str, claim: Claim, asked_at: float) -> None:
        assert claim.session_id not in self.forgotten
        assert claim.epoch > self.epochs.get(claim.session_id, 0)
        assert claim.is_new == (claim.session_id not in self.epochs)
        self.epochs[claim.session_id] = claim.epoch
        self.holds.append(Hold(worker, claim, asked_at + TTL_S))

    @rule(worker=st.sampled_from(WORKERS), work=st.sampled_from(WORKS), evict=st.booleans())
    def claim(self, worker: str, work: WorkItem, evict: bool) -> None:
        self.runs += 1
        holder = Holder(worker, f"run-{self.runs}")
        registry = self.registries[worker]
        asked_at = self.clock.elapsed()
        alive = self.alive(work)
        try:
            claim = registry.claim(work, holder, ttl_s=TTL_S)
        except Held as held:
            assert any(self.clock.elapsed() < hold.until + A_LITTLE_LONGER_S for hold in self.holds)
            if evict:
                for hold in self.holds:
                    hold.evicted = hold.evicted or hold.claim.run_id == held.run_id
                claim = registry.claim(work, holder, ttl_s=TTL_S, instead_of=held)
                assert claim.took_over
                self.took(worker, claim, asked_at)
            return
        assert not alive
        self.took(worker, claim, asked_at)

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from(self.holds))
        asked_at = self.clock.elapsed()
        right = hold in self.alive(hold.claim.work)
        try:
            hold.claim = self.registries[hold.worker].renew(hold.claim, TTL_S)
        except Fenced:
            assert not right
            self.holds.remove(hold)
        else:
            assert not [other for other in self.alive(hold.claim.work) if other is not hold]
            hold.until = asked_at + TTL_S

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), how=st.sampled_from(["confirm", "taint", "begin_anew", "release"]))
    def use(self, data: st.DataObject, how: str) -> None:
        hold = data.draw(st.sampled_from(self.holds))
        registry = self.registries[hold.worker]
        right = hold in self.alive(hold.claim.work)
        old = hold.claim
        try:
            if how == "confirm":
                registry.confirm(old, "/desk")
            elif how == "taint":
                registry.taint(old, "3 entries are missing")
            elif how == "begin_anew":
                self.holds.remove(hold)
                self.took(hold.worker, registry.begin_anew(old), hold.until - TTL_S)
                self.holds[-1].evicted = hold.evicted
                self.forgotten.add(old.session_id)
            else:
                self.holds.remove(hold)
                registry.release(old)
        except Fenced:
            assert not right
            self.holds = [other for other in self.holds if other is not hold]

    @precondition(lambda self: self.epochs)
    @rule(data=st.data(), worker=st.sampled_from(WORKERS), gently=st.booleans())
    def drop(self, data: st.DataObject, worker: str, gently: bool) -> None:
        session_id = data.draw(st.sampled_from(list(self.epochs)))
        for work in WORKS:
            alive = [hold for hold in self.alive(work) if hold.claim.session_id == session_id]
            try:
                found = self.registries[worker].drop(work, session_id, "it is over", unless_held=gently)
            except Held as held:
                assert gently
                meant = [hold for hold in self.holds if hold.claim.run_id == held.run_id]
                assert any(self.clock.elapsed() < hold.until + A_LITTLE_LONGER_S for hold in meant)
                continue
            if found:
                assert not (gently and alive)
                self.forgotten.add(session_id)
                for hold in self.holds:
                    hold.evicted = hold.evicted or hold.claim.session_id == session_id

    @rule(worker=st.sampled_from(WORKERS), really=st.booleans())
    def sweep(self, worker: str, really: bool) -> None:
        held = {hold.claim.session_id for work in WORKS for hold in self.alive(work)}
        swept = {record.session_id for record in self.registries[worker].sweep(dry_run=not really)}
        assert not swept & held
        if really:
            self.forgotten |= swept

    @rule(worker=st.sampled_from(WORKERS), work=st.sampled_from(WORKS))
    def look(self, worker: str, work: WorkItem) -> None:
        record = self.registries[worker].get(work)
        assert record is None or record.session_id not in self.forgotten
        assert record is not None or not self.alive(work)

    @rule(seconds=st.sampled_from([0.1, 1, TTL_S / 3, TTL_S - 0.5, TTL_S + 5, 100, DAY_S + 1]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-DAY_S, DAY_S, -5, 5]))
    def jump(self, seconds: float) -> None:
        self.clock.jump(seconds)

    @invariant()
    def at_most_one_holds_a_work_item(self) -> None:
        for work in WORKS:
            assert len(self.alive(work)) <= 1


def explore(make_place: Callable[[], Place], examples: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: Workers(make_place),
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.slow
def test_workers_on_one_file(tmp_path: Path) -> None:
    explore(lambda: SqlitePlace(Path(tempfile.mkdtemp(dir=tmp_path)) / "registry.db"), examples=30)


@pytest.mark.slow
def test_workers_on_one_table(dynamo: Dynamo, credentials: None) -> None:
    explore(lambda: DynamoPlace(dynamo), examples=60)
