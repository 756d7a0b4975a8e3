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
        self.lengths = [int(frames) for frames in results["sizes"]["loads"]]

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

    def load_ratio(self, frames: int, other: str, name: str) -> float:
        """Return how many times as long one way of loading takes as another."""
        return self.middle(f"load {other} {frames}", "wall_s") / self.middle(f"load {name} {frames}", "wall_s")

    def memory_ratio(self, frames: int, decoded: str, name: str = "compacted") -> float:
        """Return how much memory loading needs for each byte of what is decoded."""
        sample = f"load {name} {frames}"
        return self.middle(sample, "peak_bytes") / self.middle(sample, decoded)

    def cpu_per_append(self, kind: str) -> Spread:
        """Return processor seconds for one append."""
        return self.spread(f"append {kind}", lambda row: row["cpu_s"] / steps(row))

    def puts_per_append(self, kind: str) -> float:
        """Return requests for one append, whatever their kind."""
        name = f"append {kind}"
        return self.spread(name, lambda row: _all_requests(row) / steps(row)).median

    def stored_ratio(self, frames: int, name: str) -> float:
        """Return bytes stored for each byte that the baseline stores."""
        return self.middle(f"stored {name} {frames}", "bytes") / self.middle(f"stored baseline {frames}", "bytes")

    def same_everywhere(self) -> bool:
        """Tell whether every way of loading returned the same entries."""
        return all(
            len({row["digest"] for name in self.ways() for row in self.samples[f"load {name} {frames}"]}) == 1
            for frames in self.lengths
        )

    def ways(self) -> tuple[str, ...]:
        """Return the ways of loading."""
        return ("everturn", "compacted", "baseline", "limit")

    def goals(self) -> list[Goal]:
        """Compare with what was aimed at. The middle length stands for the goals on 3,000 frames."""
        middle, longest = sorted(self.lengths)[len(self.lengths) // 2], max(self.lengths)
        faster = self.load_ratio(middle, "baseline", "compacted")
        near = self.load_ratio(middle, "compacted", "limit")
        cpu = self.cpu_per_append("everturn").median / self.cpu_per_append("baseline").median
        puts = self.puts_per_append("everturn")
        gets = max(self.requests(f"load compacted {frames}", "GET") for frames in self.lengths)
        lists = max(self.requests(f"{what} everturn", "LIST") for what in ("list_sessions", "list_session_summaries"))
        bytes_parts, bytes_compacted = (self.stored_ratio(middle, name) for name in ("everturn", "compacted"))
        in_memory = max(self.memory_ratio(frames, "memory_bytes") for frames in (middle, longest))
        of_lines = max(self.memory_ratio(frames, "lines_bytes") for frames in (middle, longest))
        sessions = self.results["sizes"]["sessions"]
        return [
            _at_least(f"load of {middle:,} frames, compacted: times faster than the baseline", 100, faster),
            _at_most(f"load of {middle:,} frames, compacted: times the limit", 2, near),
            _at_most("processor time of an append: times the baseline", 1 / 3, cpu),
            _at_most("requests of an eager append", 1, puts),
            _at_most("GETs to load a compacted transcript", 3, gets),
            _at_most(f"LISTs to list {sessions:,} sessions", 2, lists),
            _at_most("bytes stored as parts: times the baseline", 0.25, bytes_parts),
            _at_most("bytes stored compacted: times the baseline", 0.25, bytes_compacted),
            _at_most("memory to load: times the entries in memory", 3, in_memory),
            _at_most("memory to load: times the JSON lines", 3, of_lines),
        ]


def _at_most(name: str, target: float, value: float) -> Goal:
    return Goal(name, f"at most {target:.3g}", f"{value:.3g}", value <= target)


def _at_least(name: str, target: float, value: float) -> Goal:
    return Goal(name, f"at least {target:.3g}", f"{value:.3g}", value >= target)


def percentile(row: Row, percent: int) -> float:
    """Return a percentile of the latencies of one measurement, which may have been thinned."""
    latencies: list[float] = row.get("latencies_s", [])
    return quantiles(latencies, n=100, method="inclusive")[percent - 1] if latencies else float(row[f"p{percent}_s"])


def steps(row: Row) -> int:
    """Return how many single steps one measurement has."""
    return int(row["steps"]) if "steps" in row else len(row["latencies_s"])


def _all_requests(row: Row) -> int:
    return sum(count for kind, count in row["requests"].items() if kind != "bytes_in")
