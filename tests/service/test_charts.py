"""Charts: whatever the numbers are, what is drawn is well formed, in its place, and told in words as well."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from everturn.service.dashboard.charts import Bound, Point, bar, cost, disk_trend, stack
from everturn.service.dashboard.scales import TimeScale, ValueScale, dollars
from everturn.service.dashboard.svg import element
from everturn.service.dashboard.timeline import MAX_LANES, SIGNS, Block, Lane, Sign, timeline
from everturn.service.views.values import Sample

NOON = 1_763_640_000.0  # 2025-11-20 12:00:00 UTC
HOUR_S = 3600.0
HOSTILE = "</title><script>alert(1)</script>\"' onload=x \x1b[31m\x00\ud800"


def parse(chart: Markup) -> ElementTree.Element:
    """Return a chart as a tree, after a look at every number and name in it."""
    tree = ElementTree.fromstring(f"<div>{chart}</div>")
    ids: list[str] = []
    for each in tree.iter():
        assert "style" not in each.attrib
        assert not [name for name in each.attrib if name.startswith("on")]
        ids += [each.attrib["id"]] if "id" in each.attrib else []
        for name, value in each.attrib.items():
            if name in ("x", "y", "x1", "x2", "y1", "y2", "width", "height"):
                number = float(value.removesuffix("%"))
                assert math.isfinite(number)
                assert not value.endswith("%") or 0 <= number <= 100
                assert name not in ("width", "height") or number >= 0
        if each.get("preserveAspectRatio"):
            places = [float(n) for path in each for n in re.findall(r"-?[\d.]+", path.attrib["d"])]
            assert all(0 <= place <= 1000 for place in places)
    assert len(ids) == len(set(ids))
    named = [ref for each in tree.iter() for ref in each.get("aria-labelledby", "").split()]
    assert set(named) <= set(ids)
    drawn = [each.get(name, "") for each in tree.iter() for name in ("d", "transform", "viewBox")]
    assert not re.search("nan|inf", " ".join(drawn), re.IGNORECASE)
    return tree


def of_class(tree: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [each for each in tree.iter() if name in each.get("class", "").split()]


def texts(tree: ElementTree.Element, name: str) -> list[str]:
    return ["".join(each.itertext()) for each in of_class(tree, name)]


def rows(tree: ElementTree.Element) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in row] for row in tree.iter("tr")][1:]


numbers = st.one_of(
    st.floats(),
    st.sampled_from([0.0, -0.0, 5e-324, 1e300, 1.7e308, 253_402_300_799.0, 253_402_300_801.0, NOON]),
    st.floats(NOON, NOON + 90_000),
)
ends = st.none() | numbers
names = st.text(max_size=20) | st.just(HOSTILE)
blocks = st.builds(Block, numbers, ends, names, names, st.booleans())
signs = st.builds(Sign, numbers, st.sampled_from(sorted(SIGNS)), names)
lanes = st.builds(
    Lane,
    names,
    names,
    ends,
    ends,
    st.lists(blocks, max_size=6).map(tuple),
    st.lists(numbers, max_size=6).map(tuple),
    st.lists(signs, max_size=6).map(tuple),
    st.integers(0, 9),
)
sizes = st.integers(-(2**63), 2**63)


# --- Whatever the numbers are -----------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=40)
@given(st.lists(lanes, max_size=MAX_LANES + 3), numbers)
def test_a_timeline_is_well_formed_whatever_happened_and_whatever_clocks_said(found: list[Lane], now: float) -> None:
    parse(timeline(found, now=now))


@pytest.mark.slow
@given(st.lists(st.builds(Point, numbers, ends), max_size=12), st.lists(st.builds(Bound, numbers, names), max_size=4))
def test_cost_over_time_is_well_formed_whatever_was_spent(points: list[Point], bounds: list[Bound]) -> None:
    parse(cost(points, bounds=bounds))


@pytest.mark.slow
@given(st.lists(st.builds(Sample, numbers, sizes, sizes, sizes, sizes), max_size=12))
def test_a_trend_is_well_formed_whatever_was_measured(samples: list[Sample]) -> None:
    parse(disk_trend(samples))


@given(st.lists(ends, max_size=5), ends)
def test_bars_stay_within_their_width(parts: list[float | None], whole: float | None) -> None:
    drawn = of_class(parse(stack(parts, whole)), "part")
    assert sum(float(each.attrib["width"].removesuffix("%")) for each in drawn) <= 100.1
    assert len(of_class(parse(bar(parts[0] if parts else None, whole)), "part")) <= 1


@given(st.lists(st.tuples(numbers, numbers), max_size=30), numbers, numbers)
def test_times_keep_their_order_on_every_scale(spans: list[tuple[float, float]], one: float, two: float) -> None:
    scale = TimeScale(spans)
    places = [scale.place(when) for when in sorted(when for when in (one, two) if math.isfinite(when))]
    known = [place for place, when in zip(places, sorted((one, two)), strict=False) if abs(when) < 1e15]
    assert all(0 <= place <= 1 for place in places)
    assert all(a <= b + 1e-9 for a, b in pairwise(known))
    ticks = [tick.place for tick in scale.ticks]
    assert all(b - a > 0.1 for a, b in pairwise(ticks))
    assert len(ticks) < 12
    assert all(0 <= each.begin <= each.end <= 1 and each.length_s > 0 for each in scale.breaks)


@given(st.lists(numbers, max_size=9), st.sampled_from([0.01, 1.0, 1000.0]))
def test_a_scale_of_values_begins_at_zero_and_has_few_round_steps(values: list[float], least: float) -> None:
    scale = ValueScale.of(values, least)
    assert scale.top >= min(max([least, *(each for each in values if math.isfinite(each))]), 1e300) * 0.999
    ticks = scale.ticks(dollars)
    assert 2 <= len(ticks) <= 6
    assert ticks[0].place == 0
    assert ticks[-1].place == 1
    assert len({tick.label for tick in ticks}) == len(ticks)


def test_nothing_is_drawn_of_nothing() -> None:
    assert timeline([], now=NOON) == cost([]) == disk_trend([]) == Markup()
    assert cost([Point(NOON, None), Point(math.nan, 1.0)]) == Markup()


def test_what_is_put_into_elements_is_escaped_and_has_no_control_characters() -> None:
    made = element("text", HOSTILE, class_=HOSTILE)
    assert "<script" not in made
    assert "\"'" not in made
    assert not re.search("[\x00\x1b\ud800]", made)
    assert ElementTree.fromstring(made).text == HOSTILE.replace("\x1b[31m\x00", "").replace("\ud800", "\ufffd")


# --- What a timeline shows --------------------------------------------------------------------------------------


def two_runs() -> Iterator[Lane]:
    turn = Block(NOON, NOON + 55, "Mend the tap.", "/sessions/s?at=a-1#a-1", failed=True)
    died = Sign(NOON + 60, "died", "killed")
    yield Lane("Run 1 · w1", "killed", NOON, NOON + 60, (turn,), (NOON + 5, NOON + 30), (died,), 2)
    begin = NOON + 3 * HOUR_S
    later = (Sign(begin, "took_over", "took over"), Sign(begin + 40, "ended", "completed"))
    yield Lane("Run 2 · w2", "took over", begin, begin + 40, (Block(begin, begin + 40, "Go on."),), (), later, 1)


def test_a_timeline_has_a_lane_a_run_with_turns_that_lead_to_where_they_stand() -> None:
    tree = parse(timeline(list(two_runs()), now=NOON + 4 * HOUR_S))
    assert texts(tree, "name") == ["Run 1 · w1", "Run 2 · w2"]
    assert [each.get("href") for each in tree.iter("a")] == ["/sessions/s?at=a-1#a-1"]
    assert len(of_class(tree, "call-tick")) == 2
    assert [each.get("class") for each in of_class(tree, "turn")] == ["turn failed", "turn"]


def test_kills_and_takeovers_are_marked_at_their_place_and_explained() -> None:
    tree = parse(timeline(list(two_runs()), now=NOON + 4 * HOUR_S))
    assert texts(tree, "key") == [" died took over ended"]
    (died,) = [each for each in of_class(tree, "died") if each.get("x")]
    (taken,) = [each for each in of_class(tree, "took_over") if each.get("x")]
    assert "".join(died.itertext()) == "killed"
    assert float(died.attrib["x"][:-1]) < float(taken.attrib["x"][:-1])


def test_a_long_pause_between_runs_is_drawn_short_and_says_how_long_it_was() -> None:
    tree = parse(timeline(list(two_runs()), now=NOON + 4 * HOUR_S))
    assert texts(tree, "pause") == ["2 h 59 min in which nothing happened, drawn shorter"]
    first, second = (float(each.attrib["width"][:-1]) for each in of_class(tree, "turn"))
    assert first == pytest.approx(55 / 40 * second, rel=0.02)


def test_a_short_pause_keeps_its_length() -> None:
    runs = [Lane("a", "", NOON, NOON + 60), Lane("b", "", NOON + 62, NOON + 100)]
    assert of_class(parse(timeline(runs, now=NOON + 200)), "pause") == []


def test_signs_that_would_lie_on_each_other_stand_side_by_side_in_order() -> None:
    late = tuple(Sign(NOON + 59, kind, kind) for kind in ("shutdown", "ended"))
    tree = parse(timeline([Lane("a", "", NOON, NOON + 60, (), (), late)], now=NOON + 60))
    moved = [each.attrib["transform"] for each in tree.iter("g")]
    assert [float(each[len("translate(") :].split()[0]) for each in moved] == pytest.approx([-21.8, -6.8], abs=0.1)


def test_a_new_day_is_written_on_the_axis() -> None:
    tree = parse(timeline([Lane("a", "", NOON, NOON + 20 * HOUR_S)], now=NOON))
    assert texts(tree, "time") == ["11-20 12:00", "18:00", "11-21 00:00", "06:00"]
    one = parse(timeline([Lane("a", "", NOON, NOON + 3 * HOUR_S)], now=NOON))
    assert texts(one, "time")[0] == "12:00"


def test_what_goes_on_reaches_to_now() -> None:
    lane = Lane("a", "", NOON, None, (Block(NOON + 30, None, "Mend the tap."),))
    tree = parse(timeline([lane], now=NOON + 60))
    (turn,) = of_class(tree, "turn")
    assert (turn.get("x"), turn.get("width")) == ("50%", "50%")
    assert rows(tree)[0][2] == "goes on"


def test_a_timeline_is_a_table_too() -> None:
    tree = parse(timeline(list(two_runs()), now=NOON + 4 * HOUR_S))
    assert rows(tree) == [
        ["Run 1 · w1", "2025-11-20 12:00:00 UTC", "2025-11-20 12:01:00 UTC", "1", "2", "killed"],
        ["Run 2 · w2", "2025-11-20 15:00:00 UTC", "2025-11-20 15:00:40 UTC", "1", "1", "took over"],
    ]
    described = next(each for each in tree.iter("desc"))
    assert described.text == "Run 1 · w1: killed. Run 2 · w2: took over"


def test_of_many_runs_the_last_are_drawn_and_all_are_in_the_table() -> None:
    found = [Lane(f"Run {number}", "", NOON + number * 60, NOON + number * 60 + 50) for number in range(40)]
    tree = parse(timeline(found, now=NOON + 9000))
    assert texts(tree, "name") == [f"Run {number}" for number in range(28, 40)]
    assert len(rows(tree)) == 40
    assert "the last 12 of 40 runs" in "".join(tree.itertext())


@pytest.mark.slow
def test_ten_thousand_turns_are_drawn_as_no_more_blocks_than_a_screen_can_show() -> None:
    turns = tuple(Block(NOON + number, NOON + number + 0.5, f"turn {number}") for number in range(10_000))
    tree = parse(timeline([Lane("a", "", NOON, NOON + 10_000, turns, calls=5)], now=NOON + 10_000))
    assert len(of_class(tree, "turn")) <= 1001
    assert rows(tree)[0][3] == "10000"


# --- What the others show ---------------------------------------------------------------------------------------


def test_cost_goes_up_in_steps_and_stays_up() -> None:
    points = [Point(NOON, 0.10), Point(NOON + 50, 0.25), Point(NOON + 100, 0.40)]
    tree = parse(cost(points, bounds=[Bound(NOON, "run 1"), Bound(NOON + 60, "run 2")]))
    assert texts(tree, "value") == ["$0.00", "$0.10", "$0.20", "$0.30", "$0.40"]
    assert texts(tree, "bound-name") == ["run 1", "run 2"]
    (line,) = of_class(tree, "line")
    heights = [float(each.split()[1]) for each in line.attrib["d"][1:].split("L")]
    assert heights == sorted(heights, reverse=True)
    assert heights[-1] == 0
    assert rows(tree)[-1] == ["2025-11-20 12:01:40 UTC", "$0.40"]


def test_a_clock_that_went_back_does_not_draw_a_line_back() -> None:
    tree = parse(cost([Point(NOON + 60, 0.1), Point(NOON, 0.2), Point(NOON + 90, 0.3)]))
    (line,) = of_class(tree, "line")
    places = [float(each.split()[0]) for each in line.attrib["d"][1:].split("L")]
    assert places == sorted(places)


def test_a_trend_stacks_what_takes_room_and_says_how_much_that_is() -> None:
    samples = [Sample(NOON + hour * HOUR_S, 2_000_000 * hour, 1_000_000, 0, 9) for hour in range(1, 4)]
    tree = parse(disk_trend(samples))
    assert texts(tree, "key") == [" workdirs 6.0 MB caches 1.0 MB quarantine 0 B"]
    assert [each.get("class") for each in of_class(tree, "area")] == ["area part-1", "area part-2", "area part-3"]
    assert len(rows(tree)) == 3
    assert "7.0 MB at the end" in next(each.text or "" for each in tree.iter("desc"))


def test_one_sample_is_a_level() -> None:
    tree = parse(disk_trend([Sample(NOON, 5_000_000, 1_000_000, 0, 9)]))
    line = of_class(tree, "line")[0].attrib["d"]
    assert line.startswith("M0 ")
    assert "L1000 " in line
