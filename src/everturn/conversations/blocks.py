"""The pieces in which an answer came, and the whole blocks that follow them (docs/journal.md, Reading).

A whole block takes the place of its pieces. Where none follows, because the worker was killed or the answer broke
off, the pieces stay. So each piece is told exactly once.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from everturn.conversations.threads import text_of
from everturn.conversations.turns import INTERRUPTED
from everturn.journal.events import (
    Assistant,
    Delta,
    Ended,
    Event,
    Prompt,
    Result,
    Stream,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolInputDelta,
    ToolUse,
    User,
)
from everturn.journal.lines import Recorded

_KINDS: dict[type[Event], str] = {
    TextDelta: "text",
    Assistant: "text",
    ThinkingDelta: "thinking",
    Thinking: "thinking",
    ToolInputDelta: "tool",
    ToolUse: "tool",
}
_TOOLS = ("tool_use", "server_tool_use", "mcp_tool_use")

Key = tuple[str | None, int, str]


@dataclass(slots=True)
class Block:
    """A block of an answer that was begun.

    Attributes:
        first: The event that began it.
        kind: `text`, `thinking` or `tool`.
        message_id: The model's answer.
        call_id: The id of the tool call, if it is one.
        name: The tool.
        pieces: What has come of it so far.
        whole: The event that has all of it.
        is_complete: Whether all pieces have come.
        is_over: Whether nothing more will come.
    """

    first: Recorded
    kind: str
    message_id: str | None
    call_id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    whole: Recorded | None = None
    is_complete: bool = False
    is_over: bool = False

    @property
    def text(self) -> str:
        """What has come of it so far."""
        return "".join(self.pieces)

    def is_in(self, event: Event) -> bool:
        """Tell whether a whole block has all pieces of this one in it, in order."""
        if isinstance(event, ToolUse):
            return self.call_id in (event.call_id, "")
        whole = event.text if isinstance(event, Assistant | Thinking) else ""
        if isinstance(event, Thinking) and not whole:
            return True  # only its signature was kept
        return bool(self.text.strip()) and _in_order(self.pieces, whole)

    def equals(self, event: Event) -> bool:
        """Tell whether a whole block is what has come of this one, white space around it aside."""
        if isinstance(event, ToolUse):
            return self.call_id == event.call_id
        return isinstance(event, Assistant | Thinking) and event.text.strip() == self.text.strip()


@dataclass(frozen=True, slots=True)
class Told:
    """Something that is told in one piece.

    Attributes:
        recorded: The event, or the first one of a block whose whole is not there.
        event: What it says; what has come of the block, if its whole is not there. `None`: not known.
        is_cut_off: Whether it is the beginning of a block that was never finished.
        block: The block, if it came in pieces.
    """

    recorded: Recorded
    event: Event | None
    is_cut_off: bool = False
    block: Block | None = None


class Blocks:
    """Puts the events of one thread together: those of an agent, or of one of its subagents."""

    def __init__(self) -> None:
        self._waiting: deque[Block | Recorded] = deque()
        self._open: dict[Key, Block] = {}

    def add(self, recorded: Recorded) -> None:
        """Take the next event."""
        event = recorded.event
        if isinstance(event, Stream):
            self._stream(event, recorded)
        elif isinstance(event, Delta):
            kind = _KINDS[type(event)]
            block = self._open.get((event.message_id, event.index, kind))
            if block is None or block.is_complete:
                block = self._begin((event.message_id, event.index, kind), recorded)
            block.pieces.append(event.text)
        elif isinstance(event, Assistant | Thinking | ToolUse) and (found := self._find(event)) is not None:
            key, block = found
            block.whole = recorded
            del self._open[key]
        else:
            if isinstance(event, Prompt | Result | Ended) or is_interruption(event):
                self.close()
            self._waiting.append(recorded)

    def close(self) -> None:
        """Expect no more of what was begun."""
        for block in self._open.values():
            block.is_over = True
        self._open.clear()

    def settled(self) -> Iterator[Told]:
        """Take out what can be told now, in order: all that stands before the first block that is still open."""
        while self._waiting:
            first = self._waiting[0]
            if isinstance(first, Block) and first.whole is None and not first.is_over:
                return
            self._waiting.popleft()
            if isinstance(first, Recorded):
                yield Told(first, first.event)
            elif (told := _told(first)) is not None:
                yield told

    @property
    def current(self) -> Block | None:
        """The block that is told next and is not finished."""
        first = self._waiting[0] if self._waiting else None
        return first if isinstance(first, Block) else None

    def _stream(self, event: Stream, recorded: Recorded) -> None:
        raw = event.event
        kind, index = raw.get("type"), raw.get("index")
        if kind == "message_start":
            self.close()
        elif kind == "content_block_start" and isinstance(index, int):
            self._end(event.message_id, index, is_over=True)  # another one with the same number is not the same
            begun = raw.get("content_block")
            if isinstance(begun, dict) and begun.get("type") in _TOOLS:
                block = self._begin((event.message_id, index, "tool"), recorded)
                block.call_id, block.name = text_of(begun.get("id")), text_of(begun.get("name"))
        elif kind == "content_block_stop" and isinstance(index, int):
            self._end(event.message_id, index)
        elif kind == "message_delta":
            self._waiting.append(recorded)  # it tells what the answer has used

    def _begin(self, key: Key, recorded: Recorded) -> Block:
        if key in self._open:
            self._open.pop(key).is_over = True
        block = self._open[key] = Block(recorded, key[2], key[0])
        self._waiting.append(block)
        return block

    def _end(self, message_id: str | None, index: int, *, is_over: bool = False) -> None:
        for kind in ("text", "thinking", "tool"):
            block = self._open.get((message_id, index, kind))
            if block is not None and is_over:
                self._open.pop((message_id, index, kind)).is_over = True
            elif block is not None:
                block.is_complete = True

    def _find(self, event: Assistant | Thinking | ToolUse) -> tuple[Key, Block] | None:
        """Find the block that an event is the whole of: whole blocks come in the order in which they were begun."""
        kind = _KINDS[type(event)]
        found = [
            (key, block)
            for key, block in self._open.items()
            if block.kind == kind
            and (block.message_id == event.message_id or None in (block.message_id, event.message_id))
        ]
        exact = (each for each in found if each[1].equals(event))
        return next(exact, None) or next((each for each in found if each[1].is_in(event)), None)


def is_interruption(event: Event | None) -> bool:
    """Tell whether an event says that the agent was interrupted."""
    return isinstance(event, User) and event.text.startswith(INTERRUPTED)


def _told(block: Block) -> Told | None:
    if block.whole is not None:
        event = block.whole.event
        if isinstance(event, Thinking) and not event.text:  # only its signature was kept
            event = replace(event, text=block.text)
        return Told(block.whole, event, block=block)
    event, is_known = _so_far(block)
    if block.kind != "tool" and not block.text.strip():
        return None
    return Told(block.first, event, not (block.is_complete and is_known), block)


def _so_far(block: Block) -> tuple[Event, bool]:
    """Return what has come of a block, and whether that can be read."""
    if block.kind == "text":
        return Assistant(block.text, block.message_id), True
    if block.kind == "thinking":
        return Thinking(block.text, block.message_id), True
    given, is_known = _input(block.text)
    return ToolUse(block.call_id, block.name, given, block.message_id), is_known


def _input(text: str) -> tuple[Any, bool]:
    try:
        return (json.loads(text) if text else {}), True
    except (ValueError, RecursionError):
        return text, False


def _in_order(pieces: list[str], whole: str) -> bool:
    """Tell whether a text is made of these pieces; some between them may be lost."""
    place = 0
    for piece in pieces:
        place = whole.find(piece, place)
        if place < 0:
            return False
        place += len(piece)
    return True
