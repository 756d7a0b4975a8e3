"""What admins asked for, and what came of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Literal

from everturn.clock import Clock
from everturn.logbook.entries import Act
from everturn.logbook.file import LogbookFile
from everturn.logbook.texts import as_details, as_facts, from_json, shortened
from everturn.logbook.writing import Writer


class Acts:
    """Acts of admins. See `Logbook`.

    Args:
        file: Where they are.
        writer: Writes them.
        clock: Tells when they were.
    """

    def __init__(self, file: LogbookFile, writer: Writer, clock: Clock) -> None:
        self._file = file
        self._writer = writer
        self._clock = clock

    def add(
        self,
        who: str,
        action: str,
        asked: Mapping[str, Any],
        *,
        state: Literal["begun", "refused"] = "begun",
        details: Sequence[str] = (),
    ) -> Future[int]:
        """Note that somebody asks for something, before it is done. The future has the act's number.

        Args:
            who: The address that asks.
            action: What for.
            asked: How exactly; no secrets.
            state: `refused`: it will not be done, and is at its end.
            details: Why it is refused, for people.

        Raises (the future):
            Denied, Corrupt, Invalid: The file cannot be used, or this cannot be kept.
            Unavailable: Too much waits, or the file is busy, or there is no room. It was not noted.
        """
        now = self._clock.now()

        def work(database: sqlite3.Connection) -> int:
            row = (now, shortened(who), shortened(action), as_facts(asked), state, as_details(details))
            done_at = now if state == "refused" else None
            query = (
                "INSERT INTO acts (at, source, action, asked, state, details, done_at) VALUES (?, ?, ?, ?, ?, ?, ?)"
            )
            return int(database.execute(query, (*row, done_at)).lastrowid or 0)

        return self._writer.submit(work)

    def end(
        self, number: int, outcome: Literal["done", "refused", "failed"], details: Sequence[str] = ()
    ) -> Future[None]:
        """Note what came of it. An act that is at its end stays as it is."""
        now = self._clock.now()

        def work(database: sqlite3.Connection) -> None:
            query = "UPDATE acts SET state = ?, details = ?, done_at = ? WHERE number = ? AND done_at IS NULL"
            database.execute(query, (outcome, as_details(details), now, number))

        return self._writer.submit(work, must=True)

    def page(self, limit: int, before: int | None = None) -> list[Act]:
        """Return acts, the newest first.

        Args:
            limit: How many at most.
            before: Only those with smaller numbers.
        """
        query = """
            SELECT number, at, source, action, asked, state, details, done_at FROM acts
            WHERE ? IS NULL OR number < ? ORDER BY number DESC LIMIT ?
        """
        rows = self._file.rows(query, (before, before, limit))
        return [
            Act(number, at, source, action, from_json(asked), state, tuple(from_json(details)), done_at)
            for number, at, source, action, asked, state, details, done_at in rows
        ]
