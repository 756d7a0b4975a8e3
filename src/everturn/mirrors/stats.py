"""What runs came to, by agent, repository, day, model, tool or work item (docs/mirrors.md)."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from everturn.mirrors.hits import Filters
from everturn.mirrors.selection import matching_repos
from everturn.mirrors.values import clean, moment
from everturn.model import repository_name


class By(StrEnum):
    """What makes a group of runs."""

    AGENT = "agent"
    REPO = "repo"
    DAY = "day"
    MODEL = "model"
    TOOL = "tool"
    WORK = "work"


@dataclass(frozen=True, slots=True)
class Stat:
    """What some runs came to. `None`: it cannot be told by that.

    Attributes:
        key: What the runs have in common; `None`: they name none, or these are all.
        runs: How many there were.
        failed: How many of them ended with an error.
        died: How many of them never ended, and another run took the work over.
        cost_usd: What they cost, as the agent command reckons; `None`: nobody said.
        unpriced_runs: How many runs cost more than is known, as they were cut short.
        turns: Prompts.
        tool_calls: Calls of tools.
        tool_failures: How many of them failed.
        tool_ms: How long tools took, in milliseconds.
        input_tokens: What models were sent, without what came from a cache.
        output_tokens: What models said.
        cache_read_tokens: What models were sent out of a cache.
        cache_write_tokens: What was put into one.
    """

    key: str | None
    runs: int
    failed: int
    died: int
    cost_usd: float | None = None
    unpriced_runs: int | None = None
    turns: int | None = None
    tool_calls: int | None = None
    tool_failures: int | None = None
    tool_ms: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None

    @property
    def tokens(self) -> int | None:
        """All tokens together."""
        each = (self.input_tokens, self.output_tokens, self.cache_read_tokens, self.cache_write_tokens)
        return None if None in each else sum(count or 0 for count in each)

    def record(self) -> dict[str, Any]:
        """Return what is known, by name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


_OUTCOMES = """
    sum(run_outcomes.outcome = 'failed') AS failed,
    sum(run_outcomes.outcome = 'died') AS died"""
_TOKENS = ", ".join(
    f"sum({{0}}.{name}) AS {name}"
    for name in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
)
_OF_RUNS = f"""
    count(*) AS runs, {_OUTCOMES}, sum(cost_usd) AS cost_usd, sum(cost_is_partial) AS unpriced_runs,
    sum(turns) AS turns, sum(tool_calls) AS tool_calls, sum(tool_failures) AS tool_failures,
    {_TOKENS.format("runs")}"""
_OF_MODELS = f"""
    count(*) AS runs, {_OUTCOMES}, sum(model_usage.cost_usd) AS cost_usd, sum(cost_is_partial) AS unpriced_runs,
    {_TOKENS.format("model_usage")}"""
# Calls are summed up by run first: a run that calls a tool twice is one run.
_OF_TOOLS = """
    count(*) AS runs, sum(run_outcomes.outcome = 'failed') AS failed, sum(run_outcomes.outcome = 'died') AS died,
    sum(calls.calls) AS tool_calls,
    CAST(sum(calls.failures) AS INTEGER) AS tool_failures, CAST(sum(calls.ms) AS INTEGER) AS tool_ms"""
_CALLS = """
    (SELECT run_id, tool, count(*) AS calls, total(is_error) AS failures, total(duration_ms) AS ms
    FROM tool_calls GROUP BY run_id, tool) AS calls"""
_RUNS = "runs JOIN run_outcomes USING (run_id)"
_RUNS_TOO = "JOIN runs USING (run_id) JOIN run_outcomes USING (run_id)"
# For each group: what it is by, what is summed up, and where it stands.
_SOURCES: dict[By, tuple[str, str, str]] = {
    By.AGENT: ("runs.agent", _OF_RUNS, _RUNS),
    By.REPO: ("repository_name(runs.repo)", _OF_RUNS, _RUNS),
    By.DAY: ("substr(runs.started_at, 1, 10)", _OF_RUNS, _RUNS),
    By.WORK: ("runs.work_key", _OF_RUNS, _RUNS),
    By.MODEL: ("model_usage.model", _OF_MODELS, f"model_usage {_RUNS_TOO}"),
    By.TOOL: ("calls.tool", _OF_TOOLS, f"{_CALLS} {_RUNS_TOO}"),
}
_CONDITIONS = {
    "agent": "runs.agent = :agent",
    "repos": "runs.repo IN (SELECT value FROM json_each(:repos))",
    "since": "runs.started_at >= :since",
    "until": "runs.started_at < :until",
}


def totals(database: sqlite3.Connection, filters: Filters) -> Stat:
    """Return what all runs came to that the filters let through.

    Args:
        database: The mirror.
        filters: Which runs: `agent`, `repo`, and the times between which they began.
    """
    (found,) = _stats(database, ("NULL", _OF_RUNS, _RUNS), filters)
    return found


def stats(database: sqlite3.Connection, by: By, filters: Filters) -> list[Stat]:
    """Return what runs came to, group by group: days in their order, everything else by cost, calls and runs.

    Args:
        database: The mirror.
        by: What makes a group.
        filters: See `totals`.
    """
    found = _stats(database, _SOURCES[by], filters, group="GROUP BY 1")
    if by is By.DAY:
        return sorted(found, key=lambda each: each.key or "")
    return sorted(
        found, key=lambda each: (-(each.cost_usd or 0), -(each.tool_calls or 0), -each.runs, each.key or "")
    )


def _stats(
    database: sqlite3.Connection, source: tuple[str, str, str], filters: Filters, group: str = ""
) -> list[Stat]:
    key, sums, tables = source
    database.create_function(
        "repository_name", 1, lambda repo: None if repo is None else repository_name(repo), deterministic=True
    )
    values = dict(_values(database, filters))
    conditions = [condition for name, condition in _CONDITIONS.items() if name in values]
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    cursor = database.execute(f"SELECT {key} AS key, {sums} FROM {tables} {where} {group}", values)  # noqa: S608
    names = [column[0] for column in cursor.description]
    return [_stat(dict(zip(names, row, strict=True))) for row in cursor]


def _stat(row: dict[str, Any]) -> Stat:
    """Return a row; sums over no rows at all are zero, but for the cost, of which nobody said anything then."""
    sums = {name: value or 0 for name, value in row.items() if name not in ("key", "cost_usd")}
    return Stat(key=row["key"], cost_usd=row.get("cost_usd"), **sums)


def _values(database: sqlite3.Connection, filters: Filters) -> Iterator[tuple[str, Any]]:
    if filters.agent is not None:
        yield "agent", clean(filters.agent)
    if filters.repo is not None:
        yield "repos", json.dumps(matching_repos(database, filters.repo))
    if filters.since_ms is not None:
        yield "since", moment(filters.since_ms)
    if filters.until_ms is not None:
        yield "until", moment(filters.until_ms)
