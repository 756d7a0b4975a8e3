"""Names from outside as path segments, and numbers as file names (docs/format.md, sections 1 and 3)."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from everturn.errors import Invalid
from everturn.log.names import MAX_SEGMENT_BYTES, Span, escape, parse_file_name, part, unescape

SAFE_SEGMENT = re.compile(r"[a-zA-Z0-9_-][a-zA-Z0-9_.-]*|(?:![0-9a-f]{2}|[a-zA-Z0-9_.-])+(?:!\.[0-9a-f]+)?")


def is_usable(name: str) -> bool:
    try:
        escape(name, "name")
    except Invalid:
        return False
    return True


# Few letters, so that names that nearly meet are found; and all of Unicode.
tricky = st.text("aAbBéÉ.!/\\2-_ f", min_size=1, max_size=12)
names = st.one_of(tricky, st.text(min_size=1, max_size=60)).filter(is_usable)


@given(names)
def test_unescape_gives_back_what_was_escaped(name: str) -> None:
    assert unescape(escape(name, "name")) == name


@given(names, names)
@example("-Users-Kyle", "-users-kyle")
@example("aB", "ab!.2")
@example("\u00e9", "e\u0301")
@example("\u212a", "K")  # the Kelvin sign folds to k
def test_different_names_stay_apart_even_where_case_does_not_count(one: str, other: str) -> None:
    assume(one != other)
    assert escape(one, "name").lower() != escape(other, "name").lower()


@given(names)
def test_an_escaped_name_is_one_plain_ascii_segment(name: str) -> None:
    segment = escape(name, "name")
    assert SAFE_SEGMENT.fullmatch(segment)
    assert not segment.startswith(".")
    assert 1 <= len(segment.encode()) <= MAX_SEGMENT_BYTES


@given(st.text())
@example("a!2F")
@example("a!.1")
@example("A")
@example("a!.")
@example("!61")
@example("!")
@example("!ff")
@example("a\ud800")
def test_unescape_knows_only_what_escape_makes(segment: str) -> None:
    name = unescape(segment)
    assert name is None or escape(name, "name") == segment


@pytest.mark.parametrize(
    ("name", "segment"),
    [
        ("acme/web#12", "acme!2fweb!2312"),
        ("-Users-Kyle", "-Users-Kyle!.21"),
        ("subagents/agent-1", "subagents!2fagent-1"),
        (".hidden", "!2ehidden"),
        ("a.b", "a.b"),
        ("v1..2", "v1..2"),
        ("...", "!2e.."),
        ("!", "!21"),
        ("é", "!c3!a9"),
        ("A", "A!.1"),
        ("aB1cD", "aB1cD!.a"),
        ("con", "con"),
        ("C:\\work", "C!3a!5cwork!.1"),
    ],
)
def test_names_are_escaped_as_the_format_says(name: str, segment: str) -> None:
    assert escape(name, "name") == segment
    assert unescape(segment) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "a/../b", "../a", "a/..", "a/./b", "..\\x", "a\\..", "a/..\\b", "/..", "./"),
        *("\0", "a\0b", "a\nb", "\t", "\x1f", "\x7f"),
        *("\ud800", "a\udfff", "\ud83d\ude00"),
        *("x" * 241, "é" * 41, "X" * 200, "/" * 81),
    ],
)
def test_names_that_are_unsafe_are_refused(name: str) -> None:
    with pytest.raises(Invalid, match="scope") as refusal:
        escape(name, "scope")
    assert refusal.value.hint


@pytest.mark.parametrize("name", ["x" * 240, "é" * 40, "X" * 190, "/" * 80])
def test_the_longest_names_are_taken(name: str) -> None:
    assert unescape(escape(name, "name")) == name


@given(st.integers(1, 10**10 - 1), st.integers(0, 10**6), st.booleans())
def test_a_file_name_says_what_it_covers(first: int, more: int, segment: bool) -> None:
    span = Span(first, min(first + more, 10**10 - 1), segment=True) if segment else part(first)
    assert parse_file_name(span.file_name) == span


def test_file_names_are_as_the_format_says() -> None:
    assert part(7).file_name == "0000000007.jsonl.zst"
    assert Span(1, 12, segment=True).file_name == "0000000001-0000000012.jsonl.zst"


@pytest.mark.parametrize(
    "file_name",
    [
        "",
        "1.jsonl.zst",
        "0000000001.jsonl",
        "0000000001.jsonl.zst.tmp",
        "0000000001.jsonl.zst\n",
        "x0000000001.jsonl.zst",
        "00000000001.jsonl.zst",
        "0000000001xjsonlxzst",
        "0000000000.jsonl.zst",
        "0000000000-0000000003.jsonl.zst",
        "0000000003-0000000002.jsonl.zst",
        "0000000001-.jsonl.zst",
        "-0000000001.jsonl.zst",
        "+000000001.jsonl.zst",
        "\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0661.jsonl.zst",  # digits, but not of ASCII
    ],
)
def test_file_names_that_are_not_ours_mean_nothing(file_name: str) -> None:
    assert parse_file_name(file_name) is None
