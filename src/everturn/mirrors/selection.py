"""Which texts of the SQLite mirror a filter lets through, and whether they are few enough to be listed first."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from everturn.mirrors.hits import Filters, Kind
from everturn.mirrors.values import clean, moment
from everturn.model import repository_name

MAX_LISTED = 15_000  # texts of which a list is made; above that, each that has the words is asked


@dataclass(frozen=True, slots=True)
class Selection:
    """A part of the texts.

    Attributes:
        condition: What SQL says of its rows of `texts`; empty: it is everything.
        values: What the condition's parameters stand for.
        ids: A query for their ids, if they are few enough to be listed.
    """

    condition: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    ids: str = ""


_OF_RUNS = {
    "agent": "runs.agent = :agent",
    "repos": "runs.repo IN (SELECT value FROM json_each(:repos))",
    "work": "(runs.work_key = :work OR runs.task_id = :work)",
    "since": "runs.last_event_at >= :since",
    "until": "runs.started_at < :until",
}
_OF_TEXTS = {
    "tool": "texts.tool = :tool",
    "kind": "texts.kind = :kind",
    "since": "texts.at >= :since",
    "until": "texts.at < :until",
}


def select(database: sqlite3.Connection, filters: Filters) -> Selection:
    """Return what the filters let through. Counts rows, up to a bound.

    Args:
        database: The mirror.
        filters: The filters.
    """
    values = dict(_values(database, filters))
    conditions = [condition for name, condition in _OF_TEXTS.items() if name in values]
    runs = _run_condition(values)
    condition = " AND ".join([*conditions, *runs])
    for start in _starts(runs, values):
        if _is_small(database, start, values):
            return Selection(condition, values, f"SELECT texts.id FROM {start} AND {condition}")  # noqa: S608
    return Selection(condition, values)


def matching_repos(database: sqlite3.Connection, repo: str) -> list[str]:
    """Return the repositories that somebody may mean, as the runs spell them.

    Args:
        database: The mirror.
        repo: A URL or a path, in any of the usual spellings; or the last part of it, or the last parts: `acme/web`.
    """
    wanted = _path(repo)
    known = [row[0] for row in database.execute("SELECT DISTINCT repo FROM runs WHERE repo IS NOT NULL")]
    return [each for each in known if _path(each).endswith(wanted)]


def _path(repo: str) -> str:
    return "/" + repository_name(repo).replace(":", "/")


def _values(database: sqlite3.Connection, filters: Filters) -> Iterator[tuple[str, Any]]:
    for name in ("agent", "work", "tool", "kind"):
        if getattr(filters, name) is not None:
            yield name, clean(getattr(filters, name))
    if filters.repo is not None:
        yield "repos", json.dumps(matching_repos(database, filters.repo))
    if filters.since_ms is not None:
        yield "since", moment(filters.since_ms)
    if filters.until_ms is not None:
        yield "until", moment(filters.until_ms)


def _run_condition(values: dict[str, Any]) -> list[str]:
    found = [condition for name, condition in _OF_RUNS.items() if name in values]
    return [f"texts.run_id IN (SELECT run_id FROM runs WHERE {' AND '.join(found)})"] if found else []  # noqa: S608


def _starts(runs: list[str], values: dict[str, Any]) -> Iterator[str]:
    """Return from where a list could be made: an index, and what it knows. That may let through too much."""
    if runs:
        yield f"texts INDEXED BY texts_by_run WHERE {runs[0]}"
    if "kind" in values or "tool" in values:
        kinds = ":kind" if "kind" in values else ", ".join(f"'{kind}'" for kind in Kind)
        tool = " AND texts.tool = :tool" if "tool" in values else ""
        yield f"texts INDEXED BY texts_by_kind WHERE texts.kind IN ({kinds}){tool}"


def _is_small(database: sqlite3.Connection, start: str, values: dict[str, Any]) -> bool:
    sql = f"SELECT count(*) FROM (SELECT 1 FROM {start} LIMIT {MAX_LISTED + 1})"  # noqa: S608
    return bool(database.execute(sql, values).fetchone()[0] <= MAX_LISTED)
