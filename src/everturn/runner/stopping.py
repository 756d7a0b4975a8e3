"""The wish that a run ends, from wherever it comes: a signal, a cancellation, a lost claim, the caller."""

from __future__ import annotations

from collections.abc import Callable

from everturn.clock import Clock
from everturn.errors import EverturnError

CANCELLED = "cancelled"
CLOSED = "closed"
LOST = "lost"


class Stop:
    """Whether, why and how fast a run is to end. Any thread may ask, and a signal handler: there are no locks here.

    Args:
        clock: Tells how long ago it was asked.
        grace_s: How long letting go may take.

    Attributes:
        reason: Why the run is to end: the name of a signal, `cancelled`, `closed`, `lost`, or the caller's own word;
            `None` while it is not.
        error: What the run is to raise at its end, if its claim was lost.
        hurry: It was asked a second time: whatever can be left out is left out.
    """

    def __init__(self, clock: Clock, grace_s: float) -> None:
        self.reason: str | None = None
        self.error: EverturnError | None = None
        self.hurry = False
        self._clock = clock
        self._grace_s = grace_s
        self._asked_at: float | None = None
        self._tell: Callable[[], object] = _nobody

    def request(self, reason: str, error: EverturnError | None = None, *, again: bool = True) -> None:
        """Ask for the run's end.

        Args:
            reason: Why.
            error: What the run is to raise.
            again: Whether asking a second time means to hurry.
        """
        if self.reason is None:
            self._asked_at = self._clock.elapsed()
            self.reason, self.error = reason, error
        elif again:
            self.hurry = True
            self.error = self.error or error
        self._tell()

    def listen(self, tell: Callable[[], object]) -> None:
        """Have something called at each wish; at once if there was one."""
        self._tell = tell
        if self.reason is not None:
            tell()

    @property
    def left_s(self) -> float:
        """How much of the grace period is left; all of it while nobody has asked."""
        if self._asked_at is None:
            return self._grace_s
        return max(0.0, self._asked_at + self._grace_s - self._clock.elapsed())

    @property
    def took_s(self) -> float | None:
        """How long ago the run was asked to end."""
        return None if self._asked_at is None else self._clock.elapsed() - self._asked_at


def _nobody() -> None:
    """Nobody listens yet."""
