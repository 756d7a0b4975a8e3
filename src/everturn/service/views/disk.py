"""How much room workdirs take on the service's machine, how that went, and what a sweep would free."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass

from everturn.clock import Clock
from everturn.errors import EverturnError
from everturn.housekeeping.disk import Usage, usage
from everturn.log.background import start_thread
from everturn.logbook.entries import SampleEntry
from everturn.logbook.logbook import Logbook
from everturn.service.views.thinning import thinned
from everturn.service.views.values import DiskView, Sample, WorkdirView
from everturn.settings import Settings
from everturn.workdirs.records import WorkdirRecord
from everturn.workshop import Workshop

SAMPLE_S = 3_600.0
TREND_S = 30 * 86_400.0
MOST_POINTS = 200
TRY_S = 600.0
RETRY_S = 60.0
WRITE_S = 60.0
KNOWN_S = 2.0  # so long what was read last is not read again

_NAMES = ("trees_bytes", "caches_bytes", "quarantine_bytes", "disk_free_bytes")


@dataclass(frozen=True, slots=True)
class _Tried:
    """What a sweep would do.

    Attributes:
        at: When that was tried.
        frees_bytes: How much room it would free.
        removes: How many things it would remove.
    """

    at: float
    frees_bytes: int
    removes: int


class DiskWatch:
    """Looks at the disk.

    Args:
        settings: How much may be taken.
        workshop: Knows the workdirs.
        logbook: Keeps samples.
        clock: Tells the time.
        changed: Is told when there is something new to show.
    """

    def __init__(
        self, settings: Settings, workshop: Workshop, logbook: Logbook, clock: Clock, changed: Callable[[], None]
    ) -> None:
        self._changed = changed
        self._settings = settings
        self._workshop = workshop
        self._logbook = logbook
        self._clock = clock
        self._mutex = threading.Lock()
        self._known: tuple[float, DiskView] | None = None
        self._tried: _Tried | None = None
        self._tried_at: float | None = None
        self._is_trying = False
        self._ending = threading.Event()
        self._sampler: threading.Thread | None = None

    def start(self) -> None:
        """Begin to take a sample every hour."""
        with self._mutex:
            if self._sampler is None:
                self._sampler = Context().run(start_thread, self._sample_on, "everturn-samples")

    def stop(self, timeout_s: float) -> None:
        """End. What is under way is not waited for: it may be cut off anywhere."""
        self._ending.set()
        if self._sampler is not None:
            self._sampler.join(timeout_s)

    def view(self) -> DiskView:
        """Return how it is. Reads notes only; what a sweep would free is tried in the background.

        Raises:
            EverturnError: The logbook cannot be read.
        """
        self._try_if_due()
        with self._mutex:
            now = self._clock.elapsed()
            if self._known is None or now - self._known[0] > KNOWN_S:
                self._known = (now, self._view())
            return self._known[1]

    def sample(self) -> None:
        """Note how it is now. It is durable on return.

        Raises:
            EverturnError: The logbook cannot be written.
        """
        found = usage(self._workshop.root)
        self._logbook.samples.add({name: getattr(found, name) for name in _NAMES}).result(WRITE_S)

    def try_sweep(self) -> None:
        """Find out what a sweep would free. Blocks, for as long as it takes to look at every workdir."""
        with suppress(EverturnError):  # somebody else is sweeping: then it will be known later
            report = self._workshop.sweeper.sweep(dry_run=True)
            removes = sum(fate.is_gone for fate in report.fates)
            with self._mutex:  # a view that is being made knows nothing of it, and is not to be kept
                self._tried = _Tried(self._clock.now(), report.freed_bytes, removes)
                self._known = None
            self._changed()

    def _view(self) -> DiskView:
        found = usage(self._workshop.root)
        records = sorted(WorkdirRecord.all(self._workshop.root), key=lambda each: -(each.size_bytes or 0))
        now = self._clock.now()
        trend = [_sample(each) for each in thinned(self._logbook.samples.since(now - TREND_S), MOST_POINTS)]
        if trend:
            trend.append(Sample(now, *(getattr(found, name) for name in _NAMES)))
        return _view(found, records, trend, self._settings, self._tried)

    def _try_if_due(self) -> None:
        with self._mutex:
            now = self._clock.elapsed()
            if self._is_trying or (self._tried_at is not None and now - self._tried_at < TRY_S):
                return
            self._is_trying, self._tried_at = True, now

        def work() -> None:
            try:
                self.try_sweep()
            finally:
                self._is_trying = False

        if Context().run(start_thread, work, "everturn-dry-run") is None:
            self._is_trying = False

    def _sample_on(self) -> None:
        """The first one only if the last is old: a service that is started often takes no more of them."""
        while not self._ending.wait(self._until_due()):
            with suppress(EverturnError, OSError, TimeoutError):
                self.sample()
                continue
            self._ending.wait(RETRY_S)

    def _until_due(self) -> float:
        now = self._clock.now()
        with suppress(EverturnError):
            taken = self._logbook.samples.since(now - SAMPLE_S)
            # One of the future says that the clock was wrong, then or now.
            return min(max(1.0, taken[-1].at + SAMPLE_S - now), SAMPLE_S) if taken else 0.0
        return SAMPLE_S


def _view(
    found: Usage,
    records: Sequence[WorkdirRecord],
    trend: Sequence[Sample],
    settings: Settings,
    tried: _Tried | None,
) -> DiskView:
    return DiskView(
        trees_bytes=found.trees_bytes,
        ignored_bytes=found.ignored_bytes,
        caches_bytes=found.caches_bytes,
        quarantine_bytes=found.quarantine_bytes,
        trash_bytes=found.trash_bytes,
        disk_total_bytes=found.disk_total_bytes,
        disk_free_bytes=found.disk_free_bytes,
        wanted_free_bytes=settings.workdirs_free_bytes,
        quota_bytes=settings.workdirs_quota_bytes,
        unmeasured=found.unmeasured,
        measured_at=found.measured_at,
        by_repo=found.by_repository,
        by_agent=found.by_agent,
        workdirs=tuple(map(_workdir, records)),
        trend=tuple(trend),
        sweep_frees_bytes=None if tried is None else tried.frees_bytes,
        sweep_removes=None if tried is None else tried.removes,
        sweep_tried_at=None if tried is None else tried.at,
    )


def _workdir(record: WorkdirRecord) -> WorkdirView:
    return WorkdirView(
        name=record.name,
        repo=record.repo,
        agent=record.agent,
        branch=record.branch,
        work=record.work_key,
        size_bytes=record.size_bytes,
        last_used_at=record.last_used_at,
    )


def _sample(entry: SampleEntry) -> Sample:
    return Sample(entry.at, *(entry.values.get(name, 0) for name in _NAMES))
