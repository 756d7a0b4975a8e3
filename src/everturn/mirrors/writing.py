"""Rows into the tables of the SQLite mirror, and out again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

import orjson

from everturn.journal.reading import RunRef
from everturn.mirrors.base import Checkpoint
from everturn.mirrors.rows import COLUMNS, Row, Rows
from everturn.mirrors.schema import OF_A_RUN


def _insert(table: str, columns: Iterable[str]) -> str:
    names = list(columns)
    return f"INSERT OR REPLACE INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608


_INSERT = {table: _insert(table, columns) for table, columns in COLUMNS.items()}
_INSERT_TEXT = _INSERT["texts"].replace("INSERT OR REPLACE", "INSERT")
_THESE = "id IN (SELECT value FROM json_each(?))"
_INDEX = f"INSERT INTO texts_fts (rowid, text) SELECT id, text FROM texts WHERE {_THESE} ORDER BY id"  # noqa: S608
_UNINDEX = "INSERT INTO texts_fts (texts_fts, rowid, text) SELECT 'delete', id, text FROM texts WHERE run_id = ?"
_CHECKPOINT = "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?, ?, ?)"


def write_rows(connection: sqlite3.Connection, run_id: str, rows: Rows) -> list[int]:
    """Write what came of a batch, and return the ids of its texts, for `index_texts`.

    If something is obsolete, all texts of the run have to be in the index.
    """
    for seq in rows.obsolete:
        connection.execute(f"{_UNINDEX} AND seq = ?", (run_id, seq))
        connection.execute("DELETE FROM texts WHERE run_id = ? AND seq = ?", (run_id, seq))
    if not rows.run:
        return []
    connection.execute(_INSERT["runs"], rows.run)
    connection.execute("DELETE FROM model_usage WHERE run_id = ?", (run_id,))
    connection.executemany(_INSERT["model_usage"], rows.model_usage)
    connection.executemany(_INSERT["turns"], rows.turns.values())
    connection.executemany(_INSERT["tool_calls"], rows.tool_calls.values())
    connection.executemany(_INSERT["files"], rows.files)
    connection.executemany(_INSERT["errors"], rows.errors)
    return _write_texts(connection, rows.texts)


def index_texts(connection: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Put texts into the full-text index, in one go: SQLite does that without holding up other threads."""
    if ids:
        connection.execute(_INDEX, (_as_json(ids),))


def _write_texts(connection: sqlite3.Connection, texts: Sequence[Row]) -> list[int]:
    if not texts:
        return []
    ids = [text[0] for text in texts]
    taken = {row[0] for row in connection.execute(f"SELECT id FROM texts WHERE {_THESE}", (_as_json(ids),))}  # noqa: S608
    if taken or len(set(ids)) < len(ids):  # once in millions of texts
        ids = _free_ids(connection, ids)
        texts = [(number, *text[1:]) for number, text in zip(ids, texts, strict=True)]
    connection.executemany(_INSERT_TEXT, texts)
    return ids


def _free_ids(connection: sqlite3.Connection, wanted: Sequence[int]) -> list[int]:
    """Return for each id the first one from it on that nobody has."""
    found: dict[int, None] = {}
    for number in wanted:
        while number in found or connection.execute("SELECT 1 FROM texts WHERE id = ?", (number,)).fetchone():
            number += 1  # noqa: PLW2901
        found[number] = None
    return list(found)


def _as_json(ids: Sequence[int]) -> str:
    return orjson.dumps(ids).decode()


def save_checkpoint(connection: sqlite3.Connection, checkpoint: Checkpoint, state: bytes) -> None:
    """Note how far a run is folded."""
    ref = checkpoint.ref
    values = (ref.run_id, ref.scope, checkpoint.seq, checkpoint.part, checkpoint.stored_seq, state)
    connection.execute(_CHECKPOINT, values)


def load_checkpoint(connection: sqlite3.Connection, run_id: str) -> tuple[Checkpoint, bytes] | None:
    """Return how far a run is folded and what its fold has to know, or `None` if it is not known."""
    query = "SELECT work_key, run_id, seq, part, stored_seq, state FROM checkpoints WHERE run_id = ?"
    row = connection.execute(query, (run_id,)).fetchone()
    return None if row is None else (Checkpoint(RunRef(row[0], row[1]), *row[2:5]), row[5])


def load_checkpoints(connection: sqlite3.Connection) -> dict[RunRef, Checkpoint]:
    """Return how far each run is folded."""
    query = "SELECT work_key, run_id, seq, part, stored_seq FROM checkpoints"
    found = (Checkpoint(RunRef(row[0], row[1]), *row[2:]) for row in connection.execute(query))
    return {checkpoint.ref: checkpoint for checkpoint in found}


def delete_run(connection: sqlite3.Connection, run_id: str) -> None:
    """Delete all rows of a run."""
    connection.execute(_UNINDEX, (run_id,))
    for table in OF_A_RUN:
        connection.execute(f"DELETE FROM {table} WHERE run_id = ?", (run_id,))  # noqa: S608
