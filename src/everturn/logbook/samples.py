"""Sizes over time."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from concurrent.futures import Future
from itertools import groupby

from everturn.clock import Clock
from everturn.logbook.entries import SampleEntry
from everturn.logbook.file import LogbookFile
from everturn.logbook.writing import Writer


class Samples:
    """Samples. See `Logbook`.

    Args:
        file: Where they are.
        writer: Writes them.
        clock: Tells when they were taken.
    """

    def __init__(self, file: LogbookFile, writer: Writer, clock: Clock) -> None:
        self._file = file
        self._writer = writer
        self._clock = clock

    def add(self, values: Mapping[str, int]) -> Future[None]:
        """Note how much there is now of each of some things. They get fewer with age; see `Logbook.prune`."""
        now = self._clock.now()
        rows = [(now, name, value) for name, value in values.items()]

        def work(database: sqlite3.Connection) -> None:
            database.executemany("INSERT OR REPLACE INTO samples VALUES (?, ?, ?)", rows)

        return self._writer.submit(work, must=True)

    def since(self, at: float) -> list[SampleEntry]:
        """Return all samples that were taken at a time or later, the oldest first."""
        query = "SELECT at, name, value FROM samples WHERE at >= ? ORDER BY at, name"
        rows = self._file.rows(query, (at,))
        groups = groupby(rows, key=lambda row: float(row[0]))
        return [SampleEntry(taken_at, {name: value for _, name, value in group}) for taken_at, group in groups]
