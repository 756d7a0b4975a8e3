"""Transcripts that tests share: two that the agent command has written, and entries made by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
from claude_agent_sdk import SessionKey

from everturn import Settings, TranscriptStore

FIXTURES = Path(__file__).parent / "fixtures"
TAP_AGENT = "subagents/agent-ae817cabb3b755f50"
FENCE_AGENT = "subagents/agent-a13418e18bae4e399"
SESSION = "5a1d0c1e-0b7e-4c55-9d0a-7e9b3c1f0042"
PROJECT = "-home-dev-tap"


def recorded(name: str) -> list[Any]:
    """Return the entries of a recorded transcript."""
    return [json.loads(line) for line in (FIXTURES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def tap() -> tuple[list[Any], dict[str, list[Any]]]:
    """A tap is mended, with an edit, pictures, a subagent, an interruption, something taken back, a compaction."""
    return recorded("tap"), {TAP_AGENT: recorded("tap.agent")}


def fence() -> tuple[list[Any], dict[str, list[Any]]]:
    """A fence is painted: the worker is killed in the middle of a tool call, another one goes on; a subagent works in
    the background."""
    return recorded("fence"), {FENCE_AGENT: recorded("fence.agent")}


def said(uuid: str, parent: str | None, content: Any, **more: Any) -> dict[str, Any]:
    """What a user has said, or a tool has answered."""
    message = {"role": "user", "content": content}
    return {"type": "user", "uuid": uuid, "parentUuid": parent, "message": message, **more}


def answered(uuid: str, parent: str | None, *blocks: Any, **more: Any) -> dict[str, Any]:
    """What the model has answered."""
    message = {"role": "assistant", "id": f"msg-{uuid}", "model": "m", "content": list(blocks)}
    return {"type": "assistant", "uuid": uuid, "parentUuid": parent, "message": message, **more}


def text(words: str) -> dict[str, Any]:
    """A block of text."""
    return {"type": "text", "text": words}


def tool_use(call_id: str, name: str = "Bash", **given: Any) -> dict[str, Any]:
    """A block with a tool call."""
    return {"type": "tool_use", "id": call_id, "name": name, "input": given}


def tool_result(call_id: str, content: Any = "done", **more: Any) -> dict[str, Any]:
    """A block with what a tool has answered."""
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **more}


def keep(
    folder: Path,
    entries: Sequence[Any],
    agents: dict[str, list[Any]] | None = None,
    *,
    scope: str = "tap",
    session: str = SESSION,
    at_once: int = 7,
) -> str:
    """Put a session into a store in a folder, as the SDK does, and return the store's URL."""
    url = folder.as_uri()

    async def main() -> None:
        async with TranscriptStore.open(url, scope=scope, settings=Settings.load()) as store:
            key: SessionKey = {"project_key": PROJECT, "session_id": session}
            for start in range(0, len(entries), at_once):
                await store.append(key, list(entries[start : start + at_once]))
            for subpath, sub in (agents or {}).items():
                await store.append({**key, "subpath": subpath}, sub)

    anyio.run(main)
    return url
