"""The frame of a chart over time: its axes, what stands on it, and its words."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from everturn.conversations.wording import duration
from everturn.service.dashboard.scales import Tick, TimeScale
from everturn.service.dashboard.svg import element, number, percent

TOP = 8  # room for what sticks out above
NAMES = 36  # and for the names of bounds
AXIS = 20  # and below
EDGE = 0.09  # so near to an edge, words begin or end at their place instead of standing around it
WIDE = 1000  # the width of what is stretched to that of the chart

Places = Sequence[tuple[float, float]]


class Plot:
    """A chart over time, as it is put together.

    Args:
        name: What its ids begin with.
        height: How high what is drawn is, in CSS pixels.
        scale: Its times.
        top: How much room there is above, in CSS pixels.
    """

    def __init__(self, name: str, height: int, scale: TimeScale, *, top: int = TOP) -> None:
        self._name = name
        self._height = height
        self._scale = scale
        self._top = top
        self._below: list[Markup] = []
        self._shapes: list[Markup] = []
        self._above: list[Markup] = []
        self._keys: list[Markup] = []

    def levels(self, ticks: Sequence[Tick]) -> None:
        """Draw lines at these heights, each with its value on it."""
        for tick in ticks:
            y = self._y(tick.place)
            self._below.append(element("line", x1=0, x2="100%", y1=y, y2=y, class_="level"))
            self._above.append(element("text", tick.label, x=0, y=y - 4, class_="value"))

    def shapes(self, *paths: Markup) -> None:
        """Draw these; their places were told as shares of the chart."""
        self._shapes += paths

    def bounds(self, found: Sequence[tuple[float, str]]) -> None:
        """Draw a line from top to bottom at each place, with what begins there if there is room."""
        free_from = 0.0
        for place, title in found:
            x = percent(place)
            told = element("title", title)
            self._above.append(element("line", told, x1=x, x2=x, y1=2, y2=self._top + self._height, class_="bound"))
            if place >= free_from and place < 1 - EDGE:
                self._above.append(element("text", title, x=x, y=11, dx=4, class_="bound-name"))
                free_from = place + 0.2

    def draw(self, *elements: Markup) -> None:
        """Draw what knows its place itself."""
        self._above += elements

    def key(self, entries: Sequence[tuple[str, str]]) -> None:
        """Say what classes of shapes stand for."""
        for kind, title in entries:
            swatch = element("svg", element("rect", width=10, height=10, class_=kind), **_icon("0 0 10 10"))
            self.signs([(swatch, title)])

    def signs(self, entries: Sequence[tuple[Markup, str]]) -> None:
        """Say what signs stand for."""
        self._keys += [element("li", sign, " ", title) for sign, title in entries]

    def figure(self, title: str, told: str, rows: Markup, *, unit: str = "") -> Markup:
        """Return the chart with all that belongs to it.

        Args:
            title: What it is.
            told: What it shows, for those who do not see it.
            rows: The same as a table.
            unit: What its values are.
        """
        ids = f"{self._name}-title", f"{self._name}-told"
        stretched = element(
            "svg",
            *self._shapes,
            x=0,
            y=self._top,
            width="100%",
            height=self._height,
            viewBox=f"0 0 {WIDE} {WIDE}",
            preserveAspectRatio="none",
        )
        picture = element(
            "svg",
            element("title", title, id=ids[0]),
            element("desc", told, id=ids[1]),
            *self._below,
            stretched,
            *self._breaks(),
            *self._above,
            *self._axis(),
            class_="plot",
            width="100%",
            height=self._top + self._height + AXIS,
            role="group",
            aria_labelledby=" ".join(ids),
        )
        caption = " · ".join(word for word in (unit, self._scale.caption) if word)
        heading = element("figcaption", element("b", title), " ", element("small", caption))
        keys = element("ul", *self._keys, class_="key") if self._keys else ""
        folded = element("details", element("summary", "as a table"), rows, id=f"{self._name}-rows")
        return element("figure", heading, picture, keys, folded, class_="chart", id=self._name)

    def _axis(self) -> list[Markup]:
        base = self._top + self._height
        found = [element("line", x1=0, x2="100%", y1=base, y2=base, class_="axis")]
        for count, tick in enumerate(self._scale.ticks):
            x = percent(tick.place)
            kind = "time minor" if count % 2 else "time"
            found.append(element("line", x1=x, x2=x, y1=base, y2=base + 4, class_="axis"))
            found.append(element("text", tick.label, x=x, y=base + 16, class_=kind, text_anchor=anchor(tick.place)))
        return found

    def _breaks(self) -> list[Markup]:
        found = []
        base = self._top + self._height
        for each in self._scale.breaks:
            middle = (each.begin + each.end) / 2
            told = element("title", f"{duration(each.length_s)} in which nothing happened, drawn shorter")
            x, width = percent(each.begin), percent(each.end - each.begin)
            found.append(element("rect", told, x=x, y=self._top, width=width, height=self._height, class_="pause"))
            sign = element("path", d="M-5 5L-1-5M1 5L5-5", class_="break")
            found.append(element("svg", sign, x=percent(middle), y=base, overflow="visible"))
        return found

    def _y(self, place: float) -> float:
        return self._top + (1 - place) * self._height


def anchor(place: float) -> str:
    """Return which part of some words stands at a place, so that they do not stick out."""
    return "start" if place < EDGE else "end" if place > 1 - EDGE else "middle"


def line(places: Places, kind: str) -> Markup:
    """Return a line through places."""
    return element("path", d=f"M{_through(places)}", class_=f"line {kind}", vector_effect="non-scaling-stroke")


def area(above: Places, below: Places, kind: str) -> Markup:
    """Return what lies between a line and another one, whose places are told from right to left."""
    return element("path", d=f"M{_through([*above, *below])}Z", class_=f"area {kind}")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """Return a table; the first column names the rows."""
    head = element("tr", *(element("th", each, scope="col") for each in heads))
    body = [
        element("tr", element("th", row[0], scope="row"), *(element("td", each) for each in row[1:])) for row in rows
    ]
    told = element("table", element("thead", head), element("tbody", *body))
    return element("div", told, class_="scrolls", tabindex=0, role="group", aria_label="table")


def _icon(box: str) -> dict[str, str | float]:
    return {"viewBox": box, "width": 12, "height": 12, "aria_hidden": "true"}


def _through(places: Places) -> str:
    return "L".join(f"{number(x * WIDE)} {number((1 - y) * WIDE)}" for x, y in places)
