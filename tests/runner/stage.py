"""A worker with an agent that answers at once, and what its runs leave in a store and a registry of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from claude_agent_sdk import ClaudeAgentOptions, Message, SystemMessage
from prometheus_client import REGISTRY

from everturn import Run, Runtime, WorkItem
from everturn.clock import ManualClock, SystemClock
from everturn.model import Holder, SessionRecord
from everturn.registry import SqliteRegistry
from everturn.testing import InstantAgent

HOUR_S = 3600.0
WORK = WorkItem.task("tap")
PROMPT = "Mend the leaking tap."
DELTA = "The washer has come."
# The SDK leaves generators of its own unfinished.
UNDER_TRIO = pytest.mark.filterwarnings(r"ignore:Async generator 'claude_agent_sdk\.:ResourceWarning")


class Desk:
    """A folder with a store, a registry and an agent.

    Args:
        folder: Where all of it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        self.agent = InstantAgent(folder / "agent")
        self.registry_file = folder / "registry.db"
        self.store = folder / "store"

    def runtime(self, **given: Any) -> Runtime:
        return Runtime.open(**{**self.places, "sweep_on_start": False, **given})

    @property
    def places(self) -> dict[str, Any]:
        return {
            "state": self.folder / "state",
            "store": self.store.as_uri(),
            "registry": f"sqlite://{self.registry_file}",
        }

    def options(self, agent: InstantAgent | None = None) -> ClaudeAgentOptions:
        return ClaudeAgentOptions(
            cli_path=(agent or self.agent).path, cwd=self.work, env={"PATH": os.environ["PATH"]}
        )

    def run(
        self,
        work: WorkItem = WORK,
        *,
        runtime: Runtime | None = None,
        agent: InstantAgent | None = None,
        **given: Any,
    ) -> Run:
        prompts = {"prompt": PROMPT, "resume_prompt": DELTA, **given}
        options = self.options(agent)
        if work.repo:
            options.cwd = None
        return (runtime or self.runtime()).run(work, options=options, **prompts)

    def registry_of(self, hours_ago: float) -> SqliteRegistry:
        """Return the registry as a worker saw it some time ago, before the machine was last started."""
        now = SystemClock().now() - hours_ago * HOUR_S
        return SqliteRegistry(self.registry_file, clock=ManualClock(now, boot="an earlier one"))

    def use(self, work: WorkItem = WORK, *, hours_ago: float = 0.0) -> SessionRecord:
        """Have a session used for the last time some time ago. Nothing of it is stored, unless it was before."""
        registry = self.registry_of(hours_ago)
        claim = registry.claim(work, Holder("earlier"), self.store.as_uri(), ttl_s=30)
        registry.confirm(claim, str(self.work))
        registry.release(claim)
        return self.record(work)

    def record(self, work: WorkItem = WORK) -> SessionRecord:
        return next(record for record in self.records() if record.work_key == work.key)

    def records(self) -> list[SessionRecord]:
        """Return what is in the registry, stale or not."""
        return SqliteRegistry(self.registry_file).records()


def finish(run: Run, backend: str = "asyncio") -> list[Message]:
    """Take all messages of a run."""

    async def main() -> list[Message]:
        return [message async for message in run]

    return anyio.run(main, backend=backend)


def kinds(messages: list[Message]) -> list[str]:
    """Return what messages are, one word each."""
    return [message.subtype if isinstance(message, SystemMessage) else type(message).__name__ for message in messages]


def counted(name: str, **labels: str) -> Callable[[], float]:
    """Return a function that tells how far a metric has gone up since now."""
    before = REGISTRY.get_sample_value(name, labels) or 0.0
    return lambda: (REGISTRY.get_sample_value(name, labels) or 0.0) - before
