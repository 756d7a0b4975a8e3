"""How a conversation is put into words, wherever it is shown: titles, times, amounts, tool calls in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence

from everturn.conversations.conversation import Conversation, Media, Notice, Text, ToolCall, Turn, Usage, moment
from everturn.log.entries import as_json

TITLE_LENGTH = 80
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^\x1b\x9c]*(?:\x1b\\|\x9c)?|\x1b[ -/]*[0-~]"
)
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202d\u202e]")  # the last two turn text around
_SURROGATES = re.compile("[\ud800-\udfff]")
_TITLES = {
    "user": "prompt",
    "command": "command",
    "notification": "notification",
    "compaction": "compaction",
    "start": "beginning",
}
# What tells most about a call, in the order in which it is looked for.
_TELLING = (
    "command",
    "file_path",
    "notebook_path",
    "pattern",
    "query",
    "url",
    "skill",
    "description",
    "prompt",
    "path",
)


def clean(text: str) -> str:
    """Return text without what would make a terminal do something, or hide something from a reader."""
    text = _SEQUENCE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return _SURROGATES.sub("\ufffd", _CONTROLS.sub("", text))


def title(turn: Turn) -> str:
    """Return what a turn is: who began it, and how."""
    words = [_TITLES[turn.origin]]
    if turn.resumed:
        words.append("resumed")
    if turn.claim is not None:
        words.append(f"claim {turn.claim}")
    if turn.interrupted:
        words.append("interrupted")
    return ", ".join(words)


def conversation_title(found: Conversation) -> str:
    """Return what a conversation is about: the first line of what was said first."""
    said = (content.text for turn in found.turns for content in turn.prompt if isinstance(content, Text))
    first = next((line for text in said for line in clean(text).split("\n") if line.strip()), "")
    return cut(one_line(first), TITLE_LENGTH)


def turn_line(turn: Turn) -> str:
    """Return what a turn is about, in one line."""
    said = " ".join(content.text for content in turn.prompt if isinstance(content, Text))
    return title(turn) if turn.origin == "compaction" else cut(one_line(said) or title(turn), TITLE_LENGTH)


def media_line(media: Media) -> str:
    """Return what an image or document is, in one line."""
    size_told = f", {size(len(media.data) * 3 // 4)}" if media.data else ""
    return one_line(" ".join(word for word in (media.what, media.media_type, media.name) if word) + size_told)


def facts(turn: Turn) -> list[str]:
    """Return how long a turn took, and what it used, as far as that is known."""
    found: list[str] = []
    if turn.seconds is not None:
        found.append(duration(turn.seconds))
    return found + amounts(turn.usage)


def amounts(usage: Usage) -> list[str]:
    """Return tokens in words, what is zero left out."""
    named = (
        (usage.input_tokens, "in"),
        (usage.output_tokens, "out"),
        (usage.cache_read_tokens, "from cache"),
        (usage.cache_write_tokens, "to cache"),
    )
    return [f"{short(amount)} {name}" for amount, name in named if amount]


def agent_line(agent: Conversation) -> str:
    """Return what a subagent did, in one line."""
    calls = sum(len(turn.calls) for turn in agent.turns)
    words = [plural(calls, "tool call"), *amounts(agent.usage)]
    if agent.seconds is not None:
        words.insert(0, duration(agent.seconds))
    return " · ".join(words)


def summary(found: Conversation) -> list[tuple[str, str]]:
    """Return what a conversation comes to, as names and values."""
    agents = sum(1 for _ in found.all_agents)
    rows = [
        ("turns", str(len(found.turns))),
        ("tool calls", str(found.calls) + (f", those of {plural(agents, 'subagent')} too" if agents else "")),
        ("tokens", " · ".join(amounts(found.usage_with_agents)) or "none noted"),
        ("cost", cost(found)),
        ("time", span(found)),
    ]
    if found.branches:
        rows.append(("taken back", plural(len(found.branches), "branch", "branches")))
    if found.unknown:
        rows.append(("unknown", ", ".join(f"{clean(kind)} ({count})" for kind, count in found.unknown.items())))
    if found.broken_links:
        rows.append(("broken links", plural(found.broken_links, "entry names", "entries name") + " a missing parent"))
    return rows


def cost(found: Conversation) -> str:
    """Return what a conversation has cost, as far as the agent command noted it."""
    if found.cost_usd is None:
        return "not noted"
    return f"{'at least ' if found.cost_is_partial else ''}${found.cost_usd:.2f}"


def span(found: Conversation) -> str:
    """Return from when to when a conversation went."""
    begin, end = moment(found.first_at), moment(found.last_at)
    if begin is None or end is None:
        return "not noted"
    until = clock(found.last_at) if begin.date() == end.date() else f"{end:%Y-%m-%d %H:%M:%S}"
    return f"{begin:%Y-%m-%d %H:%M:%S} to {until} UTC, {duration(found.seconds or 0)}"


def call_line(call: ToolCall) -> str:
    """Return what tells most about a tool call, in one line."""
    given = call.input
    if not isinstance(given, dict):
        return one_line(given if isinstance(given, str) else as_json(given))
    names = ("description", *_TELLING) if call.agent is not None or call.name in ("Agent", "Task") else _TELLING
    telling = next((given[name] for name in names if isinstance(given.get(name), str)), None)
    return one_line(as_json(given) if telling is None else telling)


def call_details(call: ToolCall) -> str:
    """Return everything a tool was called with: long text as it is, the rest as JSON."""
    if not isinstance(call.input, dict):
        return clean(call.input if isinstance(call.input, str) else as_json(call.input))
    lines = []
    for name, value in call.input.items():
        text = clean(value if isinstance(value, str) else as_json(value)).rstrip("\n")
        lines.append(f"{clean(name)}:\n{text}" if "\n" in text else f"{clean(name)}: {text}")
    return "\n".join(lines)


def is_quiet(notice: Notice) -> bool:
    """Tell whether a notice is for the agent, and of no interest to a reader."""
    return notice.about in ("note", "agent command") and not notice.is_error


def failed(call: ToolCall) -> bool:
    """Tell whether a call failed, or was stopped."""
    return call.result is not None and (call.result.is_error or call.result.interrupted)


def cut(text: str, length: int) -> str:
    """Return text of at most this length."""
    return text if len(text) <= length else text[: length - 1] + "…"


def one_line(text: str) -> str:
    """Return text with its white space run together."""
    return " ".join(clean(text).split())


def clock(text: str | None) -> str:
    """Return the time of day of a timestamp, in UTC."""
    when = moment(text)
    return "" if when is None else f"{when:%H:%M:%S}"


def day(text: str | None) -> str:
    """Return the day of a timestamp, in UTC."""
    when = moment(text)
    return "" if when is None else f"{when:%Y-%m-%d}"


def duration(seconds: float) -> str:
    """Return a duration in words."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min"


def short(amount: int) -> str:
    """Return a number in at most four digits."""
    for size, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (1000, "k")):
        if amount >= size:
            return f"{amount / size:.1f}{unit}" if amount < 100 * size else f"{amount // size}{unit}"
    return str(amount)


def size(size_bytes: int) -> str:
    """Return a size in words."""
    for unit, limit in (("MB", 1_000_000), ("kB", 1000)):
        if size_bytes >= limit:
            return f"{size_bytes / limit:.1f} {unit}"
    return f"{size_bytes} bytes"


def plural(amount: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun."""
    return f"{amount} {one if amount == 1 else many or one + 's'}"


def folded(lines: Sequence[str], limit: int) -> tuple[Sequence[str], int]:
    """Return at most this many lines, and how many were left out. One line more is not worth leaving out."""
    return (lines, 0) if len(lines) <= limit + 1 else (lines[:limit], len(lines) - limit)
