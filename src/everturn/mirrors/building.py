"""A SQLite mirror that is being built: one process, one new file, nobody who reads it yet.

Events are folded by the thread that calls; rows are written by another. SQLite lets go of the interpreter while it
works, so both cores are busy. A process that is killed leaves a file that the next one goes on with: rows and
checkpoints are in the same transactions. The machine's crash may leave anything, so after that it is begun anew.
"""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from everturn.clock import Clock
from everturn.databases import transaction
from everturn.errors import EverturnError
from everturn.journal.reading import RunRef
from everturn.mirrors import database
from everturn.mirrors.base import Batch, Checkpoint
from everturn.mirrors.folding import RunFold
from everturn.mirrors.place import Place
from everturn.mirrors.rows import Rows
from everturn.mirrors.writing import (
    delete_run,
    index_texts,
    load_checkpoint,
    load_checkpoints,
    save_checkpoint,
    write_rows,
)

GROUP_CHARS = 4 << 20  # of texts that are handed to the writing thread at once
GROUP_RUNS = 500
RUN_CHARS = 32 << 20  # of texts of one run that are kept until it is written
WAITING_GROUPS = 12  # so that folding goes on while texts are indexed
COMMIT_CHARS = 48 << 20
COMMIT_S = 5.0  # no more than that of the work is lost with the process
INDEX_BYTES = 64 << 20  # of the index that are kept in memory until they are written
CACHE_KIB = 64 << 10


@dataclass(slots=True)
class _Group:
    """What is written in one go."""

    runs: list[tuple[str, Rows, Checkpoint, bytes]] = field(default_factory=list)
    chars: int = 0
    commit: bool = False


class Building:
    """A `Folding` in a new file. See `SqliteMirror.rebuilding`.

    Args:
        connection: The file, set up.
        path: Its name.
        clock: Tells when to keep what is written.
        count: Is told what was taken in.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path, clock: Clock, count: Callable[[Rows], None]
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._kept_at = clock.elapsed()
        self._path = path
        self._count = count
        self._done = load_checkpoints(connection)
        self._folds: dict[RunRef, RunFold] = {}
        self._group = _Group()
        self._groups: queue.Queue[_Group | None] = queue.Queue(maxsize=WAITING_GROUPS)
        self._unindexed: list[int] = []
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="everturn-mirror", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, place: Place, label: str, clock: Clock, count: Callable[[Rows], None]) -> Self:
        """Go on with the file that was coming, if it can be trusted, or begin one. For whoever holds the lock."""
        meta = {"store": label, "boot": clock.boot()}
        file = place.target(place.coming)
        if file is None or not _is_usable(file, meta):
            file = place.point(place.coming)
            place.tidy()
        connection = database.connect(file, create=True)
        try:
            for statement in (
                "PRAGMA page_size = 16384",
                "PRAGMA journal_mode = TRUNCATE",
                "PRAGMA synchronous = OFF",
                f"PRAGMA cache_size = -{CACHE_KIB}",
            ):
                connection.execute(statement)
            if not connection.execute("PRAGMA user_version").fetchone()[0]:
                with transaction(connection):
                    database.set_up(connection, meta)
            for name, value in (("hashsize", INDEX_BYTES), ("automerge", 0)):
                connection.execute("INSERT INTO texts_fts (texts_fts, rank) VALUES (?, ?)", (name, value))
            return cls(connection, file, clock, count)
        except BaseException:
            connection.close()
            raise

    def checkpoints(self) -> dict[RunRef, Checkpoint]:
        """See `Folding.checkpoints`."""
        return dict(self._done)

    def fold(self, batch: Batch) -> bool:
        """See `Folding.fold`.

        Raises:
            Unavailable: There is no room.
        """
        ref = batch.ref
        fold = self._folds.get(ref) or self._load(ref)
        news = batch.news(self._done.get(ref), fold.missing)
        if news is None:
            return False
        fold.take(news)
        self._done[ref] = batch.done(self._done.get(ref), fold.seq)
        self._folds[ref] = fold
        if not batch.more or fold.pending_chars > RUN_CHARS:
            del self._folds[ref]
            self._hand_over(ref, fold)
        return True

    def forget(self, refs: Collection[RunRef]) -> None:
        """See `Folding.forget`."""
        self._settle()
        for ref in refs:
            self._folds.pop(ref, None)
            self._done.pop(ref, None)
            with transaction(self._connection):
                delete_run(self._connection, ref.run_id)

    def finish(self) -> None:
        """Make the file one that everybody can use. On return it is durable."""
        self._settle()
        self._stop()
        connection = self._connection
        for name, value in (("hashsize", 1 << 20), ("automerge", 4)):
            connection.execute("INSERT INTO texts_fts (texts_fts, rank) VALUES (?, ?)", (name, value))
        with transaction(connection):
            connection.execute("DELETE FROM meta WHERE name = 'boot'")
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('complete', '1')")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
        with self._path.open("rb") as file:
            os.fsync(file.fileno())

    def abandon(self) -> None:
        """Leave the file as it is, for the next attempt."""
        self._stop()
        self._connection.close()

    def _load(self, ref: RunRef) -> RunFold:
        if ref not in self._done:
            return RunFold(ref.run_id, ref.scope)
        self._settle()
        found = load_checkpoint(self._connection, ref.run_id)
        return RunFold(ref.run_id, ref.scope, None if found is None else found[1])

    def _hand_over(self, ref: RunRef, fold: RunFold) -> None:
        rows, group = fold.drain() if fold.seq else Rows(), self._group
        self._count(rows)
        group.runs.append((ref.run_id, rows, self._done[ref], fold.state()))
        group.chars += rows.chars
        if group.chars >= GROUP_CHARS or len(group.runs) >= GROUP_RUNS:
            self._put(group)
            self._group = _Group()

    def _put(self, group: _Group | None) -> None:
        while True:
            if self._failure is not None:
                raise self._failure
            try:
                self._groups.put(group, timeout=1)
                return
            except queue.Full:
                continue

    def _settle(self) -> None:
        """Wait until all that was folded is written and kept."""
        self._group.commit = True
        self._put(self._group)
        self._group = _Group()
        self._groups.join()
        if self._failure is not None:
            raise self._failure

    def _stop(self) -> None:
        if self._thread.is_alive():
            self._groups.put(None)
            self._thread.join()

    def _write(self) -> None:
        chars = 0
        while (group := self._groups.get()) is not None:
            try:
                if self._failure is None:
                    chars = self._write_group(group, chars)
            except BaseException as failure:  # noqa: BLE001  # raised in the thread that folds
                self._failure = failure
            finally:
                self._groups.task_done()
        self._groups.task_done()

    def _write_group(self, group: _Group, chars: int) -> int:
        connection = self._connection
        if not connection.in_transaction:
            connection.execute("BEGIN IMMEDIATE")
        for run_id, rows, checkpoint, state in group.runs:
            if rows.obsolete:  # it has to be in the index before it can be taken out
                self._index()
            self._unindexed += write_rows(connection, run_id, rows)
            save_checkpoint(connection, checkpoint, state)
        chars += group.chars
        now = self._clock.elapsed()
        if group.commit or chars >= COMMIT_CHARS or now - self._kept_at >= COMMIT_S:
            self._index()
            connection.execute("COMMIT")
            self._kept_at = now
            return 0
        return chars

    def _index(self) -> None:
        """Index what was written, in the order of ids: where they go back, FTS5 begins another part of its index."""
        index_texts(self._connection, self._unindexed)
        self._unindexed.clear()


def _is_usable(file: Path, meta: dict[str, str]) -> bool:
    if not meta["boot"]:
        return False
    try:
        with closing(database.connect(file)) as connection:
            return (
                database.judge(connection, meta["store"]) is None
                and database.read_meta(connection).get("boot") == meta["boot"]
            )
    except (sqlite3.Error, EverturnError):
        return False
