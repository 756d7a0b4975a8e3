"""What a scripted model says and hears: replies, failures and requests in the shapes of the Messages API.

Pure values and functions: nothing here opens a socket or looks at a clock. The server that speaks them is
`everturn.testing.model`.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "Block",
    "Disconnect",
    "Event",
    "Failure",
    "ModelRequest",
    "Reply",
    "Script",
    "ScriptEndedError",
    "Step",
    "Text",
    "Thinking",
    "ToolUse",
    "check_step",
    "count_tokens",
    "error_body",
    "in_order",
    "message_body",
    "message_events",
    "parse_request",
]

_JSON_PIECE_CHARS = 16
_CHARS_PER_TOKEN = 4


@dataclass(frozen=True)
class Text:
    """A block of text in a reply.

    Args:
        text: What the model says; not empty, because the API has no empty text blocks.
        chunks: How many deltas to stream it in, cut into nearly equal lengths. By default one delta a word.

    Raises:
        ValueError: The text is empty, or `chunks` is not between 1 and the number of characters.
    """

    text: str
    chunks: int | None = None

    def __post_init__(self) -> None:
        if not self.text:
            raise ValueError("a text block needs some text")
        if self.chunks is not None and not 1 <= self.chunks <= len(self.text):
            raise ValueError(f"cannot cut {len(self.text)} characters into {self.chunks} chunks")


@dataclass(frozen=True)
class Thinking:
    """A block of thinking in a reply, streamed one word a delta, then one delta for its signature.

    Args:
        text: What the model thinks; not empty.
        signature: The opaque proof a client sends back with the block.

    Raises:
        ValueError: The text is empty.
    """

    text: str
    signature: str = "scripted-signature"

    def __post_init__(self) -> None:
        if not self.text:
            raise ValueError("a thinking block needs some text")


@dataclass(frozen=True)
class ToolUse:
    """A tool call in a reply; its input is streamed as pieces of JSON text.

    Args:
        name: The tool to call, such as `Bash`.
        input: The arguments, as JSON values.
        id: The id of the call. By default one made from the request's number, the length of its conversation
            and the block's place, so that a script always gives the same ids and a resumed conversation never
            meets one it holds already.
    """

    name: str
    input: dict[str, Any]
    id: str | None = None


Block: TypeAlias = Text | Thinking | ToolUse


@dataclass(frozen=True, init=False)
class Reply:
    """One message of the model. A plain string among the blocks stands for `Text` of it.

    A *chunk* is one streamed delta, counted through all the blocks of the reply.

    Args:
        blocks: What the message holds, in order; at least one.
        delay_s: Seconds of silence before the first byte.
        chunk_delay_s: Seconds of silence before each chunk; 0 for a request that does not stream.
        stall_after_chunks: Send this many chunks and then stay silent until the client goes away or the model
            is told to `release`; then go on. A request that does not stream is held before its first byte.
        stop_reason: Why the model stopped. By default `tool_use` if a tool is called, otherwise `end_turn`.

    Raises:
        ValueError: There is no block, a time is negative, or the stall lies beyond the last chunk.
    """

    blocks: tuple[Block, ...]
    delay_s: float
    chunk_delay_s: float
    stall_after_chunks: int | None
    stop_reason: str

    def __init__(
        self,
        *blocks: Block | str,
        delay_s: float = 0.0,
        chunk_delay_s: float = 0.0,
        stall_after_chunks: int | None = None,
        stop_reason: str | None = None,
    ) -> None:
        held = tuple(Text(block) if isinstance(block, str) else block for block in blocks)
        if not held:
            raise ValueError("a reply needs at least one block")
        if delay_s < 0 or chunk_delay_s < 0:
            raise ValueError("a delay cannot be negative")
        calls_tool = any(isinstance(block, ToolUse) for block in held)
        values = {
            "blocks": held,
            "delay_s": delay_s,
            "chunk_delay_s": chunk_delay_s,
            "stall_after_chunks": stall_after_chunks,
            "stop_reason": stop_reason or ("tool_use" if calls_tool else "end_turn"),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if stall_after_chunks is not None:
            _check_place("stall", stall_after_chunks, self)

    @property
    def chunk_count(self) -> int:
        """How many chunks the whole reply is streamed in."""
        return sum(len(_deltas(block)) for block in self.blocks)


@dataclass(frozen=True)
class Failure:
    """An HTTP error in place of a reply.

    The agent command takes 429, 529 and other 5xx as passing and asks again up to ten times, with growing
    pauses. It answers a 400 by asking up to six times in other shapes, without a pause. 403 and 404 are final.

    Args:
        status: The HTTP status, 400 to 599.
        error_type: The API's name of the error, such as `overloaded_error` or `rate_limit_error`.
        message: The API's sentence about it.
        retry_after_s: Seconds the client is asked to wait, sent as `retry-after`; None sends no such header.

    Raises:
        ValueError: The status is not one of an error.
    """

    status: int = 529
    error_type: str = "overloaded_error"
    message: str = "scripted failure"
    retry_after_s: float | None = None

    def __post_init__(self) -> None:
        if not 400 <= self.status <= 599:
            raise ValueError(f"{self.status} is not the status of an error")


@dataclass(frozen=True)
class Disconnect:
    """A reply whose connection is cut in the middle.

    Args:
        reply: What is being said.
        after_chunks: How many of its chunks are sent before the cut. A request that does not stream is cut
            before the first byte of its body.

    Raises:
        ValueError: The cut lies beyond the last chunk.
    """

    reply: Reply
    after_chunks: int = 0

    def __post_init__(self) -> None:
        _check_place("cut", self.after_chunks, self.reply)


@dataclass(frozen=True)
class ModelRequest:
    """One request a client made of the model.

    Attributes:
        index: Its arrival number from 1, counted among main requests (or among side requests).
        body: The JSON object as it was received. Shared, so not to be changed.
        main: Whether it belongs to a conversation; see `ScriptedModel` for how that is told.
        streaming: Whether the client asked for a stream of events.
        at_s: When it arrived, in seconds of `time.monotonic()`.
    """

    index: int
    body: dict[str, Any]
    main: bool
    streaming: bool
    at_s: float

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation so far, as received. Roles are `user`, `assistant` and also `system`."""
        return list(self.body["messages"])

    def system_text(self) -> str:
        """Return the system prompt as one text; a subagent's differs from its parent's."""
        return _joined_text(self.body.get("system") or "")

    def last_user_text(self) -> str:
        """Return the text of the last message of the user, or "" if that holds none (only tool results)."""
        for message in reversed(self.messages):
            if message.get("role") == "user":
                return _joined_text(message.get("content", ""))
        return ""

    def texts(self) -> list[str]:
        """Return every text in the conversation in order, whoever said it; not those in tool results."""
        return [text for message in self.messages for text in _texts(message.get("content", ""))]

    def tool_uses(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Return the `(id, name, input)` of every tool call in the conversation, in order."""
        return [(block["id"], block["name"], block["input"]) for block in self._blocks("tool_use")]

    def tool_results(self) -> list[tuple[str, str]]:
        """Return the `(tool_use_id, text)` of every tool result in the conversation, in order."""
        results = self._blocks("tool_result")
        return [(block["tool_use_id"], _joined_text(block.get("content") or "")) for block in results]

    def _blocks(self, kind: str) -> Iterator[dict[str, Any]]:
        for message in self.messages:
            content = message.get("content", "")
            if not isinstance(content, str):
                yield from (block for block in content if block.get("type") == kind)


Step: TypeAlias = Reply | Failure | Disconnect
Script: TypeAlias = "Sequence[Step] | Callable[[ModelRequest], Step]"


class ScriptEndedError(Exception):
    """A list of steps is used up."""


def in_order(steps: Sequence[Step]) -> Callable[[ModelRequest], Step]:
    """Return the function that takes these steps one after the other.

    Raises:
        TypeError: One of them is not a step. The function raises `ScriptEndedError` when there is none left.
    """
    planned = list(steps)
    for step in planned:
        check_step(step)

    def decide(request: ModelRequest) -> Step:
        if request.index > len(planned):
            raise ScriptEndedError(
                f"the script has no reply left for request {request.index}: it ends after {len(planned)}"
            )
        return planned[request.index - 1]

    return decide


def check_step(step: object) -> None:
    """Raise `TypeError` if this is not a step."""
    if not isinstance(step, Reply | Failure | Disconnect):
        raise TypeError(f"a script is made of Reply, Failure and Disconnect, not {step!r}")


@dataclass(frozen=True)
class Event:
    """One server-sent event of a streamed reply."""

    name: Literal[
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    data: dict[str, Any]

    @property
    def is_chunk(self) -> bool:
        """Whether it is counted as a chunk."""
        return self.name == "content_block_delta"

    def encode(self) -> bytes:
        """Return the event as it goes over the wire."""
        return f"event: {self.name}\ndata: {json.dumps({'type': self.name, **self.data})}\n\n".encode()


def parse_request(raw: bytes, at_s: float) -> ModelRequest:
    """Read the body of a request and tell what kind it is; its number is still 0.

    Raises:
        ValueError: It is not JSON, or lacks a model or messages.
    """
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise ValueError(f"the request body is not valid JSON: {error}") from None
    match body:
        case {"model": str(), "messages": [*messages]} if all(isinstance(said, dict) for said in messages):
            return ModelRequest(0, body, _is_main(body), body.get("stream") is True, at_s)
    raise ValueError("the request body must be a JSON object with a `model` and a list of `messages`")


def message_body(reply: Reply, request: ModelRequest) -> dict[str, Any]:
    """Return the whole message at once, as a request that does not stream gets it."""
    content = [_whole(block, _tool_id(request, place)) for place, block in enumerate(reply.blocks, 1)]
    usage = _usage(request, _output_tokens(reply))
    return _envelope(request, content, usage) | {"stop_reason": reply.stop_reason}


def message_events(reply: Reply, request: ModelRequest) -> Iterator[Event]:
    """Yield the message event by event, as a request that streams gets it."""
    yield Event("message_start", {"message": _envelope(request, [], _usage(request, 1))})
    for place, block in enumerate(reply.blocks):
        empty = _opening(block, _tool_id(request, place + 1))
        yield Event("content_block_start", {"index": place, "content_block": empty})
        for delta in _deltas(block):
            yield Event("content_block_delta", {"index": place, "delta": delta})
        yield Event("content_block_stop", {"index": place})
    end = {"stop_reason": reply.stop_reason, "stop_sequence": None}
    yield Event("message_delta", {"delta": end, "usage": _usage(request, _output_tokens(reply))})
    yield Event("message_stop", {})


def error_body(error_type: str, message: str) -> dict[str, Any]:
    """Return an error in the shape of the API."""
    return {"type": "error", "error": {"type": error_type, "message": message}}


def count_tokens(request: ModelRequest) -> int:
    """Return a plausible number of input tokens: it grows with what the request says."""
    said = [request.body.get(name) for name in ("system", "tools", "messages")]
    return _tokens(json.dumps(said))


def _is_main(body: dict[str, Any]) -> bool:
    tools = body.get("tools") or []
    runs_tools = any("input_schema" in tool for tool in tools if isinstance(tool, dict))
    return body.get("max_tokens") != 1 and (runs_tools or "context_management" in body)


def _check_place(what: str, chunks: int, reply: Reply) -> None:
    if not 0 <= chunks <= reply.chunk_count:
        raise ValueError(f"the reply has {reply.chunk_count} chunks: it cannot {what} after {chunks}")


def _tag(request: ModelRequest) -> str:
    # A second model may serve the same conversation after a resume and count from 1 again. The length of the
    # conversation keeps its ids apart from those that the transcript holds.
    return f"{'' if request.main else 'side_'}{request.index:04d}_{len(request.messages):04d}"


def _tool_id(request: ModelRequest, place: int) -> str:
    return f"toolu_{_tag(request)}_{place:02d}"


def _envelope(request: ModelRequest, content: list[dict[str, Any]], usage: dict[str, int]) -> dict[str, Any]:
    return {
        "id": f"msg_{_tag(request)}",
        "type": "message",
        "role": "assistant",
        "model": request.body["model"],
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def _opening(block: Block, tool_id: str) -> dict[str, Any]:
    match block:
        case Text():
            return {"type": "text", "text": ""}
        case Thinking():
            return {"type": "thinking", "thinking": "", "signature": ""}
        case ToolUse():
            return {"type": "tool_use", "id": block.id or tool_id, "name": block.name, "input": {}}


def _whole(block: Block, tool_id: str) -> dict[str, Any]:
    match block:
        case Text():
            filled: dict[str, Any] = {"text": block.text}
        case Thinking():
            filled = {"thinking": block.text, "signature": block.signature}
        case ToolUse():
            filled = {"input": block.input}
    return _opening(block, tool_id) | filled


def _deltas(block: Block) -> list[dict[str, Any]]:
    match block:
        case Text():
            pieces = _words(block.text) if block.chunks is None else _slices(block.text, block.chunks)
            return [{"type": "text_delta", "text": piece} for piece in pieces]
        case Thinking():
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _words(block.text)]
            return [*deltas, {"type": "signature_delta", "signature": block.signature}]
        case ToolUse():
            text = json.dumps(block.input)
            pieces = _slices(text, -(-len(text) // _JSON_PIECE_CHARS))
            return [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]


def _words(text: str) -> list[str]:
    return re.findall(r"\S+\s*|\s+", text)


def _slices(text: str, count: int) -> list[str]:
    ends = [len(text) * place // count for place in range(count + 1)]
    return [text[start:end] for start, end in itertools.pairwise(ends)]


def _texts(content: str | list[dict[str, Any]]) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [block["text"] for block in content if block.get("type") == "text"]


def _joined_text(content: str | list[dict[str, Any]]) -> str:
    return "\n".join(_texts(content))


def _tokens(text: str) -> int:
    return max(1, len(text) // _CHARS_PER_TOKEN)


def _output_tokens(reply: Reply) -> int:
    return _tokens(json.dumps([_whole(block, "") for block in reply.blocks]))


def _usage(request: ModelRequest, output_tokens: int) -> dict[str, int]:
    return {
        "input_tokens": count_tokens(request),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output_tokens,
    }
