"""The mirror is kept up to date while runs last, from their journals on this machine. No run ever waits for it."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from everturn.errors import Corrupt, EverturnError, NotFound
from everturn.journal.events import Ended
from everturn.journal.file import lines_at
from everturn.journal.lines import parse
from everturn.journal.reading import RunRef, usable
from everturn.log.background import start_thread
from everturn.mirrors.base import Batch, Line
from everturn.mirrors.sqlite import SqliteMirror, folder_of
from everturn.settings import Settings
from everturn.telemetry import Metrics, default_metrics, get_logger

PAUSE_S = 1.0  # between looks at the files
RETRY_S = 5.0  # after a failure; twice as long after each further one
LONGEST_RETRY_S = 300.0
CHUNK_BYTES = 4 << 20


@dataclass(slots=True)
class _Source:
    """A run's journal on this machine, open: it may be deleted before all of it is read."""

    ref: RunRef
    file: BinaryIO
    offset: int = 0
    seq: int = 0
    ended: bool = False


class MirrorFeed:
    """Folds the journals that this process writes into the mirror.

    Its thread is there while there are runs. Whatever goes wrong is logged, counted and tried again later; what is
    missed is taken from the store when the mirror is caught up.

    Args:
        mirror: The mirror.
        metrics: What is counted.
        pause_s: How long it rests between looks at the files.
        retry_s: How long after a failure.
    """

    def __init__(
        self,
        mirror: SqliteMirror,
        *,
        metrics: Metrics | None = None,
        pause_s: float = PAUSE_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self._mirror = mirror
        self._metrics = metrics or default_metrics()
        self._log = get_logger()
        self._pause_s = pause_s
        self._retry_s = retry_s
        self._wait_s = pause_s
        self._sources: dict[RunRef, _Source] = {}
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def open(cls, settings: Settings, *, metrics: Metrics | None = None) -> Self:
        """Return a feed for the mirror that the settings name. Nothing is opened yet."""
        return cls(SqliteMirror(folder_of(settings), settings.store_url(), metrics=metrics), metrics=metrics)

    def note(self, ref: RunRef, journal_file: Path) -> None:
        """Follow a run's journal, from its start until its last event is folded. Returns at once, whatever happens.

        Args:
            ref: The run.
            journal_file: Its journal; it has to be there.
        """
        try:
            source = _Source(ref, journal_file.open("rb", buffering=0))
        except OSError as error:
            self._failed(error)
            return
        with self._lock:
            if self._ending.is_set():
                source.file.close()
                return
            self._sources[ref] = source
            if self._thread is not None and self._thread.is_alive():
                return
            self._thread = start_thread(self._work, "everturn-mirror-feed")

    def wake(self) -> None:
        """Have it look at the files now. Returns at once. It looks once a second anyway."""
        if not self._woken.is_set():
            self._woken.set()

    def close(self, timeout_s: float) -> None:
        """Fold what is left, and end. What cannot be folded in this time is left to the next catching up.

        Args:
            timeout_s: How long to try.
        """
        with self._lock:
            self._ending.set()
            thread = self._thread
        self._woken.set()
        if thread is not None:
            thread.join(timeout_s)
        if thread is None or not thread.is_alive():
            self._mirror.close()

    def _work(self) -> None:
        while True:
            ending = self._ending.is_set()
            try:
                self._look()
                self._wait_s = self._pause_s
            except Exception as error:  # noqa: BLE001  # a run must not end for it
                self._failed(error)
                self._wait_s = min(max(self._retry_s, 2 * self._wait_s), LONGEST_RETRY_S)
            with self._lock:
                if ending or not self._sources:
                    for source in self._sources.values():
                        source.file.close()
                    self._sources.clear()
                    self._thread = None
                    self._mirror.close()
                    return
            (self._woken if self._wait_s <= self._pause_s else self._ending).wait(self._wait_s)
            self._woken.clear()

    def _look(self) -> None:
        with self._lock:
            sources = list(self._sources.values())
        for source in sources:
            try:
                self._follow(source)
            except BaseException:
                self._put_last(source)
                raise
            if source.ended or not os.fstat(source.file.fileno()).st_nlink:
                source.file.close()
                with self._lock:
                    if self._sources.get(source.ref) is source:
                        del self._sources[source.ref]

    def _put_last(self, source: _Source) -> None:
        """Let the other runs have their turn first the next time: it may be this one alone that fails."""
        with self._lock:
            if self._sources.get(source.ref) is source:
                self._sources[source.ref] = self._sources.pop(source.ref)

    def _follow(self, source: _Source) -> None:
        while data := lines_at(source.file.fileno(), source.offset, CHUNK_BYTES):
            lines, unreadable = _parse(data)
            batch = Batch(source.ref, lines, after=source.seq)
            if not self._fold(batch):
                if not source.offset:
                    self._mirror.forget([source.ref])
                source.offset = source.seq = 0  # the mirror is another one by now: all of it once more
                continue
            source.offset += len(data)
            if lines:
                source.seq, source.ended = lines[-1]["seq"], lines[-1]["type"] == Ended.TYPE
            if unreadable:
                self._metrics.mirror_events.labels("unreadable").inc(unreadable)

    def _fold(self, batch: Batch) -> bool:
        try:
            return self._mirror.fold(batch)
        except NotFound:
            if not self._mirror.create():
                raise
        return False

    def _failed(self, error: Exception) -> None:
        text = str(error) if isinstance(error, EverturnError) else type(error).__name__
        self._metrics.mirror_update_failures.inc()
        self._log.warning("mirror_not_updated", error=text)


def _parse(data: bytes) -> tuple[list[Line], int]:
    raw = []
    for line in data.split(b"\n")[:-1]:
        try:
            raw.append(parse(line).raw)
        except Corrupt:
            raw.append({})
    return usable(raw)
