"""A store with journals that were made up, and mirrors of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from obstore.store import LocalStore, MemoryStore
from prometheus_client import CollectorRegistry

from everturn.clock import Ids, ManualClock
from everturn.journal.events import (
    Assistant,
    Ended,
    Event,
    Init,
    Prompt,
    Result,
    Started,
    TextDelta,
    ToolResult,
    ToolUse,
)
from everturn.journal.lines import line_of, parse
from everturn.journal.reading import Journals, RunRef
from everturn.log.format import Kind, encode_part
from everturn.log.names import Span
from everturn.log.objects import BlockingObjects, run
from everturn.mirrors.schema import OF_A_RUN
from everturn.mirrors.sqlite import SqliteMirror
from everturn.telemetry import Metrics

LABEL = "memory://"
NOON_MS = 1_763_640_000_000  # 2025-11-20, 12:00 UTC
REF = RunRef("task:t", "run-1")
Line = dict[str, Any]


class Ground:
    """A store, and a folder for mirrors.

    Args:
        folder: For mirrors, and for the store if it is to be on the disk.
        on_disk: Whether other processes have to see the store.
    """

    def __init__(self, folder: Path, *, on_disk: bool = False) -> None:
        self.folder = folder
        if on_disk:
            (folder / "store").mkdir(exist_ok=True)
        store = LocalStore(folder / "store") if on_disk else MemoryStore()
        self.objects = BlockingObjects(store, LABEL)
        self.journals = Journals(self.objects, LABEL)
        self.metrics = Metrics(CollectorRegistry())
        self._next: dict[RunRef, int] = {}

    def mirror(self, name: str = "mirror") -> SqliteMirror:
        """Return a mirror in a folder of this name."""
        clock = ManualClock(boot="boot")
        return SqliteMirror(self.folder / name, LABEL, clock=clock, ids=Ids(), metrics=self.metrics)

    def store(self, ref: RunRef, lines: Sequence[Any], *, parts: int = 1) -> None:
        """Store lines as that many parts."""
        size = -(-len(lines) // parts) or 1
        for start in range(0, len(lines), size) if lines else (0,):
            self.store_part(ref, lines[start : start + size])

    def truncate(self, ref: RunRef) -> None:
        """Delete a run's journal as deleting its session does: the end of it stays, to keep others from writing."""
        old = [item.key for item in run(self.objects.listing(ref.folder))]
        self.store_part(ref, [], kind="truncate")
        run(self.objects.delete(old))

    def store_part(self, ref: RunRef, lines: Sequence[Any], kind: Kind = "data") -> None:
        """Store lines as the next part."""
        number = self._next[ref] = self._next.get(ref, 0) + 1
        _, data = encode_part(number, lines, epoch=1, writer="w", write_id=f"{ref.run_id}-{number}", kind=kind)
        assert run(self.objects.create(f"{ref.folder}/{Span(number, number).file_name}", data))

    def delete(self, ref: RunRef) -> None:
        """Delete a run's journal."""
        run(self.objects.delete([item.key for item in run(self.objects.listing(ref.folder))]))
        self._next.pop(ref, None)

    def counted(self, name: str, **labels: str) -> float:
        """Return what a metric says."""
        return self.metrics.registry.get_sample_value(f"everturn_{name}_total", labels) or 0.0


def lines_of_events(events: Sequence[Event], at_ms: int = NOON_MS) -> list[Line]:
    """Return the lines of events that come one second after the other."""
    return [parse(line_of(event, seq, at_ms + 1000 * seq)).raw for seq, event in enumerate(events, 1)]


def a_run(run_id: str = "run-1", work_key: str = "task:t", *, epoch: int = 1, words: str = "hello") -> list[Event]:
    """Return a run of one turn: it reads a file, fails to edit it, and says what it found."""
    usage = {"input_tokens": 7, "output_tokens": 5, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 2}
    by_model = {"m": {"inputTokens": 70, "outputTokens": 50, "cacheReadInputTokens": 30, "costUSD": 0.5}}
    return [
        Started(run_id, work_key, "session-1", epoch, "worker-1", "/desk", agent="fixer", repo="acme/web"),
        Init("session-1", "m", "/desk", "2.1", "default", []),
        Prompt(f"please look at {words}", resumed=False),
        TextDelta("msg-1", 0, f"I see {words}"),
        Assistant(f"I see {words} there", "msg-1", "m", usage=usage),
        ToolUse("call-1", "Read", {"file_path": "/desk/src/main.py"}, "msg-1", "m"),
        ToolResult("call-1", [{"type": "text", "text": f"print('{words}')"}]),
        ToolUse("call-2", "Edit", {"file_path": "/etc/other", "new_string": "x\nbroken"}, "msg-2", "m"),
        ToolResult("call-2", "no such file", is_error=True),
        Assistant("done", "msg-2", "m", usage={"input_tokens": 1}),
        Result("success", False, "done", 2, 1200, 900, cost_usd=0.5, usage=usage, model_usage=by_model),
        Ended("completed"),
    ]


def dump(mirror: SqliteMirror) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of all tables."""
    with mirror.reading() as connection:
        found = {}
        for table in (*OF_A_RUN, "sessions", "work_items", "days", "run_outcomes"):
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            rows = connection.execute(f"SELECT {', '.join(names)} FROM {table}").fetchall()
            found[table] = sorted(rows, key=repr)
        return found


def matches(mirror: SqliteMirror, query: str) -> list[tuple[Any, ...]]:
    """Return where the words of a query stand."""
    with mirror.reading() as connection:
        return connection.execute(
            "SELECT run_id, seq, piece, kind, partial FROM texts_fts JOIN texts ON id = texts_fts.rowid"
            " WHERE texts_fts MATCH ? ORDER BY run_id, seq, piece",
            (query,),
        ).fetchall()


def rows(mirror: SqliteMirror, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Ask the mirror anything."""
    with mirror.reading() as connection:
        return connection.execute(query, values).fetchall()


def check_index(mirror: SqliteMirror) -> None:
    """Fail if the index says something else than the texts."""
    connection = sqlite3.connect(mirror.path)
    try:
        connection.execute("INSERT INTO texts_fts (texts_fts, rank) VALUES ('integrity-check', 1)")
    finally:
        connection.rollback()
        connection.close()


def as_file(path: Path, lines: Sequence[Line]) -> None:
    """Append lines to a run's journal on this machine."""
    with path.open("ab") as file:
        file.write(b"".join(orjson.dumps(line) + b"\n" for line in lines))
