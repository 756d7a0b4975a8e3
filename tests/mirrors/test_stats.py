"""What runs came to, group by group."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from everturn.mirrors.hits import Filters
from everturn.mirrors.stats import By, Stat, stats, totals
from mirrored import (
    DAY_MS,
    NOON_MS,
    MirrorOfRuns,
    answered,
    called,
    ended,
    init,
    prompted,
    resulted,
    started,
)

WEB = "https://forge.example/acme/web"


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[MirrorOfRuns]:
    """A run that ended well, one that was killed, the one after it, and one that failed."""
    mirror = MirrorOfRuns(tmp_path / "mirror.db")
    one = started("run-1", agent="fixer", repo=WEB)
    mirror.add("run-1", [one, init(), prompted("go"), *called("Bash", {}, "ok"), resulted(0.5), ended()])
    usage = {"input_tokens": 7, "output_tokens": 3}
    two = started("run-2", agent="writer", repo=f"{WEB}.git", work="task:two")
    mirror.add(
        "run-2", [two, init(), prompted("go"), answered("so", usage=usage)], at_ms=NOON_MS + DAY_MS, work="task:two"
    )
    three = started("run-3", agent="writer", repo=f"{WEB}.git", epoch=2, work="task:two")
    mirror.add(
        "run-3",
        [three, init(), prompted("on"), *called("Bash", {}, "no", is_error=True), resulted(0.25), ended()],
        at_ms=NOON_MS + DAY_MS,
        work="task:two",
    )
    four = [started("run-4", work="task:four"), ended("failed", "no agent")]
    mirror.add("run-4", four, at_ms=NOON_MS + 3 * DAY_MS, work="task:four")
    yield mirror
    mirror.close()


def by(mirror: MirrorOfRuns, what: By, filters: Filters | None = None) -> dict[str | None, Stat]:
    return {each.key: each for each in stats(mirror.database, what, filters or Filters())}


def test_totals_are_those_of_all_runs(mirror: MirrorOfRuns) -> None:
    found = totals(mirror.database, Filters())
    assert (found.runs, found.failed, found.died, found.turns) == (4, 1, 1, 3)
    assert (found.input_tokens, found.output_tokens, found.tokens) == (207, 23, 230)
    assert (found.tool_calls, found.tool_failures) == (2, 1)
    assert found.cost_usd == 0.75
    assert found.unpriced_runs == 1


def test_by_agent_the_one_that_cost_most_comes_first(mirror: MirrorOfRuns) -> None:
    found = by(mirror, By.AGENT)
    assert list(found) == ["fixer", "writer", None]
    assert (found["fixer"].cost_usd, found["fixer"].unpriced_runs) == (0.5, 0)
    assert (found["writer"].runs, found["writer"].died, found["writer"].unpriced_runs) == (2, 1, 1)
    assert (found[None].failed, found[None].cost_usd) == (1, None)


def test_a_repository_is_one_however_it_is_spelled(mirror: MirrorOfRuns) -> None:
    found = by(mirror, By.REPO)
    assert {key: stat.runs for key, stat in found.items()} == {WEB: 3, None: 1}


def test_days_come_in_their_order(mirror: MirrorOfRuns) -> None:
    found = by(mirror, By.DAY)
    assert {key: stat.runs for key, stat in found.items()} == {"2025-11-20": 1, "2025-11-21": 2, "2025-11-23": 1}
    assert list(found) == sorted(found, key=str)


def test_by_model_tokens_and_cost_are_those_of_the_model(mirror: MirrorOfRuns) -> None:
    found = by(mirror, By.MODEL)
    assert found["claude-large"].runs == 3
    assert (found["claude-large"].input_tokens, found["claude-large"].cost_usd) == (207, 0.75)
    assert found["claude-large"].turns is None


def test_by_tool_a_run_counts_once_and_each_call_does(mirror: MirrorOfRuns) -> None:
    (found,) = by(mirror, By.TOOL).values()
    assert (found.key, found.runs, found.tool_calls, found.tool_failures, found.tool_ms) == ("Bash", 2, 2, 1, 2000)
    assert found.record()["tool_calls"] == 2
    assert "cost_usd" not in found.record()


@pytest.mark.parametrize(
    ("filters", "runs"),
    [
        (Filters(agent="writer"), 2),
        (Filters(repo="acme/web"), 3),
        (Filters(since_ms=NOON_MS + DAY_MS), 3),
        (Filters(until_ms=NOON_MS + DAY_MS), 1),
        (Filters(agent="writer", since_ms=NOON_MS + 2 * DAY_MS), 0),
    ],
)
def test_filters_leave_runs_out_everywhere(mirror: MirrorOfRuns, filters: Filters, runs: int) -> None:
    assert totals(mirror.database, filters).runs == runs
    for what in (By.AGENT, By.REPO, By.DAY, By.WORK):
        assert sum(each.runs for each in stats(mirror.database, what, filters)) == runs


def test_an_empty_mirror_has_no_groups_and_totals_of_zero(tmp_path: Path) -> None:
    empty = MirrorOfRuns(tmp_path / "empty.db")
    assert all(stats(empty.database, what, Filters()) == [] for what in By)
    found = totals(empty.database, Filters())
    assert (found.runs, found.tokens, found.cost_usd) == (0, 0, None)
    empty.close()


def test_an_agent_whose_name_no_text_can_hold_has_no_runs(mirror: MirrorOfRuns) -> None:
    assert totals(mirror.database, Filters(agent="\udcff")).runs == 0
