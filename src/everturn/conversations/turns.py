"""Entries in order become turns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from everturn.conversations.conversation import (
    Attachment,
    Content,
    Conversation,
    Media,
    Notice,
    Origin,
    Result,
    Step,
    Text,
    Thinking,
    ToolCall,
    Turn,
    Usage,
    moment,
)
from everturn.conversations.threads import Entry, Node, text_of
from everturn.log.entries import as_json

FindAgent = Callable[[str, str], Conversation | None]

NO_MODEL = "<synthetic>"
STOPPED = ("interrupted", "user-rejected")
_TOKENS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
INTERRUPTED = "[Request interrupted by user"
_OUTPUT = re.compile(r"\s*<(local-command|bash)-std(out|err)>")
_TAG = re.compile(r"<(/?)([a-z][a-z-]*)>")
_NAMES = ("displayPath", "filename", "path", "name")


@dataclass(frozen=True, slots=True)
class Taken:
    """A claim that was taken on a session.

    Attributes:
        epoch: Its epoch.
        index: How many entries stood in the transcript.
    """

    epoch: int
    index: int


@dataclass(slots=True)
class _Draft:
    """A turn that is still being read."""

    origin: Origin
    prompt: tuple[Content, ...] = ()
    steps: list[Step] = field(default_factory=list)
    started: str | None = None
    ended: str | None = None
    usages: dict[str, Usage] = field(default_factory=dict)
    models: dict[str, None] = field(default_factory=dict)
    claim: int | None = None
    resumed: bool = False
    interrupted: bool = False
    attachments: list[Attachment] = field(default_factory=list)

    def as_turn(self, number: int) -> Turn:
        return Turn(
            number=number,
            origin=self.origin,
            prompt=self.prompt,
            steps=tuple(self.steps),
            started=self.started,
            ended=self.ended,
            usage=sum(self.usages.values(), Usage()),
            models=tuple(self.models),
            claim=self.claim,
            resumed=self.resumed,
            interrupted=self.interrupted,
            attachments=tuple(self.attachments),
        )


class TurnReader:
    """Reads the nodes of one thread into turns.

    Args:
        find_agent: Returns what a subagent said, for the id of the call that started it and the subagent's own id.
        claims: The claims that were taken on the session, in order.

    Attributes:
        unknown: How many blocks were of a type or shape that is not known, by type.
    """

    def __init__(self, find_agent: FindAgent, claims: Sequence[Taken] = ()) -> None:
        self.unknown: Counter[str] = Counter()
        self._find_agent = find_agent
        self._claims = list(claims)
        self._drafts: list[_Draft] = []
        self._places: dict[int, int] = {}
        self._calls: dict[str, tuple[_Draft, int]] = {}
        self._goes_on = False

    def read(self, nodes: Iterable[Node]) -> tuple[Turn, ...]:
        """Read the nodes, and return all turns so far. More nodes may follow those that were read before."""
        readers = {"user": self._user, "assistant": self._assistant, "system": self._system}
        for node in nodes:
            entry, kind = node.entry, node.entry.get("type")
            readers.get(kind if isinstance(kind, str) else "", self._beside)(node)
            self._places[node.index] = len(self._drafts)
            if self._drafts:
                _take_time(self._drafts[-1], entry)
        return tuple(draft.as_turn(number) for number, draft in enumerate(self._drafts, 1))

    def number_at(self, index: int | None) -> int:
        """Return the number of the turn that a node is in; 0 for none."""
        return 0 if index is None else self._places.get(index, 0)

    # --- The types of entries -------------------------------------------------------------------------------------

    def _user(self, node: Node) -> None:
        entry, rest = node.entry, []
        for block in _blocks_of(entry):
            if isinstance(block, dict) and block.get("type") == "tool_result":
                self._result(block, entry)
            else:
                rest.append(block)
        said = tuple(self._content(block) for block in rest)
        if not said:
            return
        text = "\n".join(each.text for each in said if isinstance(each, Text))
        if entry.get("isMeta"):
            self._note("note", text)
        elif text.startswith(INTERRUPTED):
            self._note("interrupted", text)
            self._here().interrupted = True
        elif _OUTPUT.match(text):
            self._note("output", _tags(text).get(_first_tag(text), text))
        elif entry.get("isCompactSummary") and self._drafts and self._drafts[-1].origin == "compaction":
            self._drafts[-1].prompt += said
        else:
            origin, said = _origin(entry, text, said)
            self._begin(node, origin, said)

    def _assistant(self, node: Node) -> None:
        entry, draft = node.entry, self._here()
        message = _message(entry)
        if message.get("model") == NO_MODEL:
            self._synthetic(entry)
            return
        if isinstance(model := message.get("model"), str):
            draft.models[model] = None
        for block in _blocks_of(entry):
            self._step(block, entry, draft)
        add_usage(draft.usages, entry)

    def _system(self, node: Node) -> None:
        subtype = text_of(node.entry.get("subtype")) or "system"
        if subtype == "compact_boundary":
            self._begin(node, "compaction", ())
        elif text := text_of(node.entry.get("content")):
            self._note(subtype, text, is_error=node.entry.get("level") == "error")

    def _beside(self, node: Node) -> None:
        attachment = node.entry.get("attachment")
        if not isinstance(attachment, dict):
            return
        what = text_of(attachment.get("type")) or "attachment"
        if what == "queued_command":
            said = [self._content(block) for block in _as_blocks(attachment.get("prompt"))]
            self._here().steps.append(Notice("prompt", "\n".join(_shown(each) for each in said)))
            return
        name = next((value for each in _NAMES if (value := text_of(attachment.get(each)))), "")
        self._here().attachments.append(Attachment(what, name))

    # --- Pieces of them -------------------------------------------------------------------------------------------

    def _begin(self, node: Node, origin: Origin, prompt: tuple[Content, ...]) -> None:
        draft = _Draft(origin, prompt)
        if origin != "compaction":
            while self._claims and self._claims[0].index <= node.index:
                draft.claim = self._claims.pop(0).epoch
            draft.resumed = self._goes_on or (draft.claim is not None and bool(self._drafts))
            self._goes_on = False
        self._drafts.append(draft)

    def _here(self) -> _Draft:
        if not self._drafts:
            self._drafts.append(_Draft("start"))
        return self._drafts[-1]

    def _note(self, about: str, text: str, *, is_error: bool = False) -> None:
        self._here().steps.append(Notice(about, text, is_error))

    def _synthetic(self, entry: Entry) -> None:
        """Read what the agent command says in the model's place: of failures, and when it takes up a conversation."""
        is_error = bool(entry.get("isApiErrorMessage"))
        for block in _blocks_of(entry):
            self._note("agent command", _shown(self._content(block)), is_error=is_error)
        self._goes_on = self._goes_on or not is_error

    def _step(self, block: Any, entry: Entry, draft: _Draft) -> None:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind in ("thinking", "redacted_thinking"):
            draft.steps.append(Thinking(text_of(block.get("thinking"))))
        elif kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
            call = ToolCall(
                text_of(block.get("id")),
                text_of(block.get("name")),
                block.get("input"),
                at=text_of(entry.get("timestamp")) or None,
            )
            self._calls.setdefault(call.call_id, (draft, len(draft.steps)))
            draft.steps.append(replace(call, agent=self._find_agent(call.call_id, "")))
        elif isinstance(kind, str) and kind.endswith("tool_result"):
            self._result(block, entry)
        else:
            draft.steps.append(self._content(block))

    def _result(self, block: dict[str, Any], entry: Entry) -> None:
        told = entry.get("toolUseResult")
        details = told if isinstance(told, dict) else {}
        stopped = entry.get("toolDenialKind") in STOPPED or details.get("interrupted") is True
        result = Result(
            content=tuple(self._content(each) for each in _as_blocks(block.get("content"))),
            is_error=block.get("is_error") is True,
            interrupted=stopped,
            at=text_of(entry.get("timestamp")) or None,
            patch=_patch(details.get("structuredPatch")),
        )
        draft, place = self._calls.get(text_of(block.get("tool_use_id")), (self._here(), -1))
        call = draft.steps[place] if place >= 0 else None
        if isinstance(call, ToolCall) and call.result is None:
            agent = call.agent or self._find_agent(call.call_id, text_of(details.get("agentId")))
            draft.steps[place] = replace(call, result=result, agent=agent)
        else:
            self.unknown["tool_result without a call"] += 1
            self._note("tool_result", result.text, is_error=result.is_error)
        if entry.get("toolDenialKind") == "interrupted":
            self._goes_on = draft.interrupted = True

    def _content(self, block: Any) -> Content:
        if isinstance(block, str):
            return Text(block)
        kind = text_of(block.get("type")) if isinstance(block, dict) else ""
        if kind == "text" and isinstance(block.get("text"), str):
            return Text(block["text"])
        source = block.get("source") if kind else None
        if isinstance(source, dict):
            name = text_of(block.get("title")) or text_of(source.get("url")) or text_of(source.get("file_id"))
            return Media(kind, text_of(source.get("media_type")), text_of(source.get("data")) or None, name)
        self.unknown[kind or "(no type)"] += 1
        return Text(as_json(block))


def add_usage(usages: dict[str, Usage], entry: Entry) -> None:
    """Note what an answer of the model used. It stands in several entries, and grows from one to the next."""
    message = _message(entry)
    raw = message.get("usage")
    if not isinstance(raw, dict) or message.get("model") == NO_MODEL:
        return
    name = text_of(message.get("id")) or text_of(entry.get("uuid"))
    known = usages.get(name, Usage())
    before = (known.input_tokens, known.output_tokens, known.cache_read_tokens, known.cache_write_tokens)
    usages[name] = Usage(*(max(was, count(raw.get(each))) for was, each in zip(before, _TOKENS, strict=True)))


def count(value: Any) -> int:
    """Return a number of things, 0 for what is none."""
    return value if type(value) is int and value >= 0 else 0


def _take_time(draft: _Draft, entry: Entry) -> None:
    """Note an entry's time, but of what is written later: when a conversation is taken up again."""
    late = entry.get("toolDenialKind") == "interrupted" or _message(entry).get("model") == NO_MODEL
    if late or moment(entry.get("timestamp")) is None:
        return
    draft.ended = entry["timestamp"]
    draft.started = draft.started or draft.ended


def _origin(entry: Entry, text: str, said: tuple[Content, ...]) -> tuple[Origin, tuple[Content, ...]]:
    """Tell who has said it, and what that is in plain words."""
    tags = _tags(text)
    source = entry.get("origin")
    if entry.get("isCompactSummary"):
        return "compaction", said
    if "task-notification" in tags or (isinstance(source, dict) and source.get("kind") == "task-notification"):
        inner = _tags(tags.get("task-notification", ""))
        words = [inner[name] for name in ("summary", "result") if name in inner]
        return "notification", (Text("\n\n".join(words)),) if words else said
    if "command-name" in tags:
        return "command", (Text(f"{tags['command-name']} {tags.get('command-args', '')}".strip()),)
    if "bash-input" in tags:
        return "command", (Text(f"! {tags['bash-input']}"),)
    return "user", said


def _tags(text: str) -> dict[str, str]:
    """Return what stands between the outermost tags of a text that begins with one.

    In one go, however many tags there are that nobody closes: somebody may have said a whole page of HTML.
    """
    if not text.lstrip().startswith("<"):
        return {}
    tags = list(_TAG.finditer(text))
    last_end = {tag[2]: tag.start() for tag in tags if tag[1]}
    found: dict[str, str] = {}
    place = 0
    for tag in tags:
        name = tag[2]
        if not tag[1] and tag.start() >= place and tag.end() <= last_end.get(name, -1):
            end = text.index(f"</{name}>", tag.end())
            found[name] = text[tag.end() : end].strip()
            place = end + len(f"</{name}>")
    return found


def _first_tag(text: str) -> str:
    return text.lstrip().partition(">")[0].removeprefix("<")


def _patch(raw: Any) -> tuple[str, ...]:
    """Return the hunks of a patch as lines of a unified diff."""
    lines: list[str] = []
    for hunk in raw if isinstance(raw, list) else ():
        if isinstance(hunk, dict) and isinstance(hunk.get("lines"), list):
            places = [count(hunk.get(name)) for name in ("oldStart", "oldLines", "newStart", "newLines")]
            lines.append("@@ -{},{} +{},{} @@".format(*places))
            lines += [line for line in hunk["lines"] if isinstance(line, str)]
    return tuple(lines)


def _message(entry: Entry) -> dict[str, Any]:
    message = entry.get("message")
    return message if isinstance(message, dict) else {}


def _blocks_of(entry: Entry) -> list[Any]:
    return _as_blocks(_message(entry).get("content"))


def _as_blocks(content: Any) -> list[Any]:
    if content is None or content == "":
        return []
    return content if isinstance(content, list) else [content]


def _shown(content: Content) -> str:
    return content.text if isinstance(content, Text) else f"[{content.what}]"
