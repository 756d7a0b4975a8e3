"""Does what webhooks ask for, one after the other, until each is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from everturn.clock import Clock, Ids
from everturn.forges.base import Happening
from everturn.logbook.logbook import Logbook
from everturn.telemetry import Metrics


class Freed(Protocol):
    """What came of an attempt."""

    @property
    def fates(self) -> Sequence[Any]:
        """What became of what."""

    @property
    def waiting(self) -> Sequence[str]:
        """Runs that are at work, and have to end first."""


class Freeing(Protocol):
    """What the worker needs of `everturn.housekeeping.freeing.Freeing`."""

    def look(self) -> Any:
        """Return what there is to free."""

    def free(self, happening: Happening, holdings: Any) -> Freed:
        """Free what a happening ends."""


class DeliveryWorker:
    """The worker."""

    def __init__(self, logbook: Logbook, freeing: Freeing, metrics: Metrics, clock: Clock, ids: Ids) -> None:
        self._parts = (logbook, freeing, metrics, clock, ids)

    def start(self) -> None:
        """Begin."""

    def wake(self) -> None:
        """Look for work at once."""

    def stop(self, timeout_s: float) -> bool:
        """End after the current delivery."""
        return True
