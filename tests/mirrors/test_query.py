"""What a person types, as an expression that SQLite understands."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everturn import Invalid
from everturn.mirrors.query import MAX_LENGTH, MAX_TERMS, MAX_WORDS, parse_query
from everturn.mirrors.schema import STATEMENTS

TEXTS = {
    1: "the red fox",
    2: "the fox is red",
    3: "a redder fox, connection_lost: exit code 1",
    4: "Café crème; foo.bar(baz)",
    5: "cafe\u0301 AND NOT near OR fox*",
}


@pytest.fixture(scope="module")
def database() -> Iterator[sqlite3.Connection]:
    """A full-text index as the mirror has it."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    for statement in STATEMENTS:
        database.execute(statement)
    for number, text in TEXTS.items():
        database.execute("INSERT INTO texts_fts (rowid, text) VALUES (?, ?)", (number, text))
    yield database
    database.close()


def found(database: sqlite3.Connection, typed: str) -> list[int]:
    sql = "SELECT rowid FROM texts_fts WHERE texts_fts MATCH ? ORDER BY rowid"
    return [row[0] for row in database.execute(sql, (parse_query(typed).expression,))]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("red fox", [1, 2]),
        ("RED", [1, 2]),
        ('"red fox"', [1]),
        ("“red fox”", [1]),
        ("red*", [1, 2, 3]),
        ('"exit cod"*', [3]),
        ("fox -red", [3, 5]),
        ('fox -"red fox"', [2, 3, 5]),
        ("fox -redd*", [1, 2, 5]),
        ("fox -red -near", [3]),
        ("cafe", [4, 5]),
        ("CAFÉ", [4, 5]),
        ("cafe\u0301", [4, 5]),
        ("foo.bar", [4]),
        ("bar.foo", []),
        ("lost", [3]),
        ("connection_lost", [3]),
        ("AND", [5]),
        ("NOT near", [5]),
        ("fox OR café", [5]),
        ("text:fox", []),
        ("--fox", [1, 2, 3, 5]),
        ("- fox", [1, 2, 3, 5]),
        ("^fox", [1, 2, 3, 5]),
        ("NEAR(red fox)", []),
        ('foo"bar', [4]),
        ("fox !!! ( ) \x00 \ud800", [1, 2, 3, 5]),
        ("fox -!!!", [1, 2, 3, 5]),
        ("don't; DROP TABLE texts", []),
        ('red"fox', [1, 2]),
        ("***fox", [1, 2, 3, 5]),
        ("red red red", [1, 2]),
    ],
)
def test_words_phrases_beginnings_and_exclusions_mean_what_one_expects(
    database: sqlite3.Connection, typed: str, expected: list[int]
) -> None:
    assert found(database, typed) == expected


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        ("", "no word"),
        ("  \t", "no word"),
        ("-- !! ''", "no word"),
        ('""', "no word"),
        ("*", "no word"),
        ("-fox", "only says what is not to be found"),
        ("fo*", r"fo\* stands for too many words"),
        ('"exit co"*', r"co\* stands for too many words"),
        ("fox -re*", r"re\* stands for too many words"),
        ("x" * (MAX_LENGTH + 1), "longer than"),
        (" ".join(f"w{number}" for number in range(MAX_TERMS + 1)), "more than"),
        ('"' + "a " * (MAX_WORDS + 1) + '"', "more than"),
        (".".join("a" * (MAX_WORDS + 1)), "more than"),
    ],
)
def test_what_cannot_be_looked_for_is_refused_with_a_hint(typed: str, complaint: str) -> None:
    with pytest.raises(Invalid, match=complaint) as caught:
        parse_query(typed)
    assert caught.value.hint


SYNTAX = st.sampled_from([*"\"*()-^:+{},'", "AND", "OR", "NOT", "NEAR(", "text"])
MIXED = st.lists(st.one_of(SYNTAX, st.text(max_size=5))).map("".join)


@given(st.one_of(st.text(), MIXED, st.lists(SYNTAX).map(" ".join)))
def test_nothing_that_is_typed_is_an_error_of_sqlite(database: sqlite3.Connection, typed: str) -> None:
    try:
        query = parse_query(typed)
    except Invalid:
        return
    database.execute("SELECT rowid FROM texts_fts WHERE texts_fts MATCH ?", (query.expression,)).fetchall()


WORDS = st.lists(st.sampled_from(["red", "fox", "the", "exit", "code", "zebra"]), min_size=1, unique=True)


@given(WORDS, WORDS)
def test_a_text_is_found_if_it_has_all_words_and_none_of_the_excluded(
    database: sqlite3.Connection, wanted: list[str], unwanted: list[str]
) -> None:
    words = {number: set(text.replace(",", "").split()) for number, text in TEXTS.items() if number < 4}
    expected = [each for each, has in words.items() if set(wanted) <= has and not set(unwanted) & has]
    typed = " ".join([*wanted, *(f"-{word}" for word in unwanted)])
    assert [each for each in found(database, typed) if each < 4] == expected


def test_as_many_words_as_are_allowed_are_no_error(database: sqlite3.Connection) -> None:
    assert found(database, "fox " + " ".join(f"-w{number}" for number in range(MAX_TERMS - 1))) == [1, 2, 3, 5]
    assert found(database, " ".join(f"w{number}" for number in range(MAX_TERMS))) == []
    assert found(database, '"' + "a " * MAX_WORDS + '"') == []
