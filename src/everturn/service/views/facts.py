"""What the mirror tells of runs and sessions, asked for in few, short questions."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from everturn.conversations.conversation import moment as parsed
from everturn.mirrors.values import moment

_SESSIONS = """
    SELECT session_id, work_key, agent, repo, worker, count(*), sum(turns), sum(cost_usd), total(cost_is_partial),
        max(last_event_at)
    FROM runs WHERE session_id IS NOT NULL GROUP BY session_id"""  # of the run with the latest event, says SQLite
_RUNS = """
    SELECT run_id, session_id, started_at, last_event_at, outcome, turns, model, cost_usd, cost_is_partial,
        input_tokens + output_tokens + cache_read_tokens + cache_write_tokens, resumed, took_over, events, repo
    FROM runs WHERE run_id IN (SELECT value FROM json_each(?))"""
# Calls of the turn that goes on, the agent's own: one that has no answer is under way.
_OPEN_CALLS = """
    SELECT tool_calls.run_id, tool, max(tool_calls.seq) FROM turns JOIN tool_calls
        ON tool_calls.run_id = turns.run_id AND tool_calls.seq > turns.seq
    WHERE turns.run_id IN (SELECT value FROM json_each(?)) AND turns.outcome IS NULL
        AND tool_calls.is_error IS NULL AND parent_call_id IS NULL
        AND turns.turn = (SELECT turns FROM runs WHERE runs.run_id = turns.run_id)
    GROUP BY tool_calls.run_id"""
_COST = "SELECT sum(cost_usd) FROM runs WHERE started_at >= ?"
_OF_WORK = "SELECT run_id, session_id FROM runs WHERE work_key = ?"


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What the runs of a session came to.

    Attributes:
        session_id: The session.
        work: Its work item's key.
        agent: Its agent.
        repo: Its repository.
        worker: Who had it last.
        runs: How many there are.
        turns: How many prompts.
        cost_usd: What they cost.
        cost_is_partial: Whether they cost more than is known.
        last_at: When its last event was written.
        row: What the mirror said.
    """

    session_id: str
    work: str
    agent: str | None
    repo: str | None
    worker: str | None
    runs: int
    turns: int
    cost_usd: float | None
    cost_is_partial: bool
    last_at: float | None
    row: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known of a run.

    Attributes:
        run_id: The run.
        session_id: Its conversation.
        started_at: When it began.
        last_event_at: When it last said something.
        outcome: How it ended, if it did.
        turns: How many prompts it had.
        model: The model.
        cost_usd: What it has cost.
        cost_is_partial: Whether it has cost more than is known.
        tokens: All tokens.
        resumed: Whether it goes on from an earlier run.
        took_over: Whether that run's worker had died.
        events: How many events there are.
        repo: The repository.
        tool: The tool that it has called and that has not answered yet.
    """

    run_id: str
    session_id: str | None
    started_at: float | None
    last_event_at: float | None
    outcome: str | None
    turns: int
    model: str | None
    cost_usd: float | None
    cost_is_partial: bool
    tokens: int
    resumed: bool
    took_over: bool
    events: int
    repo: str | None
    tool: str | None = None


def seconds(text: str | None) -> float | None:
    """Return a time of the mirror, or of a transcript, in seconds since the Unix epoch."""
    found = parsed(text)
    return None if found is None else found.timestamp()


def sessions(
    database: sqlite3.Connection, known: Mapping[str, SessionFacts] | None = None
) -> dict[str, SessionFacts]:
    """Return all sessions that have journals.

    Args:
        database: The mirror.
        known: What was returned before; of what is the same still, the same objects are returned.
    """
    before = known or {}
    found = {}
    for row in database.execute(_SESSIONS):
        old = before.get(row[0])
        found[row[0]] = old if old is not None and old.row == row else _session_of(row)
    return found


def _session_of(row: tuple[Any, ...]) -> SessionFacts:
    session_id, work, agent, repo, worker, runs, turns, cost, partial, last_at = row
    return SessionFacts(
        session_id, work, agent, repo, worker, runs, turns, cost, bool(partial), seconds(last_at), row
    )


def runs(database: sqlite3.Connection, run_ids: Collection[str]) -> dict[str, RunFacts]:
    """Return what is known of some runs."""
    named = json.dumps(list(run_ids))
    tools = {row[0]: row[1] for row in database.execute(_OPEN_CALLS, (named,))}
    found = {}
    for row in database.execute(_RUNS, (named,)):
        run_id, session_id, started_at, last_at, outcome, turns, model, cost, partial, tokens, resumed, took = row[
            :12
        ]
        found[run_id] = RunFacts(
            run_id=run_id,
            session_id=session_id,
            started_at=seconds(started_at),
            last_event_at=seconds(last_at),
            outcome=outcome,
            turns=turns,
            model=model,
            cost_usd=cost,
            cost_is_partial=bool(partial),
            tokens=tokens,
            resumed=bool(resumed),
            took_over=bool(took),
            events=row[12],
            repo=row[13],
            tool=None if outcome is not None else tools.get(run_id),
        )
    return found


def cost_since(database: sqlite3.Connection, since: float) -> float | None:
    """Return what all runs have cost that began at a time or later; `None`: nobody said."""
    (found,) = database.execute(_COST, (text_of(since),)).fetchone()
    return None if found is None else float(found)


def sessions_of_runs(database: sqlite3.Connection, work_key: str) -> dict[str, str | None]:
    """Return the runs of a work item that are known, with their sessions."""
    return dict(database.execute(_OF_WORK, (work_key,)).fetchall())


def text_of(at: float) -> str:
    """Return a time as the mirror has it; one that no calendar has is before everything."""
    return moment(int(at * 1000)) or ""
