"""A task of its own in the caller's event loop, under asyncio and trio, and a way into that loop from elsewhere.

A run lives in such a task: it has to let go of its agent in good order whatever its caller does, be that to cancel,
to look away, or to forget it.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import sniffio

_running: set[Any] = set()  # the event loop itself only remembers tasks weakly


class Loop:
    """The event loop that is running now."""

    def __init__(self) -> None:
        self._call, self._now = _caller_and_clock()

    def now(self) -> float:
        """Return the time by which the loop's deadlines go. Within what `call` has done, too, where no task runs."""
        return self._now()

    def call(self, what: Callable[[], object]) -> None:
        """Have something done in the loop, soon. From any thread, and from a signal handler.

        If the loop has ended, it is left undone.
        """
        with suppress(RuntimeError):
            self._call(what)


def spawn(work: Coroutine[Any, Any, None], ended: Callable[[], object] = lambda: None) -> None:
    """Begin a task that belongs to nobody. The work must not raise.

    When the event loop ends, the task is cancelled and waited for.

    Args:
        work: What it does. If the event loop ends in the very moment, none of it, not even to clean up.
        ended: Called in the event loop when the task has ended, in that case as well.
    """
    if sniffio.current_async_library() == "trio":
        import trio  # noqa: PLC0415  # not installed unless it is in use

        async def run() -> None:
            try:
                with suppress(trio.Cancelled):
                    await work
            finally:
                ended()

        trio.lowlevel.spawn_system_task(run, context=contextvars.copy_context())
        return
    import asyncio  # noqa: PLC0415  # beside its sibling

    task = asyncio.get_running_loop().create_task(work)
    _running.add(task)
    task.add_done_callback(_running.discard)
    task.add_done_callback(lambda _: ended())


def _caller_and_clock() -> tuple[Callable[[Callable[[], object]], object], Callable[[], float]]:
    if sniffio.current_async_library() == "trio":
        import trio  # noqa: PLC0415

        return trio.lowlevel.current_trio_token().run_sync_soon, trio.current_time
    import asyncio  # noqa: PLC0415

    loop = asyncio.get_running_loop()
    return loop.call_soon_threadsafe, loop.time
