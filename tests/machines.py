"""Workers' machines, for runs of the real agent command in this process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from claude_agent_sdk import ClaudeAgentOptions, Message, ResultMessage

from everturn import Run, Runtime
from everturn.testing import cli_environment


class Machine:
    """What a worker has to itself: a home, a folder for temporary files, a desk, checkouts.

    The SDK lays its options over the environment of its process, so a machine is used by moving to it.
    """

    def __init__(self, folder: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.tmp, self.desk, self.state = (folder / name for name in ("home", "tmp", "desk", "state"))
        for place in (self.home, self.tmp, self.desk):
            place.mkdir(parents=True)
        self.shared = shared
        self._monkeypatch = monkeypatch

    def use(self, model_url: str = "http://127.0.0.1:1") -> None:
        for name, value in cli_environment(model_url, self.home, tmpdir=self.tmp).items():
            self._monkeypatch.setenv(name, value)
        self._monkeypatch.setattr(tempfile, "tempdir", str(self.tmp))
        self._monkeypatch.chdir(self.desk)

    def runtime(self, **given: Any) -> Runtime:
        """Return a runtime with its own state, but with the store and the registry that all machines share."""
        registry = f"sqlite://{self.shared / 'registry.db'}"
        return Runtime.open(**{"state": self.state, "store": self.store_url, "registry": registry, **given})

    def has_stored(self) -> bool:
        """Tell whether there is more than a fence in the store."""
        return len(list(self.shared.glob("store/sessions/*/*/*/main/*.jsonl.zst"))) > 1

    @property
    def store_url(self) -> str:
        return (self.shared / "store").as_uri()


MakeMachine = Callable[[str], Machine]


def options(**given: Any) -> ClaudeAgentOptions:
    return ClaudeAgentOptions(setting_sources=[], permission_mode="bypassPermissions", **given)


def finish(run: Run, backend: str = "asyncio") -> list[Message]:
    async def main() -> list[Message]:
        return [message async for message in run]

    return anyio.run(main, backend=backend)


def result_of(messages: list[Message]) -> ResultMessage:
    assert isinstance(messages[-1], ResultMessage)
    assert sum(isinstance(message, ResultMessage) for message in messages) == 1
    return messages[-1]
