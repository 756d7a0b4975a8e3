"""What is measured of journals, mirrors and searching, how often, in which order."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean, quantiles

from bench.journal import rebuild, search, writing
from bench.journal.corpus import make_corpus, texts_of
from bench.plan import Row, Step, turned

PACES = {"flood": 0.0, "paced": 0.002}
WRITES = (
    ("flood", "flush", writing.WAYS),
    ("paced", "flush", writing.WAYS),
    ("flood", "fsync", ("bare", "write")),
    ("flood", "store", ("bare", "write")),
)
REBUILDS = ("rebuild", "read", "parse", "insert")
MESSAGE_S = {"flush": 0.00002, "fsync": 0.004, "store": 0.002}


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        messages: How many are written in each round, by pace and durability.
        rounds: How often each way of writing takes its turn.
        journal_bytes: About how long the lines are of the journals that a mirror is rebuilt from.
        rebuilds: How often it is.
        text_bytes: How much text is searched.
        queries: How many searches.
        files: From how many files the texts of journals come.
        processes: How many processes make journals.
    """

    messages: dict[str, int]
    rounds: int
    journal_bytes: int
    rebuilds: int
    text_bytes: int
    queries: int
    files: int
    processes: int

    def as_row(self) -> Row:
        """Return it as JSON has it."""
        return asdict(self)


def _messages(flood: int, paced: int, fsync: int, store: int) -> dict[str, int]:
    return {"flood flush": flood, "paced flush": paced, "flood fsync": fsync, "flood store": store}


FULL = Sizes(_messages(20_000, 2_000, 1_000, 1_000), 7, 1_000_000_000, 3, 1_000_000_000, 2_000, 3_000, 2)
QUICK = Sizes(_messages(5_000, 500, 200, 200), 3, 64_000_000, 1, 50_000_000, 300, 1_000, 2)
TINY = Sizes(_messages(300, 20, 20, 20), 2, 400_000, 1, 300_000, 22, 30, 1)


@dataclass
class Plan:
    """One run of the benchmark.

    Args:
        folder: Where everything happens; empty.
        store: The URL of an S3 store, for what has to be in one before it is shown.
        bucket: Its bucket.
        sizes: How much.

    Attributes:
        samples: What was measured, by what it is of.
    """

    folder: Path
    store: str
    bucket: str
    sizes: Sizes
    samples: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._journals = self.folder / "store"
        self._mirror = self.folder / "mirror"

    def steps(self) -> Iterator[Step]:
        """Yield everything that is to be done. What is compared takes turns."""
        yield Step("read texts", 6, self._read)
        for number in range(self.sizes.rounds):
            for pace, durability, ways in WRITES:
                count = self.sizes.messages[f"{pace} {durability}"]
                seconds = count * (PACES[pace] + MESSAGE_S[durability])
                for way in turned(ways, number):
                    name = f"write {pace} {durability} {way}"
                    yield Step(name, 0.3 + seconds, partial(self._write, pace, durability, way, number))
        megabytes = self.sizes.journal_bytes / 1e6
        yield Step("make journals", 6 + megabytes / 13, self._make)
        for number in range(self.sizes.rebuilds):
            for name in REBUILDS if number == 0 else turned(REBUILDS, number):
                yield Step(f"{name} {number + 1}", megabytes / 60, partial(self._rebuild, name))
        yield Step("search", self.sizes.text_bytes / 2e7 + self.sizes.queries / 50, self._search)

    def _read(self) -> None:
        texts_of(self.sizes.files)

    def _write(self, pace: str, durability: str, way: str, number: int) -> None:
        store = self.store if durability == "store" else (self.folder / "shipped").as_uri()
        place = writing.Place(self.folder, store, self.bucket)
        count = self.sizes.messages[f"{pace} {durability}"]
        stream = writing.stream_of(number, texts_of(self.sizes.files), count)
        times = writing.measure(durability, way, place, stream, PACES[pace])
        self.samples[f"write {pace} {durability} {way}"].append(_figures(times, stream))

    def _make(self) -> None:
        made = make_corpus(self._journals, self.sizes.journal_bytes, self.sizes.files, self.sizes.processes)
        self.samples["journals"].append(made.as_row())

    def _rebuild(self, name: str) -> None:
        if name == "rebuild":
            shutil.rmtree(self._mirror, ignore_errors=True)
            self.samples[name].append(rebuild.measure_rebuild(self._journals, self._mirror))
            (made,) = self.samples["journals"]
            if self.samples[name][-1]["events"] != made["lines"]:
                raise RuntimeError("the mirror does not have all events of the journals")
        elif name == "insert":
            self.samples[name].append(rebuild.measure_inserting(self._mirror, self._journals))
        else:
            self.samples[name].append(rebuild.measure_reading(self._journals, parsed=name == "parse"))

    def _search(self) -> None:
        given = {"size_bytes": self.sizes.text_bytes, "queries": self.sizes.queries}
        self.samples["search"].append(search.measure_search(self.folder / "searched", **given))


def _figures(times: writing.Times, stream: writing.Stream) -> Row:
    cuts_ns = quantiles(times, n=100, method="inclusive")
    found_ns = {"p50_s": cuts_ns[49], "p90_s": cuts_ns[89], "p99_s": cuts_ns[98], "mean_s": fmean(times)}
    in_seconds = {name: value_ns / 1e9 for name, value_ns in found_ns.items()}
    return {**in_seconds, "messages": len(times), "lines_bytes": sum(map(len, stream.lines))}
