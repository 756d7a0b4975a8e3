"""A session whose local file and whose stored transcript are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from claude_agent_sdk import SessionKey
from obstore.store import MemoryStore

from everturn import Settings, TranscriptStore, Unavailable
from everturn.clock import ManualClock
from everturn.log.objects import BlockingObjects
from everturn.testing import Fault, FaultyObjects
from everturn.upkeep.healing import Healing, heal
from upkeep.shelf import SESSION, said

KEY: SessionKey = {"project_key": "-home-a", "session_id": SESSION}
AGENT = "subagents/agent-1"
SUB: SessionKey = {**KEY, "subpath": AGENT}
CLOSING = [{"type": "last-prompt", "sessionId": SESSION}, {"type": "cost-state", "cost": 1, "sessionId": SESSION}]
WHOLE = Healing()


class Bench:
    """A claim on a session, its agent's folder, and the store behind faults."""

    def __init__(self, tmp_path: Path) -> None:
        self.local = tmp_path / "local"
        self.clock = ManualClock()
        self.objects = FaultyObjects(BlockingObjects(MemoryStore(), "memory://", self.clock))
        self.store = self.open(1)

    @property
    def path(self) -> Path:
        return self.local / f"{SESSION}.jsonl"

    @property
    def sub_path(self) -> Path:
        return self.local / SESSION / f"{AGENT}.jsonl"

    def open(self, epoch: int) -> TranscriptStore:
        settings = Settings.load(summary_pause_s=3600)
        return TranscriptStore(
            self.objects, scope="t", any_cwd=True, epoch=epoch, clock=self.clock, settings=settings
        )

    async def take_over(self, epoch: int = 1) -> TranscriptStore:
        self.store = self.open(epoch)
        await self.store.take_over(KEY["project_key"], SESSION)
        return self.store

    async def mirror(self, *entries: Any, key: SessionKey = KEY) -> None:
        """Hand entries over one by one, as the SDK does; those that fail are dropped."""
        for entry in entries:
            batch = [entry]
            for _ in range(3):
                try:
                    await self.store.append(key, batch)
                except Unavailable:
                    continue
                break

    async def heal(self, *, final: bool = True) -> Healing:
        return await heal(self.store, KEY, self.local, final=final)

    async def stored(self, key: SessionKey = KEY) -> list[Any]:
        return list(await self.open(0).load(key) or ())

    def fail_creates(self) -> Fault:
        fault = Fault("fail", "create", times=None)
        self.objects.faults.append(fault)
        return fault


def talk(first: int, last: int) -> list[Any]:
    return [said(number) for number in range(first, last + 1)]
