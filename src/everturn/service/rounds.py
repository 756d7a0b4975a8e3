"""What the service looks after by itself, now and then: sweeps, and its own logbook."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from everturn.clock import Clock
from everturn.errors import EverturnError
from everturn.logbook.logbook import Logbook
from everturn.telemetry import get_logger

PAUSE_S = 60.0
PRUNE_S = 3600.0
_DAY_S = 86_400.0


class Sweeps(Protocol):
    """What sweeps: `everturn.service.sweeping.DailySweep`. Its methods block."""

    def at_start(self) -> object:
        """Do what is to be done when the service starts."""

    def if_due(self) -> object:
        """Sweep, if it is time."""


class Rounds:
    """Goes on rounds, on a thread of its own. It may die with the process at any moment.

    Args:
        sweeps: What sweeps.
        logbook: What is pruned.
        keep_days: How long what is in it is kept.
        clock: Tells when to prune.
        pause_s: How long it rests between two rounds.
    """

    def __init__(
        self, sweeps: Sweeps, logbook: Logbook, keep_days: int, clock: Clock, *, pause_s: float = PAUSE_S
    ) -> None:
        self._sweeps = sweeps
        self._logbook = logbook
        self._keep_s = keep_days * _DAY_S
        self._clock = clock
        self._pause_s = pause_s
        self._pruned_at: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go, name="everturn-rounds", daemon=True)
        self._log = get_logger()

    def start(self) -> None:
        """Begin the first round. Returns at once."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Begin no other round.

        Args:
            timeout_s: How long to wait for the one under way; it is let go of then.

        Returns:
            Whether it is over.
        """
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _go(self) -> None:
        self._try(self._sweeps.at_start)
        while not self._over.is_set():
            self._try(self._prune)
            self._over.wait(self._pause_s)
            if not self._over.is_set():
                self._try(self._sweeps.if_due)

    def _prune(self) -> None:
        now = self._clock.elapsed()
        if self._pruned_at is None or now - self._pruned_at >= PRUNE_S:
            self._pruned_at = now
            self._logbook.prune(self._keep_s).result()

    def _try(self, work: Callable[[], object]) -> None:
        try:
            work()
        except EverturnError as error:
            self._log.error("round_failed", reason=error.message)
        except Exception as error:  # noqa: BLE001  # the next round may go well
            self._log.error("round_failed", reason=type(error).__name__)
