"""Messages of the SDK as events: each class of them, those that are not as their class says, and those to come."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import anyio
import claude_agent_sdk.types
import jsonschema
import pytest
from claude_agent_sdk import (
    AssistantMessage,
    ClaudeAgentOptions,
    Message,
    ResultMessage,
    SystemMessage,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)
from claude_agent_sdk._internal.message_parser import parse_message
from claude_agent_sdk.types import MirrorErrorMessage, ServerToolResultBlock, ServerToolUseBlock, StreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from everturn import Runtime, Settings, WorkItem
from everturn.journal.events import (
    Assistant,
    Event,
    Init,
    MirrorError,
    Other,
    RateLimit,
    Result,
    Stream,
    Subagent,
    System,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolInputDelta,
    ToolResult,
    ToolUse,
    User,
)
from everturn.journal.lines import line_of, parse
from everturn.journal.messages import Scribe
from everturn.journal.schema import schema
from everturn.log.objects import run
from everturn.opening import open_journals
from everturn.testing import Reply, ScriptedModel, Text, cli_environment
from everturn.testing import ToolUse as CallTool

CHECK = jsonschema.Draft202012Validator(schema())
USAGE = {"input_tokens": 3, "output_tokens": 5}
ENDED = {
    "type": "result",
    "subtype": "success",
    "duration_ms": 20,
    "duration_api_ms": 10,
    "is_error": False,
    "num_turns": 2,
    "session_id": "s",
    "total_cost_usd": 0.25,
    "usage": USAGE,
    "result": "Done.",
    "modelUsage": {"opus": {"costUSD": 0.25}},
    "stop_reason": "end_turn",
    "terminal_reason": "completed",
    "errors": ["none"],
    "structured_output": {"a": 1},
    "permission_denials": [{"tool_name": "Bash"}],
}


def of(*messages: Message) -> list[Event]:
    """Return the events of messages; each is written, read, and of the schema."""
    scribe = Scribe()
    events = [event for message in messages for event in scribe.events(message)]
    for event in events:
        CHECK.validate(parse(line_of(event, 1, 0)).raw)
    return events


def sent(**data: Any) -> Message:
    """Return what the SDK makes of a line of the agent command."""
    message = parse_message(data)
    assert message is not None
    return message


def said(subtype: str, **data: Any) -> dict[str, Any]:
    return {"type": "system", "subtype": subtype, "uuid": "u", "session_id": "s", **data}


def system(subtype: str, **data: Any) -> Message:
    return sent(**said(subtype, **data))


def stream(event: Any, parent: str | None = None) -> StreamEvent:
    return StreamEvent(uuid="u", session_id="s", event=event, parent_tool_use_id=parent)


def begun(message_id: str) -> dict[str, Any]:
    return {"type": "message_start", "message": {"id": message_id}}


def piece(index: Any, kind: str, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **delta}}


# --- Each class -----------------------------------------------------------------------------------------------------


def test_an_answer_is_an_event_for_each_block_and_its_tokens_come_once() -> None:
    blocks = [
        ThinkingBlock("Hm.", "signed"),
        TextBlock("A tap."),
        ToolUseBlock("c1", "Bash", {"command": "ls"}),
        ServerToolUseBlock("c2", "web_search", {"query": "taps"}),
        ServerToolResultBlock("c2", {"type": "found"}),
    ]
    answer = AssistantMessage(blocks, "opus", message_id="m1", parent_tool_use_id="c0", usage=USAGE)
    assert of(answer) == [
        Thinking("Hm.", "m1", "opus", "c0", USAGE),
        Assistant("A tap.", "m1", "opus", "c0"),
        ToolUse("c1", "Bash", {"command": "ls"}, "m1", "opus", "c0"),
        ToolUse("c2", "web_search", {"query": "taps"}, "m1", "opus", "c0", server=True),
        ToolResult("c2", {"type": "found"}, parent="c0"),
    ]


def test_an_answer_with_nothing_in_it_is_an_event() -> None:
    assert of(AssistantMessage([], "<synthetic>", error="rate_limit")) == [
        Assistant("", None, "<synthetic>", error="rate_limit")
    ]


def test_what_is_said_to_the_model() -> None:
    origin: Any = {"kind": "human"}
    results = [ToolResultBlock("c1", "ok"), ToolResultBlock("c2", [{"type": "text", "text": "no"}], is_error=True)]
    assert of(
        UserMessage("Go on.", parent_tool_use_id="c0", origin=origin),
        UserMessage([*results, TextBlock("Interrupted.")], tool_use_result={"patch": "+1"}),
        UserMessage([]),
    ) == [
        User("Go on.", "c0", origin),
        ToolResult("c1", "ok", details={"patch": "+1"}),
        ToolResult("c2", [{"type": "text", "text": "no"}], is_error=True),
        User("Interrupted."),
        User(""),
    ]


def test_what_the_agent_command_says_of_itself() -> None:
    tools = ["Bash", "Read"]
    init = {"model": "opus", "cwd": "/w", "claude_code_version": "2.1", "permissionMode": "plan", "tools": tools}
    assert of(
        system("init", **init),
        system("init"),
        system("compact_boundary", trigger="auto"),
        system("hook_started", hook_event="Stop"),
    ) == [
        Init("s", "opus", "/w", "2.1", "plan", tools),
        Init("s", None, None, None, None, []),
        System("compact_boundary", {"trigger": "auto"}),
        System("hook_started", {"hook_event": "Stop"}),
    ]


def test_tasks_beside_the_conversation() -> None:
    spent = {"total_tokens": 9, "tool_uses": 1, "duration_ms": 5}
    told = {"output_file": "/tmp/x", "summary": "A washer."}
    assert of(
        system("task_started", task_id="t", description="Look", tool_use_id="c"),
        system("task_progress", task_id="t", description="Look", usage=spent, tool_use_id="c"),
        system("task_notification", task_id="t", status="completed", usage=spent, tool_use_id="c", **told),
        system("task_updated", task_id="t", patch={"status": "killed"}),
        system("task_updated", task_id="t", patch=None),
    ) == [
        Subagent("t", "started", "Look", "c"),
        Subagent("t", "progress", "Look", "c", usage=spent),
        Subagent("t", "completed", call_id="c", summary="A washer.", usage=spent),
        Subagent("t", "killed"),
        Subagent("t", "updated"),
    ]


def test_trouble_limits_and_results() -> None:
    key: Any = {"project_key": "p", "session_id": "s"}
    info = {"status": "rejected", "resetsAt": 5, "news": "from later"}
    assert of(
        MirrorErrorMessage(subtype="mirror_error", data={}, key=key, error="full"),
        sent(type="rate_limit_event", rate_limit_info=info, uuid="u", session_id="s"),
        sent(**ENDED),
    ) == [
        MirrorError("full", key),
        RateLimit("rejected", info),
        Result(
            subtype="success",
            is_error=False,
            text="Done.",
            model_turns=2,
            duration_ms=20,
            duration_api_ms=10,
            cost_usd=0.25,
            usage=USAGE,
            model_usage={"opus": {"costUSD": 0.25}},
            stop_reason="end_turn",
            terminal_reason="completed",
            errors=["none"],
            structured_output={"a": 1},
            permission_denials=[{"tool_name": "Bash"}],
        ),
    ]


def test_a_class_of_messages_that_nobody_knew_is_kept() -> None:
    @dataclasses.dataclass
    class DaydreamMessage:
        about: str
        depth: float
        block: Any

    daydream: Any = DaydreamMessage("sheep", math.inf, TextBlock("Baa."))
    reset = sent(type="conversation_reset", new_conversation_id="n", uuid="u", session_id="s")
    assert of(daydream, reset) == [
        Other("DaydreamMessage", {"about": "sheep", "depth": math.inf, "block": {"text": "Baa."}}),
        Other("ConversationResetMessage", {"new_conversation_id": "n", "uuid": "u", "session_id": "s"}),
    ]


def test_a_block_that_nobody_knew_is_kept() -> None:
    @dataclasses.dataclass
    class SongBlock:
        notes: list[str]

    song: Any = SongBlock(["c", "e"])
    assert (
        of(AssistantMessage([song], "opus"), UserMessage([song])) == [Other("SongBlock", {"notes": ["c", "e"]})] * 2
    )


def test_every_class_of_messages_of_the_sdk_is_read() -> None:
    readers = Scribe()._readers
    known = {*readers, SystemMessage, claude_agent_sdk.types.HookEventMessage}
    assert set(Message.__args__) - known <= {claude_agent_sdk.types.ConversationResetMessage}


# --- Pieces ---------------------------------------------------------------------------------------------------------


def test_pieces_belong_to_the_answer_that_was_begun_last_by_the_same_speaker() -> None:
    events = of(
        stream(begun("m1")),
        stream(piece(0, "thinking_delta", thinking="Hm")),
        stream(begun("m2"), "c1"),
        stream(piece(0, "text_delta", text="sub"), "c1"),
        stream(piece(1, "text_delta", text="main")),
        stream(piece(2, "input_json_delta", partial_json='{"a"')),
        stream(begun("m3")),
        stream(piece(0, "text_delta", text="next")),
        stream(piece(1, "input_json_delta", partial_json="{"), "c1"),
    )
    assert events == [
        Stream("m1", begun("m1")),
        ThinkingDelta("m1", 0, "Hm"),
        Stream("m2", begun("m2"), "c1"),
        TextDelta("m2", 0, "sub", "c1"),
        TextDelta("m1", 1, "main"),
        ToolInputDelta("m1", 2, '{"a"'),
        Stream("m3", begun("m3")),
        TextDelta("m3", 0, "next"),
        ToolInputDelta("m2", 1, "{", "c1"),
    ]


def test_a_piece_before_any_answer_is_kept() -> None:
    assert of(stream(piece(0, "text_delta", text="?"))) == [TextDelta(None, 0, "?")]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "usage": USAGE},
        piece(0, "signature_delta", signature="x"),
        piece(0, "daydream_delta", sheep=1),
        piece("0", "text_delta", text="x"),
        piece(True, "text_delta", text="x"),
        piece(0, "text_delta", text=None),
        {"type": "content_block_delta", "index": 0},
        {"type": "message_start", "message": None},
        {"type": ["ping"]},
        {},
    ],
)
def test_whatever_else_is_streamed_is_kept_as_it_is(event: dict[str, Any]) -> None:
    assert of(stream(event)) == [Stream(None, event)]


@pytest.mark.parametrize("event", [None, "ping", ["message_start"], {"type": "content_block_delta", "delta": "x"}])
def test_what_is_no_event_of_a_stream_is_kept(event: Any) -> None:
    (kept,) = of(stream(event))
    assert isinstance(kept, Other)
    assert (kept.kind, kept.data["event"]) == ("StreamEvent", event)


def test_the_pieces_of_a_block_say_what_the_block_says() -> None:
    pieces = ["Let ", "me ", "look", "."]
    events = of(stream(begun("m")), *(stream(piece(0, "text_delta", text=each)) for each in pieces))
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "".join(pieces)


# --- Messages that are not as their class says ----------------------------------------------------------------------

junk: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
blocks: Any = st.one_of(
    st.builds(TextBlock, text=junk),
    st.builds(ThinkingBlock, thinking=junk, signature=junk),
    st.builds(ToolUseBlock, id=junk, name=junk, input=junk),
    st.builds(ToolResultBlock, tool_use_id=junk, content=junk, is_error=junk),
    st.builds(ServerToolUseBlock, id=junk, name=junk, input=junk),
    st.builds(ServerToolResultBlock, tool_use_id=junk, content=junk),
    junk,
)
streamed: Any = st.fixed_dictionaries(
    {"type": st.sampled_from(["message_start", "content_block_delta"]) | junk},
    optional={
        "message": junk | st.fixed_dictionaries({"id": junk}),
        "delta": junk | st.fixed_dictionaries({"type": st.just("text_delta"), "text": junk}),
        "index": junk,
    },
)


def anything_in(kind: Any) -> st.SearchStrategy[Any]:
    """Return messages of a class with anything in their fields."""
    some = {each.name: junk for each in dataclasses.fields(kind)}
    some |= {"content": st.lists(blocks, max_size=3) | junk} if "content" in some else {}
    some |= {"event": streamed | junk} if "event" in some else {}
    some |= {"subtype": st.just("init") | junk} if "subtype" in some else {}
    return st.builds(kind, **some)


messages: Any = st.one_of([anything_in(kind) for kind in Message.__args__])


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(messages, min_size=1, max_size=5))
def test_no_message_is_refused_whatever_it_holds(many: list[Message]) -> None:
    scribe = Scribe()
    for message in many:
        events = scribe.events(message)
        assert events
        for event in events:
            found = parse(line_of(event, 1, 0))
            assert found.event is not None
            CHECK.validate(found.raw)


def test_a_message_that_is_not_as_its_class_says_is_kept_whole() -> None:
    wrong: Any = AssistantMessage([TextBlock("Fine."), TextBlock(7)], "opus")
    (kept,) = of(wrong)
    assert isinstance(kept, Other)
    assert kept.kind == "AssistantMessage"
    assert kept.data["content"] == [{"text": "Fine."}, {"text": 7}]


def test_a_result_that_lacks_what_it_should_say_is_kept() -> None:
    (kept,) = of(sent(**{**ENDED, "num_turns": None}))
    assert isinstance(kept, Other)
    assert (kept.kind, kept.data["result"]) == ("ResultMessage", "Done.")


# --- The real agent -------------------------------------------------------------------------------------------------


@pytest.mark.cli
@pytest.mark.slow
def test_whatever_the_real_agent_says_becomes_lines_of_the_schema(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    heard: list[Message] = []
    settings = Settings.load(state=tmp_path / "state")
    look = Reply(Text("Let me look."), CallTool("Bash", {"command": "echo a tap"}))

    async def main() -> None:
        options = ClaudeAgentOptions(
            cwd=tmp_path, setting_sources=[], include_partial_messages=True, permission_mode="bypassPermissions"
        )
        runtime = Runtime(settings)
        async for message in runtime.run(WorkItem.task("tap"), prompt="Mend the tap.", options=options):
            heard.append(message)  # noqa: PERF401

    with ScriptedModel([look, Reply(Text("It drips."))]).serve() as url:
        for name, value in cli_environment(url, tmp_path, path=os.environ["PATH"], tmpdir=tmp_path).items():
            monkeypatch.setenv(name, value)
        anyio.run(main)
    assert isinstance(heard[-1], ResultMessage)
    events = of(*heard)
    kinds = {type(event) for event in events}
    assert {Init, TextDelta, ToolInputDelta, Stream, Assistant, ToolUse, ToolResult, Result} <= kinds
    assert Other not in kinds
    texts = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert texts == "".join(event.text for event in events if isinstance(event, Assistant)) == "Let me look.It drips."
    inputs = "".join(event.text for event in events if isinstance(event, ToolInputDelta))
    assert json.loads(inputs) == {"command": "echo a tap"}
    journals = open_journals(settings)
    (ref,) = run(journals.tails())
    stored = run(journals.read(ref))
    for line in stored.events:
        CHECK.validate(line.raw)
    assert (stored.missing, stored.unreadable) == ((), 0)
    assert [line.type for line in stored.events][:2] == ["started", "prompt"]
    assert [line.event for line in stored.events if type(line.event) in kinds] == events
