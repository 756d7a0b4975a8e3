"""Where the words of a query stand in a text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everturn.mirrors.hits import Piece
from everturn.mirrors.query import parse_query
from everturn.mirrors.wordmarks import Finder, fold


def excerpt(typed: str, text: str, length: int = 240) -> str:
    """Return an excerpt with its marks in brackets."""
    pieces = Finder(parse_query(typed)).excerpt(text, length)
    return "".join(f"[{piece.text}]" if piece.is_match else piece.text for piece in pieces)


@pytest.mark.parametrize(
    ("typed", "text", "expected"),
    [
        ("fox", "The fox, the FOX and foxes.", "The [fox], the [FOX] and foxes."),
        ("fox*", "The fox and foxes in a box.", "The [fox] and [foxes] in a box."),
        ("self", "itself, self_test, my_self, selfish", "itself, [self]_test, my_[self], selfish"),
        ('"exit code"', "exit codes; exit\n  code 1, exit_code", "exit codes; [exit code] 1, [exit_code]"),
        ("foo.bar", "foo.bar foo bar foo", "[foo.bar] [foo bar] foo"),
        ("cafe", "Das Café, cafe\u0301, CAFE", "Das [Café], [cafe]\u0301, [CAFE]"),
        ("ÉCLAIR", "un eclair", "un [eclair]"),
        ("red fox", "a fox is red", "a [fox] is [red]"),
        ("zebra", "no such animal", "no such animal"),
        ("a", "", ""),
    ],
)
def test_whole_words_are_marked_whatever_their_case_and_accents(typed: str, text: str, expected: str) -> None:
    assert excerpt(typed, text) == expected


def test_the_excerpt_is_the_place_with_the_most_different_words() -> None:
    text = "fox " + "and so on " * 50 + "here the fox is red " + "and so on " * 50 + "red"
    found = excerpt("fox red", text, 120)
    assert "the [fox] is [red] and" in found
    assert found.startswith("…")
    assert found.endswith("…")
    assert len(found) < 140


def test_a_long_word_is_cut_rather_than_left_out() -> None:
    found = excerpt("fox", "x" * 500 + " fox " + "y" * 500, 100)
    assert "[fox]" in found
    assert len(found) <= 110


def test_words_are_counted_apart() -> None:
    assert Finder(parse_query('fox "red fox" the*')).counts("The red fox, the FOX; their fox") == [3, 1, 3]


@given(st.text())
def test_folding_keeps_every_character_in_its_place(text: str) -> None:
    assert len(fold(text)) == len(text)


@given(st.text(), st.text(), st.integers(60, 300))
def test_an_excerpt_is_what_stands_in_the_text(typed: str, text: str, length: int) -> None:
    finder = Finder(parse_query(f"fox {typed.translate({ord('*'): None})}"[:500]))
    pieces = finder.excerpt(text, length)
    said = "".join(piece.text for piece in pieces if piece != Piece("…"))
    assert "".join(said.split()) in "".join(text.split())
