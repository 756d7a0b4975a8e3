"""Entries, keys and stores in memory, for tests of the transcript store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from claude_agent_sdk import SessionKey

from everturn import Settings, TranscriptStore
from everturn.log.objects import BlockingObjects, Objects
from everturn.log.stores import connect

KEY: SessionKey = {"project_key": "-home-a", "session_id": "7df19cb2-f002-4f12-a0f4-5b4be6b08923"}
SUB: SessionKey = {**KEY, "subpath": "subagents/agent-1"}
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def entry(number: int, **more: Any) -> Any:
    return {"type": "user", "uuid": f"u-{number}", "n": number, **more}


def memory() -> BlockingObjects:
    return connect("memory://", Settings.load())


def store_on(objects: Objects, *, any_cwd: bool = False, epoch: int = 0) -> TranscriptStore:
    return TranscriptStore(objects, scope="task-1", any_cwd=any_cwd, epoch=epoch, settings=Settings.load())


def in_loop(main: Callable[[], Awaitable[None]], backend: str = "asyncio") -> None:
    anyio.run(main, backend=backend)
