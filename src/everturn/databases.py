"""What all SQLite files of this house have in common: forks, waiting for others, and what errors mean."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import quote

from everturn.clock import Clock, Ids

BUSY_TIMEOUT_S = 10.0
BUSY_PAUSE_S = 0.05

_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_SCHEMA")
_REFUSED = ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")
_NO_PLACE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
    errno.ENAMETOOLONG,
)

Result = TypeVar("Result")


class Keeper(Protocol):
    """Whoever keeps a connection open between transactions."""

    def before_fork(self) -> None:
        """Close it. No transaction is under way, and none begins before the fork is made."""

    def after_fork(self) -> None:
        """In the child: forget the parent's threads, their locks and what they were to do."""


class _Transactions:
    """Those under way in this process. A fork waits for their end: SQLite notes in memory which locks a process has,
    and a child that got a copy of that, but not the locks, could damage the file or find it locked for ever."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0
        self._keepers: weakref.WeakSet[Keeper] = weakref.WeakSet()
        os.register_at_fork(before=self._stop, after_in_parent=self._go_on, after_in_child=self._begin_anew)

    def keep(self, keeper: Keeper) -> None:
        """Tell somebody of forks, as long as they live."""
        with self._changed:
            self._keepers.add(keeper)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count a transaction while the block lasts."""
        with self._changed:
            self._count += 1
        try:
            yield
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()

    def _stop(self) -> None:
        self._changed.acquire()
        if self._changed.wait_for(lambda: not self._count, BUSY_TIMEOUT_S):
            for keeper in self._keepers:
                keeper.before_fork()

    def _go_on(self) -> None:
        self._changed.release()

    def _begin_anew(self) -> None:
        self._changed, self._count = threading.Condition(), 0
        for keeper in self._keepers:
            keeper.after_fork()


transactions = _Transactions()


def connect(path: Path, mode: str, timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """Open a database for any thread. Its transactions are begun and ended by statements.

    Args:
        path: The file.
        mode: `ro`, `rw`, or `rwc`: it is made if it is not there.
        timeout_s: How long to wait for others, in seconds.
    """
    return sqlite3.connect(
        f"file://{quote(bytes(path.absolute()))}?mode={mode}",
        uri=True,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,
    )


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Do all of the block, or nothing. Nobody else writes meanwhile."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Look at one state of the database in all of the block, whatever others write meanwhile."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def when_free(work: Callable[[float], Result], clock: Clock, ids: Ids) -> Result:
    """Do work that begins with opening a file, waiting for other processes.

    SQLite's own busy handler does not wait everywhere: not while the journal mode is changed, and not while the last
    connection of another process tidies up. All of that comes before the work begins, so it is tried again.

    Args:
        work: Is given how long it may still wait, in seconds.
        clock: Waits.
        ids: Says how long, so that not all come back at once.
    """
    deadline = clock.elapsed() + BUSY_TIMEOUT_S
    while True:
        try:
            return work(max(0.0, deadline - clock.elapsed()))
        except sqlite3.OperationalError as error:
            if not is_busy(error) or clock.elapsed() > deadline:
                raise
            clock.sleep(ids.jitter(BUSY_PAUSE_S))


def is_busy(error: BaseException) -> bool:
    """Tell whether an error says that somebody else has the file."""
    return isinstance(error, sqlite3.Error) and ("locked" in str(error) or "busy" in str(error))


def is_damage(error: BaseException) -> bool:
    """Tell whether an error says that the file is not a whole database."""
    return isinstance(error, sqlite3.DatabaseError) and _name(error).startswith(_DAMAGED)


def is_full(error: BaseException | None) -> bool:
    """Tell whether an error says that there is no room."""
    return _name(error).startswith("SQLITE_FULL") or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)


def is_refusal(error: BaseException) -> bool:
    """Tell whether an error says that the file or its folder may not be used."""
    return _name(error).startswith(_REFUSED) or getattr(error, "errno", None) in _NO_PLACE


def _name(error: BaseException | None) -> str:
    return getattr(error, "sqlite_errorname", "") or ""
