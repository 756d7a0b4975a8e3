"""A registry in one SQLite file: the embedded default. Many processes of one machine may share it.

Leases and ages are measured by the time since the machine started, which no jump of its clock changes. A row that was
written before the machine started has no live claim, as its holder is gone; its age is told by the time of day.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from everturn.clock import Clock, Ids
from everturn.databases import connect, is_busy, is_refusal, transaction, transactions, when_free
from everturn.errors import Corrupt, Denied, EverturnError, Invalid, Unavailable
from everturn.model import SessionAges, SessionRecord
from everturn.registry.rows import Decide, RowRegistry, no_unicode
from everturn.registry.rules import Row
from everturn.telemetry import Metrics

SCHEMA_VERSION = 2
BATCH_ROWS = 500  # as many as one transaction changes, so that others need not wait for long

_VERSION_1 = """
CREATE TABLE sessions (
    work_key     TEXT PRIMARY KEY,
    session_id   TEXT NOT NULL UNIQUE,
    epoch        INTEGER NOT NULL,
    worker       TEXT NOT NULL,
    store        TEXT NOT NULL,
    cwd          TEXT,
    created_at   REAL NOT NULL,
    last_used_at REAL NOT NULL
) STRICT
"""
# The times that count are seconds since the start of the machine, `boot`; those of day are for people.
_VERSION_2 = (
    "ALTER TABLE sessions ADD COLUMN agent TEXT",
    "ALTER TABLE sessions ADD COLUMN run_id TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE sessions ADD COLUMN host TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE sessions ADD COLUMN held_until REAL",
    "ALTER TABLE sessions ADD COLUMN tainted TEXT",
    "ALTER TABLE sessions ADD COLUMN token TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE sessions ADD COLUMN in_use INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE sessions ADD COLUMN boot TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE sessions ADD COLUMN used_s REAL NOT NULL DEFAULT 0",
    "ALTER TABLE sessions ADD COLUMN lease_end_s REAL NOT NULL DEFAULT 0",
    # Only an issue's key, `<agent>@<repo>#<issue>`, names the agent, and no agent's name has a colon or an at sign.
    """
    UPDATE sessions SET agent = substr(work_key, 1, instr(work_key, '@') - 1)
    WHERE work_key NOT LIKE 'task:%' AND instr(work_key, '@') > 1
    """,
)
_RECORD = tuple(field.name for field in fields(SessionRecord))
_COLUMNS = (*_RECORD, "token", "in_use", "boot", "used_s", "lease_end_s")
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM sessions"  # noqa: S608
_SAVE = f"""
INSERT INTO sessions ({", ".join(_COLUMNS)}) VALUES ({", ".join("?" * len(_COLUMNS))})
ON CONFLICT (work_key) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])}
"""  # noqa: S608
_DELETE = "DELETE FROM sessions WHERE work_key = ?"

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Moment:
    """A point in time: of day, and since the start of the machine."""

    now: float
    elapsed: float
    boot: str

    @classmethod
    def of(cls, clock: Clock) -> _Moment:
        return cls(clock.now(), clock.elapsed(), clock.boot())

    def read(self, values: tuple[Any, ...]) -> Row:
        """Return the row of a line of the table, as it is at this moment."""
        record = SessionRecord(*values[: len(_RECORD)])
        token, in_use, boot, used_s, lease_end_s = values[len(_RECORD) :]
        if boot and boot == self.boot:
            unused_s, left_s = self.elapsed - used_s, lease_end_s - self.elapsed
        else:
            unused_s, left_s = self.now - record.last_used_at, (record.held_until or 0.0) - self.now
            if boot and self.boot:
                left_s = 0.0
        return Row(record, token, bool(in_use), max(0.0, unused_s), None if record.held_until is None else left_s)

    def line(self, row: Row) -> tuple[Any, ...]:
        """Return the line of the table for a row."""
        values = tuple(getattr(row.record, name) for name in _RECORD)
        lease_end_s = self.elapsed + (row.left_s or 0.0)
        return (*values, row.token, int(row.in_use), self.boot, self.elapsed - row.unused_s, lease_end_s)


class SqliteRegistry(RowRegistry):
    """A `Registry` in one SQLite file. Each call opens the file anew, so it may be used from any thread or fork.

    Args:
        path: The file. It and its folder are made at the first claim.
        ages: How old sessions may get; for ever if not given.
        clock: Tells when.
        ids: Makes session ids and tokens.
        metrics: Where dropped sessions are counted.
    """

    def __init__(
        self,
        path: Path,
        *,
        ages: SessionAges | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        super().__init__(ages=ages, clock=clock, ids=ids, metrics=metrics)
        self._path = path

    def find(self, session_id: str) -> SessionRecord | None:
        """See `Registry.find`."""
        return super().find(session_id) if self._exists() else None

    def _change(self, key: str, decide: Decide[Result]) -> Result:
        (result,) = self._change_all([key], decide)
        return result

    def _change_all(self, keys: list[str], decide: Decide[Result]) -> list[Result]:
        results: list[Result] = []
        for batch in (keys[start : start + BATCH_ROWS] for start in range(0, len(keys), BATCH_ROWS)):
            results += self._write(partial(self._change_batch, batch, decide))
        return results

    def _change_batch(self, keys: list[str], decide: Decide[Result], connection: sqlite3.Connection) -> list[Result]:
        moment = _Moment.of(self._clock)  # the file is locked by now: nobody's later moment comes before it
        results: list[Result] = []
        for key in keys:
            line = connection.execute(f"{_SELECT} WHERE work_key = ?", (key,)).fetchone()
            before = None if line is None else moment.read(line)
            after, result = decide(before, moment.now)
            if after is None and before is not None:
                connection.execute(_DELETE, (key,))
            elif after is not None and after != before:
                connection.execute(_SAVE, moment.line(after))
            results.append(result)
        return results

    def _look(self, key: str) -> SessionRecord | None:
        return super()._look(key) if self._exists() else None

    def _rows(self) -> list[Row]:
        if not self._exists():
            return []

        def work(connection: sqlite3.Connection) -> tuple[_Moment, list[tuple[Any, ...]]]:
            return _Moment.of(self._clock), connection.execute(f"{_SELECT} ORDER BY work_key").fetchall()

        moment, lines = self._write(work)  # while the file is locked, nobody can claim anything
        return [moment.read(line) for line in lines]

    def _key_of(self, session_id: str) -> str | None:
        def work(connection: sqlite3.Connection) -> str | None:
            found = connection.execute("SELECT work_key FROM sessions WHERE session_id = ?", (session_id,)).fetchone()
            return None if found is None else str(found[0])

        return self._write(work)

    def _exists(self) -> bool:
        """Tell whether the file is there: who only looks makes none."""
        try:
            return self._path.exists()
        except OSError as error:
            raise self._translate(error) from error

    def _write(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run one transaction, waiting for other processes."""
        try:
            return when_free(partial(self._try_write, work), self._clock, self._ids)
        except (sqlite3.Error, OSError, UnicodeEncodeError) as error:
            raise self._translate(error) from error

    def _try_write(self, work: Callable[[sqlite3.Connection], Result], timeout_s: float) -> Result:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with transactions.one(), closing(connect(self._path, "rwc", timeout_s)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            if self._version(connection) == 0:
                self._is_begun(connection)  # it refuses another program's database, which stays as it was
                connection.execute("PRAGMA journal_mode = WAL")
            with transaction(connection):
                self._prepare(connection)
                return work(connection)

    def _version(self, connection: sqlite3.Connection) -> int:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise Invalid(
                f"the registry {self._path} has version {version}, this release knows version {SCHEMA_VERSION}",
                hint="use a newer release of Everturn, or another file",
            )
        return int(version)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the table, or bring it up to date, in the transaction that goes on to use it."""
        version = self._version(connection)
        if version == SCHEMA_VERSION:
            return
        for statement in (*(() if self._is_begun(connection) else (_VERSION_1,)), *_VERSION_2):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _is_begun(self, connection: sqlite3.Connection) -> bool:
        """Tell whether there is a table.

        Raises:
            Invalid: There are others.
        """
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if tables - {"sessions"}:
            raise Invalid(f"{self._path} is the database of another program", hint="name another file")
        return bool(tables)

    def _translate(self, error: Exception) -> EverturnError:
        text = getattr(error, "strerror", None) or str(error)
        if isinstance(error, UnicodeEncodeError):
            return no_unicode(error)
        if is_refusal(error):
            hint = "check the folder's permissions, or name another place"
            return Denied(f"cannot use the registry {self._path}: {text}", hint=hint)
        if is_busy(error):
            return Unavailable(f"the registry {self._path} is busy: {text}", hint="try again")
        if any(sign in text for sign in ("not a database", "malformed", "no such", "duplicate column")):
            return Corrupt(
                f"the registry {self._path} is damaged: {text}", hint="restore it from a copy, or move it away"
            )
        return Unavailable(f"the registry {self._path} failed: {text}", hint="check the disk")
