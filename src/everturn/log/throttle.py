"""How much may be asked of a store at once: as much as it takes, and less as soon as it says so.

Two limits, as one alone does not do. The *width*, requests in flight, is halved when the store asks to slow down,
and widens by one for every width of requests that go well (additive increase, multiplicative decrease, as TCP does).
The *pace*, requests a second, exists only after the store has complained: quick answers let even one request at a
time be too many. It begins at half of the rate that was too much, grows while there is quiet, and goes away when it
is far above what is asked for.

Complaints about requests that were sent before the last slowing down say nothing new, so each round trip slows down
once.
"""

from __future__ import annotations

import math
import threading

from everturn.clock import Clock
from everturn.errors import Unavailable

MEMORY_S = 1.0  # the rate is measured over about this long
LEAST_PACE = 2.0
QUIET_S = 1.0
RECOVERY = 1.5
FAR_ABOVE = 4.0


class Throttle:
    """Gives each request its turn. For all threads that talk to one store.

    Args:
        clock: Measures, and waits for the pace.
        width: How many requests may be in flight while all is well.
    """

    def __init__(self, clock: Clock, width: int) -> None:
        self._clock = clock
        self._full_width = width
        self._width = width
        self._changed = threading.Condition(threading.Lock())
        self._in_flight = 0
        self._waiting = 0
        self._well = 0
        self._slowed = 0
        self._rate = 0.0
        self._rate_at = clock.elapsed()
        self._pace: float | None = None
        self._pace_at = 0.0
        self._next_turn_at = 0.0

    @property
    def width(self) -> int:
        """How many requests may be in flight now."""
        return self._width

    @property
    def full_width(self) -> int:
        """How many may be while all is well."""
        return self._full_width

    @property
    def pace(self) -> float | None:
        """How many requests may begin in a second; `None` for as many as there are."""
        with self._changed:
            return self._recovered(self._clock.elapsed())

    def enter(self, patience_s: float = math.inf) -> int:
        """Wait for a turn, take it, and return the ticket that `slow_down` asks for. `leave` has to follow.

        Raises:
            Unavailable: The turn would come too late.
        """
        with self._changed:
            if self._in_flight >= self._width:
                self._wait_for_room(patience_s)
            pause_s = self._take_turn(patience_s)
            self._in_flight += 1
        if pause_s > 0:
            try:
                self._clock.sleep(pause_s)
            except BaseException:
                self.leave(well=False)
                raise
        return self._slowed

    def leave(self, *, well: bool) -> None:
        """Give back a turn.

        Args:
            well: Whether the store answered as it should.
        """
        with self._changed:
            self._in_flight -= 1
            if well and self._width < self._full_width:
                self._well += 1
                if self._well >= self._width:
                    self._well = 0
                    self._width += 1
            if self._waiting:
                self._changed.notify(2)  # the turn that is given back, and the one that the width may have grown by

    def slow_down(self, ticket: int) -> bool:
        """Take note that the store has refused a request because there were too many.

        Returns:
            Whether that was news.
        """
        with self._changed:
            if ticket != self._slowed:
                return False
            now = self._clock.elapsed()
            self._slowed += 1
            self._well = 0
            self._width = max(1, self._width // 2)
            measured = self._measured(now) / 2
            self._pace = max(LEAST_PACE, measured if self._pace is None else min(measured, self._pace))
            self._pace_at = now
            self._next_turn_at = max(now, self._next_turn_at)
            return True

    def _wait_for_room(self, patience_s: float) -> None:
        self._waiting += 1
        try:
            timeout_s = None if patience_s == math.inf else max(patience_s, 0)
            if not self._changed.wait_for(lambda: self._in_flight < self._width, timeout_s):
                raise _too_late()
        finally:
            self._waiting -= 1

    def _take_turn(self, patience_s: float) -> float:
        """Count a request, and return how long it has to wait for its turn."""
        now = self._clock.elapsed()
        pace = self._recovered(now)
        turn_at = now if pace is None else max(now, self._next_turn_at)
        if turn_at - now > max(patience_s, 0):  # before it is taken, or nobody else could have it
            self._changed.notify()  # nor the room that this one may have been woken for
            raise _too_late()
        if pace is not None:
            self._next_turn_at = turn_at + 1 / pace
        self._rate = self._measured(now) + 1 / MEMORY_S
        self._rate_at = now
        return turn_at - now

    def _measured(self, now: float) -> float:
        """Return the rate of requests, older ones counting less and less."""
        return self._rate * math.exp((self._rate_at - now) / MEMORY_S)

    def _recovered(self, now: float) -> float | None:
        """Return the pace after the quiet there has been."""
        while self._pace is not None and now - self._pace_at >= QUIET_S:
            self._pace *= RECOVERY
            self._pace_at += QUIET_S
            if self._pace >= FAR_ABOVE * self._measured(now):
                self._pace = None
        return self._pace


def _too_late() -> Unavailable:
    return Unavailable(
        "the store asks to slow down, and the turn of this request would come too late",
        hint="it is safe to try again; fewer workers at once put less load on the store",
    )
