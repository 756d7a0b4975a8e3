"""The schema of journal lines: what is published, what it admits, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from everturn.journal.events import TYPES, Prompt
from everturn.journal.lines import line_of
from everturn.journal.schema import schema

DOCS = Path(__file__).parents[2] / "docs"
CHECK = jsonschema.Draft202012Validator(schema())
HEAD = {"v": 1, "seq": 1, "at_ms": 0}


def test_the_published_schema_is_the_one_that_the_events_give() -> None:
    assert json.loads((DOCS / "journal.schema.json").read_text(encoding="utf-8")) == schema()


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


def test_the_page_lists_every_type_and_no_other() -> None:
    table = (DOCS / "journal.md").read_text(encoding="utf-8").split("| type | what happened |")[1].split("\n\n")[0]
    firsts = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    assert sorted(kind for first in firsts for kind in re.findall(r"`([^`]+)`", first)) == sorted(TYPES)


def test_every_field_is_described() -> None:
    for kind, line in schema()["$defs"].items():
        assert line["description"], kind
        for name, values in line["properties"].items():
            assert name in ("v", "type") or values.get("description"), f"{kind}.{name}"


def test_lines_of_newer_releases_pass() -> None:
    CHECK.validate({**HEAD, "type": "prompt", "text": "Go", "resumed": False, "mood": "good"})  # a field was added
    CHECK.validate({**HEAD, "type": "daydream", "of": ["sheep"]})  # a type was
    CHECK.validate({**HEAD, "v": 2, "type": "prompt", "words": "Go"})  # another version


@pytest.mark.parametrize(
    "wrong",
    [
        {**HEAD, "type": "prompt", "text": "Go"},  # a field is missing
        {**HEAD, "type": "prompt", "text": 7, "resumed": False},
        {**HEAD, "type": "prompt", "text": "Go", "resumed": 1},
        {**HEAD, "seq": 0, "type": "daydream"},
        {**HEAD, "v": 0, "type": "daydream"},
        {**HEAD, "type": "daydream", "exact": False},
        {"v": 1, "seq": 1, "type": "daydream"},
        {**HEAD, "type": None},
        ["prompt"],
    ],
)
def test_what_is_no_line_is_refused(wrong: Any) -> None:
    assert not CHECK.is_valid(wrong)


def test_what_is_written_is_admitted() -> None:
    CHECK.validate(json.loads(line_of(Prompt("Go", resumed=False), 1, 0)))
