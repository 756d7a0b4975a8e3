"""Admin requests: what they may say, and what they are answered. `everturn.service.offices` does what they ask."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Protocol, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Path, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from everturn.housekeeping.freeing import Freed
from everturn.housekeeping.removal import Fate
from everturn.housekeeping.selection import Selection
from everturn.service.offices import Compaction, Dropped
from everturn.service.sweeping import SweepResult
from everturn.service.web.problems import problems_of

NAME_LENGTH = 2048
SESSION_LENGTH = 128
AT_ONCE = 4  # admin requests that are worked at; the others wait for their turn

Value = TypeVar("Value")
Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH)]
_BEARER = HTTPBearer(auto_error=False, scheme_name="admin", description="the admin token")  # for the document only
SessionId = Annotated[
    str, Path(description="the session's id", max_length=SESSION_LENGTH, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
]


class Office(Protocol):
    """What does what admins ask for; see `everturn.service.offices.Admin`, whose methods these are. They block."""

    def reset(self, selection: Selection, *, dry_run: bool = False, force: bool = False, who: str) -> Freed:
        """Free workdirs and end sessions."""

    def sweep(self, *, dry_run: bool = False, who: str) -> SweepResult:
        """Sweep the registry and the workdirs."""

    def drop(self, session_id: str, *, force: bool = False, who: str) -> Dropped:
        """Forget a session."""

    def compact(self, session_id: str, *, who: str) -> Compaction:
        """Compact a session's transcript."""


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Reset(_Asked):
    """What is to be reset: a work item, an agent, a repository, several of them together, or all."""

    work: Name | None = Field(None, description="the key of a work item")
    agent: Name | None = Field(None, description="the name of an agent")
    repo: Name | None = Field(None, description="a repository")
    all: bool = Field(False, description="everything")
    dry_run: bool = Field(False, description="only say what would be done")
    force: bool = Field(False, description="also where there is unsaved work, or a process is in the workdir")


class Sweep(_Asked):
    """How to sweep."""

    dry_run: bool = Field(False, description="only say what would be done")


class Drop(_Asked):
    """How to drop a session."""

    force: bool = Field(False, description="even if somebody holds it: they stop as soon as they renew their claim")


class Compact(_Asked):
    """How to compact a session: there is nothing to say."""


class _Done(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ResetDone(_Done):
    """What was reset or, in a dry run, would be."""

    dry_run: bool
    freed_bytes: int = Field(description="how much room that gives")
    waiting: list[str] = Field(description="always empty")
    fates: list[Fate] = Field(description="what became of each workdir and session; what was kept, too")


class DroppedSession(_Done):
    """A session that was too old to be resumed."""

    work: str
    session_id: str


class WorkdirsSwept(_Done):
    """What a sweep of the workdirs did or, in a dry run, would do."""

    freed_bytes: int
    missing_bytes: int = Field(description="how much more would have to be freed for what is wanted")
    dry_run: bool
    seconds: float
    notes: list[str] = Field(description="why some things were not decided")
    fates: list[Fate]


class SweepDone(_Done):
    """What was swept or, in a dry run, would be."""

    dry_run: bool
    dropped: list[DroppedSession]
    workdirs: WorkdirsSwept | None = Field(description="null: nobody looked at them")
    problems: list[str] = Field(description="what could not be done")


def attach(app: FastAPI, office: Office) -> None:
    """Add the routes for admin requests to an app.

    Args:
        app: The app.
        office: Does what they ask.
    """
    app.state.office = office
    app.state.admin_turns = CapacityLimiter(AT_ONCE)
    app.include_router(router)


def _only_json(request: Request) -> None:
    """Refuse what a form of another site could send."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "the content type is not application/json")


async def _office_of(request: Request) -> Office:
    office: Office = request.app.state.office
    return office


_Office = Annotated[Office, Depends(_office_of)]

router = APIRouter(
    prefix="/admin",
    tags=["admin"],
    dependencies=[Depends(_BEARER), Depends(_only_json)],
    responses=problems_of(400, 401, 403, 404, 408, 409, 413, 415, 422, 500, 503),
)


@router.post("/reset", operation_id="reset")
async def reset(asked: Reset, request: Request, office: _Office) -> ResetDone:
    """Free the workdirs that were asked for, and end their sessions."""
    selection = Selection(asked.work, asked.agent, asked.repo, asked.all)
    options = {"dry_run": asked.dry_run, "force": asked.force}
    answer = await _done(request, partial(office.reset, selection, **options, who=_source(request)))
    return ResetDone.model_validate(answer.facts())


@router.post("/sweep", operation_id="sweep")
async def sweep(asked: Sweep, request: Request, office: _Office) -> SweepDone:
    """Sweep the registry and the workdirs."""
    answer = await _done(request, partial(office.sweep, dry_run=asked.dry_run, who=_source(request)))
    return SweepDone.model_validate(answer.facts())


@router.post("/sessions/{session_id}/drop", operation_id="drop")
async def drop(session_id: SessionId, asked: Drop, request: Request, office: _Office) -> Dropped:
    """Forget a session."""
    return await _done(request, partial(office.drop, session_id, force=asked.force, who=_source(request)))


@router.post("/sessions/{session_id}/compact", operation_id="compact")
async def compact(session_id: SessionId, asked: Compact, request: Request, office: _Office) -> Compaction:  # noqa: ARG001
    """Compact a session's transcript."""
    return await _done(request, partial(office.compact, session_id, who=_source(request)))


async def _done(request: Request, work: Callable[[], Value]) -> Value:
    # What is not over when the service stops is let go of: it is safe to die in the middle of it.
    return await run_sync(work, abandon_on_cancel=True, limiter=request.app.state.admin_turns)


def _source(request: Request) -> str:
    return "somebody" if request.client is None else request.client.host
