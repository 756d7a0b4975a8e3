"""Requests to one store: each in its turn, and again if it may be made twice."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TypeVar

from everturn.clock import Clock, Ids
from everturn.errors import EverturnError, Unavailable
from everturn.log.causes import asks_to_slow_down, translate
from everturn.log.patience import USUAL, Backoff, patience_left_s
from everturn.log.throttle import Throttle
from everturn.telemetry import Metrics, default_metrics, get_logger

Result = TypeVar("Result")

WIDTH = 16
DEADLINE_S = 10.0
LOG_EVERY_S = 5.0


class Requests:
    """Makes requests, and makes errors of ours of what they raise.

    Args:
        label: The store's URL, for messages.
        clock: Measures and waits.
        ids: For jitter.
        width: How many requests may be in flight while all is well.
        backoff: How long to wait before a request is made again.
        deadline_s: How long after it first failed a request is not made again.
        metrics: What is counted for the whole process.

    Attributes:
        throttle: Whose turn it is.
        throttled: How many requests the store refused because there were too many.
        retried: How many requests were made again.
    """

    def __init__(
        self,
        label: str,
        *,
        clock: Clock,
        ids: Ids | None = None,
        width: int = WIDTH,
        backoff: Backoff = USUAL,
        deadline_s: float = DEADLINE_S,
        metrics: Metrics | None = None,
    ) -> None:
        self.throttle = Throttle(clock, width)
        self.throttled = 0
        self.retried = 0
        self._label = label
        self._clock = clock
        self._ids = ids or Ids()
        self._backoff = backoff
        self._deadline_s = deadline_s
        self._metrics = metrics or default_metrics()
        self._counting = Lock()
        self._log = get_logger()
        self._logged_at: float | None = None

    def once(self, act: str, request: Callable[[], Result]) -> Result:
        """Make a request. What it raises, other than errors of ours, becomes one of them.

        Args:
            act: What it does, for messages: read, write, list, delete.
            request: Makes it.
        """
        ticket = self.throttle.enter(patience_left_s())
        well = False
        try:
            result = request()
            well = True
            return result
        except EverturnError:
            raise
        except Exception as error:
            if asks_to_slow_down(error):
                self._slow_down(ticket)
            raise translate(error, act, self._label) from error
        finally:
            self.throttle.leave(well=well)

    def insist(self, act: str, request: Callable[[], Result]) -> Result:
        """Make a request that may be made twice, again and again until it succeeds or time is up.

        Only what came of the store's not answering is tried again; what it has refused, it will refuse again.
        """
        try:
            return self.once(act, request)
        except Unavailable as error:
            return self._again(act, request, error)

    def _again(self, act: str, request: Callable[[], Result], error: Unavailable) -> Result:
        failed_at = self._clock.elapsed()
        for pause_s in self._backoff.pauses(self._ids):
            left_s = min(self._deadline_s - (self._clock.elapsed() - failed_at), patience_left_s())
            if pause_s > left_s:
                raise error
            self._clock.sleep(pause_s)
            with self._counting:
                self.retried += 1
            self._metrics.store_retries.inc()
            try:
                return self.once(act, request)
            except Unavailable as another:
                error = another
        raise AssertionError("there is always another pause")

    def _slow_down(self, ticket: int) -> None:
        self.throttle.slow_down(ticket)
        self._metrics.store_throttled.inc()
        with self._counting:
            self.throttled += 1
            now = self._clock.elapsed()
            if self._logged_at is not None and now - self._logged_at < LOG_EVERY_S:
                return
            self._logged_at = now
        pace = self.throttle.pace
        self._log.warning(
            "store_throttles",
            store=self._label,
            throttled=self.throttled,
            in_flight_limit=self.throttle.width,
            per_second_limit=None if pace is None else round(pace, 1),
        )
