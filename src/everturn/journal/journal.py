"""The journal of a run: every event is written before anybody sees it (docs/journal.md)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self

from everturn.clock import Clock, Ids, SystemClock
from everturn.errors import EverturnError
from everturn.journal.events import Event
from everturn.journal.file import JournalFile
from everturn.journal.lines import line_of
from everturn.journal.reading import RunRef
from everturn.journal.shipping import Appender, Shipper
from everturn.log.objects import Objects
from everturn.settings import Settings
from everturn.telemetry import Metrics, default_metrics, get_logger

Durability = Literal["flush", "fsync", "store"]


class Journal:
    """The journal of one run, written by that run.

    For one thread at a time; the shipper has one of its own.

    Args:
        ref: Whose it is.
        file: Where it is on this machine.
        shipper: Brings it to the store.
        clock: Tells when things happen.
        durability: What an event has to survive before it may be shown.
        timeout_s: How long to wait for that.
        metrics: What is counted.
        closed: Called at the end.
    """

    def __init__(  # its parts; see `open`
        self,
        ref: RunRef,
        file: JournalFile,
        shipper: Shipper,
        *,
        clock: Clock,
        durability: Durability,
        timeout_s: float,
        metrics: Metrics,
        closed: Callable[[], None],
    ) -> None:
        self.ref = ref
        self.settles = durability != "flush"
        self._has_room = True
        self._file = file
        self._append = file.append
        self._shipper = shipper
        self._now = clock.now
        self._durability = durability
        self._timeout_s = timeout_s
        self._metrics = metrics
        self._closed = closed
        self._seq = 0
        self._log = get_logger()

    @classmethod
    def open(
        cls,
        objects: Objects,
        ref: RunRef,
        path: Path,
        *,
        settings: Settings,
        clock: Clock | None = None,
        ids: Ids | None = None,
        metrics: Metrics | None = None,
    ) -> Self:
        """Begin a journal. Nothing is asked of the store yet.

        Args:
            objects: The store.
            ref: Whose it is.
            path: Where it is on this machine; there must be no such file.
            settings: How durable it has to be, and how it gets into the store.
            clock: Tells when things happen.
            ids: For write ids.
            metrics: What is counted.

        Raises:
            Denied: The file cannot be made, or the process has too many files open.
            Invalid: The scope or the run id is not a usable name.
        """
        clock, metrics = clock or SystemClock(), metrics or default_metrics()
        appender = Appender(objects, ref.folder, settings=settings, clock=clock, ids=ids or Ids(), metrics=metrics)
        file = JournalFile(path)
        try:
            shipper = Shipper(file, appender.append, ship_s=settings.journal_ship_s, metrics=metrics)
        except BaseException:
            file.close()
            raise
        shipper.start()
        return cls(
            ref,
            file,
            shipper,
            clock=clock,
            durability=settings.journal_durability,
            timeout_s=2 * settings.append_deadline_s,  # what is on its way already may have to fail first
            metrics=metrics,
            closed=appender.close,
        )

    @property
    def path(self) -> Path:
        """Where it is on this machine."""
        return self._file.path

    def write(self, event: Event) -> None:
        """Write an event. If `settles`, it may be shown when `settle` has returned as well; if not, at once.

        On return it survives the process; unless the disk is full, say: then it is `settle` that has it stored.
        """
        seq = self._seq + 1
        line = line_of(event, seq, int(self._now() * 1000))
        self._seq = seq
        if self._has_room:
            try:
                self._append(line)
                return
            except EverturnError as error:
                self._give_up(error)
        self._metrics.journal_write_failures.inc()
        self._shipper.overflow(line)

    def settle(self) -> None:
        """Block until what was written is as durable as it has to be before it is shown.

        Raises:
            EverturnError: It is not, so it must not be shown. If the file has it, it is stored later.
        """
        if self._durability == "store" or not self._has_room:
            self._shipper.settle(self._timeout_s)
        elif self._durability == "fsync":
            self._file.sync()

    def _give_up(self, error: EverturnError) -> None:
        """Have all that comes from now on go to the store at once: the file takes no more."""
        self._has_room, self.settles = False, True
        self._log.error("journal_not_written", path=str(self.path), error=error.message)

    def close(self, timeout_s: float) -> None:
        """End it, when nothing more is written. On return all of it is in the store.

        Args:
            timeout_s: How long to try.

        Raises:
            EverturnError: Not all is stored: keep the file, and have the next start here look after it.
        """
        try:
            self._shipper.close(timeout_s)
        finally:
            self._file.close()
            self._closed()
