"""A journal's way into the object store: in the background, in parts of the size of a frame (docs/journal.md)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from everturn.clock import Clock, Ids
from everturn.errors import Corrupt, EverturnError, Fenced, Unavailable
from everturn.journal.file import JournalFile, lines_at
from everturn.journal.lines import is_exact
from everturn.log.background import start_thread
from everturn.log.compactor import Compactor
from everturn.log.entries import Batch
from everturn.log.format import Header
from everturn.log.objects import Objects, run
from everturn.log.reporting import CompactionReport
from everturn.log.writer import LogWriter
from everturn.settings import Settings
from everturn.telemetry import Metrics, get_logger

FRAME_BYTES = 1 << 20
LONGEST_PAUSE_S = 30.0
MOST_DOUBLINGS = 32  # of a pause; a store may be away for days


class Appender:
    """Appends lines to a journal's log, as a guest: one run writes it, and whoever looks after what that has left.

    Args:
        objects: The store.
        folder: The log's folder.
        settings: How long to try, and when to compact.
        clock: For deadlines.
        ids: For write ids and jitter.
        metrics: What is counted.
    """

    def __init__(
        self, objects: Objects, folder: str, *, settings: Settings, clock: Clock, ids: Ids, metrics: Metrics
    ) -> None:
        self._folder = folder
        self._metrics = metrics
        self._log = get_logger()
        self._writer = LogWriter(
            objects,
            folder,
            clock=clock,
            ids=ids,
            observer=self,
            writer=settings.worker,
            deadline_s=settings.append_deadline_s,
        )
        self._compactor = Compactor(
            objects,
            after_parts=settings.compact_after_parts,
            writer=settings.worker,
            clock=clock,
            ids=ids,
            observer=CompactionReport(metrics),
        )

    def append(self, lines: bytes) -> None:
        """Append whole lines as one part. Blocks. On return they are durable.

        Raises:
            EverturnError: They are not, or may not be. The same lines have to come next.
        """
        exact = any(is_exact(line) for line in lines.splitlines()) if b'"exact":true' in lines else False
        seq = run(self._writer.append_batch(Batch(lines, lines.count(b"\n"), exact)))
        self._compactor.note(self._folder, seq, self._writer.written)

    def close(self) -> None:
        """End what goes on in the background."""
        self._compactor.close()

    def wrote(self, folder: str, header: Header, size_bytes: int, seconds: float) -> None:  # noqa: ARG002
        """A part is durable."""
        self._metrics.append_seconds.observe(seconds)
        self._metrics.parts_written.labels(header.kind).inc()
        self._metrics.bytes_written.inc(size_bytes)

    def passed(self, folder: str, other: Header | None) -> None:
        """Two writers met: what the run had stored last, and whoever looks after what it left.

        Raises:
            Fenced: The journal was deleted.
        """
        if other is not None and other.kind == "truncate":
            raise Fenced(f"{folder} was deleted", hint="nothing more of this run is stored")
        self._metrics.writers_met.inc()
        self._log.warning(
            "writers_met",
            log=folder,
            seq=other.span.first if other else None,
            other_writer=other.writer if other else None,
            other_epoch=other.epoch if other else None,
        )

    def failed(self, folder: str, count: int, error: Exception) -> None:
        """An append gave up."""
        self._metrics.journal_ship_failures.inc()
        self._log.warning("journal_not_shipped", log=folder, events=count, error=str(error))


class Shipper:
    """Ships a journal's file while its run writes it.

    Its thread is the only one that appends. It looks every so often how long the file has become; whoever cannot wait
    for that says so. What the store does not take stays in the file, and is tried again.

    Args:
        file: The file.
        append: Appends lines to the log; see `Appender.append`.
        ship_s: How long events wait for each other.
        metrics: Where it is told what is not stored.

    Raises:
        Denied: The process has too many files open.
    """

    def __init__(
        self, file: JournalFile, append: Callable[[bytes], None], *, ship_s: float, metrics: Metrics
    ) -> None:
        self._file = file
        self._reader = file.reader()
        self._append = append
        self._ship_s = ship_s
        self._unshipped = metrics.journal_unshipped_bytes
        self._told_bytes = 0  # of what the metric says, what is ours
        self._overflow: list[bytes] = []  # lines that the file could not take, in order
        self._overflow_bytes = 0
        self._shipped_bytes = 0
        self._pending = b""  # what is tried again has to be the same
        self._hurried = False  # somebody waits
        self._closing = False
        self._deleted = False
        self._failures = 0
        self._failures_in_a_row = 0
        self._error: EverturnError | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look how long the file has become."""
        self._thread = start_thread(self._work, "everturn-journal")

    def overflow(self, lines: bytes) -> None:
        """Take whole lines that the file cannot take; nothing goes into the file after them. Returns at once.

        They are nowhere but here until `settle` returns.
        """
        with self._changed:
            self._overflow.append(lines)
            self._overflow_bytes += len(lines)

    @property
    def _size_bytes(self) -> int:
        return self._file.size_bytes + self._overflow_bytes

    def settle(self, timeout_s: float) -> None:
        """Block until all of the file is stored.

        Raises:
            EverturnError: It is not, or not in this time: why the last attempt failed.
        """
        with self._changed:
            wanted, failures = self._size_bytes, self._failures
            self._hurried = self._shipped_bytes < wanted
            self._changed.notify_all()
            alive = self._thread is not None
            self._changed.wait_for(
                lambda: (
                    self._shipped_bytes >= wanted
                    or self._failures > failures
                    or self._deleted
                    or self._closing  # whoever waits has been given up, and must not keep the process from its end
                    or not alive
                ),
                timeout_s,
            )
        if not alive:  # an interpreter that is shutting down starts no threads
            self._ship()
        if self._shipped_bytes < wanted:
            raise self._error or Unavailable(
                "the store did not take the journal in time", hint="what is left is stored by the next start here"
            )

    def close(self, timeout_s: float) -> None:
        """Ship what is left, and end the thread.

        Raises:
            EverturnError: As `settle`. The thread ends all the same, when its last attempt does.
        """
        try:
            self.settle(timeout_s)
        finally:
            with self._changed:
                self._closing = True
                self._changed.notify_all()
            if self._thread is None:
                os.close(self._reader)

    def _work(self) -> None:
        while self._wait():
            self._ship()
        os.close(self._reader)
        self._tell_metric(0)

    def _wait(self) -> bool:
        """Wait until there is something to do, and tell whether there is, or the end has come."""
        longer = 2.0 ** min(self._failures_in_a_row, MOST_DOUBLINGS)
        pause_s = min(self._ship_s * longer, max(self._ship_s, LONGEST_PAUSE_S))
        with self._changed:
            self._tell_metric(self._size_bytes - self._shipped_bytes)
            self._changed.wait_for(lambda: self._closing or self._hurried, pause_s)
            self._hurried = False
            return not self._closing

    def _ship(self) -> None:
        """Ship what there is. Raises nothing: whoever waits is told."""
        try:
            while self._shipped_bytes < self._size_bytes and not (self._closing or self._deleted):
                self._pending = self._pending or self._next()
                self._append(self._pending)
                with self._changed:
                    self._shipped_bytes += len(self._pending)
                    self._pending = b""
                    self._failures_in_a_row = 0
                    self._changed.notify_all()
        except Exception as error:  # noqa: BLE001  # the thread has to go on, and whoever waits must not wait for ever
            with self._changed:
                self._error = error if isinstance(error, EverturnError) else _unexpected(error)
                self._deleted = isinstance(error, Fenced)
                self._failures += 1
                self._failures_in_a_row += 1
                self._changed.notify_all()

    def _next(self) -> bytes:
        """Return the lines that come next, about a frame of them."""
        if self._shipped_bytes >= self._file.size_bytes:
            return self._overflow.pop(0)
        size_bytes = self._file.size_bytes
        if os.fstat(self._reader).st_size < size_bytes:  # what would be read is no longer what was written there
            raise Corrupt(
                f"the journal {self._file.path} was cut by somebody else",
                hint="what is left of it is stored by the next start here; leave the folder of runs alone",
            )
        return lines_at(self._reader, self._shipped_bytes, min(FRAME_BYTES, size_bytes - self._shipped_bytes))

    def _tell_metric(self, size_bytes: int) -> None:
        self._unshipped.inc(size_bytes - self._told_bytes)
        self._told_bytes = size_bytes


def _unexpected(error: Exception) -> EverturnError:
    """Return the error for one that is not ours; in its message there may be anything."""
    return Unavailable(f"the journal could not be stored: {type(error).__name__}", hint="it is tried again")
