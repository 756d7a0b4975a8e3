"""The pages that tell of the whole fleet, and where each of them is."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from everturn.errors import EverturnError, Invalid, Unavailable
from everturn.mirrors.hits import Filters, Found, Kind
from everturn.service.dashboard import words
from everturn.service.dashboard.assets import serve_asset
from everturn.service.dashboard.rendering import Renderer
from everturn.service.dashboard.session import SessionDesk, SessionPages
from everturn.service.dashboard.stream import News, Streams
from everturn.service.views.fleet import STATES
from everturn.service.views.log import LogKind
from everturn.service.views.values import DiskView, FleetView, Listed, LogPage, WatchdogView
from everturn.service.web.problems import status_of
from everturn.telemetry import Metrics

ROWS = 100  # of claims and workdirs; more are counted, not shown
SESSIONS_ON_A_PAGE = 50
HITS = 30
MAX_OFFSET = 10_000_000
_KINDS: dict[str, LogKind] = {"webhook": "webhook", "admin": "admin", "sweep": "sweep"}
_LOGS = {"": "All", "webhook": "Webhooks", "admin": "Admin requests", "sweep": "Sweeps"}
_TEXTS = {
    Kind.PROMPT: "prompts",
    Kind.ANSWER: "answers",
    Kind.THINKING: "thoughts",
    Kind.TOOL_INPUT: "what tools were given",
    Kind.TOOL_RESULT: "what tools answered",
    Kind.USER: "what users told",
}

Handler = Callable[[Request], Response]


class FleetDesk(News, SessionDesk, Protocol):
    """What the pages ask; see `Desk`, whose methods these are."""

    def fleet(self) -> FleetView: ...  # noqa: D102
    def watchdog(self) -> WatchdogView: ...  # noqa: D102
    def disk(self) -> DiskView: ...  # noqa: D102
    def sessions(  # noqa: D102
        self, query: str | None, agent: str | None, state: str | None, offset: int, limit: int
    ) -> Listed: ...
    def search(self, query: str, filters: Filters | None, limit: int) -> Found: ...  # noqa: D102
    def log(self, kind: LogKind | None, limit: int, before: str | None) -> LogPage: ...  # noqa: D102


def routes(desk: FleetDesk, renderer: Renderer, metrics: Metrics) -> list[BaseRoute]:
    """Return where the pages are, what they are made up with, and the stream that tells of news.

    Args:
        desk: Knows what they show.
        renderer: Makes them.
        metrics: Where streams are counted.
    """
    pages = Pages(desk, renderer)
    streams = Streams(desk, metrics.dashboard_streams)
    shown: dict[str, Handler] = {
        "/": pages.fleet,
        "/sessions": pages.sessions,
        "/sessions/{named:path}": SessionPages(desk, renderer).show,
        "/search": pages.search,
        "/disk": pages.disk,
        "/log": pages.log,
    }
    return [
        *(Route(path, answering(handler, renderer)) for path, handler in shown.items()),
        Route("/live", streams.answer),
        Route("/static/{name}", serve_asset),
    ]


def answering(handler: Handler, renderer: Renderer) -> Handler:
    """Return a handler that answers errors with a page that says what is wrong."""

    @wraps(handler)
    def answer(request: Request) -> Response:
        try:
            return handler(request)
        except EverturnError as error:
            return renderer.error(request, status_of(error), error.message, error.hint)

    return answer


class Pages:
    """Answers with pages. The methods block: whoever calls them does so in a thread.

    Args:
        desk: Knows what they show.
        renderer: Makes them.
    """

    def __init__(self, desk: FleetDesk, renderer: Renderer) -> None:
        self._desk = desk
        self._renderer = renderer

    def fleet(self, request: Request) -> Response:
        """Return the fleet's page."""
        return self._renderer.page(
            request,
            "fleet.html",
            version=self._renderer.version,
            fleet=self._desk.fleet(),
            watchdog=self._desk.watchdog(),
            disk=self._desk.disk(),
            shown=ROWS,
        )

    def sessions(self, request: Request) -> Response:
        """Return a page of the list of sessions.

        Raises:
            Invalid: The request asks for something that there cannot be.
        """
        version = self._renderer.version
        query, agent, state = (_asked(request, name) for name in ("q", "agent", "state"))
        if state and state not in STATES:
            raise Invalid(f"there is no state {state!r}", hint=f"it is one of {', '.join(STATES)}")
        listed = self._desk.sessions(
            query or None, agent or None, state or None, _offset(request), SESSIONS_ON_A_PAGE
        )

        def page(offset: int) -> str:
            return words.address("/sessions", q=query, agent=agent, state=state, offset=offset)

        after = listed.offset + len(listed.sessions)
        return self._renderer.page(
            request,
            "sessions.html",
            version=version,
            listed=listed,
            query=query,
            agent=agent,
            wanted=state,
            states=STATES,
            is_narrowed=bool(query or agent or state),
            first=page(0),
            newer=page(max(listed.offset - SESSIONS_ON_A_PAGE, 0)) if listed.offset else "",
            older=page(after) if listed.sessions and after < listed.total else "",
        )

    def search(self, request: Request) -> Response:
        """Return what was found, below what was looked for. It is not kept up to date: a reader is at it."""
        query, agent, repo, kind = (_asked(request, name) for name in ("q", "agent", "repo", "kind"))
        found, problem = None, None
        if query:
            try:
                found = self._desk.search(query, _filters(agent, repo, kind), HITS)
            except (Invalid, Unavailable) as error:
                problem = error
        return self._renderer.page(
            request,
            "search.html",
            status=200 if problem is None else status_of(problem),
            query=query,
            agent=agent,
            repo=repo,
            kind=kind,
            kinds=_TEXTS,
            found=found,
            problem=problem,
        )

    def disk(self, request: Request) -> Response:
        """Return the page of what takes how much room."""
        version, disk = self._renderer.version, self._desk.disk()
        return self._renderer.page(
            request,
            "disk.html",
            version=version,
            disk=disk,
            used=disk.trees_bytes + disk.caches_bytes + disk.quarantine_bytes + disk.trash_bytes,
            by_repo=_largest(disk.by_repo),
            by_agent=_largest(disk.by_agent),
            shown=ROWS,
        )

    def log(self, request: Request) -> Response:
        """Return a page of the log.

        Raises:
            Invalid: There is no such kind, or no such page.
        """
        version = self._renderer.version
        kind, before = _asked(request, "kind"), _asked(request, "before")
        if kind and kind not in _KINDS:
            raise Invalid(f"there is no kind {kind!r}", hint=f"it is one of {', '.join(_KINDS)}")
        log = self._desk.log(_KINDS.get(kind), SESSIONS_ON_A_PAGE, before or None)
        return self._renderer.page(
            request,
            "log.html",
            version=version,
            log=log,
            kind=kind,
            kinds=_LOGS,
            is_newest=not before,
            older=words.address("/log", kind=kind, before=log.older) if log.older else "",
        )


def _asked(request: Request, name: str) -> str:
    return request.query_params.get(name, "").strip()


def _offset(request: Request) -> int:
    text = _asked(request, "offset") or "0"
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and int(text) <= MAX_OFFSET):
        raise Invalid(f"{text[:40]!r} is no place in the list", hint="go to the beginning of the list")
    return int(text)


def _filters(agent: str, repo: str, kind: str) -> Filters:
    if kind and kind not in {each.value for each in Kind}:
        raise Invalid(f"there are no texts of the kind {kind!r}", hint=f"it is one of {', '.join(Kind)}")
    return Filters(agent=agent or None, repo=repo or None, kind=kind or None)


def _largest(sizes: dict[str, int]) -> dict[str, int]:
    """Return the largest, the largest first."""
    return dict(sorted(sizes.items(), key=lambda each: each[1], reverse=True)[:ROWS])
