"""Admin requests: what they may say, and what they are answered. `everturn.service.offices` does what they ask."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Protocol

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Path, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from everturn.housekeeping.selection import Selection
from everturn.service.problems import problems_of

NAME_LENGTH = 2048
SESSION_LENGTH = 128
AT_ONCE = 4  # admin requests that are worked at; the others wait for their turn

Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH)]
SessionId = Annotated[
    str, Path(description="the session's id", max_length=SESSION_LENGTH, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
]


class Answer(Protocol):
    """What an admin request has done."""

    def facts(self) -> dict[str, Any]:
        """Return it as JSON has it."""


class Office(Protocol):
    """What does what admins ask for: `everturn.service.offices.Admin`. Its methods block."""

    def reset(self, who: str, selection: Selection, *, dry_run: bool = False, force: bool = False) -> Answer:
        """Free workdirs and end sessions."""

    def sweep(self, who: str, *, dry_run: bool = False) -> Answer:
        """Sweep the registry and the workdirs."""

    def drop(self, who: str, session_id: str, *, force: bool = False) -> Answer:
        """Forget a session."""

    def compact(self, who: str, session_id: str) -> Answer:
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


class Outcome(BaseModel):
    """What was done or, in a dry run, what would be."""

    model_config = ConfigDict(extra="allow")


def router(office: Office) -> APIRouter:
    """Return the routes for admin requests.

    Args:
        office: Does what they ask.
    """
    made = APIRouter(
        prefix="/admin",
        tags=["admin"],
        dependencies=[Depends(HTTPBearer(auto_error=False, scheme_name="admin", description="the admin token"))],
        responses=problems_of(400, 401, 403, 404, 408, 409, 413, 415, 422, 500, 503),
    )
    turns = CapacityLimiter(AT_ONCE)

    async def done(work: Callable[[], Answer]) -> Outcome:
        # What is not over when the service stops is let go of: it is safe to die in the middle of it.
        answer = await run_sync(work, abandon_on_cancel=True, limiter=turns)
        return Outcome.model_validate(answer.facts())

    @made.post("/reset", operation_id="reset", summary="Free workdirs and end their sessions")
    async def reset(asked: Reset, request: Request) -> Outcome:
        selection = Selection(asked.work, asked.agent, asked.repo, asked.all)
        options = {"dry_run": asked.dry_run, "force": asked.force}
        return await done(partial(office.reset, _source(request), selection, **options))

    @made.post("/sweep", operation_id="sweep", summary="Sweep the registry and the workdirs")
    async def sweep(asked: Sweep, request: Request) -> Outcome:
        return await done(partial(office.sweep, _source(request), dry_run=asked.dry_run))

    @made.post("/sessions/{session_id}/drop", operation_id="drop", summary="Forget a session")
    async def drop(session_id: SessionId, asked: Drop, request: Request) -> Outcome:
        return await done(partial(office.drop, _source(request), session_id, force=asked.force))

    @made.post("/sessions/{session_id}/compact", operation_id="compact", summary="Compact a session's transcript")
    async def compact(session_id: SessionId, asked: Compact, request: Request) -> Outcome:  # noqa: ARG001
        return await done(partial(office.compact, _source(request), session_id))

    return made


def _source(request: Request) -> str:
    return "" if request.client is None else request.client.host
