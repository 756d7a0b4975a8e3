"""How fast a mirror is rebuilt from journals, beside the least that this takes.

*read* fetches the same parts and decompresses them. *parse* makes JSON of each line besides. *insert* puts the same
texts, which are in memory, into a new SQLite file and indexes them, in one transaction, with the mirror's tokenizer
and settings, and nothing else: no rows about runs, no checkpoints, no columns beside the text.
"""

from __future__ import annotations

import os
import resource
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from bench.journal.corpus import settings_for
from bench.plan import Row
from everturn.journal.reading import Journals, RunRef
from everturn.log.objects import run
from everturn.log.reader import Log
from everturn.log.stores import connect
from everturn.mirrors.keeping import READERS, rebuild
from everturn.mirrors.sqlite import SqliteMirror

BATCH_TEXTS = 5_000
_SET_UP = """
PRAGMA page_size = 8192; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536;
CREATE TABLE texts (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
CREATE VIRTUAL TABLE found USING fts5 (
    text, content = 'texts', content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2'
);
INSERT INTO found (found, rank) VALUES ('hashsize', 33554432);
INSERT INTO found (found, rank) VALUES ('automerge', 0);
BEGIN;
"""


def measure_rebuild(store: Path, folder: Path) -> Row:
    """Rebuild a mirror of a store from nothing.

    Args:
        store: The store's folder.
        folder: The mirror's; it stays.
    """
    mirror, journals = mirror_in(folder, store), _journals(store)
    began, cpu_s = time.perf_counter(), _cpu_s()
    progress = rebuild(journals, mirror)
    wall_s, used_s = time.perf_counter() - began, _cpu_s() - cpu_s
    with mirror.reading() as database:
        count, text_bytes = database.execute("SELECT count(*), sum(length(CAST(text AS BLOB))) FROM texts").fetchone()
    return {
        "wall_s": wall_s,
        "cpu_s": used_s,
        "runs": progress.runs,
        "events": progress.events,
        "unreadable": progress.unreadable,
        "lines_bytes": progress.size_bytes,
        "texts": count,
        "text_bytes": text_bytes,
        "database_bytes": mirror.path.stat().st_size,
    }


def mirror_in(folder: Path, store: Path) -> SqliteMirror:
    """Return the mirror that lies in a folder."""
    return SqliteMirror(folder, settings_for(store).store_url())


def measure_reading(store: Path, *, parsed: bool) -> Row:
    """Fetch all journals and decompress them, several at a time; nothing is kept.

    Args:
        store: The store's folder.
        parsed: Parse each line as well, on one thread, as whoever folds them has to.
    """
    journals = _journals(store)
    refs = list(run(journals.tails()))
    began, cpu_s = time.perf_counter(), _cpu_s()
    with ThreadPoolExecutor(READERS) as pool:
        sizes = [_parse(lines) if parsed else len(lines) for lines in pool.map(_lines_of(journals), refs)]
    return {"wall_s": time.perf_counter() - began, "cpu_s": _cpu_s() - cpu_s, "lines_bytes": sum(sizes)}


def measure_inserting(folder: Path, store: Path) -> Row:
    """Insert the texts of a mirror that is there into another file, and index them.

    Args:
        folder: The mirror's.
        store: The store's.
    """
    file = folder / "bare.db"
    text_bytes = 0
    wall_s = cpu_s = 0.0
    with mirror_in(folder, store).reading() as database, closing(sqlite3.connect(file)) as bare:
        bare.executescript(_SET_UP)
        for first, texts in _batches(database):
            text_bytes += sum(len(text.encode()) for _, text in texts)
            began, used_s = time.perf_counter(), time.process_time()
            bare.executemany("INSERT INTO texts VALUES (?, ?)", texts)
            bare.execute("INSERT INTO found (rowid, text) SELECT id, text FROM texts WHERE id >= ?", (first,))
            wall_s, cpu_s = wall_s + time.perf_counter() - began, cpu_s + time.process_time() - used_s
        began, used_s = time.perf_counter(), time.process_time()
        bare.execute("COMMIT")
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        wall_s, cpu_s = wall_s + time.perf_counter() - began, cpu_s + time.process_time() - used_s
    file.unlink()
    return {"wall_s": wall_s, "cpu_s": cpu_s, "text_bytes": text_bytes}


def _batches(database: sqlite3.Connection) -> Iterator[tuple[int, list[Any]]]:
    found = database.execute("SELECT id, text FROM texts ORDER BY id")
    while texts := found.fetchmany(BATCH_TEXTS):
        yield texts[0][0], texts


def _journals(store: Path) -> Journals:
    settings = settings_for(store)
    return Journals(connect(settings.store_url(), settings), settings.store_url())


def _lines_of(journals: Journals) -> Any:
    def fetch(ref: RunRef) -> bytes:
        log: Log = run(journals.fetch(ref))
        return b"".join(piece for part in log.parts for piece in part.pieces())

    return fetch


def _parse(lines: bytes) -> int:
    for line in lines.splitlines():
        orjson.loads(line)
    return len(lines)


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
