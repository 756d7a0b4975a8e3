"""The events that a run itself writes: how it begins, goes on and ends (docs/journal.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from everturn.journal.event import Event


@dataclass(frozen=True, slots=True)
class Started(Event):
    """The run has its claim and its directory, and its transcript is fenced. The first event of every journal.

    Attributes:
        run_id: The run.
        work_key: The work item's key, which is the scope of the journal, too.
        session_id: The conversation.
        epoch: The claim's number: a later run of the same work item has a higher one.
        worker: Who runs it.
        cwd: Where the agent works.
        task_id: The task, if the work item is one.
        agent: The agent's name, if it has one.
        repo: The repository, if there is one.
        issue: The issue, if the work item is one.
        branch: What it was asked to work on in the repository.
        previous_run_id: The run that claimed the work item before, however it ended.
    """

    TYPE: ClassVar[str] = "started"

    run_id: str
    work_key: str
    session_id: str
    epoch: int
    worker: str
    cwd: str
    task_id: str | None = None
    agent: str | None = None
    repo: str | None = None
    issue: str | None = None
    branch: str | None = None
    previous_run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Resumed(Event):
    """The conversation goes on from an earlier run.

    Attributes:
        session_id: The conversation.
        previous_run_id: The run that claimed the work item before.
        took_over: Whether that run had not let go of it: its worker died, or was evicted.
        cost_usd: What the conversation had cost before, as its transcript says; results go on from there.
        model_usage: The same by model, with tokens.
    """

    TYPE: ClassVar[str] = "resumed"

    session_id: str
    previous_run_id: str | None
    took_over: bool
    cost_usd: float | None = None
    model_usage: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class BeganAnew(Event):
    """The conversation was not found, and another one was begun in its place.

    Attributes:
        session_id: The new conversation.
        instead_of: The one that is lost.
    """

    TYPE: ClassVar[str] = "began_anew"
    FOREIGN: ClassVar[bool] = False

    session_id: str
    instead_of: str


@dataclass(frozen=True, slots=True)
class Shutdown(Event):
    """The run was asked to end before its time.

    Attributes:
        reason: The name of a signal, `cancelled`, `closed`, `lost`, or the caller's own word.
    """

    TYPE: ClassVar[str] = "shutdown"
    FOREIGN: ClassVar[bool] = False

    reason: str


@dataclass(frozen=True, slots=True)
class Ended(Event):
    """The run has let go of its agent. The last event of every run that was not cut short.

    Attributes:
        outcome: `completed`, `failed`, `stopped` or `lost`, as in the metric `everturn_runs_total`.
        error: What went wrong, if something did.
    """

    TYPE: ClassVar[str] = "ended"
    FOREIGN: ClassVar[bool] = False

    outcome: str
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Damaged(Event):
    """A line that could not be read when the journal of a dead run was looked after. Written in its place.

    Attributes:
        line: The line, in base64.
    """

    TYPE: ClassVar[str] = "damaged"
    FOREIGN: ClassVar[bool] = False

    line: str
