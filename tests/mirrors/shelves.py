"""What tests of search by meaning share: runs to fold, and all that a mirror holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from everturn.journal.events import Assistant, Event, Prompt, Started, ToolUse
from everturn.journal.lines import line_of, parse
from everturn.journal.reading import RunRef
from everturn.mirrors.base import Batch, Folding, Line, Reason
from everturn.mirrors.chroma import ChromaMirror
from everturn.mirrors.embedding import Embedder
from everturn.mirrors.vectors import Vectors
from everturn.testing import word_vectors

STORE = "file:///store"
EMBEDDER = Embedder("words", word_vectors)
NOON_MS = 1_795_176_000_000

TAP = "The tap in the kitchen drips, put a new washer in."
FENCE = "Paint the garden fence green."
WINDOW = "Clean the windows of the attic."


def mirror_at(folder: Path, *, label: str = STORE, embedder: Embedder = EMBEDDER) -> ChromaMirror:
    return ChromaMirror(folder, label, embedder)


def ref_of(name: str) -> RunRef:
    return RunRef(f"task/{name}", f"run-{name}")


def lines_of(events: Iterable[Event], at_ms: int = NOON_MS) -> list[Line]:
    return [parse(line_of(event, seq, at_ms + seq)).raw for seq, event in enumerate(events, 1)]


def run_of(
    name: str, *turns: str, agent: str = "fixer", repo: str = "https://forge.example/acme/home.git"
) -> list[Event]:
    """Return the events of a run in which each turn is answered and a tool is called."""
    ref = ref_of(name)
    events: list[Event] = [
        Started(ref.run_id, ref.scope, f"s-{name}", 1, "w1", "/desk", task_id=name, agent=agent, repo=repo)
    ]
    for number, text in enumerate(turns):
        tool = ToolUse(f"c{number}", "Bash" if number % 2 == 0 else "Read", {"what": f"step {number} of {name}"})
        events += [Prompt(text, resumed=number > 0), tool, Assistant(f"It is done: {text}")]
    return events


RUNS = {"tap": run_of("tap", TAP, "And mind the pipe."), "fence": run_of("fence", FENCE, agent="painter")}


def long_runs(name: str, count: int, turns: int) -> dict[str, list[Event]]:
    """Return runs of many turns: enough of them for Chroma to write its index to files."""
    return {
        f"{name}{run}": run_of(f"{name}{run}", *[f"{WINDOW} {turn}" for turn in range(turns)]) for run in range(count)
    }


def batch(name: str, lines: Sequence[Line], part: int | None = 1) -> Batch:
    """Return lines that make up a part of a run's journal, or come from this machine."""
    return Batch(ref_of(name), lines, part, after=part - 1 if part else lines[0]["seq"] - 1)


def fold_all(mirror: Folding, runs: dict[str, list[Event]], at_once: int = 1000) -> None:
    """Fold runs that may be folded in part already, some lines at a time."""
    for name, events in runs.items():
        lines = lines_of(events)
        for part, start in enumerate(range(0, len(lines), at_once), 1):
            assert mirror.fold(batch(name, lines[start : start + at_once], part))


def rebuild(mirror: ChromaMirror, runs: dict[str, list[Event]], reason: Reason = "missing") -> None:
    with mirror.rebuilding(reason) as folding:
        assert folding is not None
        folding.forget([ref for ref in folding.checkpoints() if ref not in map(ref_of, runs)])
        fold_all(folding, runs)


def contents(mirror: ChromaMirror) -> dict[str, Any]:
    """Return all that a mirror holds."""
    shelf = mirror._current()
    index = Vectors(shelf.folder / "index", shelf.ledger.files(), 63)
    with contextlib.closing(index):
        found = index._collection.get(include=["documents", "metadatas", "embeddings"])
    vectors = [[round(float(number), 5) for number in vector] for vector in found["embeddings"]]
    columns = zip(found["ids"], found["documents"], found["metadatas"], vectors, strict=True)
    return {"passages": sorted(columns), "seqs": {ref: each.seq for ref, each in mirror.checkpoints().items()}}


def checked(mirror: ChromaMirror) -> str | None:
    """Return what a process that comes later says of it."""
    mirror.close()
    return mirror_at(mirror._place.folder).unusable()
