"""Charts, drawn here: figures of SVG and HTML without a script and without a style of their own.

Their colours come from classes in the style sheet. They fill the width they are given: geometry stands in percent,
so that words keep their size on a phone. What is drawn stands below in a table, too. Whatever the numbers are (none,
one, all equal, infinite, from a clock that went back), something sensible is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from markupsafe import Markup

from everturn.service.dashboard import words
from everturn.service.dashboard.plots import NAMES, Plot, area, line, table
from everturn.service.dashboard.scales import TimeScale, ValueScale, dollars, is_time
from everturn.service.dashboard.svg import element, percent
from everturn.service.views.thinning import thinned
from everturn.service.views.values import Sample

PLOT_HEIGHT = 132
MAX_POINTS = 600
MAX_ROWS = 60  # in a table: so many that a reader can take them in


@dataclass(frozen=True, slots=True)
class Point:
    """A value at a time, in seconds since the Unix epoch. A value of `None` is not known."""

    at: float
    value: float | None


@dataclass(frozen=True, slots=True)
class Bound:
    """Where something new begins on a chart over time: a run."""

    at: float
    title: str


def cost(
    points: Sequence[Point],
    *,
    spans: Iterable[tuple[float, float]] = (),
    bounds: Sequence[Bound] = (),
    name: str = "cost",
) -> Markup:
    """Return a figure of what something has cost so far, over time, in steps.

    Args:
        points: The cost so far in US dollars, each from this time on, in order.
        spans: When something went on, in seconds since the Unix epoch; long pauses between are shortened and marked.
        bounds: Where runs begin.
        name: What the ids of its elements begin with; another one for each chart of a page.
    """
    known = _forward(points)
    if not known:
        return Markup()
    scale = TimeScale([*spans, *((at, at) for at, _ in known), *((each.at, each.at) for each in bounds)])
    values = ValueScale.of((value for _, value in known), 0.01)
    begin = min((each.at for each in bounds if is_time(each.at)), default=known[0][0])
    drawn = _thinned([(scale.place(at), values.place(value)) for at, value in [(begin, 0.0), *known]])
    steps = _steps([*drawn, (1.0, drawn[-1][1])])
    plot = Plot(name, PLOT_HEIGHT, scale, top=NAMES)
    plot.levels(values.ticks(dollars))
    plot.shapes(area(steps, [(1.0, 0.0), (steps[0][0], 0.0)], "part-1"), line(steps, "part-1"))
    plot.bounds([(scale.place(each.at), each.title) for each in bounds if is_time(each.at)])
    last = dollars(known[-1][1], values.step)
    told = f"In steps, from $0 to {last} at {words.exact_time(known[-1][0])}."
    rows = [(words.exact_time(at), dollars(value, values.step)) for at, value in thinned(known, MAX_ROWS)]
    return plot.figure("Cost over time", told, table(("time", "cost so far"), rows), unit="US dollars")


def disk_trend(samples: Sequence[Sample], *, name: str = "disk-trend") -> Markup:
    """Return a figure of how much room workdirs, caches and quarantine took over time, one on top of the other.

    Args:
        samples: What was measured, the oldest first.
        name: See `cost`.
    """
    known = [each for each in samples if is_time(each.at)]
    if not known:
        return Markup()
    scale = TimeScale([(known[0].at, known[0].at), *((each.at, each.at) for each in known)], shorten=False)
    sums = [list(accumulate(map(_bytes, _parts(each)))) for each in known]
    values = ValueScale.of((each[-1] for each in sums), 1000.0)
    plot = Plot(name, PLOT_HEIGHT, scale, top=NAMES // 2)
    plot.levels(values.ticks(lambda value, _: words.size(round(value))))
    below = [(scale.place(each.at), 0.0) for each in known]
    for number in range(len(_PARTS)):
        above = _thinned(
            _wide([(scale.place(a.at), values.place(b[number])) for a, b in zip(known, sums, strict=True)])
        )
        plot.shapes(area(above, below[::-1], f"part-{number + 1}"), line(above, f"part-{number + 1}"))
        below = above
    rows = [(words.exact_time(each.at), *map(words.size, _parts(each))) for each in thinned(known, MAX_ROWS)]
    plot.key(
        [
            (f"part-{number}", f"{part} {size}")
            for number, (part, size) in enumerate(zip(_PARTS, rows[-1][1:], strict=True), 1)
        ]
    )
    told = f"{', '.join(_PARTS)}, one on top of the other; {words.size(round(sums[-1][-1]))} at the end."
    return plot.figure("Disk use over time", told, table(("time", *_PARTS), rows), unit="bytes")


def bar(value: float | None, whole: float | None) -> Markup:
    """Return a small bar. It is for the eye only: the number has to stand beside it.

    Args:
        value: How much.
        whole: How much the whole width stands for.
    """
    return _bar([_share(value, whole)])


def stack(parts: Sequence[float | None], whole: float | None) -> Markup:
    """Return a bar of several parts, of the classes `part-1`, `part-2`, …. For the eye only, as `bar`."""
    return _bar([_share(part, whole) for part in parts])


_PARTS = ("workdirs", "caches", "quarantine")


def _parts(sample: Sample) -> tuple[int, int, int]:
    return sample.trees_bytes, sample.caches_bytes, sample.quarantine_bytes


def _bytes(size_bytes: float) -> float:
    return max(float(size_bytes), 0.0) if math.isfinite(size_bytes) else 0.0


def _bar(shares: Sequence[float]) -> Markup:
    drawn, begin = [], 0.0
    for number, share in enumerate(shares, 1):
        width = min(share, 1 - begin)
        if width > 0:
            kind = f"part part-{number}"
            drawn.append(element("rect", x=percent(begin), y=0, width=percent(width), height="100%", class_=kind))
            begin += width
    ground = element("rect", x=0, y=0, width="100%", height="100%", class_="ground")
    return element("svg", ground, *drawn, class_="bar-chart", width="100%", height=8, aria_hidden="true")


def _share(value: float | None, whole: float | None) -> float:
    if value is None or whole is None or not (math.isfinite(value) and math.isfinite(whole)) or whole <= 0:
        return 0.0
    return min(max(value / whole, 0.0), 1.0)


def _forward(points: Sequence[Point]) -> list[tuple[float, float]]:
    """Return what is known, in order; where a clock went back, time stands still."""
    found: list[tuple[float, float]] = []
    for point in points:
        if is_time(point.at) and point.value is not None and math.isfinite(point.value):
            found.append((max(point.at, found[-1][0]) if found else point.at, max(point.value, 0.0)))
    return found


def _steps(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return places with a corner between each two: a value holds until the next."""
    found = [places[0]]
    for x, y in places[1:]:
        found += [(x, found[-1][1]), (x, y)]
    return found


def _thinned(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return places without those that no screen would tell from the one after them."""
    if len(places) <= MAX_POINTS:
        return list(places)
    last = {round(x * MAX_POINTS): (x, y) for x, y in places}
    return [places[0], *last.values()]


def _wide(places: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return places as they are, or one alone across the whole width."""
    return places if places[0][0] < places[-1][0] else [(0.0, places[-1][1]), (1.0, places[-1][1])]
