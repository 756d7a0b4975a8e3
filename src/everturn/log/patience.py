"""How long to keep trying: jittered exponential backoff up to a deadline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from everturn.clock import Clock, Ids
from everturn.errors import Unavailable
from everturn.log.objects import Objects

Result = TypeVar("Result")

BACKOFF_START_S = 0.1
BACKOFF_LIMIT_S = 2.0


class Patience:
    """The patience of one operation, from now on. Several steps of it share one deadline.

    Args:
        objects: What waits.
        clock: Measures.
        ids: For jitter.
        deadline_s: After this, nothing is tried again; what has begun may still end.
    """

    def __init__(self, objects: Objects, clock: Clock, ids: Ids, deadline_s: float) -> None:
        self._objects = objects
        self._clock = clock
        self._ids = ids
        self._deadline_s = deadline_s
        self._started = clock.elapsed()
        self._backoff_s = BACKOFF_START_S

    @property
    def used_s(self) -> float:
        """How long the operation has taken so far."""
        return self._clock.elapsed() - self._started

    def check(self) -> None:
        """Raise `Unavailable` if time is up. For before a further step of something that has gone well so far."""
        if self.used_s > self._deadline_s:
            raise Unavailable(
                f"the store was too slow: nothing came of it in {self.used_s:.0f} s", hint="it is safe to try again"
            )

    async def wait(self, error: Unavailable) -> None:
        """Wait before trying again, or raise the error if there is no time left."""
        if self.used_s + self._backoff_s > self._deadline_s:
            raise error
        await self._objects.wait(self._backoff_s / 2 + self._ids.jitter(self._backoff_s / 2))
        self._backoff_s = min(self._backoff_s * 2, BACKOFF_LIMIT_S)

    async def insist(self, operation: Callable[[], Awaitable[Result]]) -> Result:
        """Carry out an operation that may be done twice, until it succeeds or time is up."""
        while True:
            self.check()
            try:
                return await operation()
            except Unavailable as error:
                await self.wait(error)
