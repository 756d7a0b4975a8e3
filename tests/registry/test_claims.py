"""Claims, on each kind of registry."""

from __future__ import annotations

import dataclasses
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from everturn.clock import ManualClock
from everturn.errors import Fenced, Held, Invalid
from everturn.model import Claim, WorkItem
from everturn.registry import Registry
from registry.places import AFTER_TTL_S, DAY_S, OTHER, TTL_S, WORK, Place, about, claim, holder, known, refusal

# --- The first claim ----------------------------------------------------------------------------------------------


def test_the_first_claim_makes_a_session_with_epoch_one(registry: Registry) -> None:
    made = claim(registry)
    assert (made.work, made.epoch, made.is_new, made.run_id, made.ttl_s) == (WORK, 1, True, "run-w1", TTL_S)
    assert (made.previous, made.took_over, made.stale, made.tainted) == (None, False, None, None)
    assert uuid.UUID(made.session_id).version == 4
    assert str(uuid.UUID(made.session_id)) == made.session_id


def test_a_claim_is_stored_before_it_is_returned(registry: Registry, place: Place, clock: ManualClock) -> None:
    made = registry.claim(WORK, holder(), "s3://bucket/a", ttl_s=TTL_S)
    record = known(place.connect())
    assert (record.work_key, record.session_id, record.epoch) == (WORK.key, made.session_id, 1)
    assert (record.worker, record.run_id, record.host, record.agent) == ("w1", "run-w1", "boot-1", "fixer")
    assert (record.store, record.cwd, record.tainted) == ("s3://bucket/a", None, None)
    assert record.created_at == record.last_used_at == about(clock.now())
    assert record.held_until == made.until == about(clock.now() + TTL_S)


@pytest.mark.parametrize("ttl_s", [0, -1, float("nan"), float("inf")])
def test_a_claim_has_to_last_for_some_time(registry: Registry, ttl_s: float) -> None:
    with pytest.raises(Invalid, match="cannot last"):
        registry.claim(WORK, holder(), ttl_s=ttl_s)
    made = claim(registry)
    with pytest.raises(Invalid, match="cannot last"):
        registry.renew(made, ttl_s)


def test_two_work_items_do_not_meet(registry: Registry) -> None:
    works = (WORK, OTHER, WorkItem("fixer", WORK.repo, 13))
    claims = [claim(registry, work=work) for work in works]
    assert [made.epoch for made in claims] == [1, 1, 1]
    assert len({made.session_id for made in claims}) == 3
    before = known(registry, OTHER)
    registry.confirm(claims[0], "/srv/a")
    registry.drop(WORK, claims[0].session_id, "done")
    assert known(registry, OTHER) == before


# --- While a claim is alive -----------------------------------------------------------------------------------------


def test_the_claim_of_another_is_refused_and_the_refusal_names_holder_and_expiry(
    registry: Registry, place: Place
) -> None:
    made = claim(registry)
    held = refusal(place.connect())
    assert (held.holder, held.run_id, held.epoch, held.until) == ("w1", "run-w1", 1, made.until)
    assert "held by w1 (run run-w1) until 2023-11-14 22:13:" in held.message
    assert held.message.endswith(" UTC")
    assert known(registry).epoch == 1


def test_a_refused_claim_changes_nothing(registry: Registry, clock: ManualClock) -> None:
    made = claim(registry)
    before = known(registry)
    clock.advance(TTL_S / 2)
    refusal(registry)
    assert known(registry) == before
    registry.confirm(made, "/srv/a")


def test_a_run_whose_claim_was_answered_by_silence_claims_again_and_gets_it(registry: Registry) -> None:
    first = claim(registry)
    again = claim(registry)
    assert (again.session_id, again.epoch, again.took_over) == (first.session_id, 2, False)
    with pytest.raises(Fenced):
        registry.renew(first, TTL_S)


def test_runs_without_a_name_do_not_take_each_other_for_themselves(registry: Registry) -> None:
    nameless = dataclasses.replace(holder(), run_id="")
    registry.claim(WORK, nameless, ttl_s=TTL_S)
    with pytest.raises(Held):
        registry.claim(WORK, nameless, ttl_s=TTL_S)


# --- Renewal --------------------------------------------------------------------------------------------------------


def test_a_renewed_claim_lasts_on(registry: Registry, clock: ManualClock) -> None:
    made = claim(registry)
    for _ in range(5):
        clock.advance(TTL_S - 1)
        made = registry.renew(made, TTL_S)
        assert made.until == about(clock.now() + TTL_S)
        assert known(registry).held_until == made.until
    refusal(registry)
    assert (made.epoch, known(registry).epoch) == (1, 1)


def test_a_renewal_may_change_how_long_a_claim_lasts(registry: Registry, clock: ManualClock) -> None:
    made = registry.renew(claim(registry), 10 * TTL_S)
    assert made.ttl_s == 10 * TTL_S
    clock.advance(9 * TTL_S)
    refusal(registry)


def test_a_claim_whose_time_is_up_is_renewed_if_nobody_has_taken_it(registry: Registry, clock: ManualClock) -> None:
    made = claim(registry)
    clock.advance(10 * TTL_S)
    made = registry.renew(made, TTL_S)
    refusal(registry)
    assert made.epoch == 1


def test_the_renewal_of_a_claim_that_was_taken_over_is_fenced(registry: Registry, clock: ManualClock) -> None:
    lost = claim(registry)
    clock.advance(AFTER_TTL_S)
    claim(registry, "w2")
    before = known(registry)
    with pytest.raises(Fenced, match="claimed again, by w2 with epoch 2, while epoch 1"):
        registry.renew(lost, TTL_S)
    assert known(registry) == before


def test_the_renewal_of_a_claim_that_was_dropped_or_released_is_fenced(registry: Registry) -> None:
    dropped = claim(registry)
    registry.drop(WORK, dropped.session_id, "gone")
    with pytest.raises(Fenced, match="was dropped while epoch 1"):
        registry.renew(dropped, TTL_S)
    released = claim(registry)
    registry.release(released)
    with pytest.raises(Fenced, match="was released while epoch 1"):
        registry.renew(released, TTL_S)


# --- Takeover -------------------------------------------------------------------------------------------------------


def test_a_claim_whose_time_is_up_is_taken_over_with_the_next_epoch(
    registry: Registry, place: Place, clock: ManualClock
) -> None:
    first = claim(registry, store="s3://bucket/a")
    registry.confirm(first, "/srv/a")
    before = known(registry)
    clock.advance(AFTER_TTL_S)
    second = claim(place.connect(), "w2", store="s3://bucket/b")
    assert (second.session_id, second.epoch, second.is_new) == (first.session_id, 2, False)
    assert (second.store, second.took_over, second.previous) == ("s3://bucket/a", True, before)
    assert second.token != first.token
    assert (known(registry).worker, known(registry).run_id) == ("w2", "run-w2")


def test_a_claim_is_not_taken_over_before_its_time_is_up(registry: Registry, clock: ManualClock) -> None:
    claim(registry)
    clock.advance(TTL_S - 0.01)
    refusal(registry)


def test_a_claim_changes_neither_the_birth_nor_the_last_use_nor_the_directory(
    registry: Registry, clock: ManualClock
) -> None:
    first = claim(registry)
    registry.confirm(first, "/srv/a")
    registry.release(first)
    before = known(registry)
    clock.advance(60)
    claim(registry, "w2")
    after = known(registry)
    assert (after.created_at, after.last_used_at, after.cwd) == (before.created_at, before.last_used_at, "/srv/a")


def test_a_live_claim_is_taken_over_by_whoever_knows_that_its_holder_is_dead(registry: Registry) -> None:
    lost = claim(registry)
    taken = claim(registry, "w2", instead_of=refusal(registry))
    assert (taken.epoch, taken.took_over) == (2, True)
    with pytest.raises(Fenced):
        registry.renew(lost, TTL_S)


def test_knowing_of_a_dead_holder_does_not_help_against_a_later_one(registry: Registry) -> None:
    claim(registry)
    dead = refusal(registry)
    alive = claim(registry, "w2", instead_of=dead)
    with pytest.raises(Held) as caught:
        claim(registry, "w3", instead_of=dead)
    assert (caught.value.holder, caught.value.epoch) == ("w2", 2)
    registry.renew(alive, TTL_S)


def test_knowing_of_a_dead_holder_does_not_help_against_another_of_the_same_epoch(registry: Registry) -> None:
    first = claim(registry)
    dead = refusal(registry)
    registry.drop(WORK, first.session_id, "gone")
    assert claim(registry, "w2").epoch == dead.epoch == 1
    with pytest.raises(Held, match="held by w2"):
        claim(registry, "w3", instead_of=dead)


def test_knowing_of_a_dead_holder_does_no_harm_once_its_claim_is_over(registry: Registry, clock: ManualClock) -> None:
    claim(registry)
    dead = refusal(registry)
    clock.advance(AFTER_TTL_S)
    assert claim(registry, "w2", instead_of=dead).epoch == 2


# --- Release --------------------------------------------------------------------------------------------------------


def test_a_released_work_item_is_free_at_once(registry: Registry) -> None:
    first = claim(registry)
    registry.release(first)
    assert known(registry).held_until is None
    second = claim(registry, "w2")
    assert (second.session_id, second.epoch, second.took_over) == (first.session_id, 2, False)
    assert second.previous is not None
    assert (second.previous.worker, second.previous.held_until) == ("w1", None)


def test_a_second_release_does_nothing(registry: Registry) -> None:
    made = claim(registry)
    registry.release(made)
    before = known(registry)
    registry.release(made)
    assert known(registry) == before


def test_a_release_with_an_old_epoch_frees_nothing(registry: Registry, clock: ManualClock) -> None:
    old = claim(registry)
    clock.advance(AFTER_TTL_S)
    new = claim(registry, "w2")
    with pytest.raises(Fenced, match="while epoch 1"):
        registry.release(old)
    refusal(registry, "w3")
    registry.renew(new, TTL_S)


def test_a_late_second_release_does_not_free_the_next_claim(registry: Registry) -> None:
    first = claim(registry)
    registry.release(first)
    claim(registry, "w2")
    with pytest.raises(Fenced):
        registry.release(first)
    refusal(registry, "w3")


def test_a_release_after_a_drop_is_fenced(registry: Registry) -> None:
    made = claim(registry)
    registry.drop(WORK, made.session_id, "gone")
    with pytest.raises(Fenced):
        registry.release(made)
    assert registry.get(WORK) is None


def test_a_claim_whose_time_is_up_can_be_released(registry: Registry, clock: ManualClock) -> None:
    made = claim(registry)
    clock.advance(AFTER_TTL_S)
    registry.release(made)
    assert claim(registry, "w2").took_over is False


def test_an_invented_claim_has_no_rights(registry: Registry) -> None:
    made = claim(registry)
    invented = Claim(WORK, made.session_id, made.epoch, is_new=False)
    for act in (registry.release, registry.begin_anew, lambda made: registry.renew(made, TTL_S)):
        with pytest.raises(Fenced):
            act(invented)
    refusal(registry)


# --- Use ------------------------------------------------------------------------------------------------------------


def test_confirm_notes_the_directory_the_store_and_the_last_use(registry: Registry, clock: ManualClock) -> None:
    made = claim(registry, store="s3://bucket/a")
    born = clock.now()
    clock.advance(5)
    registry.confirm(made, "/srv/a")
    clock.advance(5)
    registry.confirm(dataclasses.replace(made, store="s3://bucket/b"), "/srv/ü b")
    record = known(registry)
    assert (record.cwd, record.store) == ("/srv/ü b", "s3://bucket/b")
    assert (record.created_at, record.last_used_at) == (about(born), about(born + 10))


def test_a_session_is_in_use_until_its_confirmed_claim_ends(registry: Registry, clock: ManualClock) -> None:
    made = claim(registry)
    clock.advance(5)
    registry.renew(made, TTL_S)
    assert known(registry).last_used_at == about(clock.now() - 5)
    registry.confirm(made, "/srv/a")
    clock.advance(5)
    registry.renew(made, TTL_S)
    assert known(registry).last_used_at == about(clock.now())
    clock.advance(5)
    registry.release(made)
    assert known(registry).last_used_at == about(clock.now())


def test_confirm_with_an_old_epoch_is_fenced_and_changes_nothing(registry: Registry, clock: ManualClock) -> None:
    old = claim(registry)
    clock.advance(AFTER_TTL_S)
    registry.confirm(claim(registry, "w2"), "/srv/new")
    before = known(registry)
    clock.advance(5)
    with pytest.raises(Fenced, match="epoch 1"):
        registry.confirm(old, "/srv/old")
    assert known(registry) == before


def test_confirm_after_a_drop_or_a_release_is_fenced(registry: Registry) -> None:
    dropped = claim(registry)
    registry.drop(WORK, dropped.session_id, "gone")
    with pytest.raises(Fenced):
        registry.confirm(dropped, "/srv/a")
    released = claim(registry)
    with pytest.raises(Fenced):
        registry.confirm(dropped, "/srv/a")
    registry.release(released)
    with pytest.raises(Fenced):
        registry.confirm(released, "/srv/a")


def test_what_is_not_unicode_is_refused_and_changes_nothing(registry: Registry) -> None:
    made = claim(registry)
    before = known(registry)
    with pytest.raises(Invalid):
        registry.confirm(made, "/srv/\udcff")
    assert known(registry) == before


# --- Clocks that jump -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
def test_a_clock_that_jumps_frees_no_live_claim_and_holds_none_that_is_over(
    registry: Registry, clock: ManualClock, jump_s: float
) -> None:
    made = claim(registry)
    clock.jump(jump_s)
    refusal(registry)
    made = registry.renew(made, TTL_S)
    clock.advance(TTL_S - 1)
    refusal(registry)
    clock.advance(AFTER_TTL_S)
    assert claim(registry, "w2").session_id == made.session_id


# --- At once --------------------------------------------------------------------------------------------------------


def test_of_threads_that_claim_at_once_one_gets_it(registry: Registry, place: Place) -> None:
    def attempt(number: int) -> Claim | Held:
        try:
            return claim(place.connect(), f"w{number}")
        except Held as held:
            return held

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(attempt, range(16)))
    (winner,) = [made for made in found if isinstance(made, Claim)]
    refusals = [held for held in found if isinstance(held, Held)]
    assert {(held.run_id, held.epoch) for held in refusals} == {(winner.run_id, 1)}
    assert known(registry).run_id == winner.run_id
