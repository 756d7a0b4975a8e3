"""A claim is kept by a heartbeat, and let go of before anybody else can have it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from prometheus_client import CollectorRegistry

from everturn import Fenced, Held, Unavailable
from everturn.clock import Clock, ManualClock, SystemClock
from everturn.errors import EverturnError
from everturn.model import Claim, Holder
from everturn.registry import SqliteRegistry
from everturn.runner.lease import Lease
from everturn.telemetry import Metrics
from polling import wait_until
from runner.stage import WORK, Desk, finish

TTL_S = 0.15  # heartbeats come in real time, but nothing ends before its clock is turned
REAL_TTL_S = 1.2
LONG_S = 3600.0


class Moody(SqliteRegistry):
    """A registry that renews as the test likes.

    Attributes:
        clock: Its clock, and that of whoever keeps a claim.
        trouble: Called at each renewal, before it is done.
        renewals: How many were asked for.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        super().__init__(path, clock=clock)
        self.clock = clock
        self.trouble: Callable[[], None] = lambda: None
        self.renewals = 0

    def renew(self, claim: Claim, ttl_s: float) -> Claim:
        self.renewals += 1
        self.trouble()
        return super().renew(claim, ttl_s)


class Kept:
    """A lease, and what it says."""

    def __init__(self, registry: Moody, ttl_s: float) -> None:
        self.lost: list[EverturnError] = []
        self.lost_at: list[float] = []
        self.renewed: list[float] = []
        self.metrics = Metrics(CollectorRegistry())
        self._clock = registry.clock
        asked_at = registry.clock.elapsed()
        self.lease = Lease(
            registry,
            registry.claim(WORK, Holder("w1", "run-1"), ttl_s=ttl_s),
            asked_at=asked_at,
            clock=registry.clock,
            lost=self._note_loss,
            renewed=self.renewed.append,
            metrics=self.metrics,
        )

    def _note_loss(self, error: EverturnError) -> None:
        self.lost.append(error)
        self.lost_at.append(self._clock.elapsed())

    def counted(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"everturn_{name}_total")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def registry(tmp_path: Path, clock: ManualClock) -> Moody:
    return Moody(tmp_path / "registry.db", clock)


@contextmanager
def keeping(registry: Moody, ttl_s: float = TTL_S) -> Iterator[Kept]:
    kept = Kept(registry, ttl_s)
    try:
        yield kept
    finally:
        kept.lease.end()


def let_it_nearly_end(kept: Kept, clock: ManualClock) -> None:
    """Turn the clock to the middle of the time that is kept for letting go."""
    clock.advance(kept.lease.ttl_left_s + kept.lease.margin_s / 2)


def away() -> None:
    raise Unavailable("the registry is away", hint="wait")


def test_a_claim_that_no_thread_can_keep_is_given_up_at_once(
    registry: Moody, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everturn.runner.lease.start_thread", lambda *_: None)
    with keeping(registry) as kept:
        assert [type(error) for error in kept.lost] == [Unavailable]


def test_a_run_whose_claim_no_thread_can_keep_starts_no_agent(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everturn.runner.lease.start_thread", lambda *_: None)
    with pytest.raises(Unavailable, match="no thread to keep the claim"):
        finish(desk.run())
    assert desk.agent.starts == []
    assert desk.record().held_until is None


@pytest.mark.slow
def test_a_heartbeat_comes_three_times_as_often_as_the_claim_would_end(tmp_path: Path) -> None:
    clock = SystemClock()
    registry = Moody(tmp_path / "registry.db", clock)
    with keeping(registry, REAL_TTL_S) as kept:
        first = kept.lease.until
        wait_until(lambda: clock.elapsed() > first, "the claim would have ended")
        assert registry.renewals >= 2
        with pytest.raises(Held):
            registry.claim(WORK, Holder("w2", "run-2"), ttl_s=REAL_TTL_S)
        assert kept.lease.until > first
        assert kept.renewed == sorted(kept.renewed)
        assert kept.renewed[-1] <= kept.lease.until
    assert kept.lost == []


def test_who_keeps_a_claim_thinks_that_it_ends_no_later_than_the_registry_does(
    registry: Moody, clock: ManualClock
) -> None:
    registry.trouble = lambda: clock.advance(TTL_S / 10)  # it takes its time
    with keeping(registry) as kept:
        wait_until(lambda: kept.renewed, "it was renewed")
    [record] = registry.records()
    left_s = (record.held_until or 0) - clock.now()
    assert 0 < kept.lease.until - clock.elapsed() <= left_s


@pytest.mark.slow
def test_after_the_end_no_heartbeat_comes(registry: Moody) -> None:
    with keeping(registry) as kept:
        wait_until(lambda: registry.renewals, "it was renewed")
    renewals, ended_at = registry.renewals, SystemClock().elapsed()
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {"everturn-heartbeat", "everturn-lease"}
    wait_until(lambda: SystemClock().elapsed() > ended_at + TTL_S, "three more were due")
    assert registry.renewals == renewals
    assert kept.lost == []


def test_a_claim_that_somebody_else_has_is_lost_once_and_at_once(registry: Moody) -> None:
    with keeping(registry) as kept:
        with pytest.raises(Held) as held:
            registry.claim(WORK, Holder("w2", "run-2"), ttl_s=LONG_S)
        registry.claim(WORK, Holder("w2", "run-2"), ttl_s=LONG_S, instead_of=held.value)
        wait_until(lambda: kept.lost, "it is lost")
        assert kept.lost_at[0] < kept.lease.until
    assert [type(error) for error in kept.lost] == [Fenced]
    assert kept.counted("claims_lost") == 1
    assert kept.counted("claim_renewal_failures") == 0


def test_a_claim_that_cannot_be_renewed_is_lost_before_it_ends(registry: Moody, clock: ManualClock) -> None:
    registry.trouble = away
    with keeping(registry) as kept:
        wait_until(lambda: registry.renewals > 2, "it is tried again")
        assert kept.lost == []
        let_it_nearly_end(kept, clock)
        wait_until(lambda: kept.lost, "it is lost")
        assert kept.lost_at[0] < kept.lease.until
        assert kept.lost_at[0] >= kept.lease.until - kept.lease.margin_s
    [error] = kept.lost
    assert isinstance(error, Unavailable)
    assert "could not be renewed in time" in error.message
    assert kept.counted("claims_lost") == 1
    assert kept.counted("claim_renewal_failures") == registry.renewals


@pytest.mark.slow
def test_a_heartbeat_that_fails_is_followed_by_others_more_often(tmp_path: Path) -> None:
    registry = Moody(tmp_path / "registry.db", SystemClock())
    registry.trouble = away
    with keeping(registry, REAL_TTL_S) as kept:
        wait_until(lambda: kept.lost, "it is lost")
        assert kept.lost_at[0] < kept.lease.until
    assert registry.renewals > 2


def test_a_registry_that_comes_back_in_time_is_not_noticed(registry: Moody) -> None:
    registry.trouble = away
    with keeping(registry) as kept:
        wait_until(lambda: registry.renewals >= 2, "two have failed")
        registry.trouble = lambda: None
        wait_until(lambda: kept.renewed, "it is renewed")
        assert kept.lost == []


def test_a_registry_that_does_not_answer_at_all_does_not_keep_the_loss_from_being_told(
    registry: Moody, clock: ManualClock
) -> None:
    go = threading.Event()
    registry.trouble = lambda: go.wait(20) and None
    try:
        with keeping(registry) as kept:
            wait_until(lambda: registry.renewals, "it is asked")
            let_it_nearly_end(kept, clock)
            wait_until(lambda: kept.lost, "it is lost")
            assert not go.is_set()
            assert kept.lost_at[0] < kept.lease.until
            go.set()
    finally:
        go.set()
    assert len(kept.lost) == 1


def test_an_error_that_is_none_of_ours_ends_in_a_loss_before_the_end(
    registry: Moody, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down() -> None:
        raise RuntimeError("this should not happen")

    caught: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", caught.append)
    registry.trouble = break_down
    with keeping(registry) as kept:
        wait_until(lambda: caught, "the heartbeat has broken down")
        let_it_nearly_end(kept, clock)
        wait_until(lambda: kept.lost, "it is lost")
        assert kept.lost_at[0] < kept.lease.until
    assert len(caught) == 1


def test_a_machine_that_was_suspended_for_too_long_has_lost_its_claim(
    registry: Moody, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everturn.runner.lease.LOOK_S", 0.05)
    with keeping(registry, LONG_S) as kept:
        assert kept.lease.ttl_left_s == LONG_S - kept.lease.margin_s
        clock.advance(LONG_S)
        wait_until(lambda: kept.lost, "it is lost")
    assert registry.renewals == 0


def test_a_clock_that_jumps_loses_no_claim(registry: Moody, clock: ManualClock) -> None:
    with keeping(registry, LONG_S) as kept:
        for seconds in (86_400, -2 * 86_400):
            clock.jump(seconds)
            assert kept.lease.ttl_left_s == LONG_S - kept.lease.margin_s
    assert kept.lost == []


@pytest.mark.parametrize(("ttl_s", "margin_s"), [(1.0, 0.25), (8.0, 2.0), (30.0, 5.0), (3600.0, 5.0)])
def test_a_quarter_of_the_time_is_kept_for_letting_go_and_five_seconds_at_most(
    registry: Moody, ttl_s: float, margin_s: float
) -> None:
    with keeping(registry, ttl_s) as kept:
        assert kept.lease.margin_s == margin_s


def test_a_claim_can_be_exchanged_between_two_heartbeats(registry: Moody) -> None:
    with keeping(registry) as kept:
        for _ in range(3):
            before = kept.lease.claim
            renewals = registry.renewals
            now = kept.lease.replace(partial(registry.begin_anew, reason="for a test"))
            assert kept.lease.claim == now
            assert (now.epoch, now.session_id == before.session_id) == (before.epoch + 1, False)
            wait_until(lambda seen=renewals: registry.renewals > seen, "another heartbeat")  # type: ignore[misc]
        assert kept.lost == []
        kept.lease.check()
    [record] = registry.records()
    assert record.session_id == kept.lease.claim.session_id


def test_an_exchange_that_fails_leaves_the_claim_as_it_was(registry: Moody) -> None:
    def fail(_: Claim) -> Claim:
        away()
        raise AssertionError

    with keeping(registry, LONG_S) as kept:
        before = kept.lease.claim
        with pytest.raises(Unavailable):
            kept.lease.replace(fail)
        assert kept.lease.claim == before


def test_to_check_renews_and_tells_a_loss_before_it_is_raised(registry: Moody) -> None:
    with keeping(registry, LONG_S) as kept:
        kept.lease.check()
        assert (registry.renewals, len(kept.renewed)) == (1, 1)
        registry.drop(WORK, kept.lease.claim.session_id, "for a test")
        with pytest.raises(Fenced):
            kept.lease.check()
        assert [type(error) for error in kept.lost] == [Fenced]
        with pytest.raises(Fenced):
            kept.lease.check()
        assert len(kept.lost) == 1


def test_to_check_says_when_the_registry_does_not_and_loses_nothing(registry: Moody) -> None:
    registry.trouble = away
    with keeping(registry, LONG_S) as kept:
        with pytest.raises(Unavailable):
            kept.lease.check()
        assert kept.lost == []


@pytest.mark.slow
def test_a_run_that_blocks_its_event_loop_for_longer_than_its_claim_lasts_keeps_it(desk: Desk) -> None:
    runtime = desk.runtime(claim_ttl_s=1)

    async def main() -> None:
        run = desk.run(runtime=runtime)
        await anext(run)
        first = desk.record().held_until or 0.0
        wait_until(lambda: (desk.record().held_until or 0.0) > first + 1.5, "it was renewed well beyond its time")
        with pytest.raises(Held):
            runtime.registry.claim(WORK, Holder("another", "run-2"), ttl_s=1)
        async for _ in run:
            pass
        assert (run.stopped, run.warnings) == (None, ())

    anyio.run(main)
    assert desk.record().held_until is None
