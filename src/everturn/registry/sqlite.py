"""A registry in one SQLite file: the embedded default. Many processes of one machine may share it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from everturn.clock import Clock, Ids, SystemClock
from everturn.errors import Corrupt, Denied, EverturnError, Fenced, Invalid, Unavailable
from everturn.model import Claim, SessionRecord, WorkItem
from everturn.telemetry import get_logger

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 10.0
BUSY_PAUSE_S = 0.05

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
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

# One statement, so that two workers who claim at the same moment get two epochs.
_CLAIM = """
INSERT INTO sessions (work_key, session_id, epoch, worker, store, created_at, last_used_at)
VALUES (:work_key, :session_id, 1, :worker, :store, :now, :now)
ON CONFLICT (work_key) DO UPDATE SET epoch = epoch + 1, worker = :worker
RETURNING session_id, epoch, store
"""
_BEGIN_ANEW = """
UPDATE sessions SET session_id = :fresh, epoch = epoch + 1
WHERE work_key = :work_key AND session_id = :session_id AND epoch = :epoch
"""

_CONFIRM = """
UPDATE sessions SET cwd = ?, store = ?, last_used_at = ? WHERE work_key = ? AND session_id = ? AND epoch = ?
"""
_GET = """
SELECT work_key, session_id, epoch, worker, store, cwd, created_at, last_used_at FROM sessions WHERE work_key = ?
"""
_DROP = "DELETE FROM sessions WHERE work_key = ? AND session_id = ?"


class SqliteRegistry:
    """A `Registry` in one SQLite file. Each call opens the file anew, so it may be used from any thread or fork.

    Args:
        path: The file. It and its folder are made at the first claim.
        clock: Tells when.
        ids: Makes session ids.
    """

    def __init__(self, path: Path, *, clock: Clock | None = None, ids: Ids | None = None) -> None:
        self._path = path
        self._clock = clock or SystemClock()
        self._ids = ids or Ids()
        self._log = get_logger()

    def claim(self, work: WorkItem, worker: str, store: str = "") -> Claim:
        """See `Registry.claim`."""
        values = {
            "work_key": work.key,
            "session_id": self._ids.session_id(),
            "worker": worker,
            "store": store,
            "now": self._clock.now(),
        }
        row = self._write(lambda connection: connection.execute(_CLAIM, values).fetchone())
        claim = Claim(work, row[0], row[1], is_new=row[0] == values["session_id"], store=row[2])
        self._log.info("claimed", work=work.key, session_id=claim.session_id, epoch=claim.epoch, worker=worker)
        return claim

    def begin_anew(self, claim: Claim) -> Claim:
        """See `Registry.begin_anew`."""
        fresh = replace(claim, session_id=self._ids.session_id(), epoch=claim.epoch + 1, is_new=True)
        values = {
            "fresh": fresh.session_id,
            "work_key": claim.work.key,
            "session_id": claim.session_id,
            "epoch": claim.epoch,
        }
        if not self._write(lambda connection: connection.execute(_BEGIN_ANEW, values).rowcount):
            raise _overtaken(claim)
        self._log.info(
            "began_anew",
            work=claim.work.key,
            session_id=fresh.session_id,
            instead_of=claim.session_id,
            epoch=fresh.epoch,
        )
        return fresh

    def confirm(self, claim: Claim, cwd: str) -> None:
        """See `Registry.confirm`."""
        values = (cwd, claim.store, self._clock.now(), claim.work.key, claim.session_id, claim.epoch)
        if not self._write(lambda connection: connection.execute(_CONFIRM, values).rowcount):
            raise _overtaken(claim)

    def get(self, work: WorkItem) -> SessionRecord | None:
        """See `Registry.get`."""
        if not self._path.exists():
            return None
        row = self._write(lambda connection: connection.execute(_GET, (work.key,)).fetchone())
        return None if row is None else SessionRecord(*row)

    def drop(self, work: WorkItem, session_id: str, reason: str) -> bool:
        """See `Registry.drop`."""
        values = (work.key, session_id)
        dropped = self._write(lambda connection: connection.execute(_DROP, values).rowcount)
        self._log.info("dropped", work=work.key, session_id=session_id, reason=reason, found=bool(dropped))
        return bool(dropped)

    def _write(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run one transaction, waiting for other processes.

        SQLite's own busy handler does not wait everywhere: not while the journal mode is changed, and not while the
        last connection of another process tidies up. All of that comes before the work begins, so it is tried again.
        """
        deadline = self._clock.elapsed() + BUSY_TIMEOUT_S
        while True:
            try:
                return self._try_write(work)
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or self._clock.elapsed() > deadline:
                    raise self._translate(error) from error
                self._clock.sleep(self._ids.jitter(BUSY_PAUSE_S))
            except (sqlite3.Error, OSError) as error:
                raise self._translate(error) from error

    def _try_write(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as connection:
            self._prepare(connection)
            connection.execute("BEGIN IMMEDIATE")
            result = work(connection)
            connection.execute("COMMIT")
            return result

    def _prepare(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise Invalid(
                f"the registry {self._path} has version {version}, this release knows version {SCHEMA_VERSION}",
                hint="use a newer release of Everturn, or another file",
            )
        connection.execute("PRAGMA synchronous = FULL")
        if version < SCHEMA_VERSION:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _translate(self, error: Exception) -> EverturnError:
        text = str(error)
        if isinstance(error, PermissionError) or "readonly" in text or "unable to open" in text:
            return Denied(f"cannot use the registry {self._path}: {text}", hint="check the folder's permissions")
        if _is_busy(error):
            return Unavailable(f"the registry {self._path} is busy: {text}", hint="try again")
        if "not a database" in text or "malformed" in text:
            return Corrupt(
                f"the registry {self._path} is damaged: {text}", hint="restore it from a copy, or move it away"
            )
        return Unavailable(f"the registry {self._path} failed: {text}", hint="check the disk")


def _overtaken(claim: Claim) -> Fenced:
    return Fenced(
        f"{claim.work.key} was claimed again or dropped while epoch {claim.epoch} was running",
        hint="stop; the work goes on elsewhere",
    )


def _is_busy(error: Exception) -> bool:
    return "locked" in str(error) or "busy" in str(error)


def open_registry(url: str) -> SqliteRegistry:
    """Return the registry behind a URL. Nothing is read or written yet.

    Args:
        url: `sqlite:///absolute/path.db`.

    Raises:
        Invalid: It is another kind of URL.
    """
    scheme, separator, path = url.partition("://")
    if scheme != "sqlite" or not separator or not path.startswith("/"):
        raise Invalid(f"cannot make a registry of {url!r}", hint="use sqlite:///absolute/path.db")
    return SqliteRegistry(Path(path))
