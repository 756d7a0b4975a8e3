"""What a mirror in Chroma knows of itself: what it is of, how far each run is folded, what its files have to be.

Chroma has no transaction that a checkpoint could be part of. So a run is `doomed` before anything of it is written,
and no longer once all is. Whoever finds one that is doomed when its writer has gone drops what there is of it, and it
is read again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from everturn.databases import transaction
from everturn.errors import Corrupt
from everturn.journal.reading import RunRef
from everturn.mirrors.base import Checkpoint
from everturn.mirrors.database import connect, explained, read_meta
from everturn.mirrors.embedding import REBUILD
from everturn.mirrors.selection import matching_repos

_TABLES = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE runs (
        work     TEXT NOT NULL,
        run_id   TEXT NOT NULL,
        doomed   INTEGER NOT NULL,
        seq      INTEGER NOT NULL,
        part     INTEGER NOT NULL,
        stored   INTEGER NOT NULL,
        passages INTEGER NOT NULL,
        repo     TEXT,
        missing  TEXT NOT NULL,
        state    BLOB NOT NULL,
        PRIMARY KEY (work, run_id)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE files (path TEXT PRIMARY KEY, digest TEXT NOT NULL) STRICT, WITHOUT ROWID
    """,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a run.

    Attributes:
        done: How far it is folded.
        passages: How many passages there are.
        repo: The repository.
        missing: The first and the last of each gap in the events that are folded.
        state: What the fold needs to go on.
        doomed: Whether it is being written, or was when its writer died.
    """

    done: Checkpoint
    passages: int
    repo: str | None
    missing: tuple[tuple[int, int], ...]
    state: bytes
    doomed: bool = False


class Ledger:
    """The file. Each call is a transaction of its own, so any thread may make it.

    Args:
        path: Where it is.

    Raises:
        Corrupt: Every call, if the file is not what it should be.
        Denied: Every call, if it cannot be written.
        Unavailable: Every call, if the disk is full, say.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def create(self, meta: Mapping[str, str]) -> None:
        """Make the file."""
        with self._open(create=True) as database, transaction(database):
            for statement in _TABLES:
                database.execute(statement)
            database.executemany("INSERT INTO meta VALUES (?, ?)", [*meta.items(), ("generation", "0")])

    def meta(self) -> dict[str, str]:
        """Return what the mirror is of. `generation` is another whenever something was written."""
        with self._open() as database:
            return read_meta(database)

    def note(self, name: str, value: str) -> None:
        """Say something of the mirror."""
        with self._changing() as database:
            database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def checkpoints(self) -> dict[RunRef, Checkpoint]:
        """Return how far each run is folded."""
        with self._open() as database:
            rows = database.execute("SELECT work, run_id, seq, part, stored FROM runs WHERE NOT doomed").fetchall()
        refs = (RunRef(work, run_id) for work, run_id, *_ in rows)
        return {ref: Checkpoint(ref, *row[2:]) for ref, row in zip(refs, rows, strict=True)}

    def entry(self, ref: RunRef) -> Entry | None:
        """Return what is known of a run."""
        with self._open() as database:
            row = database.execute(
                "SELECT seq, part, stored, passages, repo, missing, state, doomed FROM runs "
                "WHERE work = ? AND run_id = ?",
                (ref.scope, ref.run_id),
            ).fetchone()
        if row is None:
            return None
        seq, part, stored, passages, repo, missing, state, doomed = row
        gaps = tuple((first, last) for first, last in json.loads(missing))
        return Entry(Checkpoint(ref, seq, part, stored), passages, repo, gaps, state, bool(doomed))

    def doom(self, refs: Collection[RunRef]) -> None:
        """Note that what there is of these runs is not to be trusted from now on."""
        with self._changing() as database:
            database.executemany(
                "INSERT INTO runs VALUES (?, ?, 1, 0, 0, 0, 0, NULL, '[]', x'') "
                "ON CONFLICT (work, run_id) DO UPDATE SET doomed = 1",
                [(ref.scope, ref.run_id) for ref in refs],
            )

    def doomed(self) -> list[RunRef]:
        """Return the runs that are."""
        with self._open() as database:
            return [RunRef(*row) for row in database.execute("SELECT work, run_id FROM runs WHERE doomed")]

    def settle(self, entry: Entry, files: Mapping[str, str] | None) -> None:
        """Note how far a run is folded, and what the files are, if they have changed. All of it has to be there."""
        with self._changing() as database:
            _put_files(database, files)
            database.execute(
                "INSERT OR REPLACE INTO runs VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(entry.done.ref.scope, entry.done.ref.run_id, entry.done.seq, entry.done.part),
                    *(entry.done.stored_seq, entry.passages, entry.repo, json.dumps(entry.missing), entry.state),
                ),
            )

    def drop(self, refs: Sequence[RunRef], files: Mapping[str, str] | None) -> None:
        """Forget runs. All that was of them has to be gone."""
        with self._changing() as database:
            _put_files(database, files)
            database.executemany(
                "DELETE FROM runs WHERE work = ? AND run_id = ?", [(ref.scope, ref.run_id) for ref in refs]
            )

    def files(self) -> dict[str, str]:
        """Return the digests of the files."""
        with self._open() as database:
            return dict(database.execute("SELECT path, digest FROM files"))

    def put_files(self, files: Mapping[str, str]) -> None:
        """Note what the files are."""
        with self._changing() as database:
            _put_files(database, files)

    def passages(self) -> int:
        """Return how many passages there are, of runs that are not doomed."""
        with self._open() as database:
            return int(database.execute("SELECT coalesce(sum(passages), 0) FROM runs WHERE NOT doomed").fetchone()[0])

    def extent(self) -> tuple[int, int]:
        """Return how many runs there are, and how many events of them are folded."""
        with self._open() as database:
            rows = database.execute("SELECT seq, missing FROM runs WHERE NOT doomed").fetchall()
        gaps = (last + 1 - first for _, missing in rows for first, last in json.loads(missing))
        return len(rows), sum(seq for seq, _ in rows) - sum(gaps)

    def matching_repos(self, repo: str) -> list[str]:
        """Return the repositories that somebody may mean, as the runs spell them."""
        with self._open() as database:
            return matching_repos(database, repo)

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._open() as database, transaction(database):
            yield database
            database.execute("UPDATE meta SET value = value + 1 WHERE name = 'generation'")

    @contextmanager
    def _open(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        with explained(self._path.parent), closing(connect(self._path, create=create)) as database:
            try:
                yield database
            except sqlite3.OperationalError as error:
                if not str(error).startswith("no such"):
                    raise
                raise Corrupt(f"the mirror {self._path.parent} is damaged: {error}", hint=REBUILD) from error


def _put_files(database: sqlite3.Connection, files: Mapping[str, str] | None) -> None:
    if files is not None:
        database.execute("DELETE FROM files")
        database.executemany("INSERT INTO files VALUES (?, ?)", files.items())
