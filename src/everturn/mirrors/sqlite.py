"""The mirror in SQLite, with full-text search (docs/mirrors.md). Many processes of one machine may share it."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from everturn.clock import Clock, Ids, SystemClock
from everturn.databases import is_damage, transaction
from everturn.errors import Corrupt, Unavailable
from everturn.journal.reading import RunRef
from everturn.mirrors import database
from everturn.mirrors.base import Batch, Checkpoint, Extent, Folding, Reason
from everturn.mirrors.building import Building
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
from everturn.settings import Settings
from everturn.telemetry import Metrics, default_metrics

CACHE_KIB = 16 << 10


def folder_of(settings: Settings) -> Path:
    """Return the folder for mirrors of the store that the settings name."""
    digest = hashlib.sha256(settings.store_url().rstrip("/").encode("utf-8", "replace")).hexdigest()
    return settings.mirrors_path() / digest[:16]


class SqliteMirror:
    """The SQLite mirror of a store's journals.

    Safe to use from several threads; they take turns. Not from a fork: make another one there.

    Args:
        folder: Where its files are; see `folder_of`.
        label: The store's URL.
        clock: Waits, and tells whether the machine has been started anew.
        ids: Makes names for files.
        metrics: What is counted.
    """

    name = "sqlite"

    def __init__(
        self,
        folder: Path,
        label: str,
        *,
        clock: Clock | None = None,
        ids: Ids | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._label = label if label.endswith("://") else label.rstrip("/")
        self._clock = clock or SystemClock()
        self._metrics = metrics or default_metrics()
        self._place = Place(folder, self._clock, ids or Ids())
        self._lock = threading.RLock()
        self._opened: tuple[sqlite3.Connection, os.stat_result] | None = None

    @property
    def path(self) -> Path:
        """The database, for whoever wants to open it: a link."""
        return self._place.current

    def unusable(self, *, thoroughly: bool = False) -> Reason | None:
        """See `Mirror.unusable`.

        Args:
            thoroughly: Look at every page.

        Raises:
            Denied: The file cannot be opened.
            Unavailable: It cannot be read now.
        """
        with database.explained(self.path):
            file = self._place.target(self.path)
            if file is None:
                return "corrupt" if self._place.is_foreign(self.path) else "missing"
            with closing(database.connect(file, read_only=True)) as connection:
                reason = database.judge(connection, self._label, thoroughly=thoroughly)
                if reason is None and "complete" not in database.read_meta(connection):
                    return "missing"  # but for what has been told live since
                return reason

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Enter with a connection that can only read; it disturbs nobody.

        Raises:
            NotFound: There is no mirror yet.
            Corrupt: It is damaged. It has been thrown away, so the next time it is rebuilt.
            Denied: The file cannot be opened.
            Unavailable: It cannot be read now.
        """
        with database.explained(self.path):
            file, connection = self._open(self._open_to_read)
        try:
            with closing(connection), database.explained(self.path, (sqlite3.Error,)):
                yield connection
        except Corrupt:
            self._discard(file)
            raise

    def checkpoints(self) -> dict[RunRef, Checkpoint]:
        """See `Folding.checkpoints`. Raises as `reading`."""
        with self.reading() as connection:
            return load_checkpoints(connection)

    def checkpoints_of(self, refs: Collection[RunRef]) -> list[Checkpoint]:
        """Return how far some runs are folded; those that are not known, not at all. Raises as `reading`."""
        with self.reading() as connection:
            found = {ref: load_checkpoint(connection, ref.run_id) for ref in refs}
        known = {ref: Checkpoint(ref, 0) if each is None else each[0] for ref, each in found.items()}
        return [checkpoint for ref, checkpoint in known.items() if checkpoint.ref == ref]

    def extent(self) -> Extent:
        """See `Mirror.extent`. Raises as `reading`."""
        with self.reading() as connection:
            runs, events = connection.execute("SELECT count(*), ifnull(sum(events), 0) FROM runs").fetchone()
        file = self.path.resolve()
        return Extent(runs, events, _size_bytes(file) + _size_bytes(file.with_name(f"{file.name}-wal")))

    def fold(self, batch: Batch) -> bool:
        """See `Folding.fold`.

        Raises:
            NotFound: The mirror is gone.
            Corrupt: It is damaged. It has been thrown away.
            Denied: It cannot be written.
            Unavailable: It is busy, or there is no room. Nothing was folded.
        """
        with self._writing() as connection, transaction(connection):
            rows = _fold(connection, batch)
        if rows is not None:
            self.count(rows)
        return rows is not None

    def forget(self, refs: Collection[RunRef]) -> None:
        """See `Folding.forget`. Raises as `fold`."""
        for ref in refs:
            with self._writing() as connection, transaction(connection):
                delete_run(connection, ref.run_id)

    def create(self) -> bool:
        """Make an empty one if there is none, for what is told live. The first catching up fills it.

        Returns:
            `False`: somebody is at work on it.

        Raises:
            Denied: The folder cannot be written.
            Unavailable: There is no room.
        """
        with database.explained(self.path), self._place.locked(wait=False) as is_ours:
            if is_ours and self._place.target(self.path) is None:
                file = self._place.point(self._place.first)
                with closing(database.connect(file, create=True)) as connection:
                    connection.execute("PRAGMA journal_mode = WAL")
                    with transaction(connection):
                        database.set_up(connection, {"store": self._label})
                self._place.publish(self._place.first)
            return is_ours

    @contextmanager
    def rebuilding(self, reason: Reason) -> Iterator[Folding | None]:
        """See `Mirror.rebuilding`.

        Raises:
            Denied: The folder cannot be written.
            Unavailable: There is no room, or somebody else has been at work for an hour.
        """
        with self._place.turn_to_rebuild(self.path, lambda: self.unusable() is None) as is_ours:
            if not is_ours:
                yield None
                return
            self._metrics.mirror_rebuilds.labels(reason).inc()
            with self._building() as building:
                yield building

    @contextmanager
    def _building(self) -> Iterator[Building]:
        with database.explained(self.path):
            building = Building.open(self._place, self._label, self._clock, self.count)
        try:
            with database.explained(self.path, (sqlite3.Error,)):
                yield building
            with database.explained(self.path):
                building.finish()
                self._place.publish(self._place.coming)
        except BaseException:
            building.abandon()
            raise

    def count(self, rows: Rows) -> None:
        """Count what was taken in."""
        for outcome, number in (
            ("folded", rows.folded),
            ("unknown", rows.unknown),
            ("unreadable", rows.unreadable),
        ):
            if number:
                self._metrics.mirror_events.labels(outcome).inc(number)

    def close(self) -> None:
        """Close the file. It is opened again when it is needed."""
        with self._lock:
            if self._opened is not None:
                self._opened[0].close()
                self._opened = None

    def __del__(self) -> None:
        self.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Enter with the connection that stays open, unless the file has been replaced or deleted meanwhile."""
        file = self._place.target(self.path)
        try:
            with self._lock, database.explained(self.path):
                if self._opened is None or not self._is_current(self._opened[1]):
                    self.close()
                    file, connection = self._open(self._open_to_write)
                    self._opened = (connection, file.stat())
                yield self._opened[0]
        except Corrupt:
            self.close()
            self._discard(file)
            raise

    def _is_current(self, opened: os.stat_result) -> bool:
        try:
            return os.path.samestat(opened, self.path.stat())
        except FileNotFoundError:
            return False

    def _open(self, opening: Callable[[Path], sqlite3.Connection]) -> tuple[Path, sqlite3.Connection]:
        """Open the file that counts, and the one that counts then if it has been replaced meanwhile."""
        while True:
            file = self._place.target(self.path)
            if file is None and self._place.is_foreign(self.path):
                raise Corrupt(f"{self.path} is no mirror", hint="everturn mirrors rebuild makes one")
            if file is None:
                raise FileNotFoundError(self.path)
            try:
                return file, opening(file)
            except sqlite3.Error as error:
                if self._place.target(self.path) == file:
                    if is_damage(error):
                        self._discard(file)
                    raise

    def _open_to_read(self, file: Path) -> sqlite3.Connection:
        connection = database.connect(file, read_only=True)
        try:
            connection.execute("SELECT count(*) FROM meta").fetchone()  # opens the files beside it, too
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _open_to_write(self, file: Path) -> sqlite3.Connection:
        connection = database.connect(file)
        try:
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            self._refuse(database.judge(connection, self._label))
        except BaseException:
            connection.close()
            raise
        return connection

    def _refuse(self, reason: Reason | None) -> None:
        if reason is not None:
            kind = Corrupt if reason == "corrupt" else Unavailable
            raise kind(
                f"the mirror {self.path} is to be rebuilt: {reason}", hint="everturn mirrors rebuild does that"
            )

    def _discard(self, file: Path | None) -> None:
        """Throw a damaged file away, unless somebody has put another one in its place, or is about to."""
        with database.explained(self.path), self._place.locked(wait=False) as is_ours:
            if is_ours and self._place.target(self.path) == file:
                self._place.drop(self.path)


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # the mirror was rebuilt meanwhile, or its last writer has tidied up
        return 0


def _fold(connection: sqlite3.Connection, batch: Batch) -> Rows | None:
    found = load_checkpoint(connection, batch.ref.run_id)
    if found is not None and found[0].ref != batch.ref:
        return Rows()  # a run id that stands in another scope, too
    before = None if found is None else found[0]
    fold = RunFold(batch.ref.run_id, batch.ref.scope, None if found is None else found[1])
    news = batch.news(before, fold.missing)
    if news is None:
        return None
    rows = Rows()
    if news:
        fold.take(news)
        rows = fold.drain()
        index_texts(connection, write_rows(connection, batch.ref.run_id, rows))
    done = batch.done(before, fold.seq)
    if done != before:
        save_checkpoint(connection, done, fold.state())
    return rows
