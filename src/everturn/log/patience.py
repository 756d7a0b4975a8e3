"""How long to keep trying: exponential backoff with full jitter, up to a deadline."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

from everturn.clock import Clock, Ids
from everturn.errors import Unavailable

Result = TypeVar("Result")


class Waiter(Protocol):
    """What waits; a store's `Objects` do."""

    async def wait(self, seconds: float) -> None:
        """Let this much time pass."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait between tries.

    Attributes:
        start_s: The most to wait before the second try.
        limit_s: What that, doubling with each try, grows to at most.
    """

    start_s: float = 0.1
    limit_s: float = 2.0

    def pauses(self, ids: Ids) -> Iterator[float]:
        """Yield how long to wait before the second try, the third, and so on: each time a random part of the most."""
        most_s = self.start_s
        while True:
            yield ids.jitter(most_s)
            most_s = min(most_s * 2, self.limit_s)


USUAL = Backoff()


class Patience:
    """The patience of one operation, from now on. Several steps of it share one deadline.

    As a context manager it goes for everything inside the block: what retries by itself in there, as `Requests`
    does, asks `patience_left_s` and gives up when the operation has to.

    Args:
        waiter: What waits.
        clock: Measures.
        ids: For jitter.
        deadline_s: After this, nothing is tried again; what has begun may still end.
        backoff: How long to wait between tries.
        latest: Tells a time of the clock that goes before the deadline if it is earlier. It may change meanwhile.
    """

    def __init__(
        self,
        waiter: Waiter,
        clock: Clock,
        ids: Ids,
        deadline_s: float,
        backoff: Backoff = USUAL,
        latest: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self._waiter = waiter
        self._clock = clock
        self._deadline_s = deadline_s
        self._latest = latest
        self._started = clock.elapsed()
        self._pauses = backoff.pauses(ids)
        self._outer: list[Patience | None] = []

    @property
    def used_s(self) -> float:
        """How long the operation has taken so far."""
        return self._clock.elapsed() - self._started

    @property
    def left_s(self) -> float:
        """How long something may still be begun; less than nothing if time is up."""
        now = self._clock.elapsed()
        return min(self._started + self._deadline_s, self._latest()) - now

    def check(self) -> None:
        """Raise `Unavailable` if time is up. For before a further step of something that has gone well so far."""
        if self.left_s < 0:
            raise Unavailable(
                f"the store was too slow: nothing came of it in {self.used_s:.0f} s", hint="it is safe to try again"
            )

    async def wait(self, error: Unavailable) -> None:
        """Wait before trying again, or raise the error if there is no time left."""
        pause_s = next(self._pauses)
        if pause_s > self.left_s:
            raise error
        await self._waiter.wait(pause_s)

    async def insist(self, operation: Callable[[], Awaitable[Result]]) -> Result:
        """Carry out an operation that may be done twice, until it succeeds or time is up."""
        while True:
            self.check()
            try:
                with self:
                    return await operation()
            except Unavailable as error:
                await self.wait(error)

    def __enter__(self) -> Self:
        self._outer.append(_innermost.get())
        _innermost.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        # Not reset with a token: a simulation may enter and leave in different contexts.
        _innermost.set(self._outer.pop())


_innermost: ContextVar[Patience | None] = ContextVar("everturn-patience", default=None)


def patience_left_s() -> float:
    """Return how long the operation that this is a part of may still begin something."""
    patience = _innermost.get()
    return math.inf if patience is None else patience.left_s
