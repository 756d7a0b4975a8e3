"""The events of a run (docs/journal.md). Each class is one type of line; its fields are the line's fields.

Data only. A field may be added in any release; another meaning needs another type.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from everturn.journal.event import FIELDS, VERSION, Event
from everturn.journal.run_events import BeganAnew, Damaged, Ended, Resumed, Shutdown, Started

__all__ = [
    "FIELDS",
    "TYPES",
    "VERSION",
    "Assistant",
    "BeganAnew",
    "Damaged",
    "Delta",
    "Ended",
    "Event",
    "Init",
    "MirrorError",
    "Other",
    "Prompt",
    "RateLimit",
    "Result",
    "Resumed",
    "Shutdown",
    "Started",
    "Stream",
    "Subagent",
    "System",
    "TextDelta",
    "Thinking",
    "ThinkingDelta",
    "ToolInputDelta",
    "ToolResult",
    "ToolUse",
    "User",
]


@dataclass(frozen=True, slots=True)
class Prompt(Event):
    """What the agent was told. A turn begins with it.

    Attributes:
        text: The words.
        resumed: Whether to a conversation that had begun before.
    """

    TYPE: ClassVar[str] = "prompt"
    FOREIGN: ClassVar[bool] = False

    text: str
    resumed: bool


@dataclass(frozen=True, slots=True)
class Init(Event):
    """The agent is there.

    Attributes:
        session_id: The conversation, as the agent says.
        model: The model it uses.
        cwd: Where it works.
        cli_version: Its version.
        permission_mode: What it may do unasked.
        tools: The tools it has.
    """

    TYPE: ClassVar[str] = "init"

    session_id: str | None
    model: str | None
    cwd: str | None
    cli_version: str | None
    permission_mode: str | None
    tools: list[Any]


@dataclass(frozen=True, slots=True)
class Delta(Event):
    """A piece of a block, as the model writes it. The whole block follows, unless it is cut short.

    Attributes:
        message_id: The model's answer.
        index: The number of the block in it.
        text: The piece.
        parent: The tool call of the subagent that says it; `None`: the agent itself.
    """

    FOREIGN: ClassVar[bool] = False

    message_id: str | None
    index: int
    text: str
    parent: str | None = None

    def record(self, seq: int, at_ms: int) -> dict[str, Any]:
        """See `Event`. Spelled out where most lines by far are made."""
        return {
            "v": VERSION,
            "seq": seq,
            "at_ms": at_ms,
            "type": self.TYPE,
            "message_id": self.message_id,
            "index": self.index,
            "text": self.text,
            "parent": self.parent,
        }


@dataclass(frozen=True, slots=True)
class TextDelta(Delta):
    """A piece of what the agent says; the whole is in `assistant`."""

    TYPE: ClassVar[str] = "text_delta"


@dataclass(frozen=True, slots=True)
class ThinkingDelta(Delta):
    """A piece of what the model thinks; the whole is in `thinking`."""

    TYPE: ClassVar[str] = "thinking_delta"


@dataclass(frozen=True, slots=True)
class ToolInputDelta(Delta):
    """A piece of what a tool is to be called with, in JSON; the whole is in `tool_use`."""

    TYPE: ClassVar[str] = "tool_input_delta"


@dataclass(frozen=True, slots=True)
class Stream(Event):
    """Anything else that the model's interface sends while it answers: that an answer or a block begins or ends.

    Attributes:
        message_id: The model's answer.
        event: As it was sent.
        parent: See `Delta`.
    """

    TYPE: ClassVar[str] = "stream"

    message_id: str | None
    event: dict[str, Any]
    parent: str | None = None

    def record(self, seq: int, at_ms: int) -> dict[str, Any]:
        """See `Delta.record`."""
        return {
            "v": VERSION,
            "seq": seq,
            "at_ms": at_ms,
            "type": self.TYPE,
            "message_id": self.message_id,
            "event": self.event,
            "parent": self.parent,
        }


@dataclass(frozen=True, slots=True)
class Assistant(Event):
    """A whole block of text that the agent said.

    Attributes:
        text: The words.
        message_id: The model's answer.
        model: The model; `<synthetic>` if the agent command speaks in its place.
        parent: See `Delta`.
        usage: Tokens of the model's answer so far; they grow from one of its messages to the next.
        error: Why there is no answer, if that is so.
    """

    TYPE: ClassVar[str] = "assistant"

    text: str
    message_id: str | None = None
    model: str | None = None
    parent: str | None = None
    usage: dict[str, Any] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Thinking(Event):
    """A whole block of what the model thought.

    Attributes:
        text: The words; empty where only their signature is known.
        message_id: See `Assistant`.
        model: See `Assistant`.
        parent: See `Delta`.
        usage: See `Assistant`.
    """

    TYPE: ClassVar[str] = "thinking"

    text: str
    message_id: str | None = None
    model: str | None = None
    parent: str | None = None
    usage: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ToolUse(Event):
    """A tool was called.

    Attributes:
        call_id: The call's id.
        name: The tool.
        input: What it was called with.
        message_id: The model's answer.
        model: The model.
        parent: See `Delta`.
        usage: See `Assistant`.
        server: Whether the model's provider carries it out.
    """

    TYPE: ClassVar[str] = "tool_use"

    call_id: str
    name: str
    input: Any
    message_id: str | None = None
    model: str | None = None
    parent: str | None = None
    usage: dict[str, Any] | None = None
    server: bool = False


@dataclass(frozen=True, slots=True)
class ToolResult(Event):
    """What a tool answered.

    Attributes:
        call_id: The call.
        content: Text, or a list of blocks as the model's interface has them, or any other JSON.
        is_error: Whether the tool failed.
        parent: See `Delta`.
        details: What the agent command says of it besides, such as the patch of an edit.
    """

    TYPE: ClassVar[str] = "tool_result"

    call_id: str
    content: Any
    is_error: bool = False
    parent: str | None = None
    details: Any = None


@dataclass(frozen=True, slots=True)
class User(Event):
    """What else was said to the model: the task of a subagent, say, or that it was interrupted.

    Attributes:
        text: The words.
        parent: See `Delta`.
        origin: Where it comes from, if the agent command says so.
    """

    TYPE: ClassVar[str] = "user"

    text: str
    parent: str | None = None
    origin: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Subagent(Event):
    """A task beside the conversation, such as a subagent, began, went on or ended.

    Attributes:
        task_id: The task.
        status: `started`, `progress`, or what it has come to: `completed`, `failed`, `stopped`, `killed`, …
        description: What it is about.
        call_id: The tool call that began it.
        summary: What came of it.
        usage: What it used.
    """

    TYPE: ClassVar[str] = "subagent"

    task_id: str
    status: str
    description: str | None = None
    call_id: str | None = None
    summary: str | None = None
    usage: Any = None


@dataclass(frozen=True, slots=True)
class MirrorError(Event):
    """Part of the transcript could not be stored, the SDK says.

    Attributes:
        error: Why.
        key: Which transcript.
    """

    TYPE: ClassVar[str] = "mirror_error"

    error: str
    key: Any = None


@dataclass(frozen=True, slots=True)
class RateLimit(Event):
    """A limit of the model's provider came near, was reached, or is far again.

    Attributes:
        status: `allowed`, `allowed_warning`, `rejected`, …
        info: All that was said of it.
    """

    TYPE: ClassVar[str] = "rate_limit"

    status: str
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class System(Event):
    """Anything else that the agent command says of itself: of hooks, of compactions, of its state.

    Attributes:
        subtype: What it is about.
        data: As it was said.
    """

    TYPE: ClassVar[str] = "system"

    subtype: str
    data: Any = None

    def record(self, seq: int, at_ms: int) -> dict[str, Any]:
        """See `Delta.record`. Each piece of a thought comes with one."""
        return {
            "v": VERSION,
            "seq": seq,
            "at_ms": at_ms,
            "type": self.TYPE,
            "subtype": self.subtype,
            "data": self.data,
        }


@dataclass(frozen=True, slots=True)
class Result(Event):
    """The turn has ended.

    Attributes:
        subtype: `success`, or what kind of failure.
        is_error: Whether it failed.
        text: The agent's last words, or why it failed.
        model_turns: How many times the model was asked.
        duration_ms: How long it took.
        duration_api_ms: How much of that was waiting for the model.
        cost_usd: What the conversation has cost so far, as the agent command reckons: over all runs since it began,
            see `Resumed`.
        usage: Tokens of this turn.
        model_usage: Tokens and cost by model, of the conversation so far.
        stop_reason: Why the model stopped.
        terminal_reason: Why the turn ended.
        errors: What went wrong.
        structured_output: What the agent returned in the form it was asked for.
        permission_denials: What it was not allowed to do.
    """

    TYPE: ClassVar[str] = "result"

    subtype: str
    is_error: bool
    text: str | None
    model_turns: int
    duration_ms: int
    duration_api_ms: int
    cost_usd: float | None = None
    usage: dict[str, Any] | None = None
    model_usage: dict[str, Any] | None = None
    stop_reason: str | None = None
    terminal_reason: str | None = None
    errors: list[Any] | None = None
    structured_output: Any = None
    permission_denials: list[Any] | None = None


@dataclass(frozen=True, slots=True)
class Other(Event):
    """A message of a kind that this release does not know.

    Attributes:
        kind: What the SDK calls it.
        data: What it says.
    """

    TYPE: ClassVar[str] = "other"

    kind: str
    data: Any = None


TYPES: dict[str, type[Event]] = {
    each.TYPE: each
    for each in (
        Started,
        Resumed,
        BeganAnew,
        Shutdown,
        Ended,
        Prompt,
        Init,
        TextDelta,
        ThinkingDelta,
        ToolInputDelta,
        Stream,
        Assistant,
        Thinking,
        ToolUse,
        ToolResult,
        User,
        Subagent,
        MirrorError,
        RateLimit,
        System,
        Result,
        Other,
        Damaged,
    )
}
FIELDS.update({kind: tuple(each.name for each in fields(known)) for kind, known in TYPES.items()})
