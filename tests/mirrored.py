"""Runs that were made up, folded into a real mirror."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from everturn.databases import transaction
from everturn.journal.events import Assistant, Ended, Event, Init, Prompt, Result, Started, ToolResult, ToolUse
from everturn.journal.lines import line_of
from everturn.mirrors.database import connect, set_up
from everturn.mirrors.folding import RunFold
from everturn.mirrors.writing import index_texts, write_rows

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NOON_MS = 1_763_640_000_000  # 2025-11-20, 12:00 UTC


class MirrorOfRuns:
    """A mirror to which runs are added one after the other.

    Args:
        file: Where it is to be.
    """

    def __init__(self, file: Path) -> None:
        self.database: sqlite3.Connection = connect(file, create=True)
        with transaction(self.database):
            set_up(self.database, {"store": "memory://"})

    def add(self, run_id: str, events: Sequence[Event], *, at_ms: int = NOON_MS, work: str = "task:t") -> None:
        """Fold a run whose events come one second after the other."""
        fold = RunFold(run_id, work)
        fold.take(orjson.loads(line_of(event, seq, at_ms + 1000 * (seq - 1))) for seq, event in enumerate(events, 1))
        with transaction(self.database):
            index_texts(self.database, write_rows(self.database, run_id, fold.drain()))

    def close(self) -> None:
        """Close the file."""
        self.database.close()


def started(run_id: str, *, epoch: int = 1, work: str = "task:t", **more: Any) -> Started:
    """Return how a run begins."""
    return Started(run_id, work, "session-1", epoch, more.pop("worker", "worker-1"), "/desk", **more)


def init(model: str = "claude-large") -> Init:
    """Return what the agent says first."""
    return Init("session-1", model, "/desk", "2.1.0", "default", [])


def prompted(text: str) -> Prompt:
    """Return what the agent is told."""
    return Prompt(text, resumed=False)


def answered(text: str, message_id: str = "m1", **more: Any) -> Assistant:
    """Return what the agent says."""
    return Assistant(text, message_id, "claude-large", **more)


def called(tool: str, given: Any, answer: Any, *, call_id: str = "c1", is_error: bool = False) -> list[Event]:
    """Return a tool's call and what it answered."""
    return [ToolUse(call_id, tool, given, "m1", "claude-large"), ToolResult(call_id, answer, is_error=is_error)]


def resulted(cost_usd: float | None = 0.5, tokens_in: int = 100, tokens_out: int = 10, **more: Any) -> Result:
    """Return how a turn ends. Everything is of one model."""
    usage = {"input_tokens": tokens_in, "output_tokens": tokens_out}
    by_model = {"claude-large": {"inputTokens": tokens_in, "outputTokens": tokens_out, "costUSD": cost_usd}}
    return Result("success", False, "done", 1, 1000, 900, cost_usd, usage, by_model, **more)


def ended(outcome: str = "completed", error: str | None = None) -> Ended:
    """Return how a run ends."""
    return Ended(outcome, error)
