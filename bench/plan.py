"""What is measured, at which sizes, in which order."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bench.servers import ROOT, Server

KINDS = ("everturn", "baseline", "limit")
STORES = ("everturn", "baseline")
LISTINGS = (
    ("list_sessions", "everturn"),
    ("list_sessions", "baseline"),
    ("list_session_summaries", "everturn"),  # the baseline has none
    ("list_titles", "everturn"),
    ("list_titles", "baseline"),
)
WARM = "warm"

Row = dict[str, Any]
Step = tuple[str, Callable[[], None]]


@dataclass(frozen=True)
class Sizes:
    """How much is measured, and how often.

    Attributes:
        appends: Frames for append latencies.
        loads: Lengths of transcripts, in frames, and how often each is loaded.
        sessions: How many sessions are listed.
        frames_each: How many frames each of them has.
        repeats: How often the rest is measured.
    """

    appends: int
    loads: dict[int, int]
    sessions: int
    frames_each: int
    repeats: int


FULL = Sizes(appends=3000, loads={100: 7, 3000: 5, 30_000: 3}, sessions=1000, frames_each=20, repeats=3)
QUICK = Sizes(appends=150, loads={100: 2, 300: 2}, sessions=60, frames_each=3, repeats=2)
TINY = Sizes(appends=6, loads={5: 1}, sessions=3, frames_each=2, repeats=1)


@dataclass
class Plan:
    """One run of the benchmark.

    Args:
        server: Where everything happens.
        sizes: How much.

    Attributes:
        samples: What was measured, by operation and parameters.
    """

    server: Server
    sizes: Sizes
    samples: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))

    def steps(self) -> Iterator[Step]:
        """Yield everything that is to be done, with a name for people. What is compared takes turns."""
        for bucket in (*KINDS, "lists"):
            self.server.make_bucket(bucket)
        for kind in KINDS:
            yield f"warm up, {kind}", self._fill(kind, WARM, 1)
        yield from self._appends()
        for frames, repeats in self.sizes.loads.items():
            yield from self._loads(frames, repeats)
        yield from self._listings()
        yield self._step("pause", "pause", "everturn", "pause")

    def _appends(self) -> Iterator[Step]:
        for repeat in range(self.sizes.repeats):
            for kind in _turned(KINDS, repeat):
                yield self._step(f"append {kind}", "append", kind, f"append-{repeat}", count=self.sizes.appends)

    def _loads(self, frames: int, repeats: int) -> Iterator[Step]:
        variants = {kind: (kind, f"load-{frames}") for kind in KINDS}
        variants["compacted"] = ("everturn", f"compacted-{frames}")
        for name, (kind, session) in variants.items():
            yield f"write {frames:,} frames, {name}", self._fill(kind, session, frames)
        yield self._step(f"compact {frames}", "compact", "everturn", f"compacted-{frames}")
        for name, (kind, session) in variants.items():
            label = f"stored {name} {frames}"
            yield label, partial(self._weigh, label, kind, session)
        for repeat in range(repeats):
            for name, (kind, session) in _turned(list(variants.items()), repeat):
                yield self._step(f"load {name} {frames}", "load", kind, session)

    def _listings(self) -> Iterator[Step]:
        for kind in STORES:
            yield f"write {self.sizes.sessions:,} sessions, {kind}", self._fill_many(kind)
        for repeat in range(self.sizes.repeats):
            for operation, kind in _turned(LISTINGS, repeat):
                yield self._step(f"{operation} {kind}", operation, kind, "", bucket="lists")

    def _step(self, name: str, operation: str, kind: str, session: str, **more: Any) -> Step:
        return name, lambda: self.samples[name].append(self._ask(operation, kind, session, **more))

    def _weigh(self, name: str, kind: str, session: str) -> None:
        """Note what a transcript takes in the bucket."""
        sizes = [size for key, size in self.server.sizes(kind) if session in key.split("/")]
        self.samples[name].append({"objects": len(sizes), "bytes": sum(sizes)})

    def _fill(self, kind: str, session: str, frames: int) -> Callable[[], None]:
        return lambda: self._do("fill", kind, session, count=frames)

    def _fill_many(self, kind: str) -> Callable[[], None]:
        given = {"sessions": self.sizes.sessions, "count": self.sizes.frames_each, "bucket": "lists"}
        return lambda: self._do("fill_many", kind, "", **given)

    def _do(self, operation: str, kind: str, session: str, **more: Any) -> None:
        self._ask(operation, kind, session, **more)

    def _ask(self, operation: str, kind: str, session: str, **more: Any) -> Row:
        """Let a new process do it, and return what it says."""
        asked = {"operation": operation, "kind": kind, "bucket": kind, "session": session, **more}
        done = subprocess.run(
            [sys.executable, "-m", "bench.worker", json.dumps(asked)],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **self.server.environment},
            stdout=subprocess.PIPE,
            check=True,
        )
        row: Row = json.loads(done.stdout)
        return row


def _turned(things: Sequence[Any], by: int) -> list[Any]:
    """Return things in another order each time, so that none always comes first."""
    start = by % len(things)
    return [*things[start:], *things[:start]]
