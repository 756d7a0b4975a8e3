"""Charts, drawn here: figures of SVG and HTML without a script and without a style of their own.

Their colours come from classes in the style sheet. They fill the width they are given: geometry stands in percent,
so that words keep their size on a phone. What is drawn stands below in a table, too. Whatever the numbers are (none,
one, all equal, infinite, from a clock that went back), something sensible is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from everturn.service.dashboard.svg import element, join, percent
from everturn.service.views.values import Sample

MarkKind = Literal["took_over", "resumed", "began_anew", "shutdown", "killed", "failed", "unknown"]


@dataclass(frozen=True, slots=True)
class Block:
    """Something that took a time: a turn.

    Attributes:
        begin: When it began, in seconds since the Unix epoch.
        end: When it ended; `None`: it goes on.
        title: What it is.
        href: Where it stands.
        failed: Whether it failed, or was cut off.
    """

    begin: float
    end: float | None
    title: str
    href: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at a time.

    Attributes:
        at: When, in seconds since the Unix epoch.
        kind: What.
        title: The same for people.
    """

    at: float
    kind: MarkKind
    title: str


@dataclass(frozen=True, slots=True)
class Lane:
    """A run on the timeline.

    Attributes:
        name: What it is called: the run and its worker.
        note: How it began and ended, for people.
        begin: When it began, in seconds since the Unix epoch.
        end: When it ended, or said something last; `None`: it goes on.
        blocks: Its turns.
        ticks: When tools were called.
        marks: What happened to it.
        href: Where it stands.
    """

    name: str
    note: str
    begin: float
    end: float | None
    blocks: tuple[Block, ...] = ()
    ticks: tuple[float, ...] = ()
    marks: tuple[Mark, ...] = ()
    href: str = ""


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


def timeline(lanes: Sequence[Lane], *, now: float | None = None, name: str = "timeline") -> Markup:
    """Return a figure of what happened in which run, over time. Pauses between them are shortened and marked.

    Args:
        lanes: The runs, in order.
        now: The time, in seconds since the Unix epoch: how far what goes on has come.
        name: What the ids of its elements begin with; another one for each chart of a page.
    """
    return element("figure", join(lane.name for lane in lanes), class_="chart", id=name)


def cost(points: Sequence[Point], *, bounds: Sequence[Bound] = (), name: str = "cost") -> Markup:
    """Return a figure of what something has cost so far, over time, in steps.

    Args:
        points: The cost so far in US dollars, each from this time on.
        bounds: Where runs begin.
        name: See `timeline`.
    """
    return element("figure", class_="chart", id=name)


def disk_trend(samples: Sequence[Sample], *, name: str = "disk-trend") -> Markup:
    """Return a figure of how much room workdirs, caches and quarantine took over time, one on top of the other.

    Args:
        samples: What was measured, the oldest first.
        name: See `timeline`.
    """
    return element("figure", class_="chart", id=name)


def bar(value: float | None, whole: float | None) -> Markup:
    """Return a small bar. It is for the eye only: the number has to stand beside it.

    Args:
        value: How much.
        whole: How much the whole width stands for.
    """
    return _bar([(_share(value, whole), "part part-1")])


def stack(parts: Sequence[float | None], whole: float | None) -> Markup:
    """Return a bar of several parts, of the classes `part-1`, `part-2`, …. For the eye only, as `bar`."""
    shares = [_share(part, whole) for part in parts]
    return _bar([(share, f"part part-{number}") for number, share in enumerate(shares, 1)])


def _bar(parts: Sequence[tuple[float, str]]) -> Markup:
    drawn, begin = [], 0.0
    for share, kind in parts:
        if share > 0:
            width = min(share, 1 - begin)
            drawn.append(element("rect", x=percent(begin), y=0, width=percent(width), height="100%", class_=kind))
            begin += width
    ground = element("rect", x=0, y=0, width="100%", height="100%", class_="ground")
    return element("svg", ground, *drawn, class_="bar", width="100%", height=8, aria_hidden="true")


def _share(value: float | None, whole: float | None) -> float:
    if value is None or whole is None or not (math.isfinite(value) and math.isfinite(whole)) or whole <= 0:
        return 0.0
    return min(max(value / whole, 0.0), 1.0)
