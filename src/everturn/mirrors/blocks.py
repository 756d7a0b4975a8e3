"""Blocks of answers that are being written: pieces that have come, and the whole that has not."""

from __future__ import annotations

from types import EllipsisType
from typing import Any

from everturn.journal.events import Assistant, TextDelta, Thinking, ThinkingDelta, ToolInputDelta, ToolUse
from everturn.mirrors.values import clean

KINDS = {TextDelta.TYPE: "answer", ThinkingDelta.TYPE: "thinking", ToolInputDelta.TYPE: "tool_input"}
WHOLE = {Assistant.TYPE: "answer", Thinking.TYPE: "thinking", ToolUse.TYPE: "tool_input"}

Key = tuple[str | None, str | None, int, str]  # who says it, the answer, the number of the block in it, its kind
Block = list[Any]  # the number and the time of its first piece, its turn, and the pieces


class OpenBlocks:
    """Those of one run. The whole block of a kind completes the first of that kind that its answer has open.

    Args:
        stored: What `stored` returned.
    """

    def __init__(self, stored: list[Any] | None = None) -> None:
        self.found: dict[Key, Block] = {tuple(key): block for key, block in stored or ()}

    def stored(self) -> list[Any]:
        """Return plain values that make the same blocks again."""
        return [
            [key, [seq, at_ms, turn, [clean("".join(said))]]] for key, (seq, at_ms, turn, said) in self.found.items()
        ]

    def complete(self, parent: str | None, message_id: str | None, kind: str) -> None:
        """Note that a whole block has come."""
        keys = [key for key in self.found if (key[0], key[1], key[3]) == (parent, message_id, kind)]
        if keys:
            del self.found[min(keys, key=lambda key: key[2])]

    def give_up(self, parent: str | None, *, but: str | EllipsisType | None = ...) -> list[tuple[Key, Block]]:
        """Take away what somebody will not complete any more: all, but for the answer that is begun now."""
        gone = [key for key in self.found if key[0] == parent and key[1] != but]
        return [(key, self.found.pop(key)) for key in gone]
