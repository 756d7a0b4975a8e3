"""The service's sweeps: at its start, once a day, and when an admin asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self

from everturn.clock import Clock
from everturn.errors import Conflict, Denied, EverturnError
from everturn.git import locks
from everturn.housekeeping.sweeping import Report, WorkdirSweeper
from everturn.logbook.entries import SweepReason
from everturn.logbook.logbook import Logbook
from everturn.model import SessionRecord
from everturn.runner.sweeping import Sweeper
from everturn.service.parts import Parts
from everturn.telemetry import Metrics, get_logger

PAUSE_S = 600.0  # before another attempt, when something could not be swept


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What was swept or, in a dry run, would be.

    Attributes:
        dropped: The sessions that were too old to be resumed.
        workdirs: What became of the workdirs; `None`: nobody looked at them, as it was not time, or another process
            was sweeping them.
        problems: What could not be done, for people.
        dry_run: Whether nothing was done.
    """

    dropped: tuple[SessionRecord, ...] = ()
    workdirs: Report | None = None
    problems: tuple[str, ...] = ()
    dry_run: bool = False

    def facts(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "dry_run": self.dry_run,
            "dropped": [{"work": each.work_key, "session_id": each.session_id} for each in self.dropped],
            "workdirs": None if self.workdirs is None else self.workdirs.facts(),
            "problems": list(self.problems),
        }

    def details(self) -> tuple[str, ...]:
        """Return what was done, for people."""
        would = "would be " if self.dry_run else ""
        told = [f"session {each.work_key} {would}dropped: it was too old" for each in self.dropped]
        fates = () if self.workdirs is None else self.workdirs.fates
        return (*self.problems, *told, *(fate.told(dry_run=self.dry_run) for fate in fates if fate.action != "kept"))

    def counts(self) -> dict[str, Any]:
        """Return what it comes to, in a few numbers."""
        counts: dict[str, Any] = {"sessions_dropped": len(self.dropped), "problems": list(self.problems)}
        if self.workdirs is not None:
            gone = sum(fate.is_gone for fate in self.workdirs.fates)
            counts |= {"removed": gone, "kept": len(self.workdirs.kept), "notes": list(self.workdirs.notes)}
            counts |= {"freed_bytes": self.workdirs.freed_bytes, "missing_bytes": self.workdirs.missing_bytes}
        return counts


class DailySweep:
    """Sweeps sessions and workdirs when it is time. For several services on one machine: one of them does it.

    When sessions were swept last is in the logbook; when workdirs were, is noted beside them, as runs sweep them as
    well. So a restart neither skips a sweep nor makes another one.

    Args:
        sessions: Drops stale sessions.
        workdirs: Sweeps the workdirs of this machine, if that is due by its own note.
        logbook: Where sweeps are noted.
        clock: Tells the time.
        interval_s: How long after a sweep the next one is due; 0: never.
        metrics: Where it is shown when the last one was.
        on_start: Whether the start of the service counts as a reason.
    """

    def __init__(
        self,
        sessions: Sweeper,
        workdirs: WorkdirSweeper,
        logbook: Logbook,
        *,
        clock: Clock,
        interval_s: float,
        metrics: Metrics,
        on_start: bool = True,
    ) -> None:
        self._sessions = sessions
        self._workdirs = workdirs
        self._logbook = logbook
        self._clock = clock
        self._interval_s = interval_s
        self._metrics = metrics
        self._on_start = on_start
        self._not_before = clock.elapsed()
        self._is_owed = False  # the last one has failed, when it was due or at the start
        self._lock = logbook.path.with_name("sweep.lock")
        self._log = get_logger()

    @classmethod
    def of(cls, parts: Parts) -> Self:
        """Return the one for the parts of the service."""
        return cls(
            Sweeper(parts.registry, parts.metrics),
            parts.workshop.sweeper,
            parts.logbook,
            clock=parts.clock,
            interval_s=parts.settings.workdirs_sweep_s,
            metrics=parts.metrics,
            on_start=parts.settings.sweep_on_start,
        )

    def at_start(self) -> SweepResult | None:
        """Drop all stale sessions, and sweep the workdirs if that is due. Blocks; call it once, in a thread.

        Returns:
            What was done; `None`: nothing, as it is not to be done at the start, and not due either, or as it failed.
        """
        return self._quietly(self._sweep_at_start)

    def if_due(self) -> SweepResult | None:
        """Sweep if it is time. Blocks; call it every minute or so.

        What failed is tried again after ten minutes, and a sweep that was interrupted at the next call after a start.

        Returns:
            What was done; `None`: nothing, as it is not time, or another service is at it, or as it failed.
        """
        return self._quietly(self._sweep_if_due)

    def now(self, *, dry_run: bool = False) -> SweepResult:
        """Sweep all of it, whether it is due or not. Blocks.

        Args:
            dry_run: Only say what would be done. That is not noted.

        Raises:
            Conflict: Another process, or thread, is sweeping.
            EverturnError: Nothing could be swept.
        """
        if dry_run:
            return self._swept(lambda: self._workdirs.sweep(dry_run=True), dry_run=True)
        with self._alone() as is_alone:
            if not is_alone:
                raise Conflict("another sweep is under way", hint="wait for it")
            return self._noted("admin", self._workdirs.sweep)

    def next_at(self) -> float | None:
        """Return when the next sweep is due, in seconds since the Unix epoch; `None`: never.

        Raises:
            EverturnError: The logbook cannot be read.
        """
        if not (self._interval_s or self._is_owed):
            return None
        last_at, now = self._last_at(), self._clock.now()
        is_due = self._is_owed or self._is_over(last_at) or self._workdirs.is_due
        due_at = now if is_due else (last_at or now) + self._interval_s
        return max(due_at, now + self._not_before - self._clock.elapsed())

    # --- When -----------------------------------------------------------------------------------------------------

    @property
    def _is_paused(self) -> bool:
        return self._clock.elapsed() < self._not_before

    @property
    def _is_due(self) -> bool:
        if self._is_paused:
            return False
        if self._is_owed or not self._interval_s:
            return self._is_owed
        return self._is_over(self._last_at()) or self._workdirs.is_due

    def _is_over(self, last_at: float | None) -> bool:
        """Tell whether the interval is over. A time in the future says that the clock was wrong, then or now."""
        return last_at is None or not 0 <= self._clock.now() - last_at < self._interval_s

    def _last_at(self) -> float | None:
        last = self._logbook.sweeps.last()
        return None if last is None else last.done_at

    def _show(self) -> None:
        self._metrics.last_sweep.set(self._last_at() or 0)

    def _sweep_at_start(self) -> SweepResult | None:
        self._show()
        if not self._on_start:
            return self._sweep_if_due()
        with self._alone():  # if somebody else is at it, too, each session is dropped by one of us
            return self._noted("start", self._workdirs.sweep_if_due)

    def _sweep_if_due(self) -> SweepResult | None:
        if not self._is_paused:
            self._show()  # another service may have swept
        if not self._is_due:
            return None
        with self._alone() as is_alone:
            return self._noted("daily", self._workdirs.sweep_if_due) if is_alone and self._is_due else None

    def _quietly(self, sweep: Callable[[], SweepResult | None]) -> SweepResult | None:
        """Nobody waits for it: what failed is done by the next sweep."""
        try:
            return sweep()
        except EverturnError as error:
            self._log.warning("sweep_failed", error=str(error))
            self._pause()
            self._is_owed = True
            return None

    def _pause(self) -> None:
        self._not_before = self._clock.elapsed() + min(PAUSE_S, self._interval_s or PAUSE_S)

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        try:
            self._lock.parent.mkdir(parents=True, exist_ok=True)
            lock = locks.take(self._lock, clock=self._clock)
        except OSError as error:
            raise Denied(
                f"cannot write to {self._lock}: {error.strerror or error}", hint="check the folder's permissions"
            ) from error
        try:
            yield lock is not None
        finally:
            if lock is not None:
                lock.release()

    # --- What -----------------------------------------------------------------------------------------------------

    def _noted(self, reason: SweepReason, workdirs: Callable[[], Report | None]) -> SweepResult:
        self._pause()
        number = self._logbook.sweeps.begin(reason).result()
        try:
            result = self._swept(workdirs)
        except EverturnError as error:
            self._logbook.sweeps.end(number, "failed", {"problems": [error.message]}).result()
            raise
        outcome: Literal["done", "failed"] = "failed" if result.problems else "done"
        self._logbook.sweeps.end(number, outcome, result.counts()).result()
        self._is_owed = outcome == "failed"
        self._show()
        return result

    def _swept(self, workdirs: Callable[[], Report | None], *, dry_run: bool = False) -> SweepResult:
        """Sweep sessions first: then they keep no workdir that has expired with them."""
        errors: list[EverturnError] = []
        dropped: list[SessionRecord] = []
        report: Report | None = None
        try:
            dropped = self._sessions.sweep(dry_run=dry_run)
        except EverturnError as error:
            errors.append(error)
        try:
            report = workdirs()
        except EverturnError as error:
            errors.append(error)
        if len(errors) == 2:
            raise errors[0]
        return SweepResult(tuple(dropped), report, tuple(error.message for error in errors), dry_run)
