"""The events of a run (docs/journal.md). Each class is one type of line; its fields are the line's fields.

Data only. A field may be added in any release; another meaning needs another type.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

VERSION = 1


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run.

    Attributes:
        TYPE: What its lines say in `type`.
        FOREIGN: Whether it carries JSON from elsewhere, which may hold anything.
    """

    TYPE: ClassVar[str] = ""
    FOREIGN: ClassVar[bool] = True

    def record(self, seq: int, at_ms: int) -> dict[str, Any]:
        """Return what its line says.

        Args:
            seq: Its number in the run.
            at_ms: When it is written, in milliseconds since the Unix epoch.
        """
        head = {"v": VERSION, "seq": seq, "at_ms": at_ms, "type": self.TYPE}
        return head | {name: getattr(self, name) for name in FIELDS[self.TYPE]}


# --- The run --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started(Event):
    """The run has its claim and its directory, and its transcript is fenced. The first event of every journal.

    Attributes:
        run_id: The run.
        work_key: The work item's key, which is the scope of the journal, too.
        session_id: The conversation.
        epoch: The claim's number: a later run of the same work item has a higher one.
        worker: Who runs it.
        cwd: Where the agent works.
        task_id: The task, if the work item is one.
        agent: The agent's name, if it has one.
        repo: The repository, if there is one.
        issue: The issue, if the work item is one.
        branch: What it was asked to work on in the repository.
        previous_run_id: The run that claimed the work item before, however it ended.
    """

    TYPE: ClassVar[str] = "started"

    run_id: str
    work_key: str
    session_id: str
    epoch: int
    worker: str
    cwd: str
    task_id: str | None = None
    agent: str | None = None
    repo: str | None = None
    issue: str | None = None
    branch: str | None = None
    previous_run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Resumed(Event):
    """The conversation goes on from an earlier run.

    Attributes:
        session_id: The conversation.
        previous_run_id: The run that claimed the work item before.
        took_over: Whether that run had not let go of it: its worker died, or was evicted.
        cost_usd: What the conversation had cost before, as its transcript says; results go on from there.
        model_usage: The same by model, with tokens.
    """

    TYPE: ClassVar[str] = "resumed"

    session_id: str
    previous_run_id: str | None
    took_over: bool
    cost_usd: float | None = None
    model_usage: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class BeganAnew(Event):
    """The conversation was not found, and another one was begun in its place.

    Attributes:
        session_id: The new conversation.
        instead_of: The one that is lost.
    """

    TYPE: ClassVar[str] = "began_anew"
    FOREIGN: ClassVar[bool] = False

    session_id: str
    instead_of: str


@dataclass(frozen=True, slots=True)
class Shutdown(Event):
    """The run was asked to end before its time.

    Attributes:
        reason: The name of a signal, `cancelled`, `closed`, `lost`, or the caller's own word.
    """

    TYPE: ClassVar[str] = "shutdown"
    FOREIGN: ClassVar[bool] = False

    reason: str


@dataclass(frozen=True, slots=True)
class Ended(Event):
    """The run has let go of its agent. The last event of every run that was not cut short.

    Attributes:
        outcome: `completed`, `failed`, `stopped` or `lost`, as in the metric `everturn_runs_total`.
        error: What went wrong, if something did.
    """

    TYPE: ClassVar[str] = "ended"
    FOREIGN: ClassVar[bool] = False

    outcome: str
    error: str | None = None


# --- What is said and done ------------------------------------------------------------------------------------------


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


@dataclass(frozen=True, slots=True)
class Damaged(Event):
    """A line that could not be read when the journal of a dead run was looked after. Written in its place.

    Attributes:
        line: The line, in base64.
    """

    TYPE: ClassVar[str] = "damaged"
    FOREIGN: ClassVar[bool] = False

    line: str


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
FIELDS = {kind: tuple(each.name for each in fields(known)) for kind, known in TYPES.items()}
