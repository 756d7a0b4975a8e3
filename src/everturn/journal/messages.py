"""Messages of the SDK as events (docs/journal.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
from claude_agent_sdk.types import (
    MirrorErrorMessage,
    RateLimitEvent,
    ServerToolResultBlock,
    ServerToolUseBlock,
    StreamEvent,
    TaskNotificationMessage,
    TaskProgressMessage,
    TaskStartedMessage,
    TaskUpdatedMessage,
)

from everturn.journal.events import (
    Assistant,
    Delta,
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
from everturn.journal.values import fits, plain

_DELTAS: dict[str, tuple[type[Delta], str]] = {
    "text_delta": (TextDelta, "text"),
    "thinking_delta": (ThinkingDelta, "thinking"),
    "input_json_delta": (ToolInputDelta, "partial_json"),
}
_SAID_ELSEWHERE = {"type", "subtype", "session_id", "uuid"}


class Scribe:
    """Turns the messages of one run into events. It remembers which answer the pieces belong to that come next."""

    def __init__(self) -> None:
        self._answers: dict[str | None, str | None] = {}
        self._readers: dict[type, Callable[[Any], list[Event]]] = {
            StreamEvent: self._stream,
            AssistantMessage: _assistant,
            UserMessage: _user,
            ResultMessage: lambda message: [_result(message)],
            RateLimitEvent: _rate_limit,
            MirrorErrorMessage: lambda message: [MirrorError(message.error, plain(message.key))],
            TaskStartedMessage: lambda message: [_task(message, "started")],
            TaskProgressMessage: lambda message: [_task(message, "progress")],
            TaskNotificationMessage: lambda message: [_task(message, message.status)],
            TaskUpdatedMessage: lambda message: [_task(message, message.status or "updated")],
        }

    def events(self, message: Message) -> list[Event]:
        """Return what a message says, in order: at least one event.

        The SDK takes over unseen what the agent command sends. A message that is not as its class says is an `Other`.
        """
        try:
            events = self._read(message)
        except (AttributeError, LookupError, TypeError, ValueError):
            events = []
        return events if events and all(map(fits, events)) else [_other(message)]

    def _read(self, message: Message) -> list[Event]:
        read = self._readers.get(type(message))
        if read is not None:
            return read(message)
        return [_system(message) if isinstance(message, SystemMessage) else _other(message)]

    def _stream(self, message: StreamEvent) -> list[Event]:
        event, parent = message.event, message.parent_tool_use_id
        kind = event.get("type")
        if kind == "content_block_delta":
            delta = event.get("delta") or {}
            known = _DELTAS.get(str(delta.get("type")))
            if known is not None:
                made, name = known
                text, index = delta.get(name), event.get("index")
                if isinstance(text, str) and type(index) is int:
                    return [made(self._answers.get(parent), index, text, parent)]
        elif kind == "message_start":
            self._answers[parent] = _text((event.get("message") or {}).get("id"))
        return [Stream(self._answers.get(parent), event, parent)]


def _assistant(message: AssistantMessage) -> list[Event]:
    parent, usage = message.parent_tool_use_id, message.usage
    events: list[Event] = []
    for block in message.content:
        of = (message.message_id, message.model, parent, usage)
        if isinstance(block, TextBlock):
            events.append(Assistant(block.text, *of, message.error))
        elif isinstance(block, ThinkingBlock):
            events.append(Thinking(block.thinking, *of))
        elif isinstance(block, ToolUseBlock | ServerToolUseBlock):
            server = isinstance(block, ServerToolUseBlock)
            events.append(ToolUse(block.id, block.name, block.input, *of, server=server))
        else:
            events.append(_block(block, parent))
        usage = None  # once is enough
    return events or [Assistant("", message.message_id, message.model, parent, usage, message.error)]


def _user(message: UserMessage) -> list[Event]:
    parent, origin = message.parent_tool_use_id, plain(message.origin)
    if isinstance(message.content, str):
        return [User(message.content, parent, origin)]
    details, events = message.tool_use_result, list[Event]()
    for block in message.content:
        if isinstance(block, TextBlock):
            events.append(User(block.text, parent, origin))
        else:
            events.append(_block(block, parent, details))
            details = None
    return events or [User("", parent, origin)]


def _block(block: Any, parent: str | None, details: Any = None) -> Event:
    if isinstance(block, ToolResultBlock):
        return ToolResult(block.tool_use_id, block.content, bool(block.is_error), parent, details)
    if isinstance(block, ServerToolResultBlock):
        return ToolResult(block.tool_use_id, block.content, False, parent, details)
    return _other(block)


def _result(message: ResultMessage) -> Result:
    return Result(
        subtype=message.subtype,
        is_error=message.is_error,
        text=message.result,
        model_turns=message.num_turns,
        duration_ms=message.duration_ms,
        duration_api_ms=message.duration_api_ms,
        cost_usd=message.total_cost_usd,
        usage=message.usage,
        model_usage=plain(message.model_usage),
        stop_reason=message.stop_reason,
        terminal_reason=message.terminal_reason,
        errors=message.errors,
        structured_output=message.structured_output,
        permission_denials=message.permission_denials,
    )


def _task(message: Any, status: str) -> Subagent:
    return Subagent(
        task_id=message.task_id,
        status=status,
        description=getattr(message, "description", None),
        call_id=getattr(message, "tool_use_id", None),
        summary=getattr(message, "summary", None),
        usage=plain(getattr(message, "usage", None)),
    )


def _rate_limit(message: RateLimitEvent) -> list[Event]:
    info = message.rate_limit_info
    return [RateLimit(info.status, info.raw or plain(info))]


def _system(message: SystemMessage) -> Event:
    data = message.data
    if message.subtype != "init":
        return System(message.subtype, {name: value for name, value in data.items() if name not in _SAID_ELSEWHERE})
    tools = data.get("tools")
    return Init(
        session_id=_text(data.get("session_id")),
        model=_text(data.get("model")),
        cwd=_text(data.get("cwd")),
        cli_version=_text(data.get("claude_code_version")),
        permission_mode=_text(data.get("permissionMode")),
        tools=tools if isinstance(tools, list) else [],
    )


def _other(message: Any) -> Other:
    return Other(type(message).__name__, plain(message))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
