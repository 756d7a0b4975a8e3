"""The service as a process: its socket, its threads, how it begins and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn

from everturn.service.offices import Admin
from everturn.service.parts import Parts
from everturn.service.rounds import Rounds
from everturn.service.sweeping import DailySweep
from everturn.service.views.desk import Desk
from everturn.service.web.access import is_loopback
from everturn.service.web.app import make_app
from everturn.service.web.health import Readiness
from everturn.service.web.listening import address_of, listen
from everturn.service.web.protocol import Config, Limits
from everturn.service.worker import DeliveryWorker
from everturn.settings import Settings
from everturn.telemetry import get_logger

REQUESTS_SHARE = 0.5  # of the time there is to stop; the rest is for the worker and the logbook
WORKER_SHARE = 0.8  # of what is left then
SWITCH_S = 0.0005  # so long a thread that looks at ten thousand sessions keeps the interpreter from a request
_ENDING = (signal.SIGTERM, signal.SIGINT)


def serve(settings: Settings, *, told: Callable[[str], None] = lambda _: None, limits: Limits | None = None) -> bool:
    """Serve until SIGTERM or SIGINT comes. Blocks; on return everything it has accepted is durable.

    The first of these signals ends it in good order, within `shutdown_grace_s`: no more connections, no more streams;
    requests, and the delivery that is being worked at, are finished. A second one ends the process at once.

    Args:
        settings: How to serve.
        told: Is given the service's address as soon as it takes connections.
        limits: What clients may ask of it; what this process can give, if not given.

    Returns:
        Whether everything ended in time. If not, threads may be left that keep the process from ending by itself;
        what they are at is taken up again at the next start.

    Raises:
        Invalid: It cannot listen there, or a setting is wrong.
    """
    with listen(settings.serve_host, settings.serve_port) as listener:
        service = Service(settings, listener, limits or Limits.of_process())
        _be_prompt()
        with _stopping_at_signals(service.stop):
            return service.run(told)


class Service:
    """The service, on a socket that listens already.

    Args:
        settings: How to serve.
        listener: The socket; it is closed when the service stops.
        limits: What clients may ask of it.

    Raises:
        Invalid: A setting is wrong.
    """

    def __init__(self, settings: Settings, listener: socket.socket, limits: Limits) -> None:
        self._settings = settings
        self._listener = listener
        self.parts = parts = Parts.open(settings)
        self._clock = parts.clock
        self._log = get_logger()
        self._stopping_since: float | None = None
        self._reason = ""
        self._readiness = Readiness.of(parts)
        self._worker = DeliveryWorker(parts.logbook, parts.workshop.freeing, parts.metrics, parts.clock, parts.ids)
        sweeps = DailySweep.of(parts)
        self._rounds = Rounds(sweeps, parts.logbook, settings.logbook_days, parts.clock)
        self._desk = Desk(parts)
        app = make_app(
            parts,
            self._desk,
            office=Admin(parts, sweeps),
            wake=self._worker.wake,
            readiness=self._readiness,
            host=str(listener.getsockname()[0]),
        )
        self._server = Server(Config(app, limits, settings.shutdown_grace_s * REQUESTS_SHARE))

    def run(self, told: Callable[[str], None]) -> bool:
        """Serve until `stop` is called. Blocks. To be called once.

        Args:
            told: Is given the address as soon as connections are taken.

        Returns:
            Whether everything ended in time.
        """
        address = address_of(self._listener)

        def begun() -> None:
            self._begin(address)
            told(address)

        def ending() -> None:
            self._log.info("service_stopping", reason=self._reason)

        self._warn()
        try:
            self._server.run_on(self._listener, begun, ending)
        finally:
            in_time = self._end()
        return in_time

    def stop(self, reason: str = "asked") -> None:
        """Make it stop soon. May be called from any thread, and from a signal's handler: it waits for no lock.

        Args:
            reason: Why, for the log.
        """
        if self._stopping_since is None:
            self._stopping_since = self._clock.elapsed()
            self._reason = reason
            self._readiness.phase = "stopping"
            self._server.should_exit = True

    def _begin(self, address: str) -> None:
        self._log.info("service_started", address=address)  # before what the threads have to say
        self._readiness.start()
        self._worker.start()
        self._rounds.start()
        self._desk.start()

    def _end(self) -> bool:
        """Let go of everything, in the time that is left."""
        if self._stopping_since is None:  # it was never told to; something has failed
            self.stop("failed")
        self._readiness.stop()
        began = self._stopping_since or 0.0
        deadline = began + self._settings.shutdown_grace_s
        in_time = self._worker.stop(self._left(deadline) * WORKER_SHARE)
        self._rounds.stop(0)  # a sweep may be left in the middle
        self._desk.stop(self._left(deadline) / 2)
        in_time &= self._closed(self._left(deadline))
        seconds = round(self._clock.elapsed() - began, 3)
        if in_time:
            self._log.info("service_stopped", seconds=seconds)
        else:
            self._log.warning("service_stop_overrun", seconds=seconds)
        return in_time

    def _left(self, deadline: float) -> float:
        return max(deadline - self._clock.elapsed(), 0.1)

    def _closed(self, timeout_s: float) -> bool:
        """Close the logbook; a disk that does not answer must not keep us."""
        closing = threading.Thread(target=self.parts.close, name="everturn-closing", daemon=True)
        closing.start()
        closing.join(timeout_s)
        return not closing.is_alive()

    def _warn(self) -> None:
        host = str(self._listener.getsockname()[0])
        if self._settings.read_token is None and not is_loopback(host):
            self._log.warning("service_open_to_all", host=host)


class Server(uvicorn.Server):
    """A server that leaves signals to us, and says when it takes connections."""

    def run_on(self, listener: socket.socket, begun: Callable[[], None], ending: Callable[[], None]) -> None:
        """Serve until it should exit.

        Args:
            listener: The socket.
            begun: Is called as soon as connections are taken.
            ending: Is called when no more are.
        """
        self._begun, self._ending = begun, ending
        self._log = get_logger()
        quiet = logging.getLogger("uvicorn")  # what it has to say, we say ourselves, in lines of JSON
        quiet.propagate = False
        quiet.handlers = [logging.NullHandler()]
        with asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
            runner.get_loop().set_exception_handler(self._tell)
            runner.run(self.serve(sockets=[listener]))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as usual, and say so."""
        await super().startup(sockets)
        self._begun()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that it ends, and end as usual."""
        self._ending()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    def _tell(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")  # there need not be one
        kind = None if error is None else type(error).__name__
        self._log.error("loop_failed", reason=context.get("message"), error=kind)


def _be_prompt() -> None:
    """Keep requests from waiting for the interpreter: threads take turns sooner, and collections are short.

    A whole collection stops all threads. Most of what it would look at was made by importing, and stays for ever.
    """
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def _stopping_at_signals(stop: Callable[[str], None]) -> Iterator[None]:
    """Stop at the first signal that ends programs, and end at once at the second. Only the main thread hears any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []

    def hear(number: int, _: FrameType | None) -> None:
        heard.append(number)
        if len(heard) > 1:
            os._exit(128 + number)  # as if it had been killed: nobody waits for anything
        stop(signal.Signals(number).name)

    before = {number: signal.signal(number, hear) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
