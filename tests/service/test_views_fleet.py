"""The fleet, as the registry and the mirror of all journals tell it."""

from __future__ import annotations

from pathlib import Path

import pytest

from everturn.errors import Invalid, Unavailable
from everturn.journal.events import ToolUse
from everturn.model import WorkItem
from service.ground import REPO, Fleet, begun, issue, turn


def test_a_fleet_that_has_never_run_anything_is_empty_and_no_problem(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, store=(tmp_path / "none").as_uri())
    try:
        found = fleet.desk.fleet()
        assert (found.live, found.stale, found.sessions, found.problem) == ((), (), 0, None)
        assert fleet.desk.sessions().total == 0
        assert fleet.desk.watchdog().light in {"green", "amber"}
    finally:
        fleet.close()


def test_a_live_claim_is_shown_with_what_its_run_does(fleet: Fleet) -> None:
    claim = fleet.claim(issue(7), "1" * 20, worker="west-1")
    call = ToolUse("c9", "Bash", {"command": "make"}, "m2", "claude-large")
    fleet.keep(claim, [*begun(claim, worker="west-1"), *turn("the tap"), *turn("the roof", ends=False), call])
    (found,) = fleet.desk.fleet().live
    assert (found.work, found.agent, found.worker, found.state) == (f"fixer@{REPO[:-4]}#7", "fixer", "west-1", "live")
    assert (found.turn, found.tool, found.model) == (2, "Bash", "claude-large")
    assert (found.cost_usd, found.tokens) == (0.5, 110)
    assert found.started_at is not None


def test_what_a_run_has_cost_before_its_first_result_is_partial(fleet: Fleet) -> None:
    claim = fleet.claim(issue(7), "1" * 20)
    usage = {"input_tokens": 7}
    events = [
        *begun(claim),
        *turn("the tap", ends=False),
        ToolUse("c9", "Bash", {}, "m2", "claude-large", usage=usage),
    ]
    fleet.keep(claim, events)
    (found,) = fleet.desk.fleet().live
    assert (found.cost_usd, found.cost_is_partial, found.tokens) == (None, True, 7)


def test_a_claim_of_which_nothing_is_known_yet_is_shown_all_the_same(fleet: Fleet) -> None:
    fleet.claim(issue(7), "1" * 20)
    (found,) = fleet.desk.fleet().live
    assert (found.started_at, found.turn, found.cost_usd) == (None, None, None)


def test_a_claim_whose_time_is_up_is_stale_until_somebody_takes_over(fleet: Fleet) -> None:
    fleet.claim(issue(7), "1" * 20, ttl_s=0.001)
    found = fleet.desk.fleet()
    assert (len(found.live), [each.work for each in found.stale]) == (0, [issue(7).key])
    fleet.claim(issue(7), "2" * 20)
    found = fleet.desk.fleet()
    assert (len(found.live), len(found.stale)) == (1, 0)


def test_a_session_that_was_let_go_can_be_resumed_and_one_the_registry_lost_is_over(fleet: Fleet) -> None:
    fleet.ran(issue(1), "1" * 20)
    lost = fleet.ran(issue(2), "2" * 20)
    fleet.parts.registry.drop(issue(2), lost.session_id, "for a test")
    found = {each.work: each for each in fleet.desk.sessions().sessions}
    assert (found[issue(1).key].state, found[issue(2).key].state) == ("idle", "over")
    over = found[issue(2).key]
    assert (over.runs, over.turns, over.cost_usd, over.repo, over.worker) == (1, 1, 0.5, REPO, "w1")


def test_the_sessions_that_were_used_last_come_first_and_a_page_says_how_many_there_are(fleet: Fleet) -> None:
    for number in range(5):
        fleet.ran(issue(number), f"{number}" * 20)
    listed = fleet.desk.sessions(offset=1, limit=2)
    assert [each.work for each in listed.sessions] == [issue(3).key, issue(2).key]
    assert (listed.total, listed.offset) == (5, 1)


@pytest.mark.parametrize(
    ("query", "agent", "state", "count"),
    [
        ("FIXER web", None, None, 2),
        ("west-9", None, None, 1),
        ("no such thing", None, None, 0),
        (None, "writer", None, 1),
        (None, None, "idle", 3),
        ("task:roof", None, None, 1),
        (None, None, "live", 0),
    ],
)
def test_sessions_are_found_by_words_by_agent_and_by_state(
    fleet: Fleet, query: str | None, agent: str | None, state: str | None, count: int
) -> None:
    fleet.ran(issue(1), "1" * 20)
    fleet.ran(issue(2), "2" * 20, worker="west-9")
    fleet.ran(WorkItem.task("roof", agent="writer"), "3" * 20)
    assert fleet.desk.sessions(query, agent, state).total == count


def test_of_sessions_that_are_as_before_the_same_values_are_told(fleet: Fleet) -> None:
    fleet.ran(issue(1), "1" * 20)
    claim = fleet.claim(issue(2), "2" * 20)
    fleet.keep(claim, [*begun(claim), *turn("the tap")])
    before = {each.work: each for each in fleet.desk.sessions().sessions}
    fleet.parts.registry.release(claim)
    after = {each.work: each for each in fleet.desk.sessions().sessions}
    assert after[issue(1).key] is before[issue(1).key]
    assert (before[issue(2).key].state, after[issue(2).key].state) == ("live", "idle")


def test_a_state_that_there_is_not_is_refused(fleet: Fleet) -> None:
    with pytest.raises(Invalid, match="no state"):
        fleet.desk.sessions(state="sleeping")


def test_what_runs_have_cost_that_began_today_is_summed_up(fleet: Fleet) -> None:
    fleet.ran(issue(1), "1" * 20)
    fleet.ran(issue(2), "2" * 20)
    assert fleet.desk.fleet().cost_today_usd == 1.0


def test_a_registry_that_does_not_answer_leaves_what_was_known_and_its_age(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.claim(issue(7), "1" * 20)
    before = fleet.desk.fleet()

    def fail() -> None:
        raise Unavailable("the table is gone", hint="wait")

    monkeypatch.setattr(fleet.parts.registry, "records", fail)
    found = fleet.desk.fleet()
    assert (found.live, found.at) == (before.live, before.at)
    assert "the registry cannot be read: the table is gone" in (found.problem or "")
    assert {sign.name: sign.light for sign in fleet.desk.watchdog().signs}["registry"] == "amber"


def test_a_store_that_does_not_answer_is_said_and_all_else_is_shown(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.ran(issue(1), "1" * 20)
    assert fleet.desk.fleet().problem is None

    def fail() -> None:
        raise Unavailable("the bucket is gone", hint="wait")

    monkeypatch.setattr(fleet.desk._upkeep, "journals", fail)
    found = fleet.desk.fleet()
    assert "the bucket is gone" in (found.problem or "")
    assert fleet.desk.sessions().sessions[0].cost_usd == 0.5


def test_an_error_that_nobody_thought_of_ends_nothing(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(fleet.parts.registry, "records", fail)
    assert "ZeroDivisionError" in (fleet.desk.fleet().problem or "")
