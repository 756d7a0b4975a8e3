"""Stale sessions, on each kind of registry: too old means gone, at every look."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from everturn.clock import ManualClock
from everturn.errors import Fenced
from everturn.model import SessionAges, SessionRecord, WorkItem
from everturn.registry import Registry
from registry.places import DAY_S, HOUR_S, OTHER, TTL_S, WORK, Place, claim, holder, used

NEVER = SessionAges(None)
Look = Callable[[Registry, str], SessionRecord | None]
LOOKS: dict[str, Look] = {
    "get": lambda registry, _: registry.get(WORK),
    "find": lambda registry, session_id: registry.find(session_id),
}


def stale_sessions() -> float:
    return REGISTRY.get_sample_value("everturn_stale_sessions_total") or 0.0


@pytest.fixture(params=LOOKS.values(), ids=LOOKS.keys())
def look(request: pytest.FixtureRequest) -> Look:
    found: Look = request.param
    return found


def test_a_session_of_25_hours_is_not_returned_and_its_row_is_gone(
    registry: Registry, place: Place, clock: ManualClock, look: Look
) -> None:
    made = used(registry)
    clock.advance(25 * HOUR_S)
    counted = stale_sessions()
    assert look(registry, made.session_id) is None
    assert place.connect(NEVER).records() == []
    assert stale_sessions() == counted + 1


def test_a_session_of_one_hour_is_returned(registry: Registry, clock: ManualClock, look: Look) -> None:
    made = used(registry)
    clock.advance(HOUR_S)
    record = look(registry, made.session_id)
    assert record is not None
    assert record.session_id == made.session_id


def test_the_claim_of_a_session_of_25_hours_starts_fresh(registry: Registry, clock: ManualClock) -> None:
    old = used(registry)
    before = registry.get(WORK)
    registry.taint(claim(registry, "w2"), "3 entries are missing")
    clock.advance(25 * HOUR_S)
    counted = stale_sessions()
    fresh = registry.claim(WORK, holder("w3"), "s3://bucket/new", ttl_s=TTL_S)
    assert fresh.is_new
    assert fresh.session_id != old.session_id
    assert (fresh.previous, fresh.took_over, fresh.tainted, fresh.store) == (None, False, None, "s3://bucket/new")
    assert before is not None
    assert fresh.stale is not None
    assert (fresh.stale.session_id, fresh.stale.last_used_at) == (old.session_id, before.last_used_at)
    assert stale_sessions() == counted + 1
    record = registry.get(WORK)
    assert record is not None
    assert (record.session_id, record.cwd) == (fresh.session_id, None)
    assert record.created_at == record.last_used_at == pytest.approx(clock.now(), abs=2)
    assert registry.find(old.session_id) is None


def test_the_claim_of_a_session_of_one_hour_goes_on(registry: Registry, clock: ManualClock) -> None:
    old = used(registry)
    clock.advance(HOUR_S)
    again = claim(registry, "w2")
    assert (again.session_id, again.is_new, again.stale) == (old.session_id, False, None)


def test_a_session_that_could_not_be_resumed_is_gone(registry: Registry, place: Place) -> None:
    """Both ways to forget one: to begin anew at once, and to drop it."""
    lost = claim(registry)
    anew = registry.begin_anew(lost, "no conversation found")
    assert registry.find(lost.session_id) is None
    assert registry.drop(WORK, anew.session_id, "no conversation found")
    assert place.connect(NEVER).records() == []


def test_a_sweep_drops_every_stale_row_and_no_other(registry: Registry, place: Place, clock: ManualClock) -> None:
    old = [WorkItem.task(f"old-{number}") for number in range(5)]
    for work in old:
        used(registry, work)
    clock.advance(20 * HOUR_S)
    used(registry, OTHER)
    clock.advance(5 * HOUR_S)
    counted = stale_sessions()
    would = registry.sweep(dry_run=True)
    assert len(registry.records()) == 6
    swept = registry.sweep()
    assert [record.work_key for record in swept] == [work.key for work in old]
    assert swept == would
    assert [record.work_key for record in place.connect(NEVER).records()] == [OTHER.key]
    assert stale_sessions() == counted + 5
    assert registry.sweep() == []


def test_a_sweep_of_nothing_drops_nothing(registry: Registry) -> None:
    assert registry.sweep() == []


def test_a_session_that_is_held_is_never_stale(registry: Registry, clock: ManualClock, look: Look) -> None:
    made = claim(registry)
    made = registry.renew(made, 50 * HOUR_S)
    clock.advance(49 * HOUR_S)
    assert registry.sweep() == []
    assert look(registry, made.session_id) is not None
    clock.advance(2 * HOUR_S)
    assert look(registry, made.session_id) is None
    with pytest.raises(Fenced):
        registry.renew(made, TTL_S)


def test_a_turn_that_took_two_days_leaves_a_session_that_is_young(registry: Registry, clock: ManualClock) -> None:
    made = claim(registry)
    registry.confirm(made, "/desk")
    for _ in range(4):
        clock.advance(DAY_S / 2)
        made = registry.renew(made, 13 * HOUR_S)
    clock.advance(14 * HOUR_S)  # the worker crashed
    assert claim(registry, "w2").session_id == made.session_id


def test_a_claim_that_never_used_its_session_does_not_make_it_younger(registry: Registry, clock: ManualClock) -> None:
    old = used(registry)
    clock.advance(23 * HOUR_S)
    idle = claim(registry, "w2")
    clock.advance(2 * HOUR_S)
    registry.release(registry.renew(idle, TTL_S))
    assert registry.find(old.session_id) is None


def test_agents_have_limits_of_their_own(registry: Registry, place: Place, clock: ManualClock) -> None:
    hasty, reviewer = (WorkItem(agent, "/r", 1) for agent in ("hasty", "reviewer"))
    for work in (hasty, reviewer, WORK):
        used(registry, work)
    clock.advance(65)
    assert [record.agent for record in registry.sweep()] == ["hasty"]
    clock.advance(1000 * DAY_S)
    assert [record.agent for record in registry.sweep()] == ["fixer"]
    assert claim(registry, work=reviewer).is_new is False


def test_without_a_limit_nothing_is_ever_stale(place: Place, clock: ManualClock, look: Look) -> None:
    registry = place.connect(NEVER)
    made = used(registry)
    clock.advance(3650 * DAY_S)
    assert registry.sweep() == []
    assert look(registry, made.session_id) is not None


def test_with_a_limit_of_nothing_a_session_is_gone_as_soon_as_it_is_let_go(place: Place, clock: ManualClock) -> None:
    registry = place.connect(SessionAges(0))
    made = used(registry)
    clock.advance(5)
    assert claim(registry, "w2").session_id != made.session_id


@pytest.mark.parametrize("jump_s", [2 * DAY_S, -2 * DAY_S])
def test_a_clock_that_jumps_makes_no_session_older_or_younger(
    registry: Registry, clock: ManualClock, look: Look, jump_s: float
) -> None:
    made = used(registry)
    clock.jump(jump_s)
    assert registry.sweep() == []
    assert look(registry, made.session_id) is not None
    clock.advance(25 * HOUR_S)
    assert look(registry, made.session_id) is None
