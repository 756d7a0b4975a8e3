"""What the SDK says of recorded frames: the messages that a run writes to its journal and trace.

Only transcripts were recorded. An entry of the model is a block of its answer; the pieces that it came in are cut as
the recorded model cut them, and came at its pace before the frame that has the block: a word, or 16 characters of a
tool's input, each 15 ms. Of subagents, whole messages are told, and no pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from claude_agent_sdk import (
    AssistantMessage,
    Message,
    ResultMessage,
    SystemMessage,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)
from claude_agent_sdk.types import StreamEvent

from bench.conversations import CHUNK_S
from bench.frames import Frame

INPUT_CHUNK_CHARS = 16
_DELTAS = {"text": "text_delta", "thinking": "thinking_delta", "tool_use": "input_json_delta"}
_FIELDS = {"text": "text", "thinking": "thinking", "tool_use": "partial_json"}


@dataclass(frozen=True)
class Said:
    """A message, and when it came."""

    at_s: float
    message: Message


def messages_of(frame: Frame, before_s: float, session_id: str) -> list[Said]:
    """Return what is said up to a frame.

    Args:
        frame: The frame.
        before_s: When the one before came: nothing of this one is older.
        session_id: The conversation.
    """
    parent = f"toolu_{frame.subpath[-17:]}" if frame.subpath else None
    found: list[Message] = []
    for entry in frame.entries():
        content = entry.get("message", {}).get("content")
        if entry["type"] == "assistant":
            for block in content:
                found += _block(entry, block, parent, session_id)
        elif entry["type"] == "user" and isinstance(content, list):
            found.append(_results(entry, content, parent))
    pieces = sum(isinstance(message, StreamEvent) for message in found)
    pace_s = min(CHUNK_S, (frame.at_s - before_s) / max(1, pieces))
    at_s, said = frame.at_s - pieces * pace_s, list[Said]()
    for message in found:
        at_s = min(frame.at_s, at_s + pace_s * isinstance(message, StreamEvent))
        said.append(Said(at_s, message))
    return said


def begins(session_id: str, cwd: str) -> Message:
    """Return what an agent says first."""
    data = {"type": "system", "subtype": "init", "session_id": session_id, "cwd": cwd, "model": "claude-opus-5-5"}
    return SystemMessage("init", {**data, "tools": ["Bash", "Edit", "Read", "Write"]})


def ends(session_id: str, duration_s: float) -> Message:
    """Return what an agent says last."""
    return ResultMessage(
        subtype="success",
        duration_ms=int(duration_s * 1000),
        duration_api_ms=int(duration_s * 800),
        is_error=False,
        num_turns=1,
        session_id=session_id,
        stop_reason="end_turn",
        total_cost_usd=1.0,
        usage={"input_tokens": 1, "output_tokens": 1},
        result="Done.",
    )


def _block(entry: dict[str, Any], block: dict[str, Any], parent: str | None, session_id: str) -> Iterator[Message]:
    message = entry["message"]
    index, kind = entry.get("apiBlockIndex", 0), block["type"]
    if parent is None:
        if index == 0:
            opened = {name: value for name, value in message.items() if name != "content"}
            yield _event({"type": "message_start", "message": {**opened, "content": []}}, session_id)
        yield _event({"type": "content_block_start", "index": index, "content_block": {"type": kind}}, session_id)
        for piece in _cut(block):
            delta = {"type": _DELTAS[kind], _FIELDS[kind]: piece}
            yield _event({"type": "content_block_delta", "index": index, "delta": delta}, session_id)
    yield AssistantMessage(
        [_whole(block)], message["model"], parent, usage=message.get("usage"), message_id=message["id"]
    )
    if parent is None:
        yield _event({"type": "content_block_stop", "index": index}, session_id)


def _whole(block: dict[str, Any]) -> TextBlock | ThinkingBlock | ToolUseBlock:
    if block["type"] == "text":
        return TextBlock(block["text"])
    if block["type"] == "thinking":
        return ThinkingBlock(block["thinking"], block["signature"])
    return ToolUseBlock(block["id"], block["name"], block["input"])


def _cut(block: dict[str, Any]) -> list[str]:
    if block["type"] == "tool_use":
        text = orjson.dumps(block["input"]).decode()
        return [text[start : start + INPUT_CHUNK_CHARS] for start in range(0, len(text), INPUT_CHUNK_CHARS)]
    return block[block["type"]].split(" ")  # type: ignore[no-any-return]


def _results(entry: dict[str, Any], content: list[dict[str, Any]], parent: str | None) -> Message:
    blocks = [
        ToolResultBlock(block["tool_use_id"], block.get("content"), block.get("is_error"))
        if block["type"] == "tool_result"
        else TextBlock(block.get("text", ""))
        for block in content
    ]
    return UserMessage(list(blocks), parent_tool_use_id=parent, tool_use_result=entry.get("toolUseResult"))


def _event(event: dict[str, Any], session_id: str) -> StreamEvent:
    return StreamEvent("", session_id, event)
