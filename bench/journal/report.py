"""The tables and plots of a run."""

from __future__ import annotations

from pathlib import Path

from bench.journal.summary import MB, WRITTEN, Summary
from bench.plan import Row
from bench.report import Table, goals_table, run_on
from bench.summary import Spread
from bench.svg import amount, bars

BEGIN, END = "<!-- begin of measured tables: journal -->", "<!-- end of measured tables: journal -->"
WAYS = {
    "bare": "bare write",
    "encoded": "bare write, and making the line",
    "write": "`Journal.write`",
    "message": "the same from the SDK's message",
}
REBUILDS = {
    "rebuild": "rebuild of the mirror",
    "read": "reading and decompressing alone",
    "parse": "the same and parsing each line, one thread",
    "insert": "bare insert of the texts, indexed",
}


def tables(results: Row) -> list[Table]:
    """Return all tables."""
    found = Summary(results)
    return [goals_table(found.goals()), _writes(found), _rebuilds(found), _journals(found), _searches(found)]


def _writes(found: Summary) -> Table:
    rows = []
    for written, text in WRITTEN.items():
        for way in found.ways(written):
            name = f"write {written} {way}"
            times = (_in_us(found.spread(name, f"{figure}_s")) for figure in ("p50", "p99"))
            ratios = (f"{found.times_bare(written, way, f'{figure}_s'):.2f}" for figure in ("p50", "p99", "mean"))
            rows.append((text, WAYS[way], *times, *ratios))
    head = ("", "", "p50, µs", "p99, µs", "p50, times bare", "p99, times bare")
    return Table("An event before it is shown", (*head, "mean, times bare"), rows)


def _rebuilds(found: Summary) -> Table:
    rows = []
    for name, text in REBUILDS.items():
        row = found.samples[name][0]
        speeds = [_speed(found, name, figure) for figure in ("lines_bytes", "text_bytes")]
        events = f"{found.speed(name, 'events').median:,.0f}" if "events" in row else ""
        seconds = (amount(found.spread(name, figure).median) for figure in ("wall_s", "cpu_s"))
        rows.append((text, *seconds, events, *speeds))
    head = ("", "time, s", "CPU, s", "events/s", "journals, MB/s", "texts, MB/s")
    return Table("Rebuild of the SQLite mirror", head, rows)


def _speed(found: Summary, name: str, figure: str) -> str:
    if figure not in found.samples[name][0]:
        return ""
    return _shown(found.speed(name, figure), 1 / MB)


def _journals(found: Summary) -> Table:
    made = found.made
    kinds = sorted(made["bytes_by_type"], key=lambda kind: -made["bytes_by_type"][kind])
    rows = [
        (
            f"`{kind}`",
            f"{made['by_type'][kind]:,}",
            f"{made['by_type'][kind] / made['lines']:.1%}",
            f"{made['bytes_by_type'][kind] / made['lines_bytes']:.1%}",
            f"{made['bytes_by_type'][kind] / made['by_type'][kind]:,.0f}",
        )
        for kind in kinds
    ]
    return Table(
        "The journals that it was rebuilt from", ("type", "lines", "of lines", "of bytes", "mean, bytes"), rows
    )


def _searches(found: Summary) -> Table:
    kinds = {"all": found.searched["all"], **found.searched["kinds"]}
    rows = [
        (
            kind.replace("_", " "),
            f"{row['searches']:,}",
            *(amount(row[f"{name}_ms"]) for name in ("p50", "p99", "max")),
        )
        for kind, row in kinds.items()
    ]
    return Table("Searches", ("", "searches", "p50, ms", "p99, ms", "slowest, ms"), rows)


def plots(results: Row, folder: Path, name: str) -> None:
    """Write all plots of a run."""
    found = Summary(results)
    short = {"flood flush": "flush", "paced flush": "flush, paced", "flood fsync": "fsync", "flood store": "store"}
    writes = {
        f"{text} {figure}": {
            way: 1e6 * found.spread(f"write {written} {way}", f"{figure}_s").median for way in ("bare", "write")
        }
        for written, text in short.items()
        for figure in ("p50", "p99")
    }
    kinds = {kind: row for kind, row in found.searched["kinds"].items() if "filtered" not in kind}
    searches = {
        kind.replace("_", " "): {figure: row[f"{figure}_ms"] for figure in ("p50", "p99")}
        for kind, row in kinds.items()
    }
    for what, text in (
        ("write", bars("An event before it is shown", "µs", writes)),
        ("search", bars("Searches", "ms", searches)),
    ):
        (folder / f"{name}-{what}.svg").write_text(text, encoding="utf-8")


def circumstances(results: Row) -> str:
    """Say when and with what a run was made."""
    found = Summary(results)
    made, mirror, searched = found.made, found.samples["rebuild"][0], found.searched
    journals = f"{made['runs']} journals ({made['killed']} cut off) of together {made['lines_bytes'] / MB:,.0f} MB"
    texts = f"{made['lines']:,} lines, of which {mirror['text_bytes'] / MB:,.0f} MB are texts that are indexed"
    search = f"{searched['text_bytes'] / MB:,.0f} MB of text in {searched['texts']:,} pieces"
    versions = f"SQLite {results['sqlite']}; S3 server: {results['engine']}"
    return f"{run_on(results)}, {versions}. Rebuilt: {journals}, {texts}. Searched: {search}."


def _in_us(spread: Spread) -> str:
    return _shown(spread, 1e6)


def _shown(spread: Spread, scale: float) -> str:
    shown = [amount(scale * value) for value in (spread.median, spread.low, spread.high)]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"
