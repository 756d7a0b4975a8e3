"""HTTP on a connection, for clients that nobody knows.

uvicorn waits for ever for the rest of a request, and for ever for a client to take its answer. Here both have an end,
and so has the number of connections: where there are too many, those go first on which nothing is being answered, as
no whole request has come.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, Self

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from everturn.service.web.problems import explain, phrase

STREAM = "everturn.stream"  # in the state of a request: its answer has no end, so that nobody waits for it

_SENDING_ENDS = (h11.DONE, h11.MUST_CLOSE, h11.CLOSED, h11.ERROR)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a client may ask of us.

    Attributes:
        receive_s: How long a request may take to arrive, from its first byte (the first of a connection: from when it
            was opened) to its last.
        last_receive_s: How long it may still take once the service is told to stop.
        idle_s: How long a connection stays open on which nothing is asked.
        stall_s: How long a client may take nothing of what it is sent.
        connections: How many connections there may be.
        idle: How many of them nothing is answered on.
    """

    receive_s: float = 30.0
    last_receive_s: float = 2.0
    idle_s: float = 15.0
    stall_s: float = 30.0
    connections: int = 512
    idle: int = 256

    @classmethod
    def of_process(cls) -> Self:
        """Return the usual ones, or fewer connections if this process may not open so many files.

        A half of the files is left for the logbook, the registry, git, and whatever else has to be opened meanwhile.
        """
        usual = cls()
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files == resource.RLIM_INFINITY:
            return usual
        connections = max(2, min(usual.connections, files // 2))
        return replace(usual, connections=connections, idle=min(usual.idle, connections // 2))


class Config(uvicorn.Config):
    """How the server speaks: HTTP/1.1 with limits, nothing else, and nothing on loggers that are not ours.

    Args:
        app: What it serves.
        limits: What clients may ask of it.
        grace_s: How long requests may go on once it is told to stop.
    """

    def __init__(self, app: ASGIApp, limits: Limits, grace_s: float) -> None:
        super().__init__(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # whoever needs to know that there is a proxy looks at its headers
            server_header=False,
            timeout_keep_alive=limits.idle_s,  # type: ignore[arg-type]  # a number of seconds, whole or not
            timeout_graceful_shutdown=grace_s,  # type: ignore[arg-type]
            backlog=1024,
        )
        self.limits = limits
        self.resting: OrderedDict[Connection, None] = OrderedDict()  # nothing is answered on these; the oldest first


class Connection(H11Protocol):
    """A connection that ends if its client takes too long.

    All of it happens on the event loop's thread.
    """

    config: Config

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = self.config.limits
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._arriving: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it in, or refuse it, if there are too many that are at work."""
        super().connection_made(transport)
        self._rest()
        self._watch_request()
        if len(self.connections) > self._limits.connections or len(self.config.resting) > self._limits.idle:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Go on with the request."""
        super().data_received(data)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget all of it."""
        self.config.resting.pop(self, None)
        self._forget_request()
        self._forget_stall()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the client to take what it was sent."""
        self._rest()
        super().on_response_complete()
        if self.transport.is_closing():
            self._limit_farewell()
        self._look()

    def pause_writing(self) -> None:
        """The client does not take what it is sent; it has not got for ever."""
        super().pause_writing()
        self._forget_stall()
        self._stall = self.loop.call_later(self._limits.stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It does again."""
        self._forget_stall()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing was asked for a while."""
        self._end()

    def shutdown(self) -> None:
        """Answer what was asked, then end. What has no end is ended now."""
        answering = self._answering()
        if answering is None:
            self._end()
        elif answering.scope["state"].get(STREAM):
            self.transport.abort()
        else:
            answering.keep_alive = False
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = self.loop.call_later(self._limits.last_receive_s, self._give_up)

    def send_400_response(self, msg: str) -> None:
        """Say that it is no HTTP, in JSON as everything else."""
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        message = "the request's head is too large" if status == 431 else msg.rstrip(".")
        self._refuse(status, message[:1].lower() + message[1:], "send HTTP/1.1")

    def _look(self) -> None:
        """See how far the request has come."""
        if self.transport.is_closing():
            return
        theirs = self.conn.their_state
        if theirs is h11.SEND_BODY or (theirs is h11.IDLE and self._has_begun()):
            self._unset_keepalive_if_required()
            self._watch_request()
        else:
            self._forget_request()
        answering = self._answering()
        if answering is not None and theirs is not h11.SEND_BODY:
            self.config.resting.pop(self, None)
        elif answering is not self._arriving:  # it counts from its beginning, however slowly it comes
            self._arriving = answering
            self._rest()

    def _cycle(self) -> RequestResponseCycle | None:
        """Return the request that came last; `None`: none has come."""
        return self.cycle

    def _answering(self) -> RequestResponseCycle | None:
        """Return the request that is being answered."""
        cycle = self._cycle()
        return None if cycle is None or cycle.response_complete else cycle

    def _has_begun(self) -> bool:
        return self._cycle() is None or bool(self.conn.trailing_data[0])

    def _rest(self) -> None:
        self.config.resting[self] = None
        self.config.resting.move_to_end(self)

    def _make_room(self) -> None:
        """End the connection that has rested longest; refuse this one if there is none but it."""
        oldest = next(iter(self.config.resting))
        if oldest is not self:
            oldest.transport.abort()
            self.config.resting.pop(oldest, None)
        elif len(self.connections) > self._limits.connections:
            self._refuse(503, "there are too many connections", "ask again in a moment")

    def _watch_request(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._limits.receive_s, self._give_up)

    def _forget_request(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _forget_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _give_up(self) -> None:
        """The request did not arrive in time."""
        self._deadline = None
        if self._cycle() is None and not self.conn.trailing_data[0]:
            self._end()
        else:
            self._refuse(408, "the request did not arrive in time", "send it again, faster")

    def _refuse(self, status: int, message: str, hint: str) -> None:
        """Say what is wrong, if nothing was said yet, and end the connection. Whoever worked at it is told."""
        if self.transport.is_closing():
            return
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = explain(status, message, hint, headers={"connection": "close", "cache-control": "no-store"})
            headers = [*self.server_state.default_headers, *response.raw_headers]
            reason = phrase(status).encode("ascii")
            self.transport.write(self.conn.send(h11.Response(status_code=status, headers=headers, reason=reason)))
            self.transport.write(self.conn.send(h11.Data(data=bytes(response.body))))
            self.transport.write(self.conn.send(h11.EndOfMessage()))
        answering = self._answering()
        if answering is not None:
            answering.disconnected = True
            answering.message_event.set()
        self._close()

    def _end(self) -> None:
        """End a connection on which nothing is being answered."""
        if self.transport.is_closing():
            return
        if self.conn.our_state not in _SENDING_ENDS:
            self.conn.send(h11.ConnectionClosed())
        self._close()

    def _close(self) -> None:
        """End the connection when all is sent; at the latest when the client had its time to take it."""
        self._forget_request()
        self.transport.close()
        self._limit_farewell()

    def _limit_farewell(self) -> None:
        self._forget_stall()
        self._stall = self.loop.call_later(self._limits.stall_s, self.transport.abort)
