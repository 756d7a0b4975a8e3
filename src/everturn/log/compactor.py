"""Compaction in the background of a writer, so that no append waits for it."""

from __future__ import annotations

import threading
from typing import Protocol

from everturn.clock import Clock, Ids
from everturn.log.background import start_thread
from everturn.log.compaction import Outcome, collect, compact
from everturn.log.objects import Objects, run

HELD_BYTES = 8 << 20  # of parts that were written and not merged yet, over all logs


class CompactionObserver(Protocol):
    """Is told what compaction did, for logs and metrics."""

    def compacted(self, folder: str, outcome: Outcome, freed: int, seconds: float) -> None:
        """Parts were merged, or freed."""

    def compaction_failed(self, folder: str, error: Exception) -> None:
        """It gave up. The log is as whole as before, and the next attempt begins anew."""


class Compactor:
    """Compacts the logs that one process appends to, whenever one has grown by so many parts.

    Its thread runs while there is something to do. It may die at any moment: whatever it has written is whole.

    Args:
        objects: The store; it must block, as a thread of ours calls it.
        after_parts: How many parts a log grows before it is compacted; 0 for never.
        writer: A name for people.
        clock: Measures.
        ids: For write ids.
        observer: Is told what happens.
    """

    def __init__(
        self,
        objects: Objects,
        *,
        after_parts: int,
        writer: str,
        clock: Clock,
        ids: Ids,
        observer: CompactionObserver,
    ) -> None:
        self._objects = objects
        self._after_parts = after_parts
        self._writer = writer
        self._clock = clock
        self._ids = ids
        self._observer = observer
        self._next: dict[str, int] = {}
        self._known: dict[str, dict[int, bytes]] = {}
        self._held_bytes = 0
        self._waiting: dict[str, None] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def note(self, folder: str, seq: int, data: bytes = b"") -> None:
        """Take note that we have appended a part to a log. Returns at once.

        Args:
            folder: The log's folder.
            seq: The part's number.
            data: The part, if it is at hand: it is kept for a while, so that merging it needs no request.
        """
        if not self._after_parts:
            return
        with self._lock:
            self._hold(folder, seq, data)
        if seq < self._next.setdefault(folder, self._after_parts):
            return
        with self._lock:
            self._next[folder] = seq + self._after_parts
            if self._closed:
                return
            self._waiting[folder] = None
            if self._thread is None:
                self._thread = start_thread(self._work, "everturn-compaction")

    def _hold(self, folder: str, seq: int, data: bytes) -> None:
        """Keep a part, if there is room for it. It is only a saving: what is not kept is fetched."""
        if not data or len(data) > HELD_BYTES:
            return
        if self._held_bytes + len(data) > HELD_BYTES:
            self._known.clear()
            self._held_bytes = 0
        self._known.setdefault(folder, {})[seq] = data
        self._held_bytes += len(data)

    def _take(self, folder: str) -> dict[int, bytes]:
        with self._lock:
            known = self._known.pop(folder, {})
            self._held_bytes -= sum(map(len, known.values()))
            return known

    def wait(self) -> None:
        """Block until nothing is left to do."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def close(self) -> None:
        """Drop what has not begun, and wait for what has."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
        self.wait()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                folder = next(iter(self._waiting))
                del self._waiting[folder]
            self._compact(folder)

    def _compact(self, folder: str) -> None:
        started = self._clock.elapsed()
        try:
            outcome = run(
                compact(
                    self._objects,
                    folder,
                    writer=self._writer,
                    ids=self._ids,
                    at_least=self._after_parts,
                    known=self._take(folder),
                )
            )
            freed = run(collect(self._objects, folder))
        except Exception as error:  # noqa: BLE001  # the thread has other logs to compact
            self._observer.compaction_failed(folder, error)
        else:
            if outcome.segments or freed:
                self._observer.compacted(folder, outcome, freed, self._clock.elapsed() - started)
