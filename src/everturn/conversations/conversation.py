"""A transcript as a conversation: what was said and done, in order. Data only; `reading.py` makes it from entries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from typing import Any, Literal

Origin = Literal["user", "command", "notification", "compaction", "start"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, as the model's answers tell them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    @property
    def total_tokens(self) -> int:
        """All of them, read from the cache or not."""
        return sum(getattr(self, each.name) for each in fields(self))


@dataclass(frozen=True, slots=True)
class Text:
    """Something that was said."""

    text: str
    kind: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class Thinking:
    """What the model thought; empty where only a signature of it is kept."""

    text: str
    kind: Literal["thinking"] = "thinking"


@dataclass(frozen=True, slots=True)
class Media:
    """An image or a document.

    Attributes:
        what: `image`, `document`, or any other type of block with a source.
        media_type: As the transcript has it; nothing is checked.
        data: Base64, if the transcript holds it.
        name: A title or an address, if it has one.
    """

    what: str
    media_type: str = ""
    data: str | None = None
    name: str = ""
    kind: Literal["media"] = "media"


Content = Text | Media


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the agent command noted, beside the conversation.

    Attributes:
        about: What it is about: `interrupted`, `output`, `prompt` (said while the agent was at work), `note`, `agent
            command`, the subtype of a system entry, or the type of a block that is not known.
        text: What it says.
        is_error: Whether it tells of a failure.
    """

    about: str
    text: str
    is_error: bool = False
    kind: Literal["notice"] = "notice"


@dataclass(frozen=True, slots=True)
class Result:
    """What a tool answered.

    Attributes:
        content: Its text and images.
        is_error: Whether the tool failed.
        interrupted: Whether it was stopped, or nobody knows how it ended.
        at: When.
        patch: The lines of a unified diff, where the tool has changed a file.
    """

    content: tuple[Content, ...] = ()
    is_error: bool = False
    interrupted: bool = False
    at: str | None = None
    patch: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Its text."""
        return "\n".join(each.text for each in self.content if isinstance(each, Text))


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call of the model's.

    Attributes:
        call_id: Its id.
        name: The tool.
        input: What it was called with, as JSON.
        at: When.
        result: What it answered, if it did.
        agent: What the subagent said and did that this call started, if its transcript is known.
    """

    call_id: str
    name: str
    input: Any
    at: str | None = None
    result: Result | None = None
    agent: Conversation | None = None
    kind: Literal["tool_call"] = "tool_call"


Step = Text | Thinking | Media | Notice | ToolCall


@dataclass(frozen=True, slots=True)
class Attachment:
    """Something that was put beside a prompt.

    Attributes:
        what: Its type: `file`, `environment`, …
        name: The file, if it is one.
    """

    what: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """A prompt and everything up to the next one.

    Attributes:
        number: From 1.
        origin: Who began it: `user`; a slash `command`; the `notification` of a task in the background; a
            `compaction`, whose prompt is the summary of what came before; `start`: it begins without a prompt.
        prompt: What was said.
        steps: What the agent said and did.
        started: When, as the transcript has it.
        ended: The time of its last entry.
        usage: Tokens, each answer of the model counted once.
        models: The models that answered.
        claim: The epoch of the claim that was taken just before, if the store tells.
        resumed: Whether another process went on with the conversation here, as far as can be told.
        interrupted: Whether it was stopped, or its process died in the middle of a tool call.
        attachments: What was put beside the prompt.
    """

    number: int
    origin: Origin
    prompt: tuple[Content, ...] = ()
    steps: tuple[Step, ...] = ()
    started: str | None = None
    ended: str | None = None
    usage: Usage = Usage()
    models: tuple[str, ...] = ()
    claim: int | None = None
    resumed: bool = False
    interrupted: bool = False
    attachments: tuple[Attachment, ...] = ()

    @property
    def seconds(self) -> float | None:
        """How long it took, by the clocks of those who wrote it."""
        return seconds_between(self.started, self.ended)

    @property
    def calls(self) -> list[ToolCall]:
        """Its tool calls, those of subagents left out."""
        return [step for step in self.steps if isinstance(step, ToolCall)]


@dataclass(frozen=True, slots=True)
class Branch:
    """Something that was said and then taken back: the conversation went on from an earlier point.

    Attributes:
        after_turn: The number of the turn it forks off from; 0 for the very beginning.
        turns: What was said.
    """

    after_turn: int
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A transcript.

    Attributes:
        name: What a subagent was called on for; empty for a main transcript.
        subpath: Where a subagent's transcript lies below its session; `None` for a main transcript.
        turns: The conversation.
        branches: What was taken back.
        agents: Subagents that no tool call of this transcript is known for.
        usage: Tokens of this transcript, of its branches too, of subagents not.
        cost_usd: What it has cost, subagents and all, as the agent command noted it; `None` if it did not.
        cost_is_partial: Whether more was spent: a process died before it noted it, or prices were not known.
        first_at: The time of the first entry that has one.
        last_at: The time of the last.
        entries: How many entries there are, by type.
        unknown: How many of them, and of the blocks inside them, are of a type or shape that is not known here.
        broken_links: How many entries name a parent that is not in the transcript.
    """

    name: str = ""
    subpath: str | None = None
    turns: tuple[Turn, ...] = ()
    branches: tuple[Branch, ...] = ()
    agents: tuple[Conversation, ...] = ()
    usage: Usage = Usage()
    cost_usd: float | None = None
    cost_is_partial: bool = False
    first_at: str | None = None
    last_at: str | None = None
    entries: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    broken_links: int = 0

    @property
    def all_turns(self) -> Iterator[Turn]:
        """Its turns, and then those of its branches."""
        yield from self.turns
        for branch in self.branches:
            yield from branch.turns

    @property
    def all_agents(self) -> Iterator[Conversation]:
        """Its subagents, theirs, and so on."""
        called = (call.agent for turn in self.all_turns for call in turn.calls)
        for agent in [*(agent for agent in called if agent is not None), *self.agents]:
            yield agent
            yield from agent.all_agents

    @property
    def usage_with_agents(self) -> Usage:
        """Tokens of this transcript and of its subagents."""
        return sum((agent.usage for agent in self.all_agents), self.usage)

    @property
    def calls(self) -> int:
        """How many tool calls there are in its turns and in its subagents."""
        own = sum(len(turn.calls) for turn in self.turns)
        return own + sum(len(turn.calls) for agent in self.all_agents for turn in agent.turns)

    @property
    def seconds(self) -> float | None:
        """The time between its first and its last entry."""
        return seconds_between(self.first_at, self.last_at)


def moment(text: object) -> datetime | None:
    """Return a timestamp of a transcript, in UTC, or `None` if it is none."""
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def seconds_between(first: str | None, last: str | None) -> float | None:
    """Return the seconds from one timestamp to another; none if clocks disagree so that it came before."""
    begin, end = moment(first), moment(last)
    return None if begin is None or end is None else max(0.0, (end - begin).total_seconds())


def as_data(value: Any) -> Any:
    """Return a conversation, or any piece of one, as JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: as_data(getattr(value, each.name)) for each in fields(value)}
    return [as_data(each) for each in value] if isinstance(value, tuple) else value
