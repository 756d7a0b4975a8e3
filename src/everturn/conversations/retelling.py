"""Events as the entries that a transcript would have, so that a journal reads like one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from everturn.conversations.blocks import Block, Blocks, Told, is_interruption
from everturn.conversations.threads import Entry, text_of
from everturn.conversations.turns import NO_MODEL
from everturn.journal.events import (
    Assistant,
    BeganAnew,
    Damaged,
    Event,
    MirrorError,
    Other,
    Prompt,
    RateLimit,
    Result,
    Resumed,
    Shutdown,
    Stream,
    Subagent,
    System,
    Thinking,
    ToolResult,
    ToolUse,
    User,
)
from everturn.journal.lines import Recorded
from everturn.journal.spending import spent
from everturn.journal.values import fits
from everturn.log.entries import as_json

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FAILED = ("failed", "killed", "stopped")
_CHATTER = ("status", "thinking_tokens")  # of no interest to anybody, and a great deal of it
_OUTPUTS = ("<local-command-stdout>", "<local-command-stderr>", "<bash-stdout>", "<bash-stderr>")


class Retelling:
    """Retells one thread of a run, the agent's or a subagent's, as it comes."""

    def __init__(self) -> None:
        self._blocks = Blocks()
        self._ready: list[Entry] = []
        self._made = 0
        self._last_words = ""
        self._has_prompt = False
        self._before: Resumed | None = None
        self._readers: dict[type[Event], Callable[[Any, Recorded], None]] = {
            Assistant: self._assistant,
            Thinking: lambda event, at: self._said(event, at, {"type": "thinking", "thinking": event.text}),
            ToolUse: self._tool_use,
            ToolResult: self._tool_result,
            Prompt: lambda event, at: self._entry(at, "user", message=_message([_text_block(event.text)])),
            User: self._user,
            Stream: self._used,
            Subagent: self._subagent,
            MirrorError: lambda event, at: self._note(at, "not stored", event.error, is_error=True),
            RateLimit: self._rate_limit,
            System: self._system,
            Resumed: self._resumed,
            BeganAnew: lambda _, at: self._resumed(None, at),
            Result: self._result,
            Other: lambda event, at: self._note(at, "other", f"{event.kind}: {as_json(event.data)}"),
            Shutdown: lambda event, at: self._note(at, "shutdown", f"asked to end: {event.reason}"),
            Damaged: lambda _, at: self._note(at, "damaged", f"the line of event {at.seq} is lost", is_error=True),
        }

    @property
    def current(self) -> Block | None:
        """The block that the model is writing."""
        return self._blocks.current

    def add(self, recorded: Recorded) -> None:
        """Take the next event."""
        self._blocks.add(recorded)
        for told in self._blocks.settled():
            self._tell(told)

    def tell_gap(self, first: int, last: int, at_ms: int) -> None:
        """Tell that events are missing here."""
        self._entry_at(at_ms, f"gap-{first}", "system", **_note("missing", _gap(first, last), is_error=True))

    def entries(self) -> list[Entry]:
        """Take out the entries of what could be told since this was called last."""
        ready, self._ready = self._ready, []
        return ready

    def close(self) -> None:
        """Expect nothing more: what was begun is told as far as it came."""
        self._blocks.close()
        for told in self._blocks.settled():
            self._tell(told)

    def _tell(self, told: Told) -> None:
        recorded, event = told.recorded, told.event
        if event is None:
            self._note(recorded, "unknown", f"an event that this release cannot read: {recorded.type}")
            self._entry(recorded, recorded.type)
            return
        reader = self._readers.get(type(event))
        if reader is not None:
            reader(event, recorded)
        if told.is_cut_off:
            self._note(recorded, "cut off", "the rest of this never came")

    def _assistant(self, event: Assistant, at: Recorded) -> None:
        if event.model == NO_MODEL or event.error is not None:
            message = {**_message([_text_block(event.text or str(event.error))]), "model": NO_MODEL}
            self._entry(at, "assistant", message=message, isApiErrorMessage=event.error is not None)
        else:
            self._said(event, at, *([_text_block(event.text)] if event.text else []))
        self._last_words = text_of(event.text)

    def _tool_use(self, event: ToolUse, at: Recorded) -> None:
        self._said(event, at, {"type": "tool_use", "id": event.call_id, "name": event.name, "input": event.input})

    def _said(self, event: Assistant | Thinking | ToolUse, at: Recorded, *blocks: Entry) -> None:
        message = {**_message(list(blocks)), "id": event.message_id, "model": event.model, "usage": event.usage}
        self._entry(at, "assistant", message=message)

    def _tool_result(self, event: ToolResult, at: Recorded) -> None:
        block = {"type": "tool_result", "tool_use_id": event.call_id, "content": event.content}
        message = _message([{**block, "is_error": event.is_error}])
        self._entry(at, "user", message=message, toolUseResult=event.details)

    def _user(self, event: User, at: Recorded) -> None:
        """Tell what else was said to the model. Only a prompt begins a turn of the agent; a subagent has none."""
        text, origin = text_of(event.text), event.origin if isinstance(event.origin, dict) else {}
        if not text:
            return
        if is_interruption(event) or text.startswith(_OUTPUTS):
            self._entry(at, "user", message=_message([_text_block(text)]))
        elif event.parent is not None:
            self._entry(at, "user", message=_message([_text_block(text)]), isMeta=self._has_prompt)
            self._has_prompt = True
        elif origin.get("kind") == "task-notification" or text.lstrip().startswith("<task-notification>"):
            self._note(at, "notification", text)
        else:
            self._entry(at, "user", message=_message([_text_block(text)]), isMeta=True)

    def _used(self, event: Stream, at: Recorded) -> None:
        usage = event.event.get("usage")
        if isinstance(usage, dict):
            self._entry(at, "assistant", message={**_message([]), "id": event.message_id, "usage": usage})

    def _subagent(self, event: Subagent, at: Recorded) -> None:
        if event.status in ("started", "progress", "updated") or not (event.summary or event.status in _FAILED):
            return
        words = [event.status, *(each for each in (event.description, event.summary) if isinstance(each, str))]
        self._note(at, "subagent", ": ".join(words), is_error=event.status in _FAILED)

    def _rate_limit(self, event: RateLimit, at: Recorded) -> None:
        if event.status != "allowed":
            self._note(at, "rate limit", text_of(event.status), is_error=event.status == "rejected")

    def _system(self, event: System, at: Recorded) -> None:
        if event.subtype == "compact_boundary":
            self._note(at, "compaction", "what came before was summed up for the agent")
        elif event.subtype not in _CHATTER:
            text = f"{event.subtype}: {as_json(event.data)}"
            self._entry(at, "user", message=_message([_text_block(text)]), isMeta=True)

    def _resumed(self, event: Resumed | None, _: Recorded) -> None:
        self._before = event

    def _result(self, event: Result, at: Recorded) -> None:
        cost_usd, models = event.cost_usd, event.model_usage
        if self._before is not None:
            before = self._before
            try:
                cost_usd, models = spent(cost_usd, models or {}, before.cost_usd, before.model_usage or {})
            except OverflowError:  # a line may hold numbers that nobody can have spent
                cost_usd, models = None, None
        self._entry(at, "cost-state", totalCostUSD=cost_usd, modelUsage=models)
        if event.is_error:
            errors = [str(each) for each in event.errors or []]
            said = [event.text] if event.text and event.text != self._last_words else []
            self._note(at, "result", ": ".join([text_of(event.subtype), *said, *errors]), is_error=True)

    def _note(self, at: Recorded, about: str, text: str, *, is_error: bool = False) -> None:
        self._entry(at, "system", **_note(about, text, is_error=is_error))

    def _entry(self, at: Recorded, kind: str, **values: Any) -> None:
        self._entry_at(at.at_ms, f"{at.seq}", kind, **values)

    def _entry_at(self, at_ms: int, name: str, kind: str, **values: Any) -> None:
        self._made += 1
        entry = {"type": kind, "uuid": f"{name}.{self._made}", "timestamp": timestamp(at_ms), **values}
        self._ready.append(entry)


def readable(recorded: Recorded) -> Recorded:
    """Return an event as it is, or as one that is not known if it holds what its type does not."""
    return recorded if recorded.event is None or fits(recorded.event) else replace(recorded, event=None)


def timestamp(at_ms: int) -> str | None:
    """Return a time as transcripts have it; `None` if no calendar has it.

    Args:
        at_ms: Milliseconds since the Unix epoch.
    """
    try:
        return (_EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds")
    except OverflowError:
        return None


def _gap(first: int, last: int) -> str:
    return f"event {first} is missing" if first == last else f"events {first} to {last} are missing"


def _note(about: str, text: str, *, is_error: bool) -> Entry:
    return {"subtype": about, "content": text, "level": "error" if is_error else "info"}


def _message(blocks: list[Any]) -> Entry:
    return {"content": blocks}


def _text_block(text: str) -> Entry:
    return {"type": "text", "text": text}
