"""The mirror for search by meaning: passages of turns in ChromaDB (docs/mirrors.md)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from everturn.clock import Clock, Ids, SystemClock
from everturn.errors import EverturnError, Invalid
from everturn.journal.reading import RunRef
from everturn.mirrors.base import Batch, Checkpoint, Extent, Folding, Reason
from everturn.mirrors.database import explained
from everturn.mirrors.embedding import Embedder
from everturn.mirrors.hits import Filters, Hit, Piece
from everturn.mirrors.place import Place
from everturn.mirrors.shelf import Shelf
from everturn.mirrors.values import clean, moment
from everturn.mirrors.vectors import TOOL, Neighbour
from everturn.mirrors.wordmarks import EXCERPT_LENGTH
from everturn.telemetry import Metrics, default_metrics

KIND = "turn"


class ChromaMirror:
    """Passages of turns, found by what they mean. Any thread may call it.

    It needs `pip install 'everturn[chroma]'`. Chroma is loaded when the index is first opened.

    Args:
        folder: Where its files are; see `folder_of`.
        label: That store.
        embedder: What turns texts into vectors.
        clock: Waits for locks.
        ids: Makes names.
        metrics: What is counted.
    """

    name = "chroma"

    def __init__(
        self,
        folder: Path,
        label: str,
        embedder: Embedder,
        *,
        clock: Clock | None = None,
        ids: Ids | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._label = label if label.endswith("://") else label.rstrip("/")
        self._embedder = embedder
        self._clock = clock or SystemClock()
        self._place = Place(folder, self._clock, ids or Ids(), self.name, "")
        self._metrics = metrics or default_metrics()
        self._shelf: Shelf | None = None

    @property
    def path(self) -> Path:
        """Where it is: a link to a folder."""
        return self._place.current

    def extent(self) -> Extent:
        """Return how much there is in it. Raises as `checkpoints`."""
        return self._current().extent()

    def close(self) -> None:
        """Let go of the files. They are opened again when they are needed."""
        if self._shelf is not None:
            self._shelf.close()

    def unusable(self) -> Reason | None:
        """Say why it has to be rebuilt before it can be used, or `None`. Opens it, and checks its files.

        Raises:
            Denied: It cannot be written.
            Invalid: chromadb is not installed.
            Unavailable: It is busy.
        """
        shelf = self._found()
        if shelf is None:
            return "corrupt" if self._place.is_foreign(self.path) else "missing"
        return shelf.judge()

    @contextmanager
    def rebuilding(self, reason: Reason) -> Iterator[Folding | None]:
        """Enter with a mirror to fold all runs into. See `Mirror.rebuilding`."""
        with self._place.turn_to_rebuild(self.path, lambda: self.unusable() is None) as is_ours:
            if not is_ours:
                yield None
                return
            self._metrics.mirror_rebuilds.labels(reason).inc()
            with self._building() as shelf:
                yield shelf

    @contextmanager
    def _building(self) -> Iterator[Shelf]:
        with explained(self._place.folder):
            shelf = self._coming()
        try:
            yield shelf
        finally:
            shelf.close()
        self.close()
        with explained(self._place.folder):
            self._place.publish(self._place.coming)

    def checkpoints(self) -> dict[RunRef, Checkpoint]:
        """Return how far each run is folded."""
        return self._current().checkpoints()

    def fold(self, batch: Batch) -> bool:
        """Take in what is new in a batch. See `Folding.fold`, and `Shelf.fold` for errors."""
        return self._current().fold(batch)

    def forget(self, refs: Collection[RunRef]) -> None:
        """Drop all that came of these runs."""
        self._current().forget(refs)

    def search(self, text: str, *, limit: int = 10, filters: Filters | None = None) -> list[Hit]:
        """Return the turns that mean something near to a text, the nearest first.

        Args:
            text: What to look for, in any words.
            limit: How many turns to return at most.
            filters: Where to look. They have no `kind`: a turn is looked at as a whole.

        Raises:
            Conflict: The embedding function returns vectors of another length than it did.
            Corrupt: The mirror is damaged.
            Invalid: There is nothing to look for, or a filter that is not for turns.
            NotFound: There is no mirror.
            Unavailable: The embedding function failed.
        """
        if not text.strip():
            raise Invalid("there is nothing to look for", hint="say in a few words what it is about")
        while True:
            shelf = self._current()
            try:
                return _search(shelf, clean(text), limit, filters or Filters())
            except EverturnError:
                if self._place.target(self.path) == shelf.folder:
                    raise  # else it was rebuilt meanwhile

    def _current(self) -> Shelf:
        found = self._found()
        if found is None:
            with explained(self.path):
                raise FileNotFoundError
        return found

    def _found(self) -> Shelf | None:
        """Return what the folder's link points to now; somebody may have rebuilt it."""
        target = self._place.target(self.path)
        if target is None:
            return None
        if self._shelf is None or self._shelf.folder != target:
            self.close()
            self._shelf = self._at(target)
        return self._shelf

    def _coming(self) -> Shelf:
        """Return what a rebuild that was killed has left, if it is of use; else a new one."""
        target = self._place.target(self._place.coming)
        if target is not None:
            shelf = self._at(target)
            if shelf.judge() is None and shelf.fits():
                return shelf
            shelf.close()
        shelf = self._at(self._place.point(self._place.coming))
        self._place.tidy()
        shelf.create()
        return shelf

    def _at(self, folder: Path) -> Shelf:
        return Shelf(folder, self._label, self._embedder, self._clock)


def _search(shelf: Shelf, text: str, limit: int, filters: Filters) -> list[Hit]:
    conditions = list(_conditions(filters))
    if filters.repo is not None:
        conditions.append({"repo": {"$in": shelf.ledger.matching_repos(filters.repo)}})
        if not conditions[-1]["repo"]["$in"]:
            return []
    where = {"$and": conditions} if len(conditions) > 1 else next(iter(conditions), None)
    return [_hit(neighbour) for neighbour in shelf.nearest(text, limit, where)]


def _conditions(filters: Filters) -> Iterator[dict[str, Any]]:
    """Yield what Chroma takes for the filters, but for the repository."""
    if filters.kind is not None:
        raise Invalid("a turn is looked at as a whole", hint="leave out the kind, or search by words")
    if filters.agent is not None:
        yield {"agent": clean(filters.agent)}
    if filters.work is not None:
        work = clean(filters.work)
        yield {"$or": [{"work": work}, {"task_id": work}]}
    if filters.tool is not None:
        yield {f"{TOOL}{clean(filters.tool)}": True}
    if filters.since_ms is not None:
        yield {"at_ms": {"$gte": filters.since_ms}}
    if filters.until_ms is not None:
        yield {"at_ms": {"$lt": filters.until_ms}}


def _hit(found: Neighbour) -> Hit:
    about = found.about
    text = " ".join(found.text.split())
    is_long = len(text) > EXCERPT_LENGTH
    return Hit(
        work=about["work"],
        run_id=about["run_id"],
        turn=about["turn"],
        seq=about["seq"],
        at=moment(about["at_ms"]) or "",
        kind=KIND,
        tool=None,
        agent=about.get("agent"),
        repo=about.get("repo"),
        session_id=about.get("session_id"),
        worker=about.get("worker"),
        score=found.score,
        excerpt=(Piece(text[:EXCERPT_LENGTH]), *([Piece("…")] if is_long else [])),
    )
