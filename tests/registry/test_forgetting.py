"""Sessions are looked at and forgotten, begun anew and tainted; every backend."""

from __future__ import annotations

import dataclasses
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from everturn.clock import ManualClock
from everturn.errors import Fenced, Held
from everturn.model import WorkItem
from everturn.registry import Registry
from registry.places import AFTER_TTL_S, DAY_S, OTHER, TTL_S, WORK, Place, about, claim, known, refusal

# --- Beginning anew -------------------------------------------------------------------------------------------------


def test_beginning_anew_gives_a_fresh_session_and_the_next_epoch(
    registry: Registry, place: Place, clock: ManualClock
) -> None:
    first = claim(registry, store="s3://bucket/a")
    clock.advance(5)
    anew = registry.begin_anew(dataclasses.replace(first, store="s3://bucket/b"))
    assert (anew.epoch, anew.is_new, anew.store) == (2, True, "s3://bucket/b")
    assert anew.session_id != first.session_id
    record = known(place.connect())
    assert (record.session_id, record.epoch, record.store) == (anew.session_id, 2, "s3://bucket/b")
    assert (record.last_used_at, record.held_until) == (about(clock.now()), first.until)


def test_after_beginning_anew_the_old_id_is_known_to_nobody(registry: Registry) -> None:
    first = claim(registry)
    registry.confirm(first, "/srv/a")
    anew = registry.begin_anew(first, "no conversation found")
    assert registry.find(first.session_id) is None
    fresh = registry.find(anew.session_id)
    assert fresh is not None
    assert fresh.cwd is None  # no agent has had it yet
    registry.release(anew)
    assert claim(registry, "w2").session_id == anew.session_id


def test_a_claim_that_began_anew_is_another_claim(registry: Registry) -> None:
    first = claim(registry)
    anew = registry.begin_anew(first)
    for act in (registry.release, lambda made: registry.confirm(made, "/srv"), lambda made: registry.renew(made, 1)):
        with pytest.raises(Fenced):
            act(first)
    registry.renew(anew, TTL_S)
    refusal(registry)


def test_to_ask_again_for_beginning_anew_is_to_get_the_same(registry: Registry, place: Place) -> None:
    first = claim(registry)
    anew = registry.begin_anew(first)
    assert registry.begin_anew(first) == place.connect().begin_anew(first) == anew
    again = registry.begin_anew(anew)
    assert again.epoch == 3
    with pytest.raises(Fenced):
        registry.begin_anew(first)


def test_only_the_holder_of_the_latest_claim_can_begin_anew(registry: Registry, clock: ManualClock) -> None:
    old = claim(registry)
    clock.advance(AFTER_TTL_S)
    new = claim(registry, "w2")
    with pytest.raises(Fenced):
        registry.begin_anew(old)
    assert (known(registry).session_id, known(registry).epoch) == (new.session_id, 2)
    registry.release(new)
    with pytest.raises(Fenced):
        registry.begin_anew(new)


# --- Taint ----------------------------------------------------------------------------------------------------------


def test_what_could_not_be_healed_is_told_to_the_next_claim(registry: Registry) -> None:
    made = claim(registry)
    registry.taint(made, "3 entries are missing: ü")
    assert known(registry).tainted == "3 entries are missing: ü"
    registry.release(made)
    second = claim(registry, "w2")
    assert second.tainted == "3 entries are missing: ü"
    registry.taint(second, None)
    assert known(registry).tainted is None


def test_a_fresh_session_is_not_tainted(registry: Registry) -> None:
    made = claim(registry)
    registry.taint(made, "3 entries are missing")
    assert registry.begin_anew(made).tainted is None
    assert known(registry).tainted is None


def test_only_the_holder_can_taint(registry: Registry, clock: ManualClock) -> None:
    old = claim(registry)
    clock.advance(AFTER_TTL_S)
    claim(registry, "w2")
    with pytest.raises(Fenced):
        registry.taint(old, "nothing is missing, in truth")
    assert known(registry).tainted is None


# --- Looking, and forgetting ----------------------------------------------------------------------------------------


def test_what_is_unknown_is_none(registry: Registry) -> None:
    assert registry.get(WORK) is None
    assert registry.find(str(uuid.UUID(int=1, version=4))) is None
    assert registry.records() == []
    claim(registry, work=OTHER)
    assert registry.get(WORK) is None


def test_a_session_is_found_by_its_id(registry: Registry) -> None:
    made = claim(registry)
    claim(registry, work=OTHER)
    assert registry.find(made.session_id) == known(registry)


def test_all_records_come_in_the_order_of_their_keys(registry: Registry) -> None:
    works = [WorkItem.task(f"t-{number}") for number in (3, 1, 2)]
    for work in works:
        claim(registry, work=work)
    assert [record.work_key for record in registry.records()] == ["task:t-1", "task:t-2", "task:t-3"]
    assert registry.records()[0] == known(registry, works[1])


def test_after_a_drop_the_next_claim_makes_another_session(registry: Registry) -> None:
    first = claim(registry)
    assert registry.drop(WORK, first.session_id, "no conversation found") is True
    assert registry.get(WORK) is None
    second = claim(registry)
    assert second.is_new
    assert second.session_id != first.session_id


def test_a_drop_names_the_session_it_means(registry: Registry) -> None:
    made = claim(registry)
    assert registry.drop(WORK, str(uuid.UUID(int=1, version=4)), "an older one") is False
    assert registry.drop(OTHER, made.session_id, "another work item") is False
    assert known(registry).session_id == made.session_id
    assert registry.drop(WORK.key, made.session_id, "by its key") is True
    assert registry.drop(WORK.key, made.session_id, "again") is False


def test_a_session_that_somebody_holds_is_left_alone_by_whoever_drops_gently(
    registry: Registry, place: Place, clock: ManualClock
) -> None:
    made = claim(registry)
    before = known(registry)
    with pytest.raises(Held) as caught:
        place.connect().drop(WORK, made.session_id, "its issue was closed", unless_held=True)
    assert (caught.value.holder, caught.value.run_id, caught.value.epoch) == ("w1", "run-w1", 1)
    assert known(registry) == before
    registry.renew(made, TTL_S)
    registry.release(made)
    assert registry.drop(WORK, made.session_id, "its issue was closed", unless_held=True) is True
    assert registry.drop(WORK, made.session_id, "its issue was closed", unless_held=True) is False


def test_a_session_whose_claim_is_over_is_dropped_gently(registry: Registry, clock: ManualClock) -> None:
    made = claim(registry)
    clock.advance(AFTER_TTL_S)
    assert registry.drop(WORK, made.session_id, "its worker has died", unless_held=True) is True
    with pytest.raises(Fenced, match="was dropped"):
        registry.renew(made, TTL_S)


def test_another_session_than_the_one_that_is_dropped_gently_may_be_held(registry: Registry) -> None:
    made = claim(registry)
    assert registry.drop(WORK, str(uuid.UUID(int=1, version=4)), "an older one", unless_held=True) is False
    registry.renew(made, TTL_S)


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
def test_no_jump_of_a_clock_lets_a_held_session_be_dropped_gently_or_keeps_one(
    registry: Registry, clock: ManualClock, jump_s: float
) -> None:
    made = claim(registry)
    clock.jump(jump_s)
    with pytest.raises(Held):
        registry.drop(WORK, made.session_id, "closed", unless_held=True)
    clock.advance(AFTER_TTL_S)
    assert registry.drop(WORK, made.session_id, "closed", unless_held=True) is True


@pytest.mark.slow
def test_of_a_claim_and_a_gentle_drop_at_once_one_comes_first_and_no_claim_is_lost(
    registry: Registry, place: Place
) -> None:
    for number in range(8):
        made = claim(registry)
        registry.release(made)
        others = place.connect(), place.connect()

        def dropped(registry: Registry = others[0], session_id: str = made.session_id) -> bool:
            try:
                return registry.drop(WORK, session_id, "closed", unless_held=True)
            except Held:
                return False

        with ThreadPoolExecutor(2) as pool:
            dropping, claiming = pool.submit(dropped), pool.submit(claim, others[1], f"w{number}")
        assert claiming.result().is_new == dropping.result()
        others[1].release(others[1].renew(claiming.result(), TTL_S))


def test_a_work_item_is_known_by_its_key_as_well(registry: Registry, clock: ManualClock) -> None:
    claim(registry)
    assert registry.get(WORK.key) == registry.get(WORK) is not None
    clock.advance(2 * DAY_S)
    assert registry.get(WORK.key) is None
