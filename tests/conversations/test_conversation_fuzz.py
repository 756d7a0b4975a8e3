"""Whatever a transcript holds, it is read and shown: nothing raises, nothing breaks out of its place."""

from __future__ import annotations

import io
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from everturn.cli.printer import Printer
from everturn.conversations import wording
from everturn.conversations.conversation import as_data
from everturn.conversations.markdown import contained, to_markdown
from everturn.conversations.page import markdown, to_html
from everturn.conversations.reading import read_conversation
from everturn.conversations.turns import as_json
from everturn.transcripts.archive import SessionRef
from recorded import tap

pytestmark = pytest.mark.slow

REF = SessionRef("scope", "project", "session")
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)

NAMES = st.sampled_from(
    [
        "type",
        "uuid",
        "parentUuid",
        "message",
        "content",
        "role",
        "id",
        "name",
        "input",
        "text",
        "thinking",
        "tool_use_id",
        "is_error",
        "isMeta",
        "isSidechain",
        "agentId",
        "attachment",
        "usage",
        "input_tokens",
        "model",
        "timestamp",
        "subtype",
        "toolUseResult",
        "structuredPatch",
        "lines",
        "source",
        "data",
        "media_type",
        "origin",
        "logicalParentUuid",
        "isCompactSummary",
        "totalCostUSD",
        "modelUsage",
        "prompt",
    ]
)
WORDS = st.sampled_from(
    [
        "user",
        "assistant",
        "system",
        "attachment",
        "tool_use",
        "tool_result",
        "text",
        "thinking",
        "image",
        "base64",
        "image/png",
        "compact_boundary",
        "cost-state",
        "agent_metadata",
        "queued_command",
        "<synthetic>",
        "a",
        "b",
        "c",
        "d",
        "2026-11-20T12:28:16Z",
        "0001-01-01T00:00:00+14:00",
        "<command-name>",
        "</details>",
        "```",
        "<script>",
        "\x1b[31m",
        "�",
        "\u202e",
        "<task-notification>x</task-notification>",
    ]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS | st.text(max_size=8)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6), max_leaves=12
)
BLOCKS = st.fixed_dictionaries({"type": WORDS}, optional={"id": WORDS, "tool_use_id": WORDS, "text": VALUES})
ENTRIES = VALUES | st.fixed_dictionaries(
    {"type": WORDS, "uuid": WORDS, "parentUuid": WORDS | st.none()},
    optional={
        "message": VALUES
        | st.fixed_dictionaries({"content": st.lists(BLOCKS | VALUES, max_size=3)}, optional={"usage": VALUES}),
        "timestamp": WORDS,
        "toolUseResult": VALUES,
        "attachment": VALUES,
        "isSidechain": VALUES,
    },
)


def assert_shown_everywhere(entries: list[Any], agents: dict[str, list[Any]]) -> None:
    found = read_conversation(entries, agents)
    assert sum(found.entries.values()) == len(entries)
    assert as_json(as_data(found))
    console = Console(file=io.StringIO(), width=60, force_terminal=True)
    printer = Printer(console, full=True, agents=True, branches=True)
    printer.show(found)
    printer.finish(wording.summary(found))
    assert "".join(to_markdown(found, REF, agents=True)).encode()
    assert "".join(to_html(found, REF, agents=True)).encode()


@QUICK
@given(st.lists(ENTRIES, max_size=8), st.dictionaries(WORDS, st.lists(ENTRIES, max_size=3), max_size=2))
def test_any_entries_are_shown_everywhere(entries: list[Any], agents: dict[str, list[Any]]) -> None:
    assert_shown_everywhere(entries, agents)


@QUICK
@given(st.data())
def test_a_recorded_transcript_with_something_else_in_any_place_is_shown_everywhere(data: st.DataObject) -> None:
    entries, agents = tap()
    start = data.draw(st.integers(0, len(entries) - 1))
    picked = [dict(entry) for entry in entries[start : start + 12]]
    for entry in picked:
        if data.draw(st.booleans()):
            entry[data.draw(st.sampled_from(sorted(entry)))] = data.draw(VALUES)
    assert_shown_everywhere(picked, agents)


def test_what_is_very_deep_or_very_large_is_shown_everywhere() -> None:
    deep: Any = "bottom"
    for _ in range(5000):
        deep = [deep]
    call = {
        "type": "tool_use",
        "id": "t",
        "name": "Deep",
        "input": {"deep": deep, "big": int("7" * 400), "inf": float("inf")},
    }
    assert_shown_everywhere([{"type": "assistant", "uuid": "a", "message": {"content": [call]}}], {})


MARKS = st.sampled_from(
    [
        *[
            "```",
            "~~~",
            "`",
            "``",
            "<b>",
            "</details>",
            "<!--",
            "<pre>",
            "\\",
            "|",
            "a",
            "[x](y)",
            "<script>",
            "&lt;",
            "*",
            "---",
            "|-|-|",
            "$",
            "<![CDATA[",
            "=",
        ],
        *("\n", "\n\n", "- ", "> ", "    ", "# ", "\t", "1. ", "  \n"),
    ]
)


@settings(QUICK, max_examples=200)
@example("```\n\t")
@example("\\`<b>`")
@given(st.lists(MARKS, max_size=14).map("".join))
def test_markdown_stays_within_its_place(text: str) -> None:
    parser = MarkdownIt("commonmark", {"html": True}).enable(["strikethrough", "table"])
    tokens = parser.parse(contained(text) + "\n\n</details>\n\nTHE END")
    kinds = [child.type for token in tokens for child in [token, *(token.children or ())]]
    assert kinds.count("html_block") == 1
    assert "html_inline" not in kinds
    *_, opened, inline, closed = tokens
    assert (opened.type, opened.level, inline.content, closed.type) == (
        "paragraph_open",
        0,
        "THE END",
        "paragraph_close",
    )


class Tags(HTMLParser):
    """Notes what tags and attributes there are."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.names.update(name for name, _ in attrs)


@settings(QUICK, max_examples=100)
@given(st.lists(MARKS | WORDS, max_size=14).map("".join))
def test_markdown_becomes_harmless_tags_only(text: str) -> None:
    tags = Tags()
    tags.feed(str(markdown(text)))
    assert tags.found <= {
        *[
            "p",
            "br",
            "hr",
            "em",
            "strong",
            "s",
            "code",
            "pre",
            "ul",
            "ol",
            "li",
            "blockquote",
            "a",
            "h3",
            "h4",
            "h5",
            "h6",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
        ]
    }
    assert tags.names <= {"dir", "href", "rel", "class", "start", "title"}


def test_a_table_that_would_be_huge_is_shown_as_it_was_written() -> None:
    def table(columns: int, rows: int) -> str:
        return "|a" * columns + "|\n" + "|-" * columns + "|\n" + "|b\n" * rows

    assert markdown(table(20, 20)).count("<td") == 400
    text = table(1000, 1000)
    assert len(text) < 8_000
    assert len(markdown(text)) < 2 * len(text)
    assert "<table" not in markdown(text)
