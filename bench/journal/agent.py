"""An agent that does nothing: what the SDK would say of a run if a model wrote real text and called tools on it.

The kinds of messages, their order and what stands in them are those of the real agent command, partial messages on.
How often each tool is called and how long texts are is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import orjson
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
from claude_agent_sdk.types import StreamEvent

from bench.journal.texts import Texts

MODELS = ("claude-opus-5-5", "claude-sonnet-5")
FIRST_TOKEN_S, DELTA_S = 1.2, 0.02
INPUT_CHUNK_CHARS = 16
WORDS_IN_DELTA = (1, 2, 3, 4)
_TOOLS = {"Read": 28, "Bash": 30, "Grep": 16, "Edit": 16, "Write": 7}
_PRICE_USD = (5e-6, 25e-6)  # of a token in, of a token out

Said = tuple[float, Message]  # how many seconds after what came before


class Agent:
    """One conversation's agent.

    Args:
        random: Decides everything.
        texts: What is said and read.
        session_id: The conversation.
        cwd: Where it works.
    """

    def __init__(self, random: Random, texts: Texts, session_id: str, cwd: str) -> None:
        self._random = random
        self._texts = texts
        self._session_id = session_id
        self._cwd = cwd
        self._model = random.choice(MODELS)
        self._tokens = [0, 0]  # in, out, of the turn
        self._cost_usd = 0.0

    def prompt(self) -> str:
        """Return what it is told."""
        return self._texts.prose(self._random, self._chars(400, 4_000))

    def init(self) -> Said:
        """Return what it says first in a run."""
        self._cost_usd = 0.0
        data = {"cwd": self._cwd, "session_id": self._session_id, "model": self._model, "tools": list(_TOOLS)}
        more = {"permissionMode": "bypassPermissions", "claude_code_version": "2.1.327"}
        return 0.4, SystemMessage("init", {"type": "system", "subtype": "init", **data, **more})

    def turn(self) -> Iterator[Said]:
        """Yield what it says from a prompt to its result."""
        self._tokens = [0, 0]
        steps = self._random.randint(4, 16)
        for _ in range(steps):
            yield from self._step()
        answer = self._texts.prose(self._random, self._chars(1_200, 8_000))
        yield from self._answer([TextBlock(answer)], "end_turn")
        yield 0.02, self._result(answer, steps + 1)

    # --- Steps ------------------------------------------------------------------------------------------------------

    def _step(self) -> Iterator[Said]:
        blocks: list[TextBlock | ThinkingBlock | ToolUseBlock] = []
        if self._random.random() < 0.4:
            blocks.append(ThinkingBlock(self._texts.prose(self._random, self._chars(500, 5_000)), self._token(200)))
        if self._random.random() < 0.7:
            blocks.append(TextBlock(self._texts.prose(self._random, self._chars(150, 1_500))))
        calls = [self._call() for _ in range(self._random.choice((1, 1, 1, 1, 2, 3)))]
        yield from self._answer([*blocks, *(call for call, _, _ in calls)], "tool_use")
        for call, content, details in calls:
            failed = self._random.random() < 0.06
            result = ToolResultBlock(call.id, content, is_error=True if failed else None)
            said = UserMessage([result], tool_use_result=f"Error: {content}" if failed else details)
            yield min(self._random.expovariate(1.0), 20.0), said

    def _call(self) -> tuple[ToolUseBlock, str, dict[str, Any]]:
        """Return a tool call, what the tool says, and what the agent command notes besides."""
        tool = self._random.choices(list(_TOOLS), list(_TOOLS.values()))[0]
        call_id, path = f"toolu_{self._token(16)}", f"{self._cwd}{self._texts.path(self._random)}"
        if tool == "Read":
            code = self._texts.code(self._random, self._chars(5_000, 30_000))
            numbered = "".join(f"{number}\t{line}" for number, line in enumerate(code.splitlines(True), 1))
            file = {"filePath": path, "content": code, "numLines": code.count("\n"), "startLine": 1}
            return ToolUseBlock(call_id, tool, {"file_path": path}), numbered, {"type": "text", "file": file}
        if tool == "Edit":
            old, new = (self._texts.code(self._random, self._chars(400, 3_000)) for _ in range(2))
            asked = {"file_path": path, "old_string": old, "new_string": new}
            patch = {"oldStart": 1, "lines": [*(f"-{each}" for each in old.split("\n")), *new.split("\n")]}
            details = {"filePath": path, "oldString": old, "newString": new, "structuredPatch": [patch]}
            details["originalFile"] = self._texts.code(self._random, self._chars(5_000, 30_000))
            return ToolUseBlock(call_id, tool, asked), f"The file {path} has been updated successfully.", details
        if tool == "Write":
            code = self._texts.code(self._random, self._chars(2_000, 12_000))
            details = {"type": "create", "filePath": path, "content": code, "structuredPatch": []}
            asked = {"file_path": path, "content": code}
            return ToolUseBlock(call_id, tool, asked), f"File created successfully at: {path}", details
        output = self._texts.code(self._random, self._chars(2_500, 30_000))
        if tool == "Grep":
            asked = {"pattern": self._texts.prose(self._random, 1).split()[0], "path": path}
            return ToolUseBlock(call_id, tool, asked), output, {"mode": "content", "content": output}
        asked = {"command": f"sed -n 1,80p {path}", "description": self._texts.prose(self._random, 1)[:60]}
        noted = {"stdout": output, "stderr": "", "interrupted": False, "isImage": False}
        return ToolUseBlock(call_id, tool, asked), output, noted

    # --- Answers ----------------------------------------------------------------------------------------------------

    def _answer(self, blocks: list[Any], stop_reason: str) -> Iterator[Said]:
        """Yield a whole answer of the model, first in pieces, then block by block."""
        message_id = f"msg_{self._token(20)}"
        size = sum(len(_pieces_of(block)) for block in blocks)
        context = self._random.randint(10_000, 120_000)
        usage = {"input_tokens": context // 20, "cache_read_input_tokens": context, "output_tokens": 1}
        message = {"id": message_id, "type": "message", "role": "assistant", "model": self._model, "content": []}
        yield 0.005, SystemMessage("status", {"type": "system", "subtype": "status", "status": "requesting"})
        message |= {"stop_reason": None, "stop_sequence": None, "usage": usage}
        yield FIRST_TOKEN_S, self._event({"type": "message_start", "message": message})
        for index, block in enumerate(blocks):
            yield from self._block(index, block, message_id, usage)
        said = usage | {"output_tokens": size // 4}
        self._tokens = [self._tokens[0] + usage["input_tokens"], self._tokens[1] + said["output_tokens"]]
        delta = {"stop_reason": stop_reason, "stop_sequence": None}
        yield 0.005, self._event({"type": "message_delta", "delta": delta, "usage": said})
        yield 0.0, self._event({"type": "message_stop"})

    def _block(self, index: int, block: Any, message_id: str, usage: dict[str, Any]) -> Iterator[Said]:
        yield 0.0, self._event({"type": "content_block_start", "index": index, "content_block": _opened(block)})
        kind, name = _DELTAS[type(block)]
        for number, piece in enumerate(self._cut(block), 1):
            if kind == "thinking_delta":
                tokens = {"estimated_tokens": 3 * number, "estimated_tokens_delta": 3}
                yield (
                    0.0,
                    SystemMessage("thinking_tokens", {"type": "system", "subtype": "thinking_tokens", **tokens}),
                )
            delta = {"type": kind, name: piece}
            yield DELTA_S, self._event({"type": "content_block_delta", "index": index, "delta": delta})
        if isinstance(block, ThinkingBlock):
            delta = {"type": "signature_delta", "signature": block.signature}
            yield 0.0, self._event({"type": "content_block_delta", "index": index, "delta": delta})
        yield 0.001, AssistantMessage([block], self._model, usage=usage, message_id=message_id)
        yield 0.0, self._event({"type": "content_block_stop", "index": index})

    def _cut(self, block: Any) -> Iterator[str]:
        """Cut what a block says into pieces as a model does: some words, or so much of a tool's input."""
        text = _pieces_of(block)
        if isinstance(block, ToolUseBlock):
            for start in range(0, len(text), INPUT_CHUNK_CHARS):
                yield text[start : start + INPUT_CHUNK_CHARS]
            return
        words = text.split(" ")
        start = 0
        while start < len(words):
            end = start + self._random.choice(WORDS_IN_DELTA)
            yield " ".join(words[start:end]) + (" " if end < len(words) else "")
            start = end

    def _event(self, event: dict[str, Any]) -> StreamEvent:
        return StreamEvent("", self._session_id, event)

    def _result(self, text: str, model_turns: int) -> ResultMessage:
        used = dict(zip(("input_tokens", "output_tokens"), self._tokens, strict=True))
        self._cost_usd += sum(count * price for count, price in zip(self._tokens, _PRICE_USD, strict=True))
        return ResultMessage(
            subtype="success",
            duration_ms=60_000,
            duration_api_ms=50_000,
            is_error=False,
            num_turns=model_turns,
            session_id=self._session_id,
            stop_reason="end_turn",
            total_cost_usd=self._cost_usd,
            usage=used,
            result=text,
        )

    # --- Chance -----------------------------------------------------------------------------------------------------

    def _chars(self, middle: int, most: int) -> int:
        """Return a length: half are shorter than the middle, few much longer."""
        return min(most, max(20, round(self._random.lognormvariate(0.0, 0.9) * middle)))

    def _token(self, digits: int) -> str:
        return self._random.randbytes(digits // 2).hex()


_DELTAS: dict[type, tuple[str, str]] = {
    TextBlock: ("text_delta", "text"),
    ThinkingBlock: ("thinking_delta", "thinking"),
    ToolUseBlock: ("input_json_delta", "partial_json"),
}


def _pieces_of(block: Any) -> str:
    if isinstance(block, ToolUseBlock):
        return orjson.dumps(block.input).decode()
    return str(getattr(block, _DELTAS[type(block)][1]))


def _opened(block: Any) -> dict[str, Any]:
    if isinstance(block, ToolUseBlock):
        return {"type": "tool_use", "id": block.id, "name": block.name, "input": {}}
    if isinstance(block, ThinkingBlock):
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "text", "text": ""}
