"""A conversation as Markdown that reads well on a forge."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import groupby

from markdown_it import MarkdownIt

from everturn.conversations import wording
from everturn.conversations.conversation import (
    Branch,
    Content,
    Conversation,
    Media,
    Notice,
    Step,
    Text,
    Thinking,
    ToolCall,
    Turn,
)
from everturn.transcripts.archive import SessionRef

_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
_STRICT_PARSER = MarkdownIt("commonmark", {"html": True}).enable(["strikethrough", "table"])
_AFTER = ["html_block", "paragraph_open", "inline", "paragraph_close"]
_CODE_SPAN = re.compile(r"(?<![`\\])(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
_HEADING = re.compile(r"(\s{0,3})(#{1,6})(?=\s|$)")


def to_markdown(found: Conversation, ref: SessionRef, *, agents: bool) -> Iterator[str]:
    """Return a conversation as Markdown, in pieces.

    Args:
        found: The conversation.
        ref: The session it is.
        agents: Whether to show what subagents said and did.
    """
    yield f"# {_inline(wording.conversation_title(found) or ref.session_id)}\n\n"
    yield "| | |\n|---|---|\n"
    for name, value in [("session", ref.session_id), ("scope", ref.scope), *wording.summary(found)]:
        yield f"| {name} | {_inline(value)} |\n"
    for turn in found.turns:
        yield from _turn(turn, agents=agents)
        for branch in found.branches:
            if branch.after_turn == turn.number:
                yield from _branch(branch, agents=agents)
    for branch in found.branches:
        if not branch.after_turn:
            yield from _branch(branch, agents=agents)
    for agent in found.agents if agents else ():
        yield from _agent(agent)


def _turn(turn: Turn, *, agents: bool) -> Iterator[str]:
    yield f"\n## {turn.number}. {wording.title(turn).capitalize()}\n\n"
    yield from _body(turn, agents=agents)


def _body(turn: Turn, *, agents: bool) -> Iterator[str]:
    when = " ".join(part for part in (wording.day(turn.started), wording.clock(turn.started)) if part)
    told = " · ".join([f"{when} UTC", *wording.facts(turn)] if when else wording.facts(turn))
    yield f"<sub>{told}</sub>\n\n" if told else ""
    if turn.origin == "compaction":
        yield _details("what came before, summed up for the agent", "".join(map(_said, turn.prompt)))
    else:
        for content in turn.prompt:
            quoted = _said(content).rstrip("\n")
            yield "".join(f"> {line}\n" if line else ">\n" for line in quoted.split("\n")) + "\n"
    named = [_inline(f"{each.what} {each.name}") for each in turn.attachments if each.name]
    yield f"Beside it: {', '.join(named)}\n\n" if named else ""
    for step in turn.steps:
        yield _step(step, agents=agents)


def _branch(branch: Branch, *, agents: bool) -> Iterator[str]:
    inside = "".join(
        f"**{turn.number}. {wording.title(turn).capitalize()}**\n\n" + "".join(_body(turn, agents=agents))
        for turn in branch.turns
    )
    yield "\n" + _details("taken back", inside)


def _agent(agent: Conversation) -> Iterator[str]:
    yield f"\n## Subagent: {_inline(agent.name or 'no name')}\n\n"
    for turn in agent.turns:
        yield from _body(turn, agents=True)


def _step(step: Step, *, agents: bool) -> str:
    if isinstance(step, ToolCall):
        return _call(step, agents=agents)
    if isinstance(step, Thinking):
        return _details("thought", contained(step.text) + "\n\n") if step.text else ""
    if isinstance(step, Notice):
        return "" if wording.is_quiet(step) else f"*{_inline(step.about)}:* {_inline(step.text)}\n\n"
    return _said(step)


def _call(call: ToolCall, *, agents: bool) -> str:
    mark = " ✗" if wording.failed(call) else ""
    line = html.escape(wording.call_line(call))
    inside = _fence(wording.call_details(call))
    if call.agent is not None and agents:
        inside += "".join(piece for turn in call.agent.turns for piece in _body(turn, agents=True))
    if call.result is None:
        inside += "no answer is stored\n\n"
    elif call.result.patch:
        inside += _fence(wording.clean("\n".join(call.result.patch)), "diff")
    else:
        inside += _fence(wording.clean(call.result.text)) if call.result.text.strip() else ""
        inside += "".join(_said(each) for each in call.result.content if isinstance(each, Media))
    told = f" · {wording.agent_line(call.agent)}" if call.agent else ""
    return _details(f"<b>{html.escape(wording.one_line(call.name))}</b>{mark} <code>{line}</code>{told}", inside)


def _said(content: Content) -> str:
    if isinstance(content, Text):
        return contained(content.text) + "\n\n"
    return f"*[{_inline(wording.media_line(content))}]*\n\n"


def contained(text: str) -> str:
    """Return Markdown that stays within its place: no HTML, no open code block, headings below those around it."""
    text = wording.clean(text).strip("\n").rstrip()
    lines = text.split("\n")
    code: set[int] = set()
    end = ""
    for token in _PARSER.parse(text):
        if token.map and token.type in ("fence", "code_block"):
            code.update(range(*token.map))
            end = f"\n{token.markup}" if token.type == "fence" and not token.level else ""
        if token.map and token.type == "heading_open" and token.markup.startswith("#"):
            lines[token.map[0]] = _HEADING.sub(_lower, lines[token.map[0]], count=1)
    shown = "\n".join(_without_html(lines, code))
    escaped = "\n".join(line if at in code else line.replace("<", "&lt;") for at, line in enumerate(lines))
    for attempt in (shown, shown + end, escaped, escaped + end):
        if _stays_in_place(attempt):
            return attempt
    return _fence(text).rstrip("\n")


def _stays_in_place(text: str) -> bool:
    """Tell whether a text holds no HTML, and what follows it is read as if it stood alone."""
    tokens = _STRICT_PARSER.parse(f"{text}\n\n</details>\n\nafter")
    inside = [child for token in tokens[:-4] for child in (token, *(token.children or ()))]
    if any(token.type.startswith("html") for token in inside):
        return False
    return [token.type for token in tokens[-4:]] == _AFTER and tokens[-3].level == 0 and tokens[-2].content == "after"


def _without_html(lines: list[str], code: set[int]) -> Iterator[str]:
    """Escape what would open a tag, in everything but code. Paragraphs are kept whole: code spans go across lines."""
    for is_code, group in groupby(enumerate(lines), lambda each: each[0] in code or not each[1].strip()):
        text = "\n".join(line for _, line in group)
        yield text if is_code else _escaped(text)


def _escaped(text: str) -> str:
    shown, at = [], 0
    for span in _CODE_SPAN.finditer(text):
        shown += [text[at : span.start()].replace("<", "&lt;"), span[0]]
        at = span.end()
    return "".join([*shown, text[at:].replace("<", "&lt;")])


def _lower(match: re.Match[str]) -> str:
    return match[1] + "#" * min(6, len(match[2]) + 2)


def _inline(text: str) -> str:
    """Return text as one line that means nothing in Markdown."""
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(wording.one_line(text), quote=False))


def _details(summary: str, inside: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{inside}</details>\n\n"


def _fence(text: str, language: str = "") -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    mark = "`" * max(3, longest + 1)
    return f"{mark}{language}\n{text.rstrip()}\n{mark}\n\n"
