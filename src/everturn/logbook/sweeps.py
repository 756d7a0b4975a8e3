"""Sweeps: when they were, why, and what came of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Literal

from everturn.clock import Clock
from everturn.logbook.entries import SweepEntry, SweepReason
from everturn.logbook.file import LogbookFile
from everturn.logbook.texts import as_facts, from_json
from everturn.logbook.writing import Writer

_SELECT = "SELECT number, reason, begun_at, state, done_at, facts FROM sweeps"


class Sweeps:
    """Sweeps. See `Logbook`.

    Args:
        file: Where they are.
        writer: Writes them.
        clock: Tells when they were.
    """

    def __init__(self, file: LogbookFile, writer: Writer, clock: Clock) -> None:
        self._file = file
        self._writer = writer
        self._clock = clock

    def begin(self, reason: SweepReason) -> Future[int]:
        """Note that a sweep begins. The future has its number."""
        now = self._clock.now()

        def work(database: sqlite3.Connection) -> int:
            query = "INSERT INTO sweeps (reason, begun_at, state) VALUES (?, ?, 'begun')"
            return int(database.execute(query, (reason, now)).lastrowid or 0)

        return self._writer.submit(work, must=True)

    def end(self, number: int, outcome: Literal["done", "failed"], facts: Mapping[str, Any]) -> Future[None]:
        """Note what came of it. A sweep that is at its end stays as it is."""
        now = self._clock.now()

        def work(database: sqlite3.Connection) -> None:
            query = "UPDATE sweeps SET state = ?, done_at = ?, facts = ? WHERE number = ? AND done_at IS NULL"
            database.execute(query, (outcome, now, as_facts(facts), number))

        return self._writer.submit(work, must=True)

    def last(self, outcome: Literal["begun", "done", "failed"] = "done") -> SweepEntry | None:
        """Return the sweep that began last of those that ended so."""
        return next(iter(self._look("WHERE state = ?", (outcome, 1))), None)

    def page(self, limit: int, before: int | None = None) -> list[SweepEntry]:
        """Return sweeps, the newest first.

        Args:
            limit: How many at most.
            before: Only those with smaller numbers.
        """
        return self._look("WHERE ? IS NULL OR number < ?", (before, before, limit))

    def _look(self, which: str, values: tuple[object, ...]) -> list[SweepEntry]:
        query = f"{_SELECT} {which} ORDER BY number DESC LIMIT ?"
        return [
            SweepEntry(number, why, begun_at, state, done_at, from_json(facts))
            for number, why, begun_at, state, done_at, facts in self._file.rows(query, values)
        ]
