"""Passages of turns: what they hold, where they are cut, and that batches make no difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everturn.journal.events import (
    Assistant,
    BeganAnew,
    Event,
    Prompt,
    Resumed,
    Started,
    TextDelta,
    Thinking,
    ToolResult,
    ToolUse,
)
from everturn.journal.lines import line_of, parse
from everturn.mirrors.base import Line
from everturn.mirrors.passages import INPUT_CHARS, MAX_PASSAGES, PASSAGE_CHARS, TEXT_CHARS, Passage, PassageFold

START = Started("r1", "task/t1", "s1", 1, "w1", "/desk", task_id="t1", agent="fixer", repo="https://x.org/tap.git")


def lines_of(*events: Event) -> list[Line]:
    return [parse(line_of(event, seq, 1000 + seq)).raw for seq, event in enumerate(events, 1)]


def fold(lines: Sequence[Line], *cuts: int) -> list[Passage]:
    """Return the passages of lines that come in batches; the last of each number counts."""
    found: dict[tuple[int, int], Passage] = {}
    state = None
    count = 0
    for start, end in zip((0, *cuts), (*cuts, len(lines)), strict=True):
        folding = PassageFold("r1", "task/t1", state)
        folding.take(lines[start:end])
        found |= {(passage.turn, passage.number): passage for passage in folding.drain()}
        state, count = folding.state(), folding.count
    assert count == len(found)
    return list(found.values())


def texts(*events: Event) -> list[str]:
    return [passage.text for passage in fold(lines_of(START, *events))]


def test_a_turn_is_its_prompt_what_was_said_and_which_tools_were_called() -> None:
    (passage,) = fold(
        lines_of(
            START,
            Prompt("Mend the tap.", resumed=False),
            Thinking("A washer?"),
            TextDelta("m", 0, "Let me"),
            Assistant("Let me look."),
            ToolUse("c1", "Bash", {"command": "ls  pipes", "timeout": 5}),
            ToolResult("c1", "a great many pipes"),
            Assistant("It drips."),
        )
    )
    assert passage == Passage(
        run_id="r1",
        work="task/t1",
        turn=1,
        number=0,
        seq=2,
        at_ms=1002,
        text="Mend the tap.\nLet me look.\nBash: command: ls pipes timeout: 5\nIt drips.",
        tools=("Bash",),
        session_id="s1",
        worker="w1",
        agent="fixer",
        repo="https://x.org/tap.git",
        task_id="t1",
    )


def test_a_prompt_begins_a_turn() -> None:
    found = fold(lines_of(START, Assistant("Before."), Prompt("One", resumed=False), Prompt("Two", resumed=True)))
    assert [(each.turn, each.number, each.text) for each in found] == [
        (0, 0, "Before."),
        (1, 0, "One"),
        (2, 0, "Two"),
    ]


def test_a_long_turn_is_several_passages_cut_between_words() -> None:
    words = [f"word{number}" for number in range(500)]
    found = texts(Prompt(" ".join(words), resumed=False))
    assert len(found) > 3
    assert max(map(len, found)) <= PASSAGE_CHARS
    assert " ".join(found).split() == words


def test_a_text_without_spaces_is_cut_anyway() -> None:
    found = texts(Prompt("x" * 2500, resumed=False))
    assert [len(each) for each in found] == [1000, 1000, 500]


def test_long_texts_and_inputs_are_clipped_and_so_is_a_turn() -> None:
    assert sum(map(len, texts(Prompt("y" * 100_000, resumed=False)))) == TEXT_CHARS
    (call,) = texts(ToolUse("c", "Write", {"content": "z" * 100_000}))
    assert len(call) == len("Write: ") + INPUT_CHARS
    said = [Assistant("x" * TEXT_CHARS) for _ in range(20)]
    assert len(texts(Prompt("Go", resumed=False), *said)) == MAX_PASSAGES
    assert len(texts(Prompt("Go", resumed=False), *said, Prompt("On", resumed=True))) == MAX_PASSAGES + 1


def test_the_conversation_is_the_one_that_it_was_then() -> None:
    found = fold(
        lines_of(
            START,
            Resumed("s2", None, took_over=True),
            Prompt("One", resumed=True),
            BeganAnew("s3", "s2"),
            Prompt("Two", resumed=False),
        )
    )
    assert [each.session_id for each in found] == ["s2", "s3"]


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "prompt", "text": 7, "resumed": False},
        {"type": "prompt"},
        {"type": "assistant", "text": None},
        {"type": "tool_use", "name": ["Bash"]},
        {"type": "daydream", "text": "sheep"},
        {"type": "prompt", "v": 2, "text": "Later", "resumed": False},
        {"type": "started", "agent": 5},
    ],
)
def test_what_cannot_be_read_is_passed_over(odd: dict[str, Any]) -> None:
    line = {"v": 1, "seq": 2, "at_ms": 5, **odd}
    after = {**lines_of(Prompt("Go", resumed=False))[0], "seq": 3}
    assert [each.text for each in fold([*lines_of(START), line, after])] == ["Go"]


def test_unpaired_surrogates_are_no_trouble() -> None:
    assert texts(Prompt("a \ud800 b", resumed=False)) == ["a ? b"]


spoken = st.text(st.sampled_from("ab \n"), max_size=30).flatmap(
    lambda text: st.sampled_from([1, 40, 90]).map(lambda times: text * times)
)
events = st.one_of(
    st.builds(Prompt, text=spoken, resumed=st.booleans()),
    st.builds(Assistant, text=spoken),
    st.builds(ToolUse, call_id=st.just("c"), name=st.sampled_from(["Bash", "Read"]), input=spoken),
    st.builds(TextDelta, message_id=st.none(), index=st.just(0), text=spoken),
    st.builds(Resumed, session_id=st.sampled_from("st"), previous_run_id=st.none(), took_over=st.booleans()),
)


@settings(deadline=None)
@given(st.lists(events, max_size=25), st.data())
def test_batches_make_no_difference(some: list[Event], data: st.DataObject) -> None:
    lines = lines_of(START, *some)
    cuts = sorted(data.draw(st.lists(st.integers(min_value=0, max_value=len(lines)), max_size=6)))
    at_once = fold(lines)
    assert fold(lines, *cuts) == at_once
    assert all(passage.text and len(passage.text) <= PASSAGE_CHARS for passage in at_once)
