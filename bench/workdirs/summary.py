"""From samples to figures, and what of the goals is reached."""

from __future__ import annotations

from statistics import median, quantiles

from bench.plan import Row
from bench.summary import Goal, Spread, at_least, at_most


class Summary:
    """Figures of one run.

    Args:
        results: What `bench.workdirs` measured.
    """

    def __init__(self, results: Row) -> None:
        self.results = results
        self.samples: dict[str, list[Row]] = results["samples"]

    def times(self, name: str) -> list[float]:
        """Return how long each sample took, in seconds."""
        return [row["wall_s"] for row in self.samples[name]]

    def spread(self, name: str) -> Spread:
        """Return how long they took, in seconds."""
        return Spread(median(self.times(name)), min(self.times(name)), max(self.times(name)))

    def total(self, name: str, figure: str = "wall_s") -> float:
        """Return the sum over all samples of a name."""
        return float(sum(row[figure] for row in self.samples[name]))

    def high(self, name: str) -> float:
        """Return the 99th percentile of the times, in seconds."""
        values = self.times(name)
        return quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else values[0]

    def times_faster(self, way: str) -> float:
        """Return how many times as long all clones took as all places of this way."""
        return self.total("open clones") / self.total(f"open {way}")

    def times_faster_later(self, way: str) -> float:
        """Return the same without the first round, in which the caches were made."""
        clones, ours = (self.times(f"open {name}")[1:] for name in ("clones", way))
        return sum(clones) / sum(ours)

    @property
    def evicted(self) -> Row:
        """The eviction. It has failed if it touched what is in use or unsaved."""
        (row,) = self.samples["eviction"]
        return row

    def goals(self) -> list[Goal]:
        """Compare with what was aimed at."""
        agents = self.results["sizes"]["agents"]
        slowest = max(self.high(f"again {name}") for name in ("kept", "same", "newer"))
        faster = (
            at_least(f"{agents} {kind}: times faster than as many clones{which}", target, ratio(way))
            for way, kind, target in (("workdirs", "workdirs", 4), ("sparse", "sparse workdirs", 20))
            for which, ratio in (("", self.times_faster), (", the first of each left out", self.times_faster_later))
        )
        return [
            at_most("opening a workdir again, p99 of the slowest situation, s", 1, slowest),
            *faster,
            at_most(
                "eviction: room taken afterwards, of the quota",
                1,
                self.evicted["after_bytes"] / self.evicted["quota_bytes"],
            ),
        ]
