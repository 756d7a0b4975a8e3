"""Events to lines and back: whatever an event holds, its line is one, and says the same."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from typing import Any

import jsonschema
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everturn.errors import Corrupt
from everturn.journal.events import TYPES, Event, Other, Prompt, System, TextDelta, ToolUse
from everturn.journal.lines import is_exact, line_of, parse, recorded
from everturn.journal.schema import schema
from everturn.journal.values import kinds_of, plain

CHECK = jsonschema.Draft202012Validator(schema())

texts = st.text(st.characters(codec="utf-8"), max_size=20) | st.text(
    st.characters(categories=["Cs", "Lu", "Cc"]), max_size=5
).map(plain)
numbers = st.floats(allow_nan=False) | st.integers() | st.integers(min_value=2**62, max_value=2**70)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)
OF_KIND: dict[type, st.SearchStrategy[Any]] = {
    str: texts,
    int: st.integers(),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    list: st.lists(values, max_size=3),
    dict: st.dictionaries(texts, values, max_size=3),
    type(None): st.none(),
}


def events_of(known: type[Event]) -> st.SearchStrategy[Event]:
    fields = {
        name: st.one_of([OF_KIND[kind] for kind in kinds]) if kinds else values
        for name, kinds in kinds_of(known).items()
    }
    return st.builds(known, **fields)


events = st.one_of([events_of(known) for known in TYPES.values()])
moments = st.integers(min_value=0, max_value=2**62)


def deep(levels: int, innermost: Any = None) -> Any:
    value: Any = innermost
    for _ in range(levels):
        value = [value]
    return value


def depth(value: Any) -> int:
    levels = 0
    while isinstance(value, list):
        levels, value = levels + 1, value[0]
    return levels


@settings(deadline=None)
@given(events, st.integers(min_value=1, max_value=2**62), moments)
def test_every_event_comes_back_as_it_was_and_its_line_is_of_the_schema(event: Event, seq: int, at_ms: int) -> None:
    line = line_of(event, seq, at_ms)
    found = parse(line)
    assert (found.seq, found.at_ms, found.type, found.event) == (seq, at_ms, event.TYPE, event)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    CHECK.validate(found.raw)


@settings(deadline=None)
@given(events)
def test_a_line_that_does_not_say_exact_is_read_by_any_json_library(event: Event) -> None:
    line = line_of(event, 1, 0)
    if not is_exact(line):
        assert orjson.loads(line) == json.loads(line)


@pytest.mark.parametrize(
    "value",
    [2**64, -(2**63) - 1, "\ud800", {"\udfff": 1}, math.inf, -math.inf, 10**400, deep(300)],
    ids=["big", "small", "surrogate", "key", "inf", "-inf", "huge", "deep"],
)
def test_what_fast_libraries_refuse_takes_the_exact_way_and_comes_back(value: Any) -> None:
    line = line_of(System("odd", value), 1, 0)
    assert is_exact(line)
    assert parse(line).event == System("odd", value)
    CHECK.validate(parse(line).raw)


def test_a_delta_that_ends_inside_a_character_comes_back() -> None:
    event = TextDelta("msg_1", 0, "half a smile: \ud83d")
    assert parse(line_of(event, 1, 0)).event == event


def test_nesting_may_be_very_deep() -> None:
    found = parse(line_of(Other("deep", deep(20_000)), 1, 0)).event
    assert isinstance(found, Other)
    assert depth(found.data) == 20_000


def test_a_line_of_fifty_megabytes_comes_back() -> None:
    event = Prompt("long " * 10_000_000, resumed=False)
    line = line_of(event, 1, 0)
    assert len(line) > 50_000_000
    assert parse(line).event == event


@dataclasses.dataclass
class Thing:
    name: str
    inside: Any = None


class Word(str):
    __slots__ = ()


def itself() -> Any:
    ring: list[Any] = [1]
    ring.append({"again": ring})
    return ring


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (math.nan, None),
        ((1, 2), [1, 2]),
        ({"a": ({3},)}, {"a": [[3]]}),
        ({1: "one", None: 2}, {"1": "one", "None": 2}),
        (Thing("tap", Thing("washer", math.nan)), {"name": "tap", "inside": {"name": "washer", "inside": None}}),
        (b"\xff", "b'\\xff'"),
        (datetime.date(2026, 11, 20), "2026-11-20"),
        (10**5000, hex(10**5000)),
        (Word("tap"), "tap"),
        ("\ud83d\ude00", "\U0001f600"),
        (itself(), [1, {"again": None}]),
    ],
    ids=["nan", "tuple", "nested", "keys", "dataclass", "bytes", "date", "digits", "word", "pair", "ring"],
)
def test_what_json_does_not_know_is_kept_as_well_as_it_can_be(value: Any, stored: Any) -> None:
    found = parse(line_of(ToolUse("c", "Bash", value), 1, 0)).event
    assert isinstance(found, ToolUse)
    assert found.input == stored


@pytest.mark.slow
def test_what_json_does_not_know_may_be_very_deep() -> None:
    found = parse(line_of(Other("deep", deep(20_000, Thing("tap"))), 1, 0)).event
    assert isinstance(found, Other)
    assert depth(found.data) == 20_000


def test_what_stands_twice_in_a_value_is_written_twice() -> None:
    twice = [math.nan]
    assert plain({"a": twice, "b": twice}) == {"a": [None], "b": [None]}


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_bytes_that_are_no_line_are_corrupt_and_nothing_else(junk: bytes) -> None:
    with pytest.raises(Corrupt, match="cannot be read"):
        parse(junk)


@pytest.mark.parametrize("cut", range(1, 80))
def test_a_line_that_is_cut_is_corrupt_wherever_it_is_cut(cut: int) -> None:
    line = line_of(Prompt("Mend the tap. " + "x" * 20, resumed=False), 1, 1_763_674_884_123).rstrip(b"\n")
    with pytest.raises(Corrupt):
        parse(line[: -min(cut, len(line))])


@pytest.mark.parametrize("cut", range(1, 60))
def test_an_exact_line_that_is_cut_is_corrupt_too(cut: int) -> None:
    line = line_of(Prompt("\ud800" * 10, resumed=False), 1, 1_763_674_884_123).rstrip(b"\n")
    assert is_exact(line)
    with pytest.raises(Corrupt):
        parse(line[:-cut])


@settings(deadline=None)
@given(values)
def test_json_that_is_no_line_is_corrupt(value: Any) -> None:
    with pytest.raises(Corrupt):
        recorded(value)


@pytest.mark.parametrize(
    "head",
    [
        {"v": 1, "seq": 0, "at_ms": 1, "type": "prompt"},
        {"v": 1, "seq": True, "at_ms": 1, "type": "prompt"},
        {"v": 1, "seq": 1.0, "at_ms": 1, "type": "prompt"},
        {"v": 1, "seq": 1, "at_ms": "1", "type": "prompt"},
        {"v": 1, "seq": 1, "at_ms": 1, "type": None},
        {"v": "1", "seq": 1, "at_ms": 1, "type": "prompt"},
        {"v": 1, "seq": 1, "at_ms": 1},
    ],
)
def test_a_wrong_head_is_corrupt(head: dict[str, Any]) -> None:
    with pytest.raises(Corrupt, match="head"):
        recorded(head)


def test_a_type_a_field_and_a_version_of_a_newer_release_are_kept() -> None:
    head = {"v": 1, "seq": 1, "at_ms": 1}
    of_a_type = {**head, "type": "daydream", "sheep": 3}
    with_a_field = {**head, "type": "prompt", "text": "Go", "resumed": True, "mood": "good"}
    of_a_version = {**head, "v": 2, "type": "prompt", "text": "Go", "resumed": True}
    assert (recorded(of_a_type).event, recorded(of_a_type).raw) == (None, of_a_type)
    assert (recorded(with_a_field).event, recorded(with_a_field).raw) == (Prompt("Go", resumed=True), with_a_field)
    assert (recorded(of_a_version).event, recorded(of_a_version).raw) == (None, of_a_version)


def test_a_line_that_lacks_a_field_is_kept_and_passed_over() -> None:
    assert recorded({"v": 1, "seq": 1, "at_ms": 1, "type": "prompt", "text": "Go"}).event is None
