"""The page of a session: the conversation as people want to read it, run by run."""

from __future__ import annotations

import math

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from everturn.errors import Conflict, NotFound
from everturn.service.dashboard import charts, sessions
from everturn.service.dashboard.rendering import Renderer
from everturn.service.dashboard.sessions import TURNS
from everturn.service.dashboard.timeline import spans, timeline
from everturn.service.views.desk import Desk
from everturn.service.views.session import SessionPage

_SLIDE = TURNS // 2  # a page that shows the latest turns leaves out so many at once, not one after the other


class SessionPages:
    """Answers with the pages of sessions.

    Args:
        desk: What is asked.
        renderer: Makes the pages.
    """

    def __init__(self, desk: Desk, renderer: Renderer) -> None:
        self._desk = desk
        self._renderer = renderer

    async def show(self, request: Request) -> Response:
        """Answer with a page of a session.

        While somebody is at work on it, with its last turns, otherwise with its first ones; with those from `from` on,
        the place of a turn in the conversation, or with those around `at`, the id of a turn.
        """
        version = self._renderer.version
        try:
            page = await run_in_threadpool(self._find, request)
        except NotFound as error:
            return self._renderer.error(request, 404, error.message, error.hint)
        except Conflict as error:
            return self._renderer.error(request, 409, error.message, error.hint)
        lanes = sessions.lanes(page, request.url.path)
        return self._renderer.page(
            request,
            "session.html",
            version=version,
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

    def _find(self, request: Request) -> SessionPage:
        named = request.path_params["session_id"]
        asked = request.query_params
        first = asked.get("from", "")
        if first.isdecimal() and len(first) < 10:
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
