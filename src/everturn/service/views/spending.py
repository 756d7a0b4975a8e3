"""What a run's turns have cost, one after the other: the mirror's own fold, over the few events that tell of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from everturn.journal.events import (
    Assistant,
    BeganAnew,
    Event,
    Init,
    Prompt,
    Result,
    Resumed,
    Started,
    Stream,
    Thinking,
    ToolResult,
    ToolUse,
)
from everturn.journal.reading import RunJournal, usable
from everturn.mirrors.folding import RunFold
from everturn.mirrors.rows import RUN, TURN
from everturn.service.views.facts import seconds

_LONG = ("text", "input", "content", "details")  # what texts are made of, and nothing else
_TELLING: frozenset[str] = frozenset(
    kind.TYPE
    for kind in (Started, Resumed, BeganAnew, Init, Prompt, Assistant, Thinking, ToolUse, ToolResult, Stream, Result)
)
_EMPTY: dict[str, Any] = {"text": "", "input": None, "content": "", "details": None}


@dataclass(frozen=True, slots=True)
class TurnCost:
    """What a turn has cost.

    Attributes:
        started_at: When it began.
        ended_at: When its result came; `None`: none did.
        cost_usd: Its cost; `None`: nobody said.
        tokens: All its tokens.
        calls: How many tools were called in it, by subagents, too.
    """

    started_at: float | None
    ended_at: float | None
    cost_usd: float | None
    tokens: int
    calls: int


@dataclass(frozen=True, slots=True)
class RunCost:
    """What a run has cost.

    Attributes:
        cost_usd: Its cost; `None`: nobody said.
        is_partial: Whether it has cost more than that.
        turns: The same of its turns, by their numbers.
    """

    cost_usd: float | None
    is_partial: bool
    turns: dict[int, TurnCost]


def cost_of(journal: RunJournal) -> RunCost:
    """Return what a run has cost, and its turns."""
    lines, _ = usable(_short(each.raw) for each in journal.events if each.type in _TELLING and _counts(each.event))
    fold = RunFold(journal.ref.run_id, journal.ref.scope)
    fold.take(lines)
    rows = fold.drain()
    run = dict(zip(RUN, rows.run, strict=True))
    return RunCost(
        run["cost_usd"], bool(run["cost_is_partial"]), {turn: _turn(row) for turn, row in rows.turns.items()}
    )


def _counts(event: Event | None) -> bool:
    """Tell whether an event may tell of tokens: most of what streams does not."""
    said = event.event if isinstance(event, Stream) else None
    return not isinstance(said, dict) or "usage" in said or "message" in said


def _short(line: dict[str, Any]) -> dict[str, Any]:
    return {name: _EMPTY[name] if name in _LONG and type(value) is str else value for name, value in line.items()}


def _turn(row: tuple[Any, ...]) -> TurnCost:
    values = dict(zip(TURN, row, strict=True))
    names = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    return TurnCost(
        started_at=seconds(values["started_at"]),
        ended_at=seconds(values["ended_at"]),
        cost_usd=values["cost_usd"],
        tokens=sum(values[name] for name in names),
        calls=values["tool_calls"],
    )
