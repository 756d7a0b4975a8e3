"""The service's book."""

from __future__ import annotations

import sqlite3
from concurrent.futures import Future
from pathlib import Path

from everturn.clock import Clock, Ids, SystemClock
from everturn.logbook.acts import Acts
from everturn.logbook.deliveries import Deliveries
from everturn.logbook.file import LogbookFile
from everturn.logbook.pruning import prune
from everturn.logbook.samples import Samples
from everturn.logbook.schema import SCHEMA_VERSION
from everturn.logbook.sweeps import Sweeps
from everturn.logbook.writing import Writer


class Logbook:
    """One SQLite file (docs/logbook.md), for any number of threads, and for several processes of one machine.

    Every method that writes returns a future at once. With its result, what was written is durable: it survives a
    power cut. What waits is written together by one thread, in the order in which it was asked for. Looks block for
    about a millisecond and see what is durable.

    Attributes:
        path: The file.
        deliveries: Webhooks that were accepted, and what came of them.
        acts: What admins did.
        sweeps: When was swept.
        samples: Sizes over time.

    Args:
        path: The file. It and its folder are made by the first write.
        clock: Tells when.
        ids: Makes pauses when the file is busy.
    """

    def __init__(self, path: Path, *, clock: Clock | None = None, ids: Ids | None = None) -> None:
        self.path = path
        self._clock = clock or SystemClock()
        file = LogbookFile(path, self._clock, ids or Ids())
        self._writer = Writer(file)
        self.deliveries = Deliveries(file, self._writer, self._clock)
        self.acts = Acts(file, self._writer, self._clock)
        self.sweeps = Sweeps(file, self._writer, self._clock)
        self.samples = Samples(file, self._writer, self._clock)

    def check(self) -> Future[None]:
        """Make the file, if it is not there, and see whether it can be written: something is.

        Raises (the future):
            Denied: Its folder cannot be written.
            Invalid: A newer release made it, or another program.
            Corrupt: It is damaged.
            Unavailable: It is busy, or there is no room.
        """
        return self._writer.submit(_write_version, must=True)

    def prune(self, keep_s: float) -> Future[int]:
        """Forget what is old, a little at a time. The future has how many rows went.

        Webhooks that are still to be done stay, as does the last sweep that was done. Webhooks stay for eight days at
        least, so that one that is sent again is known. Samples get fewer: after two days one an hour is kept, after
        two weeks one a day, after 400 days none.

        Args:
            keep_s: How old webhooks, acts and sweeps may get, in seconds.
        """
        return prune(self._writer, self._clock, keep_s)

    def close(self) -> None:
        """Write what waits, and end the thread. What is asked for from now on is refused."""
        self._writer.close()


def _write_version(database: sqlite3.Connection) -> None:
    """Write what stands there already: a transaction that writes nothing does not notice that there is no room."""
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
