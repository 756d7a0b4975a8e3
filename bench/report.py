"""The tables of a run, for the page and for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.costs import DAYS_KEPT, PRICES, hours, pace
from bench.plan import LISTINGS
from bench.summary import Row, Spread, Summary, percentile, steps
from bench.svg import amount

BEGIN, END = "<!-- begin of measured tables -->", "<!-- end of measured tables -->"
MB = 1e6


@dataclass(frozen=True)
class Table:
    """A table with a title."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def markdown(self) -> str:
        """Return it as Markdown."""
        lines = [self.head, tuple("---" for _ in self.head), *self.rows]
        return "\n".join([f"### {self.title}", "", *(f"| {' | '.join(cells)} |" for cells in lines)])


def tables(results: Row) -> list[Table]:
    """Return all tables."""
    found = Summary(results)
    if not found.same_everywhere():
        raise RuntimeError("the ways of loading did not return the same entries: nothing here is worth comparing")
    return [
        _goals(found),
        _appends(found),
        _loads(found),
        _memory(found),
        _stored(found),
        _lists(found),
        _dollars(found),
    ]


def _goals(found: Summary) -> Table:
    rows = [(goal.name, goal.target, goal.measured, "yes" if goal.met else "**no**") for goal in found.goals()]
    return Table("Goals", ("goal", "target", "measured", "met"), rows)


def _appends(found: Summary) -> Table:
    rows = []
    for kind in ("everturn", "baseline", "limit"):
        name = f"append {kind}"
        fifty, ninety_nine = (found.spread(name, partial(percentile, percent=percent)) for percent in (50, 99))
        cells = (_ms(fifty), _ms(ninety_nine), _ms(found.cpu_per_append(kind)), f"{found.puts_per_append(kind):g}")
        rows.append((kind, *cells))
    title = f"Append: {found.results['sizes']['appends']:,} frames, one after the other"
    return Table(title, ("", "p50, ms", "p99, ms", "CPU, ms", "requests"), rows)


def _loads(found: Summary) -> Table:
    rows = []
    for frames in found.lengths:
        for way in found.ways():
            name = f"load {way} {frames}"
            wall, cpu = (found.spread(name, lambda row, figure=figure: row[figure]) for figure in ("wall_s", "cpu_s"))
            counts = (f"{found.requests(name, kind):.0f}" for kind in ("LIST", "GET"))
            ratio = found.load_ratio(frames, way, "limit")
            rows.append((f"{frames:,}", _way(way), _ms(wall), _ms(cpu), *counts, f"{ratio:.2f}"))
    head = ("frames", "", "time, ms", "CPU, ms", "LISTs", "GETs", "times the limit")
    return Table("Load", head, rows)


def _memory(found: Summary) -> Table:
    rows = []
    for frames in found.lengths:
        for way in found.ways():
            name = f"load {way} {frames}"
            sizes = [found.middle(name, figure) / MB for figure in ("peak_bytes", "lines_bytes", "memory_bytes")]
            ratios = [found.memory_ratio(frames, figure, way) for figure in ("lines_bytes", "memory_bytes")]
            rows.append((f"{frames:,}", _way(way), *map(amount, sizes), *(f"{ratio:.2f}" for ratio in ratios)))
    head = ("frames", "", "peak, MB", "JSON lines, MB", "entries in memory, MB", "peak / lines", "peak / entries")
    return Table("Memory to load", head, rows)


def _stored(found: Summary) -> Table:
    rows = []
    for frames in found.lengths:
        for way in ("everturn", "compacted", "baseline"):
            name = f"stored {way} {frames}"
            size, objects = found.middle(name, "bytes"), found.middle(name, "objects")
            share = found.stored_ratio(frames, way)
            rows.append((f"{frames:,}", _way(way), f"{objects:,.0f}", amount(size / MB), f"{share:.3f}"))
    return Table("Bytes stored", ("frames", "", "objects", "MB", "times the baseline"), rows)


def _lists(found: Summary) -> Table:
    rows = []
    for operation, kind in LISTINGS:
        name = f"{operation} {kind}"
        wall = found.spread(name, lambda row: row["wall_s"])
        counts = (f"{found.requests(name, what):,.0f}" for what in ("LIST", "GET"))
        label = "titles, by the SDK's helper" if operation == "list_titles" else f"`{operation}`"
        rows.append((label, kind, _ms(wall), *counts))
    sizes = found.results["sizes"]
    title = f"List {sizes['sessions']:,} sessions of {sizes['frames_each']} frames"
    return Table(title, ("", "", "time, ms", "LISTs", "GETs"), rows)


def _dollars(found: Summary) -> Table:
    longest = sorted(found.lengths)[len(found.lengths) // 2]
    measured = {
        "summary_puts": found.requests("pause", "PUT"),
        "summary_lists": found.requests("pause", "LIST"),
        "load_gets": found.requests(f"load compacted {longest}", "GET"),
        "load_lists": found.requests(f"load compacted {longest}", "LIST"),
        "compacted": found.middle(f"stored compacted {longest}", "bytes")
        / found.middle(f"stored everturn {longest}", "bytes"),
    }
    rows = []
    for name, hour in hours(pace(), measured).items():
        cells = (f"{hour.puts:,.0f}", f"{hour.lists:,.0f}", f"{hour.gets:,.0f}", amount(hour.kept_bytes / MB))
        rows.append((name, *cells, *(f"{1000 * hour.dollars(prices):.2f}" for prices in PRICES)))
    head = ("", "PUTs", "LISTs", "GETs", "MB kept", *(f"{prices.name}, $" for prices in PRICES))
    return Table(f"1,000 session-hours, kept for {DAYS_KEPT} days (requests and MB of one)", head, rows)


def _way(name: str) -> str:
    return {"everturn": "everturn, as written", "compacted": "everturn, compacted"}.get(name, name)


def _ms(spread: Spread) -> str:
    shown = [amount(1000 * value) for value in (spread.median, spread.low, spread.high)]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


def as_text(found: Sequence[Table]) -> str:
    """Return tables for a terminal."""
    return "\n\n".join(table.markdown() for table in found)


def circumstances(results: Row) -> str:
    """Say when and with what a run was made."""
    packages = ", ".join(f"{name} {number}" for name, number in results["packages"].items())
    machine = f"{results['processors']} processors, {results['system']}, Python {results['python']}"
    when = f"Run on {results['date']} in {results['seconds'] / 60:.0f} minutes"
    return f"{when}: {machine}, {packages}; S3 server: {results['engine']}."


def put_into(page: Path, found: Sequence[Table], note: str) -> None:
    """Write tables between the page's markers."""
    text = page.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n{note}\n\n{as_text(found)}\n\n{END}{after}", encoding="utf-8")


def thinned(results: Row) -> dict[str, Any]:
    """Return results without single latencies, of which there are thousands: their percentiles stay."""
    kept = {name: [_thin(row) for row in rows] for name, rows in results["samples"].items()}
    return {**results, "samples": kept}


def _thin(row: Row) -> Row:
    if not row.get("latencies_s"):
        return {name: value for name, value in row.items() if name != "latencies_s"}
    few = {f"p{percent}_s": percentile(row, percent) for percent in (50, 90, 99)}
    return {name: value for name, value in row.items() if name != "latencies_s"} | few | {"steps": steps(row)}
