"""Telling browsers that there are news (server-sent events).

An event says nothing but the number of the news; the script in the page then asks for the page again. So there is
nothing to keep for anybody who was away, and a stream costs next to nothing: no thread, and no line that waits.
"""

from __future__ import annotations

from typing import Protocol

import anyio
from prometheus_client import Gauge
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from everturn.service.web.problems import explain

MAX_STREAMS = 128
BEAT_S = 15.0
PAUSE_S = 0.25
SEND_TIMEOUT_S = 40.0  # the server ends a connection earlier on which nothing is taken; this is for other servers
_LARGEST_VERSION = 2**53
_DIGITS = 16  # that it has
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),
]
_START = {"type": "http.response.start", "status": 200, "headers": _HEADERS}
_END = {"type": "http.response.body", "body": b"", "more_body": False}


class News(Protocol):
    """What a stream asks; see `Desk`."""

    async def changed(self, since: int, session_id: str | None = None) -> int:
        """Wait until the version is another one; return the same one when there will be no more news."""


class Streams:
    """Answers `/live?since=VERSION`, of one session with `&session=ID`.

    Everything happens on the event loop.

    Args:
        news: Who knows.
        open_streams: Shows how many there are.
        limit: How many there may be; more are refused with 429.
        beat_s: How long a stream is silent at most.
        pause_s: How long it is silent after an event at least.
        send_timeout_s: How long a client may take to read what it is sent, when all buffers on the way are full.
    """

    def __init__(
        self,
        news: News,
        open_streams: Gauge,
        *,
        limit: int = MAX_STREAMS,
        beat_s: float = BEAT_S,
        pause_s: float = PAUSE_S,
        send_timeout_s: float = SEND_TIMEOUT_S,
    ) -> None:
        self.news = news
        self.beat_s = beat_s
        self.pause_s = pause_s
        self.send_timeout_s = send_timeout_s
        self._gauge = open_streams
        self._limit = limit
        self._count = 0

    async def answer(self, request: Request) -> Response:
        """Answer with a stream, unless there are too many, or the request makes no sense."""
        since = request.query_params.get("since", "-1")
        digits = since.removeprefix("-")
        if not digits.isdecimal() or len(digits) > _DIGITS or int(digits) > _LARGEST_VERSION:
            return explain(400, "since is no version", "leave it out, or give the last one that was told")
        if self._count >= self._limit:
            hint = "close some pages, or ask again in a while"
            message = f"{self._limit} pages are kept up to date already"
            return explain(429, message, hint, headers={"Retry-After": "60"})
        return _Stream(self, int(since), request.query_params.get("session"))

    def opened(self, by: int) -> None:
        """Count one more (1), or one less (-1)."""
        self._count += by
        self._gauge.set(self._count)


class _Stream(Response):
    """One stream. It ends when the client goes or does not read, and when there will be no more news."""

    def __init__(self, streams: Streams, since: int, session_id: str | None) -> None:
        super().__init__()
        self._streams = streams
        self._since = since
        self._session_id = session_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await send(_START)
            await send(_END)
            return
        self._streams.opened(1)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._until_gone, receive, group.cancel_scope)
                await self._tell(send)
                group.cancel_scope.cancel()
        finally:
            self._streams.opened(-1)

    async def _until_gone(self, receive: Receive, everything: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        everything.cancel()

    async def _tell(self, send: Send) -> None:
        with anyio.move_on_after(self._streams.send_timeout_s):
            await send(_START)
        said = b": hello\n\n"
        while said and await self._say(send, said):
            said = await self._next()
        if not said:
            await send(_END)

    async def _say(self, send: Send, said: bytes) -> bool:
        """Send something, and tell whether the client takes it in time."""
        with anyio.move_on_after(self._streams.send_timeout_s):
            await send({"type": "http.response.body", "body": said, "more_body": True})
            return True
        return False

    async def _next(self) -> bytes:
        """Return the next event: that there are news, that there are none, or nothing: there will be no more."""
        await anyio.sleep(self._streams.pause_s)
        with anyio.move_on_after(self._streams.beat_s):
            version = await self._streams.news.changed(self._since, self._session_id)
            if version == self._since:
                return b""
            self._since = version
            return b"event: version\ndata: %d\n\n" % version
        return b"event: beat\ndata: %d\n\n" % self._since
