"""The page of a session: the conversation as people want to read it, run by run."""

from __future__ import annotations

import math
from typing import Protocol
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from everturn.service.dashboard import charts, sessions, words
from everturn.service.dashboard.rendering import Renderer
from everturn.service.dashboard.sessions import TURNS
from everturn.service.dashboard.timeline import spans, timeline
from everturn.service.views.session import SessionPage

_SLIDE = TURNS // 2  # a page that shows the latest turns leaves out so many at once, not one after the other


class SessionDesk(Protocol):
    """What the pages of sessions ask; see `Desk`, whose methods these are."""

    def session(self, named: str, offset: int | None, limit: int) -> SessionPage: ...  # noqa: D102
    def version(self, session_id: str | None = None) -> int: ...  # noqa: D102


class SessionPages:
    """Answers with the pages of sessions. The methods block: whoever calls them does so in a thread.

    Args:
        desk: What is asked.
        renderer: Makes the pages.
    """

    def __init__(self, desk: SessionDesk, renderer: Renderer) -> None:
        self._desk = desk
        self._renderer = renderer

    def show(self, request: Request) -> Response:
        """Return a page of a session: with its last turns while somebody is at work on it, otherwise with its first.

        With those from `from` on instead, the place of a turn in the conversation, or those around `at`, the id of a
        turn. A beginning of an id, or a work item's key, leads to the address of the session.

        Raises:
            Invalid: Nothing was named.
            NotFound: There is none.
            Conflict: There are several whose ids begin so.
        """
        named = request.path_params["named"]
        version = self._desk.version(named)
        page = self._find(named, request)
        session_id = page.session.session_id
        if named != session_id:
            query = f"?{request.url.query}" if request.url.query else ""
            return RedirectResponse(words.session_address(session_id) + query, 303)
        lanes = sessions.lanes(page)
        return self._renderer.page(
            request,
            "session.html",
            version=version,
            news=f"/live?session={quote(session_id, safe='')}",
            found=page,
            view=page.session,
            chapters=sessions.chapters(page),
            commands=sessions.commands(page),
            at_work_s=sessions.at_work_s(page),
            timeline=timeline(lanes, now=page.at),
            cost=charts.cost(
                sessions.points(page), spans=list(spans(lanes, now=page.at)), bounds=sessions.bounds(page)
            ),
            step=TURNS,
            agents=True,
        )

    def _find(self, named: str, request: Request) -> SessionPage:
        asked = request.query_params
        first = asked.get("from", "")
        if first.isascii() and first.isdecimal() and len(first) < 10:
            return self._desk.session(named, max(0, int(first) - 1), TURNS)
        page = self._desk.session(named, None, TURNS)
        position = sessions.positions(page).get(asked["at"]) if "at" in asked else None
        offset = _offset(page, position)
        return page if offset == page.offset else self._desk.session(named, offset, TURNS)


def _offset(page: SessionPage, position: int | None) -> int:
    """Return how many turns to leave out, so that a turn is shown, or what is wanted if none was named."""
    if position is not None:
        return (position - 1) // TURNS * TURNS
    if page.session.state != "live":
        return 0
    return max(0, math.ceil((page.total - TURNS) / _SLIDE) * _SLIDE)
