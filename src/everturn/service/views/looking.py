"""A thread that does something again and again while somebody wants to know, and nothing otherwise."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import Context

from everturn.clock import Clock
from everturn.log.background import start_thread
from everturn.telemetry import get_logger

WATCHED_S = 60.0  # so long after a question others are expected
LARGEST_SHARE = 0.2  # of the time, at most, is spent on looking


class Looker:
    """Calls a function every so often while it is watched.

    What takes long is done less often: it is at rest for four times as long as it took, at least.

    Args:
        look: What to call. It should raise nothing; if it does, that is logged.
        pause_s: How long to rest after it.
        clock: Tells how long it took.
        is_wanted: Tells whether somebody waits for news.
        name: The thread's.
    """

    def __init__(
        self, look: Callable[[], None], *, pause_s: float, clock: Clock, is_wanted: Callable[[], bool], name: str
    ) -> None:
        self._look = look
        self._pause_s = pause_s
        self._clock = clock
        self._is_wanted = is_wanted
        self._name = name
        self._asked_at: float | None = None
        self._looked_at: float | None = None
        self._changed = threading.Condition()
        self._ending = False
        self._thread: threading.Thread | None = None
        self._log = get_logger()

    @property
    def is_running(self) -> bool:
        """Whether its thread is there."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin. A second time it does nothing."""
        with self._changed:
            if self._thread is None and not self._ending:
                self._thread = Context().run(start_thread, self._work, self._name)

    def stop(self, timeout_s: float) -> None:
        """End. What is under way is waited for, so long."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def ask(self) -> None:
        """Note that somebody wants to know, and begin to look if nobody did for a while. Returns at once."""
        with self._changed:
            was_watched = self._is_watched()
            self._asked_at = self._clock.elapsed()
            if not was_watched:
                self._changed.notify_all()

    def wait(self, timeout_s: float, *, older_s: float) -> None:
        """Wait until the last look is not older than this, or until the time is up.

        Args:
            timeout_s: How long to wait, at most.
            older_s: How old it may be.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ending or self._is_fresh(older_s), timeout_s)

    def _is_fresh(self, older_s: float) -> bool:
        return self._looked_at is not None and self._clock.elapsed() - self._looked_at <= older_s

    def _is_watched(self) -> bool:
        return self._asked_at is not None and self._clock.elapsed() - self._asked_at <= WATCHED_S

    def _work(self) -> None:
        while self._rest_until_wanted():
            begun = self._clock.elapsed()
            try:
                self._look()
            except Exception as error:  # noqa: BLE001  # what is known is shown, with its age, and the next one may do
                self._log.warning("dashboard_not_refreshed", what=self._name, error=type(error).__name__)
            with self._changed:
                self._looked_at = self._clock.elapsed()
                self._changed.notify_all()
            took_s = self._clock.elapsed() - begun
            self._rest(max(self._pause_s, took_s * (1 / LARGEST_SHARE - 1)))

    def _rest(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ending, seconds)

    def _rest_until_wanted(self) -> bool:
        """Return `False` at the end. Whoever begins to wait for news asks first, and so ends the rest."""
        with self._changed:
            while not (self._ending or self._is_watched() or self._is_wanted()):
                self._changed.wait()
            return not self._ending
