"""The plots of a run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bench.report import LABELS, MB
from bench.summary import Row, Summary, percentile
from bench.svg import bars, lines


def write(results: Row, folder: Path, name: str) -> None:
    """Write all plots of a run."""
    found = Summary(results)
    for what, text in (
        ("load", _load(found)),
        ("memory", _memory(found)),
        ("append", _append(found)),
        ("list", _list(found)),
    ):
        (folder / f"{name}-{what}.svg").write_text(text, encoding="utf-8")


def _ways() -> list[tuple[str, str]]:
    return [(way, LABELS[way]) for way in ("baseline", "parts", "compacted", "limit")]


def _load(found: Summary) -> str:
    series = _by_length(found, "wall_s", 1000)
    return lines("Time to load a transcript", "frames in the transcript", "ms", series)


def _memory(found: Summary) -> str:
    series = _by_length(found, "peak_bytes", 1 / MB)
    return lines("Memory to load a transcript, at its highest", "frames in the transcript", "MB", series)


def _by_length(found: Summary, figure: str, scale: float) -> dict[str, dict[float, float]]:
    return {
        label: {
            float(frames): scale * found.middle(f"load {way} {frames}", figure)
            for frames in found.lengths
            if way in found.ways(frames)
        }
        for way, label in _ways()
    }


def _append(found: Summary) -> str:
    kinds = ("parts", "everturn", "baseline", "limit")
    groups = {
        f"p{percent}": {
            LABELS[kind]: 1000 * found.spread(f"append {kind}", partial(percentile, percent=percent)).median
            for kind in kinds
        }
        for percent in (50, 99)
    }
    groups["CPU"] = {LABELS[kind]: 1000 * found.cpu_per_append(kind).median for kind in kinds}
    return bars("One append", "ms", groups)


def _list(found: Summary) -> str:
    operations = {"list_sessions": "ids and times", "list_titles": "with titles"}
    groups = {
        label: {kind: 1000 * found.middle(f"{operation} {kind}", "wall_s") for kind in ("everturn", "baseline")}
        for operation, label in operations.items()
    }
    return bars(f"List {found.results['sizes']['sessions']:,} sessions", "ms", groups)
