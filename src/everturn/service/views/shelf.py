"""The sessions that people look at, as they were last told: reading one again takes long if it is long."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field, replace

from everturn.clock import Clock
from everturn.errors import EverturnError
from everturn.log.background import start_thread
from everturn.service.views.reading import Told

MOST = 8
MOST_CHARS = 32_000_000
AT_ONCE = 2
QUICK_S = 0.05  # what can be read in this time is read again while the page waits
SHARE = 4.0  # a session is not read again before so many times the time that it took has passed
OLD_S = 30.0  # it is read again after this, even if nobody heard of news

_NOT_AGAIN = "it could not be read again"

Read = Callable[[str, str], Told]


@dataclass(slots=True)
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    told: Told | None = None
    version: int = 0
    read_at: float = 0.0
    took_s: float = 0.0
    is_reading: bool = False


class Shelf:
    """Keeps the sessions that were read last, and reads those again of which there is news.

    Args:
        read: Reads a session: given its work item's key, and its id.
        clock: Tells how long that took.
        read_anew: Told the id of a session that was read again in the background.
    """

    def __init__(self, read: Read, clock: Clock, read_anew: Callable[[str], None]) -> None:
        self._read = read
        self._clock = clock
        self._read_anew = read_anew
        self._mutex = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._reading = threading.BoundedSemaphore(AT_ONCE)
        self._ending = threading.Event()

    def get(self, work: str, session_id: str, version: int) -> Told:
        """Return a session: as it is now if that is quickly read, else as it was a moment ago.

        Args:
            work: Its work item's key.
            session_id: The session.
            version: The number of its news; another one than the last time: there are some.

        Raises:
            EverturnError: It was never read, and cannot be.
        """
        entry = self._entry(session_id)
        told, is_new, wait_s = self._known(entry, version)
        if told is not None and not is_new:
            return told
        if told is None or (entry.took_s <= QUICK_S and wait_s <= 0):
            return self._now(work, session_id, entry, version)
        self._soon(work, session_id, entry, version, max(0.0, wait_s))
        return told

    def stop(self) -> None:
        """Begin nothing any more."""
        self._ending.set()

    def _entry(self, session_id: str) -> _Entry:
        with self._mutex:
            entry = self._entries.setdefault(session_id, _Entry())
            self._entries.move_to_end(session_id)
            chars = sum(each.told.chars for each in self._entries.values() if each.told is not None)
            while len(self._entries) > 1 and (len(self._entries) > MOST or chars > MOST_CHARS):
                _, gone = self._entries.popitem(last=False)
                chars -= gone.told.chars if gone.told is not None else 0
            return entry

    def _known(self, entry: _Entry, version: int) -> tuple[Told | None, bool, float]:
        """Return what is known, whether there is news, and how long to leave it alone."""
        age_s = self._clock.elapsed() - entry.read_at
        is_new = entry.version != version or age_s > OLD_S
        return entry.told, is_new, entry.took_s * SHARE - age_s

    def _now(self, work: str, session_id: str, entry: _Entry, version: int) -> Told:
        """Read it. Who comes meanwhile waits for that."""
        asked_at = self._clock.elapsed()
        with entry.lock:
            if entry.told is None or entry.read_at < asked_at:
                self._fill(work, session_id, entry, version)
            if entry.told is None:
                raise RuntimeError("a session was read, and is not there")
            return entry.told

    def _fill(self, work: str, session_id: str, entry: _Entry, version: int) -> None:
        begun = self._clock.elapsed()
        try:
            with self._reading:
                told = self._read(work, session_id)
        except EverturnError as error:
            if entry.told is None:
                raise
            known = (each for each in entry.told.problems if not each.startswith(_NOT_AGAIN))  # it says why each time
            told = replace(entry.told, problems=(*known, f"{_NOT_AGAIN}: {error.message}"))
        entry.told, entry.version = told, version
        entry.read_at = self._clock.elapsed()
        entry.took_s = entry.read_at - begun

    def _soon(self, work: str, session_id: str, entry: _Entry, version: int, wait_s: float) -> None:
        """Read it in the background, once it has been left alone for long enough."""
        with self._mutex:
            if entry.is_reading or self._ending.is_set():
                return
            entry.is_reading = True

        def work_on() -> None:
            try:
                if not self._ending.wait(wait_s):
                    with entry.lock:
                        self._fill(work, session_id, entry, version)
            finally:
                entry.is_reading = False
            self._read_anew(session_id)

        if Context().run(start_thread, work_on, "everturn-session") is None:
            entry.is_reading = False
