"""`everturn stats`, as it is typed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from everturn.cli.output import Terminal
from everturn.cli.stats import bar, show
from everturn.mirrors.hits import Filters
from everturn.mirrors.stats import By, stats, totals
from journals import FIRST, JournalStore
from mirrored import MirrorOfRuns, answered, called, ended, init, prompted, resulted, started

Everturn = Callable[..., Any]
RUN = [init(), prompted("go"), *called("Bash", {}, "no", is_error=True), resulted(1.5, 2000, 300), ended()]


@pytest.fixture
def store(tmp_path: Path) -> JournalStore:
    store = JournalStore(tmp_path)
    store.keep(FIRST, [started(FIRST, agent="plumber"), *RUN])
    store.keep("2" * 20, [started("2" * 20, agent="painter"), *RUN[:4]], work="task:wall")
    return store


def rows(result: Any) -> list[dict[str, Any]]:
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.slow
def test_stats_are_told_by_group_and_in_all(everturn: Everturn, store: JournalStore) -> None:
    *groups, total = rows(everturn("stats", "--by", "agent", "--store", store.url, "--json"))
    assert [(row["key"], row["runs"], row.get("cost_usd")) for row in groups] == [
        ("plumber", 1, 1.5),
        ("painter", 1, None),
    ]
    assert (total["type"], total["runs"], total["tool_failures"]) == ("summary", 2, 2)
    overview = everturn("stats", "--store", store.url).stdout
    assert "runs        2" in overview
    assert "tool calls  2 · 2 failed" in overview
    assert "█" not in overview  # it is no terminal
    (only, _) = rows(everturn("stats", "--by", "agent", "--agent", "painter", "--store", store.url, "--json"))
    assert only["key"] == "painter"


@pytest.mark.slow
def test_no_runs_are_no_error(everturn: Everturn, store: JournalStore) -> None:
    assert everturn("stats", "--since", "2999-01-01", "--store", store.url).stdout.strip() == "there are no runs"


@pytest.fixture
def mirror(tmp_path: Path) -> Any:
    mirror = MirrorOfRuns(tmp_path / "mirror.db")
    long = f"https://forge.example/{'group/' * 30}web"
    mirror.add("run-1", [started("run-1", agent="plumber", repo=long), *RUN], work="task:\x1b[31mred")
    said = answered("so", usage={"input_tokens": 7, "output_tokens": 3})
    mirror.add("run-2", [started("run-2", agent="painter"), *RUN[:4], said], work="task:wall")
    yield mirror
    mirror.close()


def shown(mirror: MirrorOfRuns, by: By, width: int, *, terminal: bool = True) -> list[str]:
    console = Terminal(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, highlight=False)
    groups = {by: stats(mirror.database, by, Filters())}
    show(console, totals(mirror.database, Filters()), groups, most=None)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("by", list(By))
@pytest.mark.parametrize("width", [80, 120])
def test_a_table_fits_its_terminal(mirror: MirrorOfRuns, by: By, width: int) -> None:
    lines = shown(mirror, by, width)
    assert all(len(line) <= width for line in lines)
    assert lines[0].split()[:2] == [by, "runs"]
    assert "\x1b" not in "".join(lines)
    assert any("████" in line for line in lines)


def test_a_cost_that_is_not_whole_is_marked(mirror: MirrorOfRuns) -> None:
    lines = shown(mirror, By.AGENT, 80)
    assert "$1.50" in lines[1]
    assert "≥" not in lines[1]
    assert " ? " in lines[2]
    assert "≥ $1.50" in lines[3]
    assert lines[-1] == "≥ at least: 1 run ended before all of the cost was told"


def test_of_a_long_name_the_end_is_shown(mirror: MirrorOfRuns) -> None:
    (line,) = [line for line in shown(mirror, By.REPO, 80) if line.startswith("…")]
    assert "group/web " in line


def test_bars_are_as_long_as_their_part_and_never_too_short_to_see() -> None:
    assert [bar(part, 4) for part in (0, 0.001, 0.5, 0.53, 1)] == ["", "▏", "██", "██▏", "████"]
