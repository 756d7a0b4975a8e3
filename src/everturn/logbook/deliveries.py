"""Webhooks that were accepted: a queue, and the log of what came of each."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import fields
from typing import Any

from everturn.clock import Clock
from everturn.errors import Invalid
from everturn.logbook.entries import Answer, DeliveryEntry, Done, Waiting
from everturn.logbook.file import LogbookFile
from everturn.logbook.texts import NAME_CHARS, as_details, as_facts, from_json, shortened
from everturn.logbook.writing import Writer

AHEAD_S = 3600.0  # nothing is to wait for longer: it was noted by a clock that has been set back since

_COLUMNS = tuple(field.name for field in fields(DeliveryEntry))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM deliveries"  # noqa: S608
_PUT = """
INSERT INTO deliveries (forge, delivery_id, event, facts, state, accepted_at, done_at, details)
VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (forge, delivery_id) DO NOTHING
"""
_FINISH = """
UPDATE deliveries SET state = ?, done_at = ?, attempts = attempts + 1, next_at = ?, details = ?, freed = ?,
    failing_since = ?
WHERE number = ? AND done_at IS NULL
"""
_DUE = f"""
{_SELECT} WHERE done_at IS NULL AND (next_at IS NULL OR next_at <= ? OR next_at > ?) ORDER BY number LIMIT ?
"""


class Deliveries:
    """Webhooks. See `Logbook`.

    Args:
        file: Where they are.
        writer: Writes them.
        clock: Tells when they came.
    """

    def __init__(self, file: LogbookFile, writer: Writer, clock: Clock) -> None:
        self._file = file
        self._writer = writer
        self._clock = clock

    def put(
        self, forge: str, delivery_id: str, event: str, facts: Mapping[str, Any] | None, ignored: str = ""
    ) -> Future[Answer]:
        """Note a webhook. With the future's result it is durable, and will be done.

        Args:
            forge: Where it comes from.
            delivery_id: The forge's id of it. If it was noted before, whatever came of it, it is a `duplicate`, and
                nothing is changed.
            event: What the forge calls it.
            facts: What is to be done, as `Happening.facts` gives it; `None`: nothing.
            ignored: Why nothing is to be done, for people.

        Raises (the future):
            Denied, Corrupt, Invalid: The file cannot be used, or this cannot be kept.
            Unavailable: Too much waits, or the file is busy, or there is no room. It was not noted.
        """
        now = self._clock.now()
        return self._writer.submit(lambda database: _put(database, now, forge, delivery_id, event, facts, ignored))

    def due(self, now: float, limit: int) -> list[DeliveryEntry]:
        """Return what is to be done at a time, the oldest first.

        Raises:
            Denied, Corrupt, Invalid, Unavailable: As `LogbookFile.rows`. So do the other looks.
        """
        return self._look(_DUE, (now, now + AHEAD_S, limit))

    def finish(self, done: Sequence[Done]) -> Future[None]:
        """Note what came of attempts, all in one transaction. What is done, failed or ignored stays as it is."""

        now = self._clock.now()
        rows = [
            (
                *(each.state, None if each.state == "waiting" else now),
                *(each.next_at if each.state == "waiting" else None, as_details(each.details)),
                *(each.freed, each.failing_since, each.number),
            )
            for each in done
        ]
        return self._writer.submit(lambda database: _finish(database, rows), must=True)

    def page(self, limit: int, before: int | None = None) -> list[DeliveryEntry]:
        """Return webhooks, the newest first.

        Args:
            limit: How many at most.
            before: Only those with smaller numbers.
        """
        return self._look(
            f"{_SELECT} WHERE ? IS NULL OR number < ? ORDER BY number DESC LIMIT ?", (before,) * 2 + (limit,)
        )

    def waiting(self) -> Waiting:
        """Return what is still to be done."""
        query = "SELECT count(*), min(accepted_at) FROM deliveries WHERE done_at IS NULL"
        return next((Waiting(*row) for row in self._file.rows(query)), Waiting())

    def _look(self, query: str, values: tuple[object, ...]) -> list[DeliveryEntry]:
        return [_entry(row) for row in self._file.rows(query, values)]


def _put(  # the columns, by and large
    database: sqlite3.Connection,
    now: float,
    forge: str,
    delivery_id: str,
    event: str,
    facts: Mapping[str, Any] | None,
    ignored: str,
) -> Answer:
    if not 0 < len(delivery_id) <= NAME_CHARS:
        raise Invalid(f"the id of a delivery has 1 to {NAME_CHARS} characters", hint="nothing was noted")
    is_queued = facts is not None and not ignored
    row = (
        *(forge, delivery_id, shortened(event), None if facts is None else as_facts(facts)),
        *("queued" if is_queued else "ignored", now, None if is_queued else now),
        as_details([ignored] if ignored else []),
    )
    if not database.execute(_PUT, row).rowcount:
        return "duplicate"
    return "queued" if is_queued else "ignored"


def _finish(database: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> None:
    database.executemany(_FINISH, rows)


def _entry(row: tuple[Any, ...]) -> DeliveryEntry:
    values = dict(zip(_COLUMNS, row, strict=True))
    facts = None if values["facts"] is None else from_json(values["facts"])
    return DeliveryEntry(**{**values, "facts": facts, "details": tuple(from_json(values["details"]))})
