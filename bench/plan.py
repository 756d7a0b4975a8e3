"""What is measured, at which sizes, in which order."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

from bench.servers import ROOT, Server

WARM = "warm"
SMALL_BYTES = 1000  # a frame below this size is a small one
COMPACTION_OFF = {"compact_after_parts": 0}
LINGER_S = 1.0

Row = dict[str, Any]
Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Way:
    """One way of storing transcripts.

    Attributes:
        kind: The store: `everturn`, `baseline` or `limit`.
        settings: Those of Everturn's that are not the default.
        ms_each: About how long appending one frame takes, for the display of progress.
    """

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    ms_each: float = 1.5


BASELINE, LIMIT = Way("baseline", ms_each=2.5), Way("limit", ms_each=0.7)
APPENDS = {
    "parts": Way("everturn", COMPACTION_OFF),
    "everturn": Way("everturn", ms_each=2.0),
    "baseline": BASELINE,
    "limit": LIMIT,
}
FILLS = {
    "parts": Way("everturn", COMPACTION_OFF),
    "everturn": Way("everturn", ms_each=2.6),
    "baseline": BASELINE,
    "limit": Way("limit", ms_each=0.1),
}
# About how long loading one frame takes; `compacted` is what `everturn` becomes.
LOADS_MS = {"parts": 0.8, "everturn": 0.15, "compacted": 0.15, "baseline": 2.0, "limit": 0.15}
HOURS = {
    "parts": Way("everturn", COMPACTION_OFF),  # to tell what compaction in the background asks for
    "everturn": Way("everturn"),
    "linger": Way("everturn", {"linger_s": LINGER_S}),
    "baseline": BASELINE,
}
HOUR_MS = 2.5  # about how long replaying a second of a session takes
DISPATCH_STORES = ("folder", "s3")
DISPATCHES_MS = 600.0  # about how long one of each kind takes
LISTINGS = (
    ("list_sessions", "everturn"),
    ("list_sessions", "baseline"),
    ("first_summaries", "everturn"),  # the baseline has none
    ("list_session_summaries", "everturn"),
    ("list_titles", "everturn"),
    ("list_titles", "baseline"),
)


@dataclass(frozen=True)
class Step:
    """One thing to do.

    Attributes:
        name: For people.
        seconds: About how long it takes, for the display of progress.
        run: Does it.
    """

    name: str
    seconds: float
    run: Callable[[], None]


class Often(NamedTuple):
    """How often a transcript is loaded.

    Attributes:
        few: In ways that take few requests.
        baseline: By the baseline.
        parts: As it is without compaction, one request for a frame. 0: it is not even written.
    """

    few: int
    baseline: int
    parts: int


@dataclass(frozen=True)
class Sizes:
    """How much is measured, and how often.

    Attributes:
        appends: Frames for append latencies.
        loads: Lengths of transcripts, in frames, with how often each is loaded.
        small: The same, of small frames alone.
        sessions: How many sessions are listed.
        frames_each: How many frames each of them has.
        settle_s: How long after they have all paused one of them goes on.
        hour_s: How much of a session-hour is replayed.
        repeats: How often the rest is measured.
        dispatches: How often each kind of dispatch is measured.
    """

    appends: int
    loads: dict[int, Often]
    small: dict[int, Often]
    sessions: int
    frames_each: int
    settle_s: float
    hour_s: float
    repeats: int
    dispatches: int

    def as_row(self) -> Row:
        """Return it as JSON has it."""
        lengths = {
            name: {str(n): repeats for n, repeats in getattr(self, name).items()} for name in ("loads", "small")
        }
        return {**vars(self), **lengths}


FULL = Sizes(
    appends=3000,
    loads={100: Often(5, 3, 3), 3000: Often(5, 3, 3), 30_000: Often(2, 1, 0)},
    small={3000: Often(5, 2, 2)},
    sessions=1000,
    frames_each=10,
    settle_s=6.0,
    hour_s=3600.0,
    repeats=3,
    dispatches=50,
)
QUICK = Sizes(
    appends=200,
    loads={100: Often(1, 1, 0), 300: Often(1, 1, 1)},
    small={300: Often(1, 1, 0)},
    sessions=60,
    frames_each=3,
    settle_s=6.0,
    hour_s=300.0,
    repeats=1,
    dispatches=10,
)
TINY = Sizes(
    appends=6,
    loads={5: Often(1, 1, 1)},
    small={5: Often(1, 1, 0)},
    sessions=3,
    frames_each=2,
    settle_s=0.0,
    hour_s=12.0,
    repeats=1,
    dispatches=2,
)


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
        """Yield everything that is to be done. What is compared takes turns."""
        for bucket in ("everturn", "baseline", "limit", "lists"):
            self.server.make_bucket(bucket)
        for way in ("parts", "baseline", "limit"):
            yield self._fill(way, WARM, 1)
        yield from self._appends()
        yield from self._hours()
        for frames, repeats in self.sizes.loads.items():
            yield from self._loads(f"{frames}", repeats, count=frames)
        for frames, repeats in self.sizes.small.items():
            yield from self._loads(f"small {frames}", repeats, count=frames, below_bytes=SMALL_BYTES)
        yield from self._listings()
        yield from self.dispatches()

    def dispatches(self) -> Iterator[Step]:
        """Yield what is measured of dispatches. It needs nothing of the rest but the bucket."""
        for store in DISPATCH_STORES:
            seconds = self.sizes.dispatches * DISPATCHES_MS / 1000
            given = {"rounds": self.sizes.dispatches, "store": store}
            yield self._measured(f"dispatch {store}", seconds, "dispatch", "everturn", "", **given)

    def _appends(self) -> Iterator[Step]:
        for repeat in range(self.sizes.repeats):
            for name, way in turned(list(APPENDS.items()), repeat):
                given = {"count": self.sizes.appends, "settings": way.settings}
                seconds = self.sizes.appends * way.ms_each / 1000
                yield self._measured(
                    f"append {name}", seconds, "append", way.kind, f"append-{name}-{repeat}", **given
                )

    def _hours(self) -> Iterator[Step]:
        for name, way in HOURS.items():
            yield Step(f"session-hour {name}", 1 + self.sizes.hour_s * HOUR_MS / 1000, partial(self._hour, name, way))
        yield Step("session-hour compacted", 3.0, self._compacted_hour)

    def _hour(self, name: str, way: Way) -> None:
        session = f"hour-{name}"
        row = self._ask("hour", way.kind, session, seconds=self.sizes.hour_s, settings=way.settings)
        row["kept_bytes"] = self._weighed(way.kind, session)["bytes"]
        self.samples[f"hour {name}"].append(row)

    def _compacted_hour(self) -> None:
        """Compact the session that the defaults have left."""
        (row,) = self.samples["hour everturn"]
        compacting = self._ask("compact_by_command", "everturn", "hour-everturn")
        phases = {**row["phases"], "`sessions compact`": compacting["requests"]}
        kept_bytes = self._weighed("everturn", "hour-everturn")["bytes"]
        self.samples["hour compacted"].append({**row, "phases": phases, "kept_bytes": kept_bytes})

    def _loads(self, label: str, often: Often, **frames: Any) -> Iterator[Step]:
        suffix = label.replace(" ", "-")
        written = {name: way for name, way in FILLS.items() if name != "parts" or often.parts}
        sessions = {name: (way.kind, f"{name}-{suffix}") for name, way in written.items()}
        sessions["compacted"] = sessions["everturn"]
        for name in written:
            yield self._fill(name, sessions[name][1], **frames)
        yield from self._weigh(label, sessions, [name for name in written if name != "limit"])
        times = {"parts": often.parts, "baseline": often.baseline, "everturn": often.few}
        yield from self._load_each(label, sessions, times, frames["count"])
        seconds = frames["count"] * 0.3 / 1000
        yield self._measured(f"compact {label}", seconds, "compact", *sessions["compacted"])
        yield from self._weigh(label, sessions, ("compacted",))
        yield from self._load_each(label, sessions, {"compacted": often.few, "limit": often.few}, frames["count"])

    def _load_each(
        self, label: str, sessions: dict[str, tuple[str, str]], often: dict[str, int], frames: int
    ) -> Iterator[Step]:
        for repeat in range(max(often.values())):
            for name in turned([name for name, times in often.items() if repeat < times], repeat):
                seconds = frames * (LOADS_MS[name] + 0.15) / 1000  # with the fingerprint
                yield self._measured(f"load {name} {label}", seconds, "load", *sessions[name])

    def _weigh(self, label: str, sessions: dict[str, tuple[str, str]], names: Sequence[str]) -> Iterator[Step]:
        for name in names:
            yield Step(
                f"weigh {name} {label}", 0.5, partial(self._note_weight, f"stored {name} {label}", *sessions[name])
            )

    def _note_weight(self, name: str, kind: str, session: str) -> None:
        self.samples[name].append(self._weighed(kind, session))

    def _weighed(self, kind: str, session: str) -> Row:
        """Return what a session takes in its bucket."""
        sizes = [size for key, size in self.server.sizes(kind) if session in key.split("/")]
        return {"objects": len(sizes), "bytes": sum(sizes)}

    def _listings(self) -> Iterator[Step]:
        sizes = self.sizes
        for name in ("everturn", "baseline"):
            given = {"sessions": sizes.sessions, "count": sizes.frames_each, "bucket": "lists"}
            seconds = sizes.sessions * sizes.frames_each * APPENDS[name].ms_each / 1000
            yield self._done(f"write {sizes.sessions:,} sessions, {name}", seconds, "fill_many", name, "", **given)
        given = {"after_s": sizes.settle_s, "count": 1, "bucket": "lists"}
        yield self._done("one session goes on", sizes.settle_s, "go_on", "everturn", "", **given)
        for repeat in range(sizes.repeats):
            for operation, kind in LISTINGS:
                reads_all = (operation, kind) == ("list_titles", "baseline")
                if reads_all and repeat:
                    continue  # it takes a minute, and says the same
                seconds = sizes.sessions * sizes.frames_each * 3 / 1000 if reads_all else 1.0
                yield self._measured(f"{operation} {kind}", seconds, operation, kind, "", bucket="lists")

    def _fill(self, name: str, session: str, count: int, **more: Any) -> Step:
        way = FILLS[name]
        seconds = count * (way.ms_each + 0.1) / 1000
        given = {"count": count, "settings": way.settings, **more}
        return self._done(f"write {count:,} frames, {name}", seconds, "fill", way.kind, session, **given)

    def _measured(self, name: str, seconds: float, operation: str, kind: str, session: str, **more: Any) -> Step:
        """Return a step whose outcome is kept."""
        return Step(name, 1 + seconds, lambda: self.samples[name].append(self._ask(operation, kind, session, **more)))

    def _done(self, name: str, seconds: float, operation: str, kind: str, session: str, **more: Any) -> Step:
        """Return a step that prepares something."""

        def do() -> None:
            self._ask(operation, kind, session, **more)

        return Step(name, 1 + seconds, do)

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


def turned(things: Sequence[Thing], by: int) -> list[Thing]:
    """Return things in another order each time, so that none always comes first."""
    start = by % len(things)
    return [*things[start:], *things[:start]]
