"""The rules of all registries, by themselves: what the suites cannot reach, and the exact limits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from everturn.errors import Fenced, Held, Invalid
from everturn.model import Claim, SessionAges, SessionRecord
from everturn.registry import rules
from everturn.registry.rules import Row, Wish
from registry.places import START_S, TTL_S, WORK, holder

LIMIT_S = 100.0
RECORD = SessionRecord(WORK.key, "s-1", 4, "w1", "s3://a", "/desk", 1.0, 2.0, "fixer", "run-w1", "boot", 3.0)
HELD_ROW = Row(RECORD, "token", in_use=True, unused_s=5.0, left_s=10.0)
FREE_ROW = replace(HELD_ROW, record=replace(RECORD, held_until=None), left_s=None)
CLAIM = Claim(WORK, "s-1", 4, is_new=False, store="s3://a", run_id="run-w1", token="token")


def wish(name: str = "w2") -> Wish:
    return Wish(WORK, holder(name), "s3://b", TTL_S, None, "s-2", "fresh")


@pytest.mark.parametrize(("left_s", "live"), [(None, False), (-1.0, False), (0.0, False), (0.001, True)])
def test_a_claim_lives_until_its_time_is_up(left_s: float | None, live: bool) -> None:
    assert replace(HELD_ROW, left_s=left_s).is_live is live


@pytest.mark.parametrize(
    ("left_s", "unused_s", "limit_s", "stale"),
    [
        (None, LIMIT_S, LIMIT_S, False),
        (None, LIMIT_S + 0.001, LIMIT_S, True),
        (0.0, LIMIT_S + 1, LIMIT_S, True),
        (0.001, LIMIT_S + 1, LIMIT_S, False),
        (None, 1e12, None, False),
        (None, 0.0, 0.0, False),
        (None, 0.001, 0.0, True),
    ],
)
def test_a_session_is_stale_when_it_is_older_than_its_limit_and_nobody_holds_it(
    left_s: float | None, unused_s: float, limit_s: float | None, stale: bool
) -> None:
    assert rules.is_stale(replace(HELD_ROW, left_s=left_s, unused_s=unused_s), limit_s) is stale


def test_a_stale_session_is_replaced_with_the_next_epoch() -> None:
    row, claim = rules.take(replace(FREE_ROW, unused_s=LIMIT_S + 1), wish(), START_S, LIMIT_S)
    assert (row.record.session_id, row.record.epoch, row.record.cwd, row.unused_s) == ("s-2", 5, None, 0)
    assert (claim.is_new, claim.stale, claim.previous) == (True, FREE_ROW.record, None)


@pytest.mark.parametrize("left_s", [None, -1.0, 0.0])
def test_a_gentle_drop_takes_a_session_as_soon_as_nobody_holds_it(left_s: float | None) -> None:
    assert rules.drop(replace(HELD_ROW, left_s=left_s), "s-1", unless_held=True) == (None, True)


def test_a_gentle_drop_of_a_held_session_names_its_holder() -> None:
    with pytest.raises(Held, match="is held by w1"):
        rules.drop(replace(HELD_ROW, left_s=0.001), "s-1", unless_held=True)
    assert rules.drop(HELD_ROW, "s-1", unless_held=False) == (None, True)
    assert rules.drop(HELD_ROW, "s-0", unless_held=True) == (HELD_ROW, False)
    assert rules.drop(None, "s-1", unless_held=True) == (None, False)


def test_a_claim_begins_unused() -> None:
    row, claim = rules.take(FREE_ROW, wish(), START_S, LIMIT_S)
    assert (row.in_use, row.unused_s, row.token, claim.token) == (False, FREE_ROW.unused_s, "fresh", "fresh")
    assert (row.left_s, row.record.held_until, claim.until) == (TTL_S, START_S + TTL_S, START_S + TTL_S)


def test_the_agent_of_a_session_is_remembered_when_a_claim_names_none() -> None:
    row, _ = rules.take(FREE_ROW, replace(wish(), work=replace(WORK, agent="other")), START_S, LIMIT_S)
    assert row.record.agent == "other"


@pytest.mark.parametrize("until", [1e300, -1e300, START_S])
def test_a_refusal_can_be_told_whatever_the_clock_says(until: float) -> None:
    with pytest.raises(Held) as caught:
        rules.take(replace(HELD_ROW, record=replace(RECORD, held_until=until)), wish(), START_S, LIMIT_S)
    assert caught.value.until == until
    assert "UTC" in caught.value.message


@pytest.mark.parametrize(
    "claim",
    [
        replace(CLAIM, session_id="another"),
        replace(CLAIM, epoch=3, token="older"),
        replace(CLAIM, epoch=5),
        replace(CLAIM, token="another"),
    ],
    ids=["session", "older", "newer", "token"],
)
@pytest.mark.parametrize("row", [HELD_ROW, FREE_ROW, None], ids=["held", "free", "none"])
def test_who_has_not_exactly_the_latest_claim_has_none(row: Row | None, claim: Claim) -> None:
    for act in (
        lambda: rules.renew(row, claim, TTL_S, START_S),
        lambda: rules.release(row, claim, START_S),
        lambda: rules.confirm(row, claim, "/srv", START_S),
        lambda: rules.taint(row, claim, None),
        lambda: rules.begin_anew(row, claim, "s-2", START_S),
    ):
        with pytest.raises(Fenced):
            act()


def test_ages_of_agents_go_before_the_default() -> None:
    ages = SessionAges(60_000, {"fixer": 500, "reviewer": None})
    assert [ages.limit_s(agent) for agent in ("fixer", "reviewer", "other", None)] == [0.5, None, 60, 60]
    assert SessionAges().limit_s("fixer") is None


def test_a_claim_has_to_last_for_some_time() -> None:
    rules.check_ttl(0.001)
    with pytest.raises(Invalid):
        rules.check_ttl(0.0)
