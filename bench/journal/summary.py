"""From samples to figures, and what of the goals is reached."""

from __future__ import annotations

from statistics import median

from bench.plan import Row
from bench.summary import Goal, Spread, at_least, at_most

TIMES_BARE = 1.5
REBUILD_MB_PER_S = 50
SEARCH_MS = 50
MB = 1e6
WRITTEN = {
    "flood flush": "`flush`, one message after the other",
    "paced flush": "`flush`, a message every 2 ms",
    "flood fsync": "`fsync`",
    "flood store": "`store`",
}


class Summary:
    """Figures of one run.

    Args:
        results: What `bench.journal` measured.
    """

    def __init__(self, results: Row) -> None:
        self.results = results
        self.samples: dict[str, list[Row]] = results["samples"]

    def spread(self, name: str, figure: str) -> Spread:
        """Return a figure over all samples of a name."""
        values = [float(row[figure]) for row in self.samples[name]]
        return Spread(median(values), min(values), max(values))

    def ways(self, written: str) -> list[str]:
        """Return the ways in which was written, at some pace and durability."""
        prefix = f"write {written} "
        return [name.removeprefix(prefix) for name in self.samples if name.startswith(prefix)]

    def times_bare(self, written: str, way: str, figure: str) -> float:
        """Return how many times as long as a bare write it took: the median of all rounds."""
        pairs = zip(self.samples[f"write {written} {way}"], self.samples[f"write {written} bare"], strict=True)
        return median(ours[figure] / bare[figure] for ours, bare in pairs)

    def speed(self, name: str, figure: str) -> Spread:
        """Return how much a step gets done in a second, over all samples."""
        values = [row[figure] / row["wall_s"] for row in self.samples[name]]
        return Spread(median(values), min(values), max(values))

    @property
    def made(self) -> Row:
        """The journals that a mirror was rebuilt from."""
        (row,) = self.samples["journals"]
        return row

    @property
    def searched(self) -> Row:
        """What `bench.journal.search` found."""
        (row,) = self.samples["search"]
        return row

    def goals(self) -> list[Goal]:
        """Compare with what was aimed at."""
        written = [
            at_most(
                f"an event before it is shown, {text}, {figure}: times a bare write",
                TIMES_BARE,
                self.times_bare(name, "write", f"{figure}_s"),
            )
            for name, text in WRITTEN.items()
            for figure in ("p50", "p99")
        ]
        rebuilt = self.speed("rebuild", "lines_bytes").median / MB
        return [
            *written,
            at_least("rebuild of the SQLite mirror, MB of journals in a second", REBUILD_MB_PER_S, rebuilt),
            at_most("search, p99, ms", SEARCH_MS, self.searched["all"]["p99_ms"]),
        ]
