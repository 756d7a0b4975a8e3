"""Entries come back equal to what was appended, whatever they hold (docs/format.md, section 4)."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import subprocess
import sys
import uuid
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from everturn.errors import Corrupt, Invalid
from everturn.log.entries import _parse, decode_lines, encode

any_text = st.text(st.characters(exclude_categories=[]), max_size=20)  # unpaired surrogates included
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**70), 10**70),
    st.floats(allow_nan=False),
    any_text,
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=20,
)


def there_and_back(*entries: Any) -> list[Any]:
    batch = encode(entries)
    return decode_lines(batch.lines, exact=batch.exact)


def is_equal(one: Any, other: Any) -> bool:
    """Compare types as well, and signs of zero, without recursion."""
    waiting = [(one, other)]
    while waiting:
        left, right = waiting.pop()
        if type(left) is not type(right):
            return False
        if isinstance(left, dict):
            if left.keys() != right.keys():
                return False
            waiting += [(left[key], right[key]) for key in left]
        elif isinstance(left, list):
            if len(left) != len(right):
                return False
            waiting += zip(left, right, strict=True)
        elif left != right or (isinstance(left, float) and math.copysign(1, left) != math.copysign(1, right)):
            return False
    return True


def holds_a_pair(value: Any) -> bool:
    """Tell whether some text holds two surrogates that JSON would read as one character."""
    return value != json.loads(json.dumps(value))


@given(st.lists(values.filter(lambda value: not holds_a_pair(value)), max_size=4))
@example([])
@example([{}, [], "", {"": ""}, [[]], [{}], {"a": [], "b": {}}])
@example([0, -1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1])
@example([0.0, -0.0, 1.0, 5e-324, 1.7976931348623157e308, 0.1, 1e16, 1e22, -1e-7])
@example([math.inf, -math.inf, {"a": [math.inf, 1]}])
@example(["\ud800", {"\udfff": "a\udc00b"}, "\ude00\ud83d"])
@example([10**69, {"n": -(10**69)}, True, False, None])
@example(['\u2028\u2029\n\r\t\0\x7f\x85\\"/', "é", "😀", "\ufffe\uffff"])
@example([{"no": "uuid"}, {"uuid": 1}])
def test_entries_come_back_equal(entries: list[Any]) -> None:
    assert is_equal(there_and_back(*entries), entries)


@given(st.lists(values.filter(lambda value: not holds_a_pair(value)), min_size=1, max_size=4))
def test_every_entry_is_one_line_of_utf8_that_any_json_parser_reads(entries: list[Any]) -> None:
    lines = encode(entries).lines
    rows = lines.decode().split("\n")
    assert rows.pop() == ""
    assert is_equal([json.loads(row) for row in rows], entries)


def test_key_order_plays_no_part() -> None:
    (found,) = there_and_back({"b": 1, "a": {"d": 2, "c": 3}})
    assert found == {"a": {"c": 3, "d": 2}, "b": 1}


def test_common_entries_take_the_fast_way_and_odd_ones_the_exact_one() -> None:
    assert not encode([{"uuid": "u", "n": 2**64 - 1, "x": 1.5, "t": "é"}]).exact
    for odd in (2**64, -(2**63) - 1, "\ud800", math.inf, nested(300)):
        assert encode([{"common": 1}, odd]).exact


def test_text_of_twenty_megabytes_comes_back_on_both_ways() -> None:
    big = {"uuid": "u", "text": "0123456789abcdef" * (20 << 16)}
    assert there_and_back(big) == [big]
    assert there_and_back(big, "\ud800") == [big, "\ud800"]


@pytest.mark.slow
@pytest.mark.parametrize("depth", [253, 254, 255, 256, 1023, 1024, 1025, 5000])
def test_entries_may_be_nested_deeply(depth: int) -> None:
    lists, objects = nested(depth), nested(depth, in_objects=True)
    assert is_equal(there_and_back(lists, objects), [lists, objects])


def nested(depth: int, *, in_objects: bool = False) -> Any:
    value: Any = "innermost"
    for _ in range(depth):
        value = {"in": value, "n": 1} if in_objects else [value, 1]
    return value


def test_an_integer_of_five_thousand_digits_comes_back_or_is_refused() -> None:
    number = 10**4999
    try:
        found = there_and_back({"n": number})
    except Invalid:
        return
    assert found == [{"n": number}]


def test_integers_of_as_many_digits_as_python_converts_come_back() -> None:
    number = 10 ** (sys.get_int_max_str_digits() - 1)
    assert there_and_back({"n": number, "m": -number}) == [{"n": number, "m": -number}]


@pytest.mark.parametrize(
    "wrong",
    [
        math.nan,
        (1, 2),
        {1, 2},
        b"bytes",
        bytearray(b"bytes"),
        1j,
        decimal.Decimal(1),
        datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
        datetime.date(2024, 1, 1),
        uuid.UUID(int=0),
        orjson.Fragment(b"1"),
        object(),
        "\ud83d\ude00",  # two surrogates that JSON cannot tell from one character
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("beside", [1, 2**70], ids=["fast", "exact"])
def test_what_json_cannot_hold_is_refused(wrong: Any, beside: int) -> None:
    for entry in (wrong, {"a": [beside, wrong]}, [{"a": wrong}, beside]):
        with pytest.raises(Invalid):
            encode([{"fine": 1}, entry])


@pytest.mark.parametrize("key", [1, None, True, 1.5, b"k", ("k",)], ids=repr)
@pytest.mark.parametrize("beside", [1, 2**70], ids=["fast", "exact"])
def test_a_key_that_is_not_text_is_refused(key: Any, beside: int) -> None:
    with pytest.raises(Invalid):
        encode([[{"a": beside}, {key: 1}]])


def test_keys_that_json_cannot_tell_apart_are_refused() -> None:
    with pytest.raises(Invalid):
        encode([{"\ud83d\ude00": 1, "😀": 2}])


RINGS = """
import resource
from everturn.errors import Invalid
from everturn.log.entries import encode

resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))
ring, loop = [], {}
ring.append(ring)
loop["me"] = loop
for entry in (ring, loop):
    try:
        encode([entry])
    except Invalid:
        print("refused")
"""


def test_an_entry_that_holds_itself_is_refused() -> None:
    # In a process of its own: what does not refuse it fills the memory.
    process = subprocess.run([sys.executable, "-c", RINGS], capture_output=True, text=True, timeout=60, check=False)
    assert process.stdout.split() == ["refused", "refused"], process.stderr[-300:]


def test_the_same_value_may_stand_in_an_entry_twice() -> None:
    shared = {"n": 2**70}
    assert there_and_back({"a": shared, "b": [shared, shared]}) == [{"a": shared, "b": [shared, shared]}]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    "lines",
    [
        b"1",
        b"1\n2",
        b"\n",
        b"1\n\n2\n",
        b"{\n",
        b"1 2\n",
        b"1,2\n",
        b"[1\n2]\n",
        b"1,2\n[3\n4]\n",
        b"1\n],[\n",
        b"\xff\n",
        b'"\xed\xa0\x80"\n',
        b"NaN\n",
        b'"a\x00b"\n',
    ],
    ids=repr,
)
def test_lines_that_are_not_json_are_corrupt(lines: bytes, exact: bool) -> None:
    with pytest.raises(Corrupt):
        decode_lines(lines, exact=exact)


def test_an_integer_that_is_too_long_to_convert_is_corrupt_when_it_is_read() -> None:
    with pytest.raises(Corrupt):
        decode_lines(b"9" * 5000 + b"\n", exact=True)


jsonish = st.one_of(
    st.text(st.sampled_from('[]{},:"\\ue\ud800 0123456789.+-Etrufalsn'), max_size=30),
    values.map(lambda value: json.dumps(value, separators=(",", ":"))),
    values.map(lambda value: json.dumps(value, ensure_ascii=False)),
)


@given(jsonish)
@example("")
@example("[1,]")
@example('{"a":1,}')
@example("{,}")
@example('{"a"}')
@example('{"a":}')
@example("[")
@example("[1")
@example('{"a":1')
@example("[}")
@example("[1}")
@example('{"a":1]')
@example("nullnull")
@example("truefalse")
@example("01")
@example("-")
@example("-0")
@example("1.")
@example("1e5")
@example(".5")
@example("1E+400")
@example('"\\x"')
@example('"\\ud83d\\ude00"')
@example('{"a":1,"a":2}')
@example("\u0661")
@example("Infinity")
@example("-Infinity")
@example("NaN")
@example(" 1")
@example('{"a": 1}')
def test_the_exact_parser_agrees_with_the_standard_one_or_refuses(text: str) -> None:
    try:
        found = _parse(text)
    except ValueError:
        assert refused_by_the_standard_parser(text) or may_be_refused(text)
        return
    assert is_equal(found, json.loads(text))


def refused_by_the_standard_parser(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return True
    return False


def may_be_refused(text: str) -> bool:
    """White space, and the words for numbers that JSON does not have."""
    return any(odd in text for odd in (" ", "\t", "\n", "\r", "NaN", "Infinity"))


@given(st.text(max_size=40))
def test_the_exact_parser_raises_nothing_but_value_errors(text: str) -> None:
    try:
        value = _parse(text)
    except ValueError:
        return
    assert value == json.loads(text)
