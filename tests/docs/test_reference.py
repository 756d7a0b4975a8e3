"""The generated pages of the reference are what the code gives."""

from __future__ import annotations

import re

import pytest
from handbook.docstrings import docstring_of
from handbook.markdown import code, prose, table
from handbook.python_api import signature
from handbook.reference import FOLDER, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_the_reference_is_what_the_code_gives(name: str) -> None:
    written = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert written == PAGES[name](), "the code has changed: make docs-reference"


def test_there_are_no_other_pages() -> None:
    assert {file.name for file in FOLDER.iterdir()} == {f"{name}.md" for name in PAGES}


@pytest.mark.parametrize("name", PAGES)
def test_no_page_tells_where_it_was_made(name: str) -> None:
    assert not re.search(r"/tmp|/home|/root|0x[0-9a-f]{6}", PAGES[name]())


def test_code_holds_whatever_it_is_given() -> None:
    assert code("a b") == "`a b`"
    assert code("a `b`") == "`` a `b` ``"
    assert code("") == ""


def test_prose_shows_what_stands_there_and_leaves_code_alone() -> None:
    assert prose("a_b <c> `d_e`") == r"a\_b \<c\> `d_e`"


def test_tables_leave_out_columns_that_are_empty() -> None:
    assert table(("a", "b", "c"), [("1", "", "x|y")]) == "| a | c |\n|---|---|\n| 1 | x\\|y |"
    assert table(("a",), []) == ""


def test_docstrings_are_taken_apart() -> None:
    def example(first: int, *more: str) -> int:
        """Do it.

        At length.

        Args:
            first: One,
                and on.
            more: Others.

        Returns:
            A number.
        """
        return first

    doc = docstring_of(example)
    assert doc.summary == "Do it."
    assert doc.text == "Do it.\n\nAt length."
    assert doc.sections == {"Args": [("first", "One, and on."), ("more", "Others.")], "Returns": [("", "A number.")]}
    assert signature("example", example) == "example(first: int, *more: str) -> int"
