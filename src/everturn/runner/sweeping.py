"""The sweeps at start, in the background of a run: of sessions that are too old, and of workdirs."""

from __future__ import annotations

import threading
from contextvars import Context

from everturn.errors import EverturnError
from everturn.housekeeping.sweeping import WorkdirSweeper
from everturn.log.background import start_thread
from everturn.model import SessionRecord
from everturn.registry import Registry
from everturn.telemetry import Metrics, get_logger


class Sweeper:
    """Drops the stale sessions of a registry.

    Args:
        registry: Where they are.
        metrics: Where sweeps are counted.
        workdirs: Sweeps the workdirs.
    """

    def __init__(self, registry: Registry, metrics: Metrics, workdirs: WorkdirSweeper | None = None) -> None:
        self._registry = registry
        self._workdirs = workdirs
        self._metrics = metrics
        self._begun = threading.Lock()
        self._log = get_logger()

    def sweep(self, *, dry_run: bool = False) -> list[SessionRecord]:
        """Drop every stale session, now. Blocks; on return they are gone.

        Args:
            dry_run: Only say which.

        Returns:
            What was dropped, or would be.

        Raises:
            EverturnError: The registry did not let us. What was dropped until then stays dropped.
        """
        if dry_run:
            return self._registry.sweep(dry_run=True)
        try:
            dropped = self._registry.sweep()
        except EverturnError:
            self._metrics.sweeps.labels("failed").inc()
            raise
        self._metrics.sweeps.labels("done").inc()
        self._log.info("swept", dropped=len(dropped))
        return dropped

    def begin_workdirs(self) -> None:
        """Sweep the workdirs in a thread of its own, which nobody waits for, if it is time for that."""
        if self._workdirs is not None:
            self._workdirs.begin_if_due()

    def begin(self) -> None:
        """Drop stale sessions in a thread of its own, which nobody waits for. Only the first call does anything."""
        if self._begun.acquire(blocking=False):
            Context().run(start_thread, self._sweep_quietly, "everturn-sweep")  # its lines are not those of a run

    def _sweep_quietly(self) -> None:
        """Nothing depends on it: whatever is stale is dropped at the latest when somebody asks for it."""
        try:
            self.sweep()
        except EverturnError as error:
            self._log.warning("sweep_failed", error=str(error))
