"""The tables of a run, for the page and for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.costs import DAYS_KEPT, PRICES, hour, phases
from bench.plan import APPENDS, DISPATCH_STORES, LISTINGS
from bench.summary import Goal, Row, Spread, Summary, percentile, steps
from bench.svg import amount

BEGIN, END = "<!-- begin of measured tables -->", "<!-- end of measured tables -->"
MB = 1e6
LABELS = {
    "everturn": "everturn",
    "parts": "everturn, compaction off",
    "compacted": "everturn, compacted",
    "baseline": "baseline",
    "limit": "limit",
}
HOURS = {
    "everturn": "everturn",
    "compacted": "everturn, and `sessions compact` at its end",
    "linger": "everturn, linger 1 s",
    "baseline": "baseline",
}
DISPATCHES = {
    "new": "new",
    "stale": "too old",
    "lost": "not in the store",
    "resumed": "resumed",
}
OPERATIONS = {
    "list_sessions": "`list_sessions`",
    "first_summaries": "`list_session_summaries`, the first time",
    "list_session_summaries": "`list_session_summaries`, from then on",
    "list_titles": "titles, by the SDK's helper",
}


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
        goals_table(found.goals()),
        _appends(found),
        _loads(found, "Load", found.lengths),
        _loads(found, "Load small frames", found.small),
        _memory(found),
        _stored(found),
        _lists(found),
        _dollars(found),
        _origins(found),
        _dispatches(found),
    ]


def goals_table(goals: Sequence[Goal]) -> Table:
    """Return what was aimed at, and what of it is reached."""
    rows = [(goal.name, goal.target, goal.measured, "yes" if goal.met else "**no**") for goal in goals]
    return Table("Goals", ("goal", "target", "measured", "met"), rows)


def _appends(found: Summary) -> Table:
    rows = []
    for kind in APPENDS:
        name = f"append {kind}"
        fifty, ninety_nine = (found.spread(name, partial(percentile, percent=percent)) for percent in (50, 99))
        counts = (f"{found.requests_per_append(kind, what):.3g}" for what in ("PUT", "LIST", "GET"))
        rows.append((LABELS[kind], in_ms(fifty), in_ms(ninety_nine), in_ms(found.cpu_per_append(kind)), *counts))
    title = f"Append: {found.results['sizes']['appends']:,} frames, one after the other"
    return Table(title, ("", "p50, ms", "p99, ms", "CPU, ms", "PUTs", "LISTs", "GETs"), rows)


def _loads(found: Summary, title: str, lengths: Sequence[str]) -> Table:
    rows = []
    for frames in lengths:
        for way in found.ways(frames):
            name = f"load {way} {frames}"
            wall, cpu = (found.spread(name, lambda row, figure=figure: row[figure]) for figure in ("wall_s", "cpu_s"))
            counts = (f"{found.requests(name, kind):.0f}" for kind in ("LIST", "GET"))
            ratio = found.load_ratio(frames, way, "limit")
            rows.append((_length(frames), LABELS[way], in_ms(wall), in_ms(cpu), *counts, f"{ratio:.2f}"))
    head = ("frames", "", "time, ms", "CPU, ms", "LISTs", "GETs", "times the limit")
    return Table(title, head, rows)


def _memory(found: Summary) -> Table:
    rows = []
    for frames in found.lengths:
        for way in found.ways(frames):
            name = f"load {way} {frames}"
            sizes = [found.middle(name, figure) / MB for figure in ("peak_bytes", "lines_bytes", "memory_bytes")]
            ratios = [found.memory_ratio(frames, figure, way) for figure in ("lines_bytes", "memory_bytes")]
            rows.append((_length(frames), LABELS[way], *map(amount, sizes), *(f"{ratio:.2f}" for ratio in ratios)))
    head = ("frames", "", "peak, MB", "JSON lines, MB", "entries in memory, MB", "peak / lines", "peak / entries")
    return Table("Memory to load", head, rows)


def _stored(found: Summary) -> Table:
    rows = []
    for frames in found.lengths:
        for way in (way for way in found.ways(frames) if way != "limit"):
            name = f"stored {way} {frames}"
            size, objects = found.middle(name, "bytes"), found.middle(name, "objects")
            share = found.stored_ratio(frames, way)
            rows.append((_length(frames), LABELS[way], f"{objects:,.0f}", amount(size / MB), f"{share:.3f}"))
    return Table("Bytes stored", ("frames", "", "objects", "MB", "times the baseline"), rows)


def _lists(found: Summary) -> Table:
    rows = []
    for operation, kind in LISTINGS:
        name = f"{operation} {kind}"
        wall = found.spread(name, lambda row: row["wall_s"])
        counts = (f"{found.requests(name, what):,.0f}" for what in ("LIST", "GET", "PUT"))
        rows.append((OPERATIONS[operation], kind, in_ms(wall), *counts))
    sizes = found.results["sizes"]
    title = f"List {sizes['sessions']:,} sessions of {sizes['frames_each']} frames"
    return Table(title, ("", "", "time, ms", "LISTs", "GETs", "PUTs"), rows)


def _dollars(found: Summary) -> Table:
    rows = []
    for name, label in HOURS.items():
        asked = hour(found.samples[f"hour {name}"][0], found.results["sizes"]["hour_s"])
        counts = (f"{count:,.0f}" for count in (asked.puts, asked.lists, asked.gets))
        sizes = (amount(size / MB) for size in (asked.sent_bytes, asked.kept_bytes))
        dollars = (f"{1000 * asked.dollars(prices):.2f}" for prices in PRICES)
        rows.append((label, *counts, *sizes, *dollars))
    head = ("", "PUTs", "LISTs", "GETs", "MB sent", "MB kept", *(f"{prices.name}, $" for prices in PRICES))
    return Table(f"1,000 session-hours, kept for {DAYS_KEPT} days (requests and MB of one)", head, rows)


def _origins(found: Summary) -> Table:
    """Tell what the requests of the table before are for."""
    compacted, without, linger, baseline = (
        found.samples[f"hour {name}"][0] for name in ("compacted", "parts", "linger", "baseline")
    )
    rows = [
        *_phases("everturn", phases(compacted, without)),
        *_phases("everturn, linger 1 s", phases(linger), appends="appends, background compaction"),
        *_phases("baseline", phases(baseline)),
    ]
    title = f"What the requests of a session are for: {compacted['frames']:,} frames"
    return Table(title, ("", "for", "PUTs", "LISTs", "GETs", "DELETEs", "MB sent", "MB fetched"), rows)


def _dispatches(found: Summary) -> Table:
    rows = []
    for store in DISPATCH_STORES:
        for case, label in DISPATCHES.items():
            figures = found.dispatch(store, case)
            times = (in_ms(Spread(**figures[name])) for name in ("start_s", "fence_s"))
            rows.append((store, label, *times, f"{figures['times_new']:.3f}"))
    head = ("store", "session", "to the agent's start, ms", "claim to fence, ms", "start: times a new one's")
    return Table(f"Dispatch: {found.results['sizes']['dispatches']} of each kind", head, rows)


def _phases(label: str, found: dict[str, Counter[str]], appends: str = "appends") -> list[tuple[str, ...]]:
    rows = []
    for phase, counts in found.items():
        if not counts:
            continue
        requests = (f"{counts[kind]:,}" for kind in ("PUT", "LIST", "GET", "DELETE"))
        sizes = (amount(counts[way] / MB) for way in ("bytes_in", "bytes_out"))
        rows.append((label, appends if phase == "appends" else phase, *requests, *sizes))
    return rows


def _length(label: str) -> str:
    """Write the length of a transcript for people."""
    *kind, frames = label.split()
    return " ".join([f"{int(frames):,}", *kind])


def in_ms(spread: Spread) -> str:
    shown = [amount(1000 * value) for value in (spread.median, spread.low, spread.high)]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


def as_text(found: Sequence[Table]) -> str:
    """Return tables for a terminal."""
    return "\n\n".join(table.markdown() for table in found)


def circumstances(results: Row) -> str:
    """Say when and with what a run was made."""
    packages = ", ".join(f"{name} {number}" for name, number in results["packages"].items())
    return f"{run_on(results)}, {packages}; S3 server: {results['engine']}."


def run_on(results: Row) -> str:
    """Say when a run was made, and on what."""
    machine = f"{results['processors']} processors, {results['system']}, Python {results['python']}"
    return f"Run on {results['date']} in {results['seconds'] / 60:.0f} minutes: {machine}"


def put_into(page: Path, found: Sequence[Table], note: str, begin: str = BEGIN, end: str = END) -> None:
    """Write tables between the page's markers."""
    text = page.read_text(encoding="utf-8")
    before, after = text.split(begin)[0], text.split(end)[1]
    page.write_text(f"{before}{begin}\n\n{note}\n\n{as_text(found)}\n\n{end}{after}", encoding="utf-8")


def thinned(results: Row) -> dict[str, Any]:
    """Return results without single latencies, of which there are thousands: their percentiles stay."""
    kept = {name: [_thin(row) for row in rows] for name, rows in results["samples"].items()}
    return {**results, "samples": kept}


def _thin(row: Row) -> Row:
    if not row.get("latencies_s"):
        return {name: value for name, value in row.items() if name != "latencies_s"}
    few = {f"p{percent}_s": percentile(row, percent) for percent in (50, 90, 99)}
    return {name: value for name, value in row.items() if name != "latencies_s"} | few | {"steps": steps(row)}
