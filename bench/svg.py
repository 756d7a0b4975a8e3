"""Plots as SVG, readable on light and on dark ground: lines or bars on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap

WIDTH, HEIGHT = 800, 420
LEFT, RIGHT, TOP, BOTTOM = 78, 206, 52, 56
LETTER_WIDTH = 7  # of small text

_COLOURS = {
    "everturn": "#2f6fdb",
    "everturn, compacted": "#2f6fdb",
    "everturn, compaction off": "#12977a",
    "baseline": "#c8571b",
    "limit": "#7a7f87",
    "workdirs": "#2f6fdb",
    "workdirs, sparse": "#12977a",
    "clones": "#c8571b",
    "linked worktrees": "#7a7f87",
    "write": "#2f6fdb",
    "bare": "#7a7f87",
    "p50": "#2f6fdb",
    "p99": "#c8571b",
    "eager": "#c8571b",
    "linger": "#12977a",
    "sparing": "#2f6fdb",
    "one S3 prefix": "#7a7f87",
    "directory bucket": "#7a7f87",
    "S3 Standard": "#2f6fdb",
    "S3 Express One Zone": "#12977a",
}
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-size: 16px; font-weight: 600 }
  .small { font-size: 12px; fill: #57606a }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .axis { stroke: #57606a; stroke-width: 1 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9da7b1 } .grid { stroke: #30363d } .axis { stroke: #9da7b1 }
  }
"""


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis.

    Attributes:
        low: Where it begins: a power of ten.
        high: Where it ends: a power of ten.
        start: The pixel of `low`.
        end: The pixel of `high`.
    """

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Return the pixel of a value."""
        share = math.log10(max(value, self.low) / self.low) / math.log10(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return the powers of ten on it."""
        first, last = round(math.log10(self.low)), round(math.log10(self.high))
        return [10.0**power for power in range(first, last + 1)]


def lines(title: str, x_name: str, y_unit: str, series: Mapping[str, Mapping[float, float]]) -> str:
    """Draw one line for each series, of points from x to y. The names are those that have a colour."""
    xs = sorted({x for points in series.values() for x in points})
    x_axis = Axis(xs[0], max(xs[-1], xs[0] * 10), LEFT + 24, WIDTH - RIGHT - 12)
    y_axis = _y_axis([y for points in series.values() for y in points.values()])
    body = [_text(x_axis.place(x), HEIGHT - BOTTOM + 20, f"{x:,.0f}", "small", "middle") for x in xs]
    labels: list[tuple[float, str, str]] = []
    for name, points in series.items():
        colour = _COLOURS[name]
        places = [(x_axis.place(x), y_axis.place(y)) for x, y in sorted(points.items())]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]
        labels.append((places[-1][1], name, colour))
    body += _labels(labels)
    return _page(title, x_name, y_unit, y_axis, body)


def bars(title: str, y_unit: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Draw a group of bars for each name, with one bar for each series in it."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    y_axis = _y_axis([value for group in groups.values() for value in group.values()])
    room = (WIDTH - LEFT - RIGHT) / len(groups)
    wide = room * 0.8 / len(names)
    body: list[str] = []
    for index, (group, values) in enumerate(groups.items()):
        left = LEFT + index * room + room * 0.1
        for row, words in enumerate(wrap(group, max(1, int(room / LETTER_WIDTH)), break_long_words=False)):
            body.append(_text(left + room * 0.4, HEIGHT - BOTTOM + 18 + 13 * row, words, "small", "middle"))
        for place, name in enumerate(names):
            if name in values:
                x, y = left + place * wide, y_axis.place(values[name])
                shape = f'x="{x:.1f}" y="{y:.1f}" width="{wide * 0.9:.1f}" height="{HEIGHT - BOTTOM - y:.1f}"'
                body.append(f'<rect {shape} fill="{_COLOURS[name]}"/>')
                body.append(_text(x + wide * 0.45, y - 5, amount(values[name]), "small", "middle"))
    body += _labels([(TOP + 14 + 20 * place, name, _COLOURS[name]) for place, name in enumerate(names)])
    return _page(title, "", y_unit, y_axis, body)


def amount(value: float) -> str:
    """Return a number with about three digits."""
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}".rstrip("0").rstrip(".")


def _y_axis(values: Sequence[float]) -> Axis:
    positive = [value for value in values if value > 0] or [1.0]
    low = 10.0 ** math.floor(math.log10(min(positive)) - 0.05)
    return Axis(low, 10.0 ** math.ceil(math.log10(max(positive)) + 0.05), HEIGHT - BOTTOM, TOP)


def _labels(wanted: Sequence[tuple[float, str, str]]) -> list[str]:
    """Write names at the right edge, apart from each other."""
    written: list[str] = []
    lowest = 0.0
    for y, name, colour in sorted(wanted):
        lowest = max(y, lowest + 18)
        written.append(f'<rect x="{WIDTH - RIGHT + 6}" y="{lowest - 5:.1f}" width="10" height="10" fill="{colour}"/>')
        written.append(_text(WIDTH - RIGHT + 22, lowest + 5, name, "", "start"))
    return written


def _text(x: float, y: float, text: str, style: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{escape(text)}</text>'


def _page(title: str, x_name: str, y_unit: str, y_axis: Axis, body: Sequence[str]) -> str:
    grid: list[str] = []
    for tick in y_axis.ticks():
        y = y_axis.place(tick)
        grid.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        grid.append(_text(LEFT - 8, y + 4, amount(tick), "small", "end"))
    base = HEIGHT - BOTTOM
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        _text(LEFT, 24, title, "title", "start"),
        _text(LEFT - 8, TOP - 12, y_unit, "small", "end"),
        *grid,
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>',
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, x_name, "small", "middle"),
    ]
    return "\n".join([*head, *body, "</svg>"]) + "\n"
