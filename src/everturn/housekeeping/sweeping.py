"""The sweep: what the registry knows, what is noted, and what lies on the disk are brought together.

Webhooks and runs that end free what they held, but they may never come, or be killed. So the sweep goes by what there
is. It looks at one root that is marked as ours, and may be killed at any moment: the next one goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, replace
from typing import Any

from everturn.errors import Conflict, EverturnError, Unavailable
from everturn.git.runner import Git
from everturn.housekeeping.disk import Measurer
from everturn.housekeeping.eviction import Evictor
from everturn.housekeeping.reconciliation import Reconciliation, Sessions
from everturn.housekeeping.removal import Fate, Removal
from everturn.log.background import start_thread
from everturn.registry import Registry
from everturn.telemetry import Metrics, get_logger
from everturn.workdirs.root import SWEPT, Root, read_json

SWEEP_LOCK = "sweep"


@dataclass(frozen=True, slots=True)
class Report:
    """What a sweep has done or, in a dry run, what it would do.

    Attributes:
        fates: What became of each thing, in order; what was kept is among them, with the reasons.
        notes: What else has to be known: why some things were not decided.
        freed_bytes: How much room was freed.
        missing_bytes: How much more would have to be freed for the quota and the free space that are wanted.
        dry_run: Whether nothing was done.
        seconds: How long it took.
    """

    fates: tuple[Fate, ...] = ()
    notes: tuple[str, ...] = ()
    freed_bytes: int = 0
    missing_bytes: int = 0
    dry_run: bool = False
    seconds: float = 0.0

    @property
    def kept(self) -> tuple[Fate, ...]:
        """What was kept."""
        return tuple(fate for fate in self.fates if fate.action == "kept")

    def facts(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        sums = {name: getattr(self, name) for name in ("freed_bytes", "missing_bytes", "dry_run", "seconds")}
        return {**sums, "notes": list(self.notes), "fates": [fate.facts() for fate in self.fates]}


class WorkdirSweeper:
    """Sweeps a root.

    Args:
        root: What is swept.
        git: Runs git.
        registry: Knows which sessions can still be resumed, and in which directories.
        removal: Removes workdirs and caches.
        evictor: Makes room.
        measurer: Measures.
        max_age_s: How long a workdir or a cache stays that nobody uses.
        interval_s: How long after a sweep the next one is due; 0: never.
        metrics: Where sweeps are counted.
    """

    def __init__(  # noqa: PLR0913  # it brings all the others together
        self,
        root: Root,
        git: Git,
        registry: Registry,
        *,
        removal: Removal,
        evictor: Evictor,
        measurer: Measurer,
        max_age_s: float,
        interval_s: float,
        metrics: Metrics,
    ) -> None:
        self._root = root
        self._git = git
        self._registry = registry
        self._removal = removal
        self._evictor = evictor
        self._measurer = measurer
        self._max_age_s = max_age_s
        self._interval_s = interval_s
        self._metrics = metrics
        self._begun = threading.Lock()
        self._log = get_logger()

    @property
    def is_due(self) -> bool:
        """Whether there is something to sweep, and the last sweep was long enough ago.

        A sweep that failed, or was killed, does not count. A time in the future says that the clock was wrong, then
        or now.

        Raises:
            Denied: The root may not be looked into.
        """
        if not (self._interval_s and self._root.is_there):
            return False
        ended_at = (read_json(self._root.path / SWEPT) or {}).get("ended_at")
        if not isinstance(ended_at, int | float):
            return True
        return not 0 <= self._root.clock.now() - ended_at < self._interval_s

    def begin_if_due(self) -> None:
        """Sweep in a thread of its own, which nobody waits for, if a sweep is due."""
        try:
            if not self.is_due or not self._begun.acquire(blocking=False):
                return
        except EverturnError as error:
            self._log.warning("workdirs_sweep_failed", error=str(error))
            return
        if Context().run(start_thread, self._sweep_quietly, "everturn-workdirs") is None:
            self._begun.release()

    def sweep_if_due(self) -> Report | None:
        """Sweep, now, if a sweep is due and nobody else is at it. Blocks as `sweep` does.

        Returns:
            What was done; `None`: nothing, as another process sweeps, or has just swept, or it is not time yet.

        Raises:
            Conflict: The root is not ours.
            Denied: Nothing can be written there.
        """
        if not self.is_due:
            return None
        with self._alone() as is_alone:
            return self._sweep(dry_run=False) if is_alone and self.is_due else None

    def sweep(self, *, dry_run: bool = False) -> Report:
        """Sweep, now. Blocks, also for the deletion of what was removed.

        Args:
            dry_run: Only say what would be done. Sizes are measured and noted all the same.

        Returns:
            What was done. A root that is not there has nothing to sweep.

        Raises:
            Conflict: Another process, or thread, is sweeping; or the root is not ours.
            Denied: Nothing can be written there.
        """
        if not self._root.is_there:
            return Report(dry_run=dry_run)
        with self._alone() as is_alone:
            if not is_alone:
                raise Conflict("another process is sweeping the workdirs", hint="wait for it")
            return self._sweep(dry_run=dry_run)

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        with self._counted():
            self._root.prepare()
            lock = self._root.try_workdir(SWEEP_LOCK)
        try:
            yield lock is not None
        finally:
            if lock is not None:
                lock.release()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except (EverturnError, OSError) as error:
            self._metrics.workdir_sweeps.labels("failed").inc()
            if isinstance(error, EverturnError):
                raise
            raise Unavailable(f"the sweep failed: {error}", hint="look at the folder, then sweep again") from error

    def _sweep(self, *, dry_run: bool) -> Report:
        begun = self._root.clock.elapsed()
        with self._counted():
            report = self._swept(dry_run=dry_run)
            report = replace(report, seconds=round(self._root.clock.elapsed() - begun, 3))
            if not dry_run:
                self._note(report)
        return report

    def _swept(self, *, dry_run: bool) -> Report:
        reconciliation = Reconciliation(
            self._root, self._git, Sessions.of(self._registry), self._removal, self._max_age_s, dry_run=dry_run
        )
        fates = list(reconciliation.fates())
        self._measurer.refresh()
        fates += reconciliation.quarantined()
        eviction = self._evictor.evict(dry_run=dry_run, after=fates)
        if not dry_run:
            self._metrics.workdirs_missing_bytes.set(eviction.missing_bytes)
            self._root.empty_trash()
            self._measurer.show()
        return Report(
            fates=(*fates, *eviction.fates),
            notes=(*reconciliation.notes, *eviction.reasons),
            freed_bytes=sum(fate.freed_bytes for fate in (*fates, *eviction.fates)),
            missing_bytes=eviction.missing_bytes,
            dry_run=dry_run,
        )

    def _sweep_quietly(self) -> None:
        """Nothing depends on it: whatever is to be done is done by the next sweep."""
        try:
            self.sweep_if_due()
        except EverturnError as error:
            self._log.warning("workdirs_sweep_failed", error=str(error))
        finally:
            self._begun.release()

    def _note(self, report: Report) -> None:
        counts = {action: sum(fate.action == action for fate in report.fates) for action in ("removed", "kept")}
        facts = {"freed_bytes": report.freed_bytes, "seconds": report.seconds, **counts}
        self._root.write_record(self._root.path / SWEPT, {"ended_at": self._root.clock.now(), **facts})
        self._metrics.workdir_sweeps.labels("done").inc()
        self._log.info("workdirs_swept", notes=report.notes, **facts)
