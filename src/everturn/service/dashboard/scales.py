"""Where things stand on a chart: times from left to right, values from bottom to top. Numbers only; nothing is drawn.

A time is seconds since the Unix epoch, a place a share of the chart's width or height, from 0 to 1.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

MAX_PIECES = 9
BREAK_SHARE = 0.035  # how wide a pause is that is shortened
LONG_PAUSE = 0.12  # of all the time in which something went on
TICKS = 6
TICK_ROOM = 0.13  # how far labels are apart
YEAR_S = 365 * 86_400.0
_STEPS_S = (
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0),
    *(hours * 3600.0 for hours in (1, 2, 3, 6, 12)),
    *(days * 86_400.0 for days in (1, 2, 7, 14, 30, 90)),
    YEAR_S,
)
_FARTHEST_S = 1e15  # from the epoch; what is said to be farther away is no time


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis, and what stands there."""

    place: float
    label: str


@dataclass(frozen=True, slots=True)
class Break:
    """A pause that is drawn shorter than it was.

    Attributes:
        begin: Where it begins.
        end: Where it ends.
        length_s: How long it was.
    """

    begin: float
    end: float
    length_s: float


@dataclass(frozen=True, slots=True)
class _Piece:
    """A time that is drawn at the same scale as the others."""

    begin_s: float
    end_s: float
    begin: float
    end: float

    def place(self, when: float) -> float:
        length_s = self.end_s - self.begin_s
        share = (min(max(when, self.begin_s), self.end_s) - self.begin_s) / length_s if length_s > 0 else 0.0
        return self.begin + share * (self.end - self.begin)


def is_time(when: float | None) -> bool:
    """Tell whether this is a time that can be drawn."""
    return when is not None and math.isfinite(when) and abs(when) <= _FARTHEST_S


class TimeScale:
    """Places times on a chart, in order.

    Args:
        spans: When something went on: from when to when. What are no times is passed over.
        shorten: Whether long pauses between them are shortened.
    """

    def __init__(self, spans: Iterable[tuple[float, float]], *, shorten: bool = True) -> None:
        known = sorted((a, max(a, b)) for a, b in spans if is_time(a) and is_time(b))
        joined = _joined(known, shorten=shorten)
        if len(joined) == 1 and joined[0][0] == joined[0][1]:  # a moment stands in the middle
            joined = [(joined[0][0] - 0.5, joined[0][1] + 0.5)]
        self._pieces = _placed(joined)
        self._begins_s = [piece.begin_s for piece in self._pieces]

    @property
    def is_empty(self) -> bool:
        """Whether there is no time at all."""
        return not self._pieces

    @property
    def breaks(self) -> list[Break]:
        """The pauses that are shortened."""
        return [Break(a.end, b.begin, b.begin_s - a.end_s) for a, b in pairwise(self._pieces)]

    def place(self, when: float) -> float:
        """Return where a time stands; one before or after all others at the edge."""
        if not self._pieces or not is_time(when):
            return 0.0
        number = bisect_right(self._begins_s, when) - 1
        if number < 0:
            return 0.0
        piece = self._pieces[number]
        if when <= piece.end_s or number + 1 == len(self._pieces):
            return piece.place(when)
        following = self._pieces[number + 1]
        share = (when - piece.end_s) / (following.begin_s - piece.end_s)
        return piece.end + share * (following.begin - piece.end)

    @property
    def ticks(self) -> list[Tick]:
        """The times that are written below: round ones, and one in each piece if there is room."""
        step_s = _time_step(sum(piece.end_s - piece.begin_s for piece in self._pieces))
        found: list[Tick] = []
        told = self.caption.removesuffix(" UTC")  # a day that stands there need not be said again
        for piece in self._pieces:
            whens = _multiples(piece, step_s) or [piece.begin_s]
            for when in whens:
                place = piece.place(when)
                if not found or place - found[-1].place >= TICK_ROOM:
                    label, told = _time_label(when, step_s, told), day(when)
                    found.append(Tick(place, label))
        return found

    @property
    def caption(self) -> str:
        """The day, or days, that the axis shows."""
        if not self._pieces:
            return ""
        first, last = day(self._pieces[0].begin_s), day(self._pieces[-1].end_s)
        return f"{first} UTC" if first == last else f"{first} to {last} UTC"


@dataclass(frozen=True, slots=True)
class ValueScale:
    """Places values on a chart, from 0 at the bottom.

    Attributes:
        top: What the whole height stands for.
        step: How far lines are apart.
    """

    top: float
    step: float

    @classmethod
    def of(cls, values: Iterable[float], least: float) -> ValueScale:
        """Return one that reaches from 0 to the largest of these values.

        Args:
            values: Those; what are no numbers is passed over.
            least: What it reaches to at least.
        """
        largest = max((value for value in values if math.isfinite(value)), default=0.0)
        largest = min(max(largest, least), 1e300)
        step = _round_step(largest / 4)
        return cls(math.ceil(largest / step - 1e-9) * step, step)

    def place(self, value: float) -> float:
        """Return how high a value stands."""
        return min(max(value / self.top, 0.0), 1.0) if math.isfinite(value) else 0.0

    def ticks(self, label: Callable[[float, float], str]) -> list[Tick]:
        """Return the values that are written beside it.

        Args:
            label: Puts a value into words; it is given the step, too.
        """
        count = round(self.top / self.step)
        return [Tick(number / count, label(number * self.step, self.step)) for number in range(count + 1)]


def day(when: float) -> str:
    """Return the day of a time, in UTC; what no calendar has as a number of seconds."""
    found = _utc(when)
    return f"{when:.0f} s" if found is None else f"{found:%Y-%m-%d}"


def clock(when: float) -> str:
    """Return the time of day of a time, in UTC."""
    found = _utc(when)
    return "" if found is None else f"{found:%H:%M:%S}"


def dollars(value: float, step: float) -> str:
    """Return US dollars with as many digits as tell them apart from others a step away."""
    if value >= 1e6:
        return f"${value:.3g}"
    digits = 0 if step >= 1 else min(6, math.ceil(-math.log10(step) - 1e-9))
    return f"${value:,.{digits and max(2, digits)}f}"


def _joined(spans: list[tuple[float, float]], *, shorten: bool) -> list[tuple[float, float]]:
    """Return spans, those joined that overlap or have no long pause between them."""
    found: list[tuple[float, float]] = []
    for begin, end in spans:
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    busy_s = sum(end - begin for begin, end in found)
    pauses = sorted((after[0] - before[1] for before, after in pairwise(found)), reverse=True)
    limit_s = max(busy_s * LONG_PAUSE, *pauses[MAX_PIECES - 1 : MAX_PIECES], 1e-3) if shorten and busy_s else math.inf
    joined: list[tuple[float, float]] = []
    for begin, end in found:
        if joined and begin - joined[-1][1] <= limit_s:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    return joined


def _placed(spans: list[tuple[float, float]]) -> list[_Piece]:
    drawn_s = sum(end - begin for begin, end in spans)
    room = 1 - BREAK_SHARE * (len(spans) - 1)
    found: list[_Piece] = []
    place = 0.0
    for begin_s, end_s in spans:
        share = (end_s - begin_s) / drawn_s if drawn_s > 0 else 1 / len(spans)
        end = min(1.0, place + share * room)
        found.append(_Piece(begin_s, end_s, place, end))
        place = min(1.0, end + BREAK_SHARE)
    return found


def _time_step(length_s: float) -> float:
    wanted_s = length_s / TICKS
    found = next((step for step in _STEPS_S if step >= wanted_s), None)
    return found or YEAR_S * 10 ** math.ceil(math.log10(wanted_s / YEAR_S))


def _multiples(piece: _Piece, step_s: float) -> list[float]:
    first = math.ceil(piece.begin_s / step_s - 1e-9)
    last = math.floor(piece.end_s / step_s + 1e-9)
    return [number * step_s for number in range(first, min(last, first + 4 * TICKS) + 1)]


def _time_label(when: float, step_s: float, told: str) -> str:
    """Return what to write at a time; with its day, if that is not the one that was told last."""
    found = _utc(when)
    if found is None:
        return f"{when:.0f} s"
    if step_s >= 86_400:
        return f"{found:%Y-%m-%d}"
    date = "" if f"{found:%Y-%m-%d}" == told else f"{found:%m-%d} "
    if step_s >= 60:
        return f"{date}{found:%H:%M}"
    return f"{date}{found:%H:%M:%S}" + (f".{found.microsecond // 100_000}" if step_s < 1 else "")


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2, 2.5, 5 and 10 times a power of ten that is not less."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= least * (1 - 1e-9))


def _utc(when: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(when, UTC)
    except (OverflowError, ValueError, OSError):
        return None
