"""Passages and their vectors in a folder of Chroma's.

Chroma takes a half-written index for a whole one, and finds less from then on without a word. So its files have
digests, which are noted whenever Chroma has written them, and compared when the folder is opened.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from everturn.errors import Corrupt
from everturn.journal.reading import RunRef
from everturn.mirrors.database import explained
from everturn.mirrors.embedding import REBUILD, import_chroma
from everturn.mirrors.passages import Passage

COLLECTION = "turns"
TOOL = "tool:"  # how the names of metadata begin that say which tools were called

_WRITTEN_LAST = "index_metadata.pickle"
_BLOCK = 1 << 20
_PRIMARY = 0xFF  # of SQLite's error codes: what is above says more exactly what happened
_SQLITE_CODE = re.compile(r"\(code: (\d+)\)")
_SQLITE_NAMES = {
    getattr(sqlite3, name): name
    for name in (
        *("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FULL", "SQLITE_BUSY", "SQLITE_LOCKED"),
        *("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH"),
    )
}
_HNSW = {"space": "cosine", "ef_search": 200}


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A passage that means something near to what was asked for.

    Attributes:
        text: The passage.
        about: What is known of it.
        score: How near: 1 is the same, 0 has nothing to do with it.
    """

    text: str
    about: Mapping[str, Any]
    score: float


class Vectors:
    """An open folder. One process at a time may have it open where it is written to.

    Args:
        folder: Where it is; it is made if it is not there.
        digests: What its files have to be.
        generation: Another number whenever somebody has written to it. Chroma keeps one view of a folder in a
            process, by the spelling of its path, and that is out of date when another process has written.

    Raises:
        Corrupt: It is not what it should be.
        Denied: It cannot be written.
        Invalid: chromadb is not installed.
        Unavailable: The disk is full, say.
    """

    def __init__(self, folder: Path, digests: Mapping[str, str], generation: int = 0) -> None:
        self._folder = folder
        self._seen = _stats(folder)
        chroma, config = import_chroma("chromadb"), import_chroma("chromadb.config")
        if _digests(folder) != digests:
            raise Corrupt(f"the index in {folder} is not as it was written", hint=REBUILD)
        # All that the environment and a file .env could say otherwise, and that matters.
        settings = config.Settings(
            _env_file=None,
            anonymized_telemetry=False,
            chroma_api_impl="chromadb.api.rust.RustBindingsAPI",
            chroma_product_telemetry_impl="chromadb.telemetry.product.posthog.Posthog",
            chroma_otel_collection_endpoint="",
            chroma_otel_granularity=None,
        )
        with self._translated():
            self._client = chroma.PersistentClient(f"{folder}{'/.' * (generation % 64)}", settings=settings)
            try:
                self._collection = self._client.get_or_create_collection(
                    COLLECTION, embedding_function=None, configuration={"hnsw": _HNSW}
                )
            except BaseException:
                self._client.close()
                raise

    def close(self) -> None:
        """Let go of it."""
        self._client.close()

    def changed(self) -> dict[str, str] | None:
        """Return the digests of the files, if they have changed since this was asked last."""
        stats = _stats(self._folder)
        if stats == self._seen:
            return None
        self._seen = stats
        return _digests(self._folder)

    def count(self) -> int:
        """Return how many passages there are."""
        with self._translated():
            return int(self._collection.count())

    def put(self, passages: Sequence[Passage], vectors: Sequence[Sequence[float]]) -> None:
        """Write passages, in place of those that are there with the same numbers."""
        with self._translated():
            at_once = self._client.get_max_batch_size()
            for start in range(0, len(passages), at_once):
                some = passages[start : start + at_once]
                self._collection.upsert(
                    ids=[f"{each.work}/{each.run_id}/{each.turn}/{each.number}" for each in some],
                    embeddings=[list(vector) for vector in vectors[start : start + at_once]],
                    documents=[each.text for each in some],
                    metadatas=[_about(each) for each in some],
                )

    def drop(self, refs: Sequence[RunRef]) -> None:
        """Drop the passages of runs."""
        with self._translated():
            for ref in refs:
                self._collection.delete(where={"$and": [{"run_id": ref.run_id}, {"work": ref.scope}]})

    def nearest(self, vector: Sequence[float], limit: int, where: Mapping[str, Any] | None) -> list[Neighbour]:
        """Return the passages nearest to a vector, the nearest first."""
        with self._translated():
            found = self._collection.query(
                query_embeddings=[list(vector)],
                n_results=limit,
                where=where,
                include=["documents", "metadatas", "distances"],
            )
        columns = (found[name][0] for name in ("documents", "metadatas", "distances"))
        return [Neighbour(text, about, 1 - distance) for text, about, distance in zip(*columns, strict=True)]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn whatever Chroma raises into errors that say what to do."""
        try:
            yield
        except Exception as error:
            what = next(iter(str(error).splitlines()), type(error).__name__)
            with explained(self._folder):
                _raise_as_sqlite(error, what)
            raise Corrupt(f"the index in {self._folder} is damaged: {what}", hint=REBUILD) from error


def _raise_as_sqlite(error: Exception, what: str) -> None:
    """Raise what Chroma says of its database as SQLite itself would say it."""
    code = _SQLITE_CODE.search(str(error))
    name = None if code is None else _SQLITE_NAMES.get(int(code[1]) & _PRIMARY)
    if name is not None:
        found = sqlite3.DatabaseError(what)
        found.sqlite_errorname = name
        raise found from error


def _about(passage: Passage) -> dict[str, Any]:
    """Return what Chroma is to know of a passage. It knows no null."""
    known = {
        "run_id": passage.run_id,
        "work": passage.work,
        "turn": passage.turn,
        "passage": passage.number,
        "seq": passage.seq,
        "at_ms": passage.at_ms,
        "session_id": passage.session_id,
        "worker": passage.worker,
        "agent": passage.agent,
        "repo": passage.repo,
        "task_id": passage.task_id,
        **{f"{TOOL}{tool}": True for tool in passage.tools},
    }
    return {name: value for name, value in known.items() if value is not None}


def _files(folder: Path) -> list[Path]:
    """Return the files of the index, once it has been written: Chroma takes no account of the others before.

    SQLite looks after its own.
    """
    return sorted(path for index in folder.glob(f"*/{_WRITTEN_LAST}") for path in index.parent.iterdir())


def _stats(folder: Path) -> list[tuple[str, int, int, int]]:
    found = ((path, path.stat()) for path in _files(folder))
    return [(str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in found]


def _digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): _digest(path) for path in _files(folder)}


def _digest(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
