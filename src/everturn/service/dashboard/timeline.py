"""What happened in which run, over time: a lane for each run, its turns and tool calls, and what befell it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from everturn.conversations.wording import cut
from everturn.service.dashboard import words
from everturn.service.dashboard.plots import TOP, Plot, table
from everturn.service.dashboard.scales import TimeScale, is_time
from everturn.service.dashboard.svg import element, percent

MAX_LANES = 12
MAX_ROWS = 200
NOTE_LENGTH = 110
FINE = 1000  # so many places are told apart from left to right
SLOTS = 50  # and so many for signs
_LANE = 46
_TRACK = 26  # how far the middle of what is drawn is below the top of its lane
_SIGN_WIDTH = 15
# How each kind of sign is drawn, around its place, and what it says.
SIGNS: dict[str, tuple[str, str]] = {
    "resumed": ("M-4-5L5 0L-4 5Z", "resumed"),
    "took_over": ("M-6-5L-1 0L-6 5M0-5L5 0L0 5", "took over"),
    "began_anew": ("M0-5A5 5 0 1 1-4.3-2.5M-5-6L-4.3-2.5L-1-3.5", "began anew"),
    "compacted": ("M-5-4H5M-3 0H3M-1 4H1", "summed up"),
    "shutdown": ("M-4-4H4V4H-4Z", "asked to end"),
    "ended": ("M-5 0L-1.5 4L5-4", "ended"),
    "failed": ("M0-6L6 5H-6ZM0-2V2", "failed"),
    "died": ("M-5-5L5 5M5-5L-5 5", "died"),
}


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
class Sign:
    """Something that happened at a time.

    Attributes:
        at: When, in seconds since the Unix epoch.
        kind: What: one of `SIGNS`.
        title: The same for people.
    """

    at: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class Lane:
    """A run on the timeline.

    Attributes:
        name: What it is called: the run and its worker.
        note: How it began and ended, for people.
        begin: When it began, in seconds since the Unix epoch; `None`: nobody knows.
        end: When it ended, or said something last; `None`: it goes on.
        blocks: Its turns.
        ticks: When tools were called.
        signs: What befell it.
        calls: How many tools were called.
    """

    name: str
    note: str
    begin: float | None
    end: float | None
    blocks: tuple[Block, ...] = ()
    ticks: tuple[float, ...] = ()
    signs: tuple[Sign, ...] = ()
    calls: int = 0


def timeline(lanes: Sequence[Lane], *, now: float, name: str = "timeline") -> Markup:
    """Return a figure of what happened in which run, over time. Long pauses between runs are shortened and marked.

    Args:
        lanes: The runs, in order. The last ones are drawn, all are told in the table.
        now: The time, in seconds since the Unix epoch: how far what goes on has come.
        name: What the ids of its elements begin with; another one for each chart of a page.
    """
    known = [each for each in (_settled(lane) for lane in lanes) if each is not None]
    drawn = known[-MAX_LANES:]
    scale = TimeScale(spans(drawn, now=now))
    if scale.is_empty:
        return Markup()
    plot = Plot(name, _LANE * len(drawn), scale)
    for number, lane in enumerate(drawn):
        plot.draw(*_lane(lane, TOP + _LANE * number, scale, now))
    kinds = dict.fromkeys(sign.kind for lane in drawn for sign in lane.signs)
    plot.signs([(picture(kind), SIGNS[kind][1]) for kind in kinds])
    told = ". ".join(f"{lane.name}: {_happened(lane)}" for lane in drawn)
    left_out = f"the last {len(drawn)} of {len(known)} runs" if len(drawn) < len(known) else ""
    heads = ("run", "began", "ended", "turns", "tool calls", "what happened")
    return plot.figure("Timeline", told, table(heads, [_row(lane) for lane in known[-MAX_ROWS:]]), unit=left_out)


def spans(lanes: Iterable[Lane], *, now: float) -> Iterator[tuple[float, float]]:
    """Return when something went on in lanes, for a scale of times.

    Args:
        lanes: The runs.
        now: See `timeline`.
    """
    for lane in lanes:
        if lane.begin is not None:
            yield lane.begin, now if lane.end is None else lane.end
        for block in lane.blocks:
            yield block.begin, now if block.end is None else block.end
        yield from ((sign.at, sign.at) for sign in lane.signs)


def _settled(lane: Lane) -> Lane | None:
    """Return a lane with times that can be drawn, or `None` if it has none."""
    blocks = tuple(each for each in lane.blocks if is_time(each.begin) and (each.end is None or is_time(each.end)))
    signs = tuple(each for each in lane.signs if is_time(each.at))
    times = [each.begin for each in blocks] + [each.at for each in signs]
    begin = lane.begin if is_time(lane.begin) else min(times, default=None)
    if begin is None:
        return None
    end = lane.end if lane.end is None or is_time(lane.end) else max([*times, begin])
    return replace(lane, begin=begin, end=end, blocks=blocks, signs=signs)


def _lane(lane: Lane, y: float, scale: TimeScale, now: float) -> Iterator[Markup]:
    note = element("tspan", f"  {cut(lane.note, NOTE_LENGTH)}", class_="note") if lane.note else ""
    yield element("text", element("tspan", lane.name, class_="name"), note, x=0, y=y + 12, class_="lane")
    begin, end = scale.place(lane.begin or 0.0), scale.place(now if lane.end is None else lane.end)
    kind = "track live" if lane.end is None else "track"
    yield _box(begin, end, y + _TRACK - 1.5, 3, kind)
    for block, x1, x2 in _told_apart(lane.blocks, scale, now):
        shape = _box(x1, x2, y + _TRACK - 7, 14, "turn failed" if block.failed else "turn", block.title)
        yield element("a", shape, href=block.href, tabindex=-1) if block.href else shape
    for place in sorted({round(scale.place(at) * FINE) for at in lane.ticks if is_time(at)}):
        x = percent(place / FINE)
        yield element("line", x1=x, x2=x, y1=y + _TRACK + 8, y2=y + _TRACK + 13, class_="call-tick")
    yield from _signs(lane.signs, y + _TRACK, scale)


def _told_apart(blocks: Iterable[Block], scale: TimeScale, now: float) -> Iterator[tuple[Block, float, float]]:
    """Return blocks and their places; those as one that no screen would tell apart."""
    found: dict[tuple[int, int], Block] = {}
    for block in blocks:
        end = now if block.end is None else block.end
        places = math.floor(scale.place(block.begin) * FINE), math.ceil(scale.place(max(end, block.begin)) * FINE)
        found[places] = _with(found.get(places), block)
    for (x1, x2), block in found.items():
        yield block, x1 / FINE, x2 / FINE


def _with(first: Block | None, last: Block) -> Block:
    if first is None:
        return last
    title = f"{first.title.partition(' … ')[0]} … {last.title}"
    return replace(last, title=title, failed=first.failed or last.failed)


def _signs(signs: Sequence[Sign], y: float, scale: TimeScale) -> Iterator[Markup]:
    """Return signs at their places, side by side where they would lie on each other, and never over the edge."""
    slots: dict[int, list[Sign]] = {}
    for sign in signs:
        slots.setdefault(round(scale.place(sign.at) * SLOTS), []).append(sign)
    for found in slots.values():
        for number, sign in enumerate(found):
            place = scale.place(sign.at)
            beside = number if place <= 0.5 else number - len(found) + 1
            shift = 7 - 14 * place + beside * _SIGN_WIDTH
            shape = element(
                "g", _shape(sign.kind), element("title", sign.title), transform=f"translate({shift:.1f} 0)"
            )
            yield element("svg", shape, x=percent(place), y=y, overflow="visible", class_=f"sign {sign.kind}")


def _shape(kind: str) -> Markup:
    path = SIGNS[kind][0]
    halo = element("path", d=path, class_="halo")
    return Markup("{}{}").format(halo, element("path", d=path))


def picture(kind: str) -> Markup:
    """Return a sign of its own, as large as a letter. For the eye only."""
    box = "-8 -8 16 16"
    return element("svg", _shape(kind), class_=f"sign {kind}", width=14, height=14, viewBox=box, aria_hidden="true")


def _box(begin: float, end: float, y: float, height: float, kind: str, title: str = "") -> Markup:
    width = percent(max(end - begin, 0.0))
    inside = [element("title", title)] if title else []
    return element("rect", *inside, x=percent(begin), y=y, width=width, height=height, rx=2, class_=kind)


def _happened(lane: Lane) -> str:
    return lane.note or "nothing more is known"


def _row(lane: Lane) -> tuple[str, ...]:
    begin = words.exact_time(lane.begin or 0.0)
    end = "goes on" if lane.end is None else words.exact_time(lane.end)
    return lane.name, begin, end, str(len(lane.blocks)), str(lane.calls), _happened(lane)
