"""Connections to the SQLite mirror, and what can go wrong with them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from everturn import databases
from everturn.databases import is_busy, is_damage, is_full, is_refusal
from everturn.errors import Corrupt, Denied, EverturnError, NotFound, Unavailable
from everturn.mirrors.base import Reason
from everturn.mirrors.folding import FOLD_VERSION
from everturn.mirrors.schema import SCHEMA_VERSION, STATEMENTS

_REBUILD = "everturn mirrors rebuild makes it anew"


def connect(file: Path, *, read_only: bool = False, create: bool = False) -> sqlite3.Connection:
    """Open a database. Its transactions are begun and ended by statements."""
    connection = databases.connect(file, "ro" if read_only else "rwc" if create else "rw")
    try:
        if not read_only:
            connection.execute("PRAGMA synchronous = NORMAL")  # after a crash of the machine, its end is replayed
    except BaseException:
        connection.close()
        raise
    return connection


def set_up(connection: sqlite3.Connection, meta: dict[str, str]) -> None:
    """Make the tables of an empty database, in a transaction."""
    for statement in STATEMENTS:
        connection.execute(statement)
    connection.executemany("INSERT INTO meta VALUES (?, ?)", {**meta, "fold_version": str(FOLD_VERSION)}.items())


def read_meta(connection: sqlite3.Connection) -> dict[str, str]:
    """Return what a mirror says of itself."""
    return dict(connection.execute("SELECT name, value FROM meta"))


def judge(connection: sqlite3.Connection, label: str, *, thoroughly: bool = False) -> Reason | None:
    """Say why a database is not the mirror it should be.

    Args:
        connection: The database.
        label: The store whose journals it should mirror.
        thoroughly: Look at every page, which takes a second for a gigabyte.
    """
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if version != SCHEMA_VERSION:
            return "fold_changed" if version or not tables else "corrupt"
        meta = read_meta(connection)
        if thoroughly and connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            return "corrupt"
    except sqlite3.Error as error:
        if is_damage(error) or (type(error) is sqlite3.OperationalError and "no such" in str(error)):
            return "corrupt"
        raise
    if meta.get("fold_version") != str(FOLD_VERSION):
        return "fold_changed"
    return "other_store" if meta.get("store") != label else None


@contextmanager
def explained(what: object, kinds: tuple[type[Exception], ...] = (sqlite3.Error, OSError)) -> Iterator[None]:
    """Raise what goes wrong in the block as an error that says what can be done about it.

    Args:
        what: The mirror's file or folder.
        kinds: Which errors.
    """
    try:
        yield
    except kinds as error:
        raise _explain(error, what) from error


def _explain(error: Exception, what: object) -> EverturnError:
    text = getattr(error, "strerror", None) or str(error)
    if is_damage(error):
        return Corrupt(f"the mirror {what} is damaged: {text}", hint=_REBUILD)
    if is_full(error):
        return Unavailable(f"there is no room for the mirror {what}: {text}", hint="free some room; nothing is lost")
    if is_busy(error):
        return Unavailable(f"the mirror {what} is busy: {text}", hint="try again")
    if isinstance(error, FileNotFoundError):
        return NotFound(f"there is no mirror {what}", hint=_REBUILD)
    if is_refusal(error):
        hint = "check the folder's permissions, or name another folder with the setting mirrors"
        return Denied(f"cannot use the mirror {what}: {text}", hint=hint)
    return Unavailable(f"the mirror {what} failed: {text}", hint=_REBUILD)
