"""A folder with passages, their vectors, and a ledger of them (docs/mirrors.md).

Chroma is made for one process. Here several may read and write: each uses the index for a moment only, under a lock,
and opens it anew when another one has written meanwhile. Vectors are made before that, as they take longest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from everturn.clock import Clock
from everturn.errors import Conflict, Corrupt, Unavailable
from everturn.git import locks
from everturn.journal.reading import RunRef
from everturn.mirrors.base import Batch, Checkpoint, Extent, Line, Reason
from everturn.mirrors.database import explained
from everturn.mirrors.embedding import REBUILD, Embedder
from everturn.mirrors.ledger import Entry, Ledger
from everturn.mirrors.passages import FOLD_VERSION, MAX_PASSAGES, Passage, PassageFold
from everturn.mirrors.vectors import Neighbour, Vectors

LOCK_TIMEOUT_S = 60.0
_FORMAT = "1"  # of the folder
_WIDER = 4


class Shelf:
    """The folder. Any thread may call it.

    Args:
        folder: Where it is.
        label: The store whose journals it mirrors.
        embedder: What makes the vectors.
        clock: Waits for locks.
    """

    def __init__(self, folder: Path, label: str, embedder: Embedder, clock: Clock) -> None:
        self.folder = folder
        self.ledger = Ledger(folder / "ledger.db")
        self._embedder = embedder
        self._clock = clock
        self._meta = {"store": label, "fold_version": str(FOLD_VERSION), "format": _FORMAT, "embedder": embedder.name}
        self._vectors: Vectors | None = None
        self._generation = -1

    def create(self) -> None:
        """Make the folder.

        Raises:
            Denied: It cannot be made.
            Unavailable: The disk is full, say.
        """
        with explained(self.folder):
            self.folder.mkdir(parents=True)
        self.ledger.create(self._meta)

    def judge(self) -> Reason | None:
        """Say why it is not what it should be, or `None`.

        Raises:
            Denied: It cannot be written.
            Unavailable: It is busy.
        """
        if not (self.folder / "ledger.db").exists():
            return "missing"
        try:
            meta = self.ledger.meta()
            if meta.get("store") != self._meta["store"]:
                return "other_store"
            if any(meta.get(name) != value for name, value in self._meta.items()):
                return "fold_changed"
            with self._open():
                return None
        except Corrupt:
            return "corrupt"

    def fits(self) -> bool:
        """Tell whether the embedding function returns vectors as long as those that are there, if there are any."""
        (vector,) = self._embedder(["?"])
        return self.ledger.meta().get("dimension") in (None, str(len(vector)))

    def close(self) -> None:
        """Let go of the index. It is opened again when it is needed."""
        vectors, self._vectors = self._vectors, None
        if vectors is not None:
            vectors.close()

    def checkpoints(self) -> dict[RunRef, Checkpoint]:
        """Return how far each run is folded."""
        return self.ledger.checkpoints()

    def extent(self) -> Extent:
        """Return how much there is in it."""
        runs, events = self.ledger.extent()
        with explained(self.folder):
            size_bytes = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        return Extent(runs, events, size_bytes)

    def fold(self, batch: Batch) -> bool:
        """Take in what is new in a batch. See `Folding.fold`.

        Raises:
            Conflict: The vectors have another length than those that are there.
            Corrupt: The folder is damaged.
            Invalid: The embedding function does not do what it should.
            Unavailable: The embedding function failed, or the disk is full, say.
        """
        while True:
            before = self.ledger.entry(batch.ref)
            if before is not None and before.doomed:
                before = None
            after, passages = _folded(batch, before)
            if after is None:
                return False
            vectors = self._embedder([each.text for each in passages])
            if self._write(before, after, passages, vectors):
                return True

    def forget(self, refs: Collection[RunRef]) -> None:
        """Drop all that came of these runs."""
        if not refs:
            return
        with self._open() as vectors:
            self.ledger.doom(refs)
            self._sweep(vectors)

    def nearest(self, text: str, limit: int, where: Mapping[str, Any] | None) -> list[Neighbour]:
        """Return the passages nearest to a text, one of each turn, the nearest first."""
        (vector,) = self._embedder([text])
        wanted = limit
        with self._open() as vectors:
            self._check_length([vector], is_writing=False)
            while True:
                wanted = min(_WIDER * wanted, limit * MAX_PASSAGES)  # the nearest ones may be all of one turn
                found = vectors.nearest(vector, wanted, where)
                best: dict[tuple[str, int], Neighbour] = {}
                for each in found:
                    best.setdefault((each.about["run_id"], each.about["turn"]), each)
                if len(best) >= limit or len(found) < wanted or wanted == limit * MAX_PASSAGES:
                    return list(best.values())[:limit]

    def _write(
        self, before: Entry | None, after: Entry, passages: Sequence[Passage], vectors: Sequence[Sequence[float]]
    ) -> bool:
        """Write what came of a batch, unless somebody else has gone on with the run meanwhile."""
        if after == before:
            return True
        with self._open() as index:
            if self.ledger.entry(after.done.ref) != before:
                return False
            files = None
            if passages:
                self._check_length(vectors, is_writing=True)
                self.ledger.doom([after.done.ref])
                index.put(passages, vectors)
                files = index.changed()
            self.ledger.settle(after, files)
            self._remember()
        return True

    def _check_length(self, vectors: Sequence[Sequence[float]], *, is_writing: bool) -> None:
        known, length = self.ledger.meta().get("dimension"), str(len(vectors[0]))
        if known is None and is_writing:
            self.ledger.note("dimension", length)
        elif known not in (None, length):
            raise Conflict(
                f"the embedding function {self._embedder.name} returned {known} numbers for a text, and now {length}",
                hint=REBUILD,
            )

    # --- The index --------------------------------------------------------------------------------------------------

    @contextmanager
    def _open(self) -> Iterator[Vectors]:
        """Be the only one to use the index."""
        with explained(self.folder):
            lock = locks.take(self.folder / "lock", clock=self._clock, timeout_s=LOCK_TIMEOUT_S)
        if lock is None:
            raise Unavailable(f"the mirror {self.folder} has been locked for a minute", hint="try again")
        try:
            vectors = self._current()
            yield vectors
            files = vectors.changed()
            if files is not None:
                self.ledger.put_files(files)
                self._remember()
        except BaseException:
            self.close()  # what it holds in memory may be ahead of what is stored
            raise
        finally:
            lock.release()

    def _current(self) -> Vectors:
        generation = int(self.ledger.meta()["generation"])
        if self._vectors is None or generation != self._generation:
            self.close()
            self._vectors = Vectors(self.folder / "index", self.ledger.files(), generation)
            self._generation = generation
            self._sweep(self._vectors)
            if self._vectors.count() != self.ledger.passages():
                raise Corrupt(f"the mirror {self.folder} lacks passages", hint=REBUILD)
        return self._vectors

    def _sweep(self, vectors: Vectors) -> None:
        """Drop what came of runs that are doomed."""
        doomed = self.ledger.doomed()
        if doomed:
            vectors.drop(doomed)
            self.ledger.drop(doomed, vectors.changed())
            self._remember()

    def _remember(self) -> None:
        self._generation = int(self.ledger.meta()["generation"])


def _folded(batch: Batch, before: Entry | None) -> tuple[Entry | None, list[Passage]]:
    """Return what is known of a run after a batch, and the passages to write; `None`: the batch does not join."""
    ref = batch.ref
    done, missing = (None, ()) if before is None else (before.done, before.missing)
    news = batch.news(done, missing)
    if news is None:
        return None, []
    fold = PassageFold(ref.run_id, ref.scope, None if before is None else before.state)
    fold.take(news)
    passages = fold.drain()
    seq = 0 if done is None else done.seq
    after = batch.done(done, news[-1]["seq"] if news else seq)
    return Entry(after, fold.count, fold.repo, (*missing, *_gaps(news, seq)), fold.state()), passages


def _gaps(lines: Sequence[Line], seq: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last number of each gap in lines that follow on a number."""
    for line in lines:
        if line["seq"] > seq + 1:
            yield seq + 1, line["seq"] - 1
        seq = line["seq"]
