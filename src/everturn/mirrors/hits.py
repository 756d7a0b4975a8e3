"""What a search finds, in whatever mirror."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a text is."""

    PROMPT = "prompt"
    ANSWER = "answer"
    THINKING = "thinking"
    TOOL_INPUT = "tool_input"
    TOOL_RESULT = "tool_result"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Filters:
    """What a search is limited to. Whatever is `None` is no limit.

    Attributes:
        agent: The agent's name.
        repo: The repository, however its URL is spelled, or the last part of its path.
        work: The work item's key.
        tool: The tool that was called, or that answered.
        kind: What is said: one of `Kind`.
        since_ms: Not before this time, in milliseconds since the Unix epoch.
        until_ms: Before this time.
    """

    agent: str | None = None
    repo: str | None = None
    work: str | None = None
    tool: str | None = None
    kind: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an excerpt.

    Attributes:
        text: The piece, as it stands in the journal; white space is run together.
        is_match: Whether it is what was looked for.
    """

    text: str
    is_match: bool = False


@dataclass(frozen=True, slots=True)
class Hit:
    """A text that was found, and where it stands.

    Attributes:
        work: The work item's key.
        run_id: The run.
        turn: The number of the turn in its run, from 1; 0: before the first.
        seq: The number of the event in its run.
        at: When it was said: ISO 8601, UTC.
        kind: What it is: one of `Kind`; a whole `turn`, if it was found by its meaning.
        tool: The tool that was called, or that answered.
        agent: The agent's name.
        repo: The repository.
        session_id: The conversation.
        worker: Who ran it.
        score: How well it fits; higher is better. Comparable within one search alone.
        excerpt: The part of it that fits best.
    """

    work: str
    run_id: str
    turn: int
    seq: int
    at: str
    kind: str
    tool: str | None
    agent: str | None
    repo: str | None
    session_id: str | None
    worker: str | None
    score: float
    excerpt: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        hits: The best, in order.
        looked_at: How many texts that fit were compared.
        is_all: Whether these are all that fit; if not, they are the newest.
    """

    hits: tuple[Hit, ...]
    looked_at: int
    is_all: bool = True
