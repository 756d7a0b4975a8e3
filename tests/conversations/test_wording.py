"""Times, amounts and tool calls in words, and text that cannot control a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from everturn.conversations import wording
from everturn.conversations.conversation import ToolCall, Usage
from everturn.conversations.reading import read_conversation
from recorded import answered, said, text, tool_use


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x9b31mred\x9b0m", "red"),
        ("\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1bPsixel\x1b\\text", "text"),
        ("\x1b(Btext\x1bc", "text"),
        ("a\x00b\x08c\x7fd", "abcd"),
        ("10%\r20%\r\n", "10%\n20%\n"),
        ("\u202eexe.gnp", "exe.gnp"),
        ("half \ud83d", "half \ufffd"),
        ("\x1b[", ""),
    ],
)
def test_text_keeps_its_words_and_loses_what_controls(raw: str, shown: str) -> None:
    assert wording.clean(raw) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (65, "1 min 05 s"),
        (3599, "59 min 59 s"),
        (7260, "2 h 01 min"),
    ],
)
def test_durations_are_told_in_words(seconds: float, shown: str) -> None:
    assert wording.duration(seconds) == shown


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (99_949, "99.9k"), (231_464, "231k"), (5_000_000, "5.0M")],
)
def test_amounts_are_told_in_few_digits(amount: int, shown: str) -> None:
    assert wording.short(amount) == shown


def test_only_tokens_that_were_used_are_told() -> None:
    assert wording.amounts(Usage(10, 20, 3000, 0)) == ["10 in", "20 out", "3.0k from cache"]


@pytest.mark.parametrize(
    ("name", "given", "shown"),
    [
        ("Bash", {"description": "List", "command": "ls\n  -l"}, "ls -l"),
        ("Edit", {"old_string": "a", "file_path": "/x.py"}, "/x.py"),
        ("Agent", {"prompt": "A long story", "description": "Story"}, "Story"),
        ("Agent", {"prompt": "A long story"}, "A long story"),
        ("mcp__x", {"n": 1}, '{"n":1}'),
        ("odd", ["a"], '["a"]'),
        ("odd", None, "null"),
    ],
)
def test_a_call_is_told_by_what_tells_most(name: str, given: Any, shown: str) -> None:
    assert wording.call_line(ToolCall("t", name, given)) == shown


def test_what_a_call_was_given_is_told_whole() -> None:
    call = ToolCall("t", "Write", {"file_path": "/x", "content": "a\nb\n", "n": [1, {"x": None}]})
    assert wording.call_details(call) == 'file_path: /x\ncontent:\na\nb\nn: [1,{"x":null}]'


def test_a_conversation_is_called_after_what_was_said_first() -> None:
    found = read_conversation([said("a", None, "\n\nMend the tap\nand more"), answered("b", "a", text("Yes"))])
    assert wording.conversation_title(found) == "Mend the tap"
    assert wording.conversation_title(read_conversation([answered("b", None, tool_use("t"))])) == ""


def test_a_summary_tells_of_what_is_not_known() -> None:
    odd = [said("a", None, "Hi"), said("c", "gone", "Ho"), {"type": "telepathy"}, {"type": "telepathy"}]
    rows = dict(wording.summary(read_conversation(odd)))
    assert rows["unknown"] == "telepathy (2)"
    assert rows["broken links"] == "1 entry names a missing parent"
    assert (rows["cost"], rows["tokens"], rows["time"]) == ("not noted", "none noted", "not noted")


@pytest.mark.parametrize(("count", "shown", "left_out"), [(3, 3, 0), (5, 5, 0), (6, 4, 2)])
def test_one_line_more_is_not_worth_folding(count: int, shown: int, left_out: int) -> None:
    lines, rest = wording.folded([str(number) for number in range(count)], 4)
    assert (len(lines), rest) == (shown, left_out)
