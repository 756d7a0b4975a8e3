"""From samples to figures: medians, ratios, and what of the goals is reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Spread:
    """The middle of several measurements, and how far they lie apart."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Goal:
    """One goal: what was aimed at, what was measured, and whether that is enough."""

    name: str
    target: str
    measured: str
    met: bool


class Summary:
    """Figures of one run.

    Args:
        results: What `bench.run` measured.
    """

    def __init__(self, results: Row) -> None:
        self.results = results
        self.samples: dict[str, list[Row]] = results["samples"]
        self.lengths: list[str] = [*results["sizes"]["loads"]]
        self.small: list[str] = [f"small {frames}" for frames in results["sizes"]["small"]]

    def spread(self, name: str, figure: Callable[[Row], float]) -> Spread:
        """Return a figure over all samples of a name."""
        values = [figure(row) for row in self.samples[name]]
        return Spread(median(values), min(values), max(values))

    def middle(self, name: str, figure: str) -> float:
        """Return the median of a plain figure."""
        return self.spread(name, lambda row: float(row[figure])).median

    def requests(self, name: str, kind: str) -> float:
        """Return how many requests of a kind an operation took."""
        return self.spread(name, lambda row: float(row["requests"].get(kind, 0))).median

    def load_ratio(self, frames: str, other: str, name: str) -> float:
        """Return how many times as long one way of loading takes as another."""
        return self.middle(f"load {other} {frames}", "wall_s") / self.middle(f"load {name} {frames}", "wall_s")

    def memory_ratio(self, frames: str, decoded: str, name: str = "compacted") -> float:
        """Return how much memory loading needs for each byte of what is decoded."""
        sample = f"load {name} {frames}"
        return self.middle(sample, "peak_bytes") / self.middle(sample, decoded)

    def cpu_per_append(self, kind: str) -> Spread:
        """Return processor seconds for one append."""
        return self.spread(f"append {kind}", lambda row: row["cpu_s"] / steps(row))

    def requests_per_append(self, kind: str, *requests: str) -> float:
        """Return requests for one append: of some kinds, or of all."""
        name = f"append {kind}"
        return self.spread(name, lambda row: _requests(row, requests) / steps(row)).median

    def stored_ratio(self, frames: str, name: str) -> float:
        """Return bytes stored for each byte that the baseline stores."""
        return self.middle(f"stored {name} {frames}", "bytes") / self.middle(f"stored baseline {frames}", "bytes")

    def same_everywhere(self) -> bool:
        """Tell whether every way of loading returned the same entries."""
        return all(
            len({row["digest"] for name in self.ways(frames) for row in self.samples[f"load {name} {frames}"]}) == 1
            for frames in (*self.lengths, *self.small)
        )

    def ways(self, frames: str) -> list[str]:
        """Return the ways in which a transcript of this length was loaded."""
        ways = ("parts", "everturn", "compacted", "baseline", "limit")
        return [way for way in ways if self.samples.get(f"load {way} {frames}")]

    def middle_length(self) -> str:
        """Return the length that stands for the goals on 3,000 frames."""
        return sorted(self.lengths, key=int)[len(self.lengths) // 2]

    def goals(self) -> list[Goal]:
        """Compare with what was aimed at."""
        return [
            *self._load_goals(),
            *self._append_goals(),
            *self._list_goals(),
            *self._size_goals(),
            *self._dispatch_goals(),
        ]

    def dispatch(self, store: str, case: str) -> Row:
        """Return the figures of a kind of dispatch."""
        (row,) = self.samples[f"dispatch {store}"]
        figures: Row = row["cases"][case]
        return figures

    def _dispatch_goals(self) -> list[Goal]:
        ids = {"stale": "with an id that is too old", "lost": "with an id that is not in the store"}
        stores = {"folder": "in a folder", "s3": "on the S3 server"}
        return [
            at_most(
                f"start of the agent {text}, store {where}: times that without an id",
                1.1,
                self.dispatch(store, case)["times_new"],
            )
            for case, text in ids.items()
            for store, where in stores.items()
        ]

    def _load_goals(self) -> list[Goal]:
        sets = [(frames, f"{int(frames):,} frames") for frames in (self.middle_length(),)]
        sets += [(frames, f"{int(frames.split()[1]):,} small frames") for frames in self.small]
        gets = max(self.requests(f"load compacted {frames}", "GET") for frames in self.lengths)
        return [
            *(
                at_least(
                    f"load of {text}, compacted: times faster than the baseline",
                    100,
                    self.load_ratio(frames, "baseline", "compacted"),
                )
                for frames, text in sets
            ),
            *(
                at_most(
                    f"load of {text}, compacted: times the limit", 2, self.load_ratio(frames, "compacted", "limit")
                )
                for frames, text in sets
            ),
            at_most("GETs to load a compacted transcript", 3, gets),
        ]

    def _append_goals(self) -> list[Goal]:
        baseline = self.cpu_per_append("baseline").median
        alone, default = (self.cpu_per_append(kind).median / baseline for kind in ("parts", "everturn"))
        return [
            at_most("processor time of an append, compaction off: times the baseline", 1 / 3, alone),
            at_most(
                "processor time of an append, its share in compaction with it: times the baseline", 1 / 3, default
            ),
            at_most("PUTs of an eager append", 1, self.requests_per_append("parts")),
        ]

    def _list_goals(self) -> list[Goal]:
        sessions = f"LISTs to list {self.results['sizes']['sessions']:,} sessions"
        operations = {
            "list_sessions": "`list_sessions`",
            "list_session_summaries": "summaries, from the second time on",
            "first_summaries": "summaries, the first time",
        }
        return [
            at_most(f"{sessions}: {text}", 2, self.requests(f"{operation} everturn", "LIST"))
            for operation, text in operations.items()
        ]

    def _size_goals(self) -> list[Goal]:
        middle = self.middle_length()
        ways = {"everturn": "with the defaults", "compacted": "compacted", "parts": "compaction off"}
        stored = [
            at_most(f"bytes stored, {text}: times the baseline", 0.25, self.stored_ratio(middle, way))
            for way, text in ways.items()
        ]
        decoded = {"memory_bytes": "the entries in memory", "lines_bytes": "the JSON lines"}
        lengths = {middle, max(self.lengths, key=int)}
        return stored + [
            at_most(f"memory to load: times {text}", 3, max(self.memory_ratio(frames, what) for frames in lengths))
            for what, text in decoded.items()
        ]


def at_most(name: str, target: float, value: float) -> Goal:
    """Return a goal that is met by what is no more."""
    return Goal(name, f"at most {target:.3g}", f"{value:.3g}", value <= target)


def at_least(name: str, target: float, value: float) -> Goal:
    """Return a goal that is met by what is no less."""
    return Goal(name, f"at least {target:.3g}", f"{value:.3g}", value >= target)


def percentile(row: Row, percent: int) -> float:
    """Return a percentile of the latencies of one measurement, which may have been thinned."""
    latencies: list[float] = row.get("latencies_s", [])
    return quantiles(latencies, n=100, method="inclusive")[percent - 1] if latencies else float(row[f"p{percent}_s"])


def steps(row: Row) -> int:
    """Return how many single steps one measurement has."""
    return int(row["steps"]) if "steps" in row else len(row["latencies_s"])


def _requests(row: Row, kinds: tuple[str, ...]) -> int:
    """Count requests of some kinds, or of all."""
    counted: dict[str, int] = row["requests"]
    return sum(count for kind, count in counted.items() if (kind in kinds if kinds else "bytes" not in kind))
