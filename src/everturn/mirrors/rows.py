"""What folding makes of events: rows for the tables of `schema`, in the order of their columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Row = tuple[Any, ...]

RUN = (
    "run_id",
    "work_key",
    "session_id",
    "epoch",
    "worker",
    "agent",
    "repo",
    "issue",
    "task_id",
    "branch",
    "cwd",
    "previous_run_id",
    "resumed",
    "took_over",
    "began_anew",
    "model",
    "cli_version",
    "started_at",
    "last_event_at",
    "ended_at",
    "outcome",
    "shutdown_reason",
    "error",
    "turns",
    "model_turns",
    "tool_calls",
    "tool_failures",
    "errors",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cost_usd",
    "cost_is_partial",
    "events",
    "missing_events",
    "unknown_events",
    "unreadable_events",
)
RUN_COUNTS = (
    *("resumed", "took_over", "began_anew", "turns", "model_turns", "tool_calls", "tool_failures", "errors"),
    *("events", "missing_events", "unknown_events", "unreadable_events"),
)
MODEL_USAGE = (
    *("run_id", "model", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"),
    "cost_usd",
)
TURN = (
    "run_id",
    "turn",
    "seq",
    "last_seq",
    "started_at",
    "ended_at",
    "resumed",
    "outcome",
    "is_error",
    "stop_reason",
    "model",
    "model_turns",
    "duration_ms",
    "duration_api_ms",
    "tool_calls",
    "tool_failures",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cost_usd",
)
TOOL_CALL = (
    *("run_id", "seq", "turn", "call_id", "tool", "parent_call_id", "started_at", "ended_at", "duration_ms"),
    *("is_error", "result_seq"),
)
FILE = ("run_id", "seq", "turn", "path", "action", "tool", "at")
ERROR = ("run_id", "seq", "turn", "at", "kind", "tool", "message")
TEXT = ("id", "run_id", "seq", "piece", "turn", "at", "kind", "tool", "parent_call_id", "partial", "text")
COLUMNS: dict[str, Sequence[str]] = {
    "runs": RUN,
    "model_usage": MODEL_USAGE,
    "turns": TURN,
    "tool_calls": TOOL_CALL,
    "files": FILE,
    "errors": ERROR,
    "texts": TEXT,
}


@dataclass(slots=True)
class Rows:
    """What a batch changes in the rows of one run. Rows that are there are replaced, except for texts.

    Attributes:
        run: The row of the run.
        model_usage: All that the run has.
        turns: Turns that began or changed, by number.
        tool_calls: Calls that began or changed, by the number of their event.
        files: New ones.
        errors: New ones.
        texts: New ones.
        chars: How long those are.
        obsolete: The events whose texts have to go first: blocks that were shown incomplete.
        folded: How many events were taken in.
        unknown: How many were of a newer release.
        unreadable: How many made no sense.
    """

    run: Row = ()
    model_usage: list[Row] = field(default_factory=list)
    turns: dict[int, Row] = field(default_factory=dict)
    tool_calls: dict[int, Row] = field(default_factory=dict)
    files: list[Row] = field(default_factory=list)
    errors: list[Row] = field(default_factory=list)
    texts: list[Row] = field(default_factory=list)
    chars: int = 0
    obsolete: list[int] = field(default_factory=list)
    folded: int = 0
    unknown: int = 0
    unreadable: int = 0
