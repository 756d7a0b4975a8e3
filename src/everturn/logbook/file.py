"""The file of the logbook: how it is opened, what it must be, and what goes wrong with it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from everturn import databases
from everturn.clock import Clock, Ids
from everturn.errors import Corrupt, Denied, EverturnError, Invalid, Unavailable
from everturn.logbook.schema import APPLICATION_ID, SCHEMA_VERSION, STATEMENTS

_UNFIT = (ValueError, TypeError, OverflowError, sqlite3.IntegrityError, sqlite3.DataError)
_RESTORE = "restore it from a copy, or move it away while no service runs: then no delivery is known any more"


class LogbookFile:
    """The file. Readers open it for each look, the writer keeps it open.

    Args:
        path: Where it is. It and its folder are made by whoever writes first.
        clock: Tells how long others were waited for.
        ids: Makes pauses.
    """

    def __init__(self, path: Path, clock: Clock, ids: Ids) -> None:
        self.path = path
        self._clock = clock
        self._ids = ids

    def open_to_write(self) -> sqlite3.Connection:
        """Return a connection to the file, which is made if it is not there. What it commits is durable.

        Raises:
            sqlite3.Error, OSError: See `explain`.
            Invalid: A newer release made it, or another program.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite's own files beside it get its mode
        return databases.when_free(self._open_to_write, self._clock, self._ids)

    def _open_to_write(self, timeout_s: float) -> sqlite3.Connection:
        connection = databases.connect(self.path, "rwc", timeout_s)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            with databases.snapshot(connection):
                is_ours = self._is_ours(connection)
            if not is_ours:
                connection.execute("PRAGMA journal_mode = WAL")
                with databases.transaction(connection):
                    self._make(connection)
            connection.execute(f"PRAGMA busy_timeout = {databases.BUSY_TIMEOUT_S * 1000:.0f}")
        except BaseException:
            connection.close()
            raise
        return connection

    def is_still(self, opened: os.stat_result | None) -> bool:
        """Tell whether the file that was opened has not been deleted or moved away since."""
        try:
            return opened is not None and os.path.samestat(opened, self.path.stat())
        except FileNotFoundError:
            return False

    def _make(self, connection: sqlite3.Connection) -> None:
        if self._is_ours(connection):  # somebody else has made it meanwhile
            return
        for statement in STATEMENTS:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return what a query finds; nothing if there is no file yet.

        Raises:
            Corrupt: The file is damaged.
            Denied: It cannot be opened.
            Invalid: A newer release made it, or another program.
            Unavailable: It cannot be read now.
        """

        def look(timeout_s: float) -> list[tuple[Any, ...]]:
            with (
                databases.transactions.one(),
                closing(databases.connect(self.path, "rw", timeout_s)) as connection,
                databases.snapshot(connection),
            ):
                return connection.execute(query, values).fetchall() if self._is_ours(connection) else []

        try:
            return databases.when_free(look, self._clock, self._ids) if self.path.exists() else []
        except Exception as error:
            raise self.explain(error) from error

    def _is_ours(self, connection: sqlite3.Connection) -> bool:
        """Return `False` if the file is empty. For a transaction: somebody may be making it."""
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application_id == APPLICATION_ID and version <= SCHEMA_VERSION:
            return True
        if application_id == APPLICATION_ID:
            raise Invalid(
                f"the logbook {self.path} has version {version}, this release knows version {SCHEMA_VERSION}",
                hint="use a newer release of Everturn, or another file",
            )
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if application_id or version or tables:
            raise Invalid(f"{self.path} is the database of another program", hint="name another file")
        return False

    def explain(self, error: Exception) -> EverturnError:
        """Return an error that says what can be done about one."""
        if isinstance(error, EverturnError):
            return error
        text = getattr(error, "strerror", None) or str(error)
        if isinstance(error, _UNFIT):
            return Invalid(f"the logbook cannot keep this: {text}", hint="nothing was written")
        if databases.is_damage(error) or "no such" in text:
            return Corrupt(f"the logbook {self.path} is damaged: {text}", hint=_RESTORE)
        if databases.is_refusal(error):
            return Denied(f"cannot use the logbook {self.path}: {text}", hint="check its folder's permissions")
        happened, hint = "failed", "check the disk"
        if databases.is_full(error):
            happened, hint = "has no room", "free some room on its disk"
        elif databases.is_busy(error):
            happened, hint = "is busy", "try again"
        return Unavailable(f"the logbook {self.path} {happened}: {text}", hint=hint)
