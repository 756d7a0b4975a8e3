"""Turns cut down to what a page can show: a tool may answer megabytes, and a turn may call thousands of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from everturn.conversations.conversation import (
    Content,
    Conversation,
    Media,
    Notice,
    Result,
    Step,
    Text,
    ToolCall,
    Turn,
)
from everturn.service.views.session import PlacedTurn

SAID_CHARS = 40_000
TOOL_CHARS = 8_000
IMAGE_CHARS = 2_000_000  # base64
PAGE_IMAGES_CHARS = 8_000_000
STEPS = 400
LINES = 400
LINE_CHARS = 2_000
MEMBERS = 50
DEPTH = 6


@dataclass(slots=True)
class Cutter:
    """Cuts turns.

    Attributes:
        left_out: How many characters it has left out.
        kept: How many it has kept.
    """

    left_out: int = 0
    kept: int = 0

    def turn(self, turn: Turn) -> Turn:
        """Return a turn with its long texts, its large images and its many steps cut."""
        return replace(turn, prompt=self._contents(turn.prompt, SAID_CHARS), steps=self._steps(turn.steps))

    def _steps(self, steps: Sequence[Step]) -> tuple[Step, ...]:
        if len(steps) <= STEPS:
            return tuple(map(self._step, steps))
        head, tail = STEPS // 4, STEPS - STEPS // 4
        between = Notice("left out", f"{len(steps) - head - tail:,} more steps")
        return (*map(self._step, steps[:head]), between, *map(self._step, steps[-tail:]))

    def _step(self, step: Step) -> Step:
        if isinstance(step, ToolCall):
            return self._call(step)
        if isinstance(step, Media):
            return self._media(step)
        return replace(step, text=self._text(step.text, SAID_CHARS))

    def _call(self, call: ToolCall) -> ToolCall:
        return replace(
            call,
            input=self._value(call.input, DEPTH),
            result=None if call.result is None else self._result(call.result),
            agent=None if call.agent is None else self.conversation(call.agent),
        )

    def _result(self, result: Result) -> Result:
        lines = [self._text(line, LINE_CHARS) for line in result.patch[:LINES]]
        if len(result.patch) > LINES:
            rest = result.patch[LINES:]
            self.left_out += sum(map(len, rest))
            lines.append(f" … {len(rest):,} more lines")
        return replace(result, content=self._contents(result.content, TOOL_CHARS), patch=tuple(lines))

    def conversation(self, found: Conversation) -> Conversation:
        """Return what a subagent said and did, cut."""
        return replace(found, turns=tuple(map(self.turn, found.turns)), branches=())

    def _contents(self, contents: Sequence[Content], limit: int) -> tuple[Content, ...]:
        shown = tuple(
            self._media(each) if isinstance(each, Media) else Text(self._text(each.text, limit))
            for each in contents[:MEMBERS]
        )
        rest = contents[MEMBERS:]
        self.left_out += sum(len((each.data or "") if isinstance(each, Media) else each.text) for each in rest)
        return (*shown, Text(f"… {len(rest):,} more")) if rest else shown

    def _media(self, media: Media) -> Media:
        size = len(media.data or "")
        if size <= IMAGE_CHARS:
            self.kept += size
            return media
        self.left_out += size
        return _not_shown(media)

    def _text(self, text: str, limit: int) -> str:
        if len(text) <= limit:
            self.kept += len(text)
            return text
        self.kept += limit
        self.left_out += len(text) - limit
        return f"{text[:limit]}\n… {len(text) - limit:,} more characters"

    def _value(self, value: Any, depth: int) -> Any:
        """Return JSON with long texts, long lists and deep ones cut."""
        if isinstance(value, str):
            return self._text(value, TOOL_CHARS)
        if not isinstance(value, dict | list):
            return value
        if not depth:
            return "…"
        more = len(value) - MEMBERS
        if isinstance(value, list):
            items = [self._value(each, depth - 1) for each in value[:MEMBERS]]
            return [*items, f"… {more:,} more"] if more > 0 else items
        named = list(value.items())[:MEMBERS]
        members = {self._text(str(name), LINE_CHARS): self._value(each, depth - 1) for name, each in named}
        return {**members, "…": f"{more:,} more"} if more > 0 else members


def without_images(placed: Sequence[PlacedTurn]) -> tuple[PlacedTurn, ...]:
    """Return turns with no more images than a page can hold; the last ones stay."""
    left = PAGE_IMAGES_CHARS
    found: list[PlacedTurn] = []
    for each in reversed(placed):
        size = sum(len(media.data or "") for media in _images(each.turn))
        left -= size
        found.append(each if left >= 0 or not size else replace(each, turn=_bare(each.turn)))
    return tuple(reversed(found))


def _images(turn: Turn) -> Iterator[Media]:
    for step in (*turn.prompt, *turn.steps):
        if isinstance(step, Media):
            yield step
        elif isinstance(step, ToolCall):
            yield from (each for each in (step.result.content if step.result else ()) if isinstance(each, Media))
            for inner in step.agent.turns if step.agent else ():
                yield from _images(inner)


def _bare(turn: Turn) -> Turn:
    """Return a turn without its images, and otherwise as it is: what was cut once must not be cut again."""
    return replace(turn, prompt=tuple(map(_bare_content, turn.prompt)), steps=tuple(map(_bare_step, turn.steps)))


def _bare_step(step: Step) -> Step:
    if isinstance(step, Media):
        return _bare_content(step)
    if not isinstance(step, ToolCall):
        return step
    result, agent = step.result, step.agent
    return replace(
        step,
        result=result and replace(result, content=tuple(map(_bare_content, result.content))),
        agent=agent and replace(agent, turns=tuple(map(_bare, agent.turns))),
    )


def _bare_content(content: Content) -> Content:
    return _not_shown(content) if isinstance(content, Media) and content.data else content


def _not_shown(media: Media) -> Media:
    return replace(media, data=None, name=f"{media.name} (too large to be shown here)".strip())
