"""An HTTP server on a thread of its own, which is there at once and gone at once: tests start and stop many."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import socket

    from starlette.applications import Starlette

START_TIMEOUT_S = 10.0
_CLOSING_PAUSE_S = 0.002

# The server complains of every reply that is cut short. Here that is what the script asked for; what
# deserves a line is an exception.
_log = logging.getLogger("everturn.testing.model")
_log.addFilter(lambda record: record.exc_info is not None)


class ThreadServer(uvicorn.Server):
    """A server that is told to stop, where uvicorn's looks for it ten times a second.

    Not being on the main thread, it leaves the signal handlers alone.

    Args:
        app: What it serves.
    """

    def __init__(self, app: Starlette) -> None:
        # Clients keep connections open while a tool runs; closing one then would look like a fault.
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            timeout_keep_alive=3600,
            date_header=False,  # nobody looks at the clock in between
        )
        super().__init__(config)
        self._ready = threading.Event()

    def run_on(self, listener: socket.socket) -> None:
        """Serve until it is stopped."""
        asyncio.run(self.serve(sockets=[listener]))

    def stop(self) -> None:
        """Make it stop soon. May be called from any thread but its own."""
        self.should_exit = True
        if self._ready.is_set():
            self._loop.call_soon_threadsafe(self._stopped.set)

    def wait_until_ready(self) -> None:
        """Wait until connections are accepted.

        Raises:
            RuntimeError: It did not start in time.
        """
        if not self._ready.wait(START_TIMEOUT_S):
            raise RuntimeError(f"the scripted model did not start within {START_TIMEOUT_S} s")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as usual, and say so."""
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._ready.set()

    async def main_loop(self) -> None:
        """Wait until it is stopped."""
        if not await self.on_tick(0):
            await self._stopped.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let what is under way end, and close everything."""
        # Nobody is taken in any more. To close the listener now would lose sockets that were taken in a moment ago.
        for listener in sockets or []:
            self._loop.remove_reader(listener)
        here = asyncio.current_task()
        while self.server_state.connections or asyncio.all_tasks() - {here}:
            for connection in list(self.server_state.connections):
                connection.shutdown()
            await asyncio.sleep(_CLOSING_PAUSE_S)
        for server in self.servers:
            server.close()


class _Protocol(H11Protocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _log
        self.access_log = False
