"""What the dashboard shows, as JSON (docs/http-api.md). Everything is asked of the desk; nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request
from pydantic import TypeAdapter
from starlette.responses import Response

from everturn.mirrors.hits import Filters, Found, Hit, Kind, Piece
from everturn.mirrors.stats import By
from everturn.service.views.desk import TURNS_ON_A_PAGE, Desk, StatsView
from everturn.service.views.facts import seconds
from everturn.service.views.log import MOST, LogKind
from everturn.service.views.session import SessionPage
from everturn.service.views.values import DiskView, FleetView, Listed, LogPage, WatchdogView
from everturn.service.web.problems import problems_of

LATEST = 4_102_444_800  # the end of the century

_Text = Annotated[str | None, Query(max_length=1000)]
_Offset = Annotated[int, Query(ge=0, le=1_000_000, description="How many to leave out.")]
_Since = Annotated[
    float | None, Query(ge=0, le=LATEST, description="Not before this time; seconds since the Unix epoch.")
]
_ERRORS = problems_of(400, 401, 422, 503)


@dataclass(frozen=True, slots=True)
class HitView:
    """A text that was found, and where it stands.

    Attributes:
        work: The work item's key.
        run_id: The run.
        turn: The number of the turn in its run, from 1; 0: before the first.
        seq: The number of the event in its run.
        at: When it was said.
        kind: What it is.
        tool: The tool that was called, or that answered.
        agent: The agent's name.
        repo: The repository.
        session_id: The conversation.
        worker: Who ran it.
        score: How well it fits; higher is better. Comparable within one search alone.
        excerpt: The part of it that fits best, in pieces.
    """

    work: str
    run_id: str
    turn: int
    seq: int
    at: float | None
    kind: str
    tool: str | None
    agent: str | None
    repo: str | None
    session_id: str | None
    worker: str | None
    score: float
    excerpt: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class FoundView:
    """What a search found.

    Attributes:
        hits: The best, in order.
        looked_at: How many texts that fit were compared.
        is_all: Whether these are all that fit; if not, they are the newest.
    """

    hits: tuple[HitView, ...]
    looked_at: int
    is_all: bool


def attach(app: FastAPI, desk: Desk, **options: Any) -> None:
    """Add the routes below `/api` to an app.

    Args:
        app: The app.
        desk: What they ask.
        options: As for `FastAPI.include_router`.
    """
    app.state.desk = desk
    app.include_router(router, **options)


async def _desk_of(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


_Desk = Annotated[Desk, Depends(_desk_of)]

# Made once: to work out how parameters and answers look takes longer than all else that an app needs to start.
router = APIRouter(prefix="/api", tags=["fleet"])


@router.get("/fleet", operation_id="fleet", response_model=FleetView, responses=_ERRORS)
def fleet(desk: _Desk) -> Response:
    """Return who is at work, and which claims are stale."""
    return _answer(FleetView, desk.fleet)


@router.get("/watchdog", operation_id="watchdog", response_model=WatchdogView, responses=_ERRORS)
def watchdog(desk: _Desk) -> Response:
    """Return how the fleet is, sign by sign, over the last day."""
    return _answer(WatchdogView, desk.watchdog)


@router.get("/sessions", operation_id="sessions", response_model=Listed, responses=_ERRORS)
def sessions(
    desk: _Desk,
    q: Annotated[
        str | None,
        Query(
            max_length=1000,
            description="Words that all stand in the work item's key, agent, repository, worker or session id.",
        ),
    ] = None,
    agent: _Text = None,
    state: Annotated[Literal["live", "stale", "idle", "over"] | None, Query()] = None,
    offset: _Offset = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    """Return a page of sessions, those used last first."""
    return _answer(Listed, lambda: desk.sessions(q, agent, state, offset, limit))


@router.get(
    "/sessions/{named:path}",
    operation_id="session",
    response_model=SessionPage,
    responses={**_ERRORS, **problems_of(404, 409)},
)
def session(
    desk: _Desk,
    named: Annotated[
        str,
        Path(
            max_length=1000,
            description="A session's id, the beginning of one, or a work item's key; percent-encoded.",
        ),
    ],
    offset: Annotated[
        int | None,
        Query(ge=0, le=1_000_000, description="How many turns to leave out; the last ones are shown by default."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = TURNS_ON_A_PAGE,
) -> Response:
    """Return what is known of a session, with a page of its turns. Long texts are cut."""
    return _answer(SessionPage, lambda: desk.session(named, offset, limit))


@router.get("/search", operation_id="search", response_model=FoundView, responses=_ERRORS)
def search(  # noqa: PLR0913, PLR0917  # one parameter for each filter
    desk: _Desk,
    q: Annotated[
        str,
        Query(
            min_length=1,
            max_length=1000,
            description='Words that are all to be found; "a phrase", begin*, -not.',
        ),
    ],
    agent: _Text = None,
    repo: _Text = None,
    work: _Text = None,
    tool: _Text = None,
    kind: Annotated[Kind | None, Query()] = None,
    since: _Since = None,
    until: Annotated[float | None, Query(ge=0, le=LATEST, description="Before this time.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    """Search the journals of all runs: the best come first."""
    filters = Filters(agent, repo, work, tool, kind, _ms(since), _ms(until))
    return _answer(FoundView, lambda: _found(desk.search(q, filters, limit)))


@router.get("/stats", operation_id="stats", response_model=StatsView, responses=_ERRORS)
def stats(desk: _Desk, by: Annotated[By, Query()] = By.AGENT, since: _Since = None) -> Response:
    """Return what runs came to: tokens, cost, tool calls and failures, group by group."""
    return _answer(StatsView, lambda: desk.stats(by, since))


@router.get("/disk", operation_id="disk", response_model=DiskView, responses=_ERRORS)
def disk(desk: _Desk) -> Response:
    """Return how much room workdirs take on the service's machine."""
    return _answer(DiskView, desk.disk)


@router.get("/log", operation_id="log", response_model=LogPage, responses=_ERRORS)
def log(
    desk: _Desk,
    kind: Annotated[LogKind | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 50,
    before: Annotated[str | None, Query(max_length=60, description="What the page before says in `older`.")] = None,
) -> Response:
    """Return what came in and what was done, the newest first."""
    return _answer(LogPage, lambda: desk.log(kind, limit, before))


_ADAPTERS: dict[type, TypeAdapter[Any]] = {
    kind: TypeAdapter(kind)
    for kind in (FleetView, WatchdogView, Listed, SessionPage, FoundView, StatsView, DiskView, LogPage)
}


def _answer(kind: type, ask: Callable[[], object]) -> Response:
    """Return what the desk says. Transcripts may hold half a character, which is no text in any encoding."""
    value = _ADAPTERS[kind].dump_python(ask(), mode="json")
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "replace"), media_type="application/json")


def _found(found: Found) -> FoundView:
    return FoundView(tuple(map(_hit, found.hits)), found.looked_at, found.is_all)


def _hit(hit: Hit) -> HitView:
    told: dict[str, Any] = {each.name: getattr(hit, each.name) for each in fields(HitView)}
    return HitView(**{**told, "at": seconds(hit.at)})


def _ms(at: float | None) -> int | None:
    return None if at is None else int(at * 1000)
