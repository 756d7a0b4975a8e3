"""The one thread that writes: what waits meanwhile is committed together."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from everturn import databases
from everturn.errors import EverturnError, Unavailable
from everturn.logbook.file import LogbookFile

BATCH = 500  # writes in one transaction, which takes some 20 ms then
LIMIT = 4000  # writes that wait; more are refused, so that memory is bounded

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]
Explain = Callable[[Exception], EverturnError]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A write that waits, and who waits for it."""

    work: Work[Any]
    future: Future[Any]


class Writer:
    """Writes in the order in which it was asked to, with one sync for all that waits.

    Several processes may each have one for the same file: a transaction of one comes after that of another. In a
    child made by `fork` it begins anew, with nothing to do.

    Args:
        file: What to write into.
    """

    def __init__(self, file: LogbookFile) -> None:
        self._file = file
        self._connection: sqlite3.Connection | None = None
        self._opened: os.stat_result | None = None
        self._begin()
        databases.transactions.keep(self)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[Waiting] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, work: Work[Result], *, must: bool = False) -> Future[Result]:
        """Have something written. The future has its result as soon as it is durable.

        Args:
            work: Does so, in a transaction that others may be part of. If it raises, only its own changes are undone.
            must: Take it although too much waits already: it comes from ourselves, not from the network.
        """
        future: Future[Result] = Future()
        with self._changed:
            refusal = self._refusal(must)
            if refusal is None:
                self._queue.append(Waiting(work, future))
                self._changed.notify()
        if refusal is not None:
            future.set_exception(refusal)
        return future

    def _refusal(self, must: bool) -> EverturnError | None:
        if self._closed:
            return Unavailable("the logbook is closed", hint="nothing was written; open it again")
        if len(self._queue) >= LIMIT and not must:
            return Unavailable("the logbook is too busy", hint="nothing was written; try again later")
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="everturn-logbook", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                self._thread = None
                return Unavailable("there is no thread for the logbook", hint="nothing was written; try again later")
        return None

    def close(self) -> None:
        """Write what waits, and end the thread. A second time does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            with databases.transactions.one():
                settled = self._commit(batch)
            for settle in settled:
                settle()
        with databases.transactions.one():
            self.before_fork()

    def _next(self) -> list[Waiting] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if not self._queue:
                return None
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
        return [each for each in batch if each.future.set_running_or_notify_cancel()]

    def _commit(self, batch: Sequence[Waiting]) -> list[Callable[[], None]]:
        """Write a batch, and return what tells those who wait."""
        try:
            if self._connection is not None and not self._file.is_still(self._opened):
                self.before_fork()
            if self._connection is None:
                self._connection = self._file.open_to_write()
                self._opened = self._file.path.stat()
            with databases.transaction(self._connection):
                return [_write(self._connection, each, self._file.explain) for each in batch]
        except Exception as error:  # noqa: BLE001 - each of those who wait is told
            self.before_fork()
            failure = self._file.explain(error)
            return [partial(each.future.set_exception, failure) for each in batch]

    def before_fork(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def after_fork(self) -> None:
        """Begin anew, in the child."""
        self._connection = None
        self._begin()


def _write(connection: sqlite3.Connection, each: Waiting, explain: Explain) -> Callable[[], None]:
    connection.execute("SAVEPOINT one")
    try:
        result = each.work(connection)
    except Exception as error:
        if not connection.in_transaction:  # SQLite has undone all of it, as it does if the disk is full, say
            raise
        connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")
        return partial(each.future.set_exception, explain(error))
    connection.execute("RELEASE one")
    return partial(each.future.set_result, result)
