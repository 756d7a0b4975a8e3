"""Runs whose store fails and that die, at random: what the agent has written is stored, in order and once."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from claude_agent_sdk import SessionKey
from obstore.store import MemoryStore

from everturn import Settings, TranscriptStore, Unavailable
from everturn.clock import Ids, ManualClock
from everturn.log.objects import BlockingObjects
from everturn.testing import Fault, FaultyObjects
from everturn.transcripts import backlog
from everturn.transcripts.marks import NOT_MIRRORED
from everturn.upkeep.healing import Healing, heal, salvage
from upkeep.shelf import SESSION, said

KEY: SessionKey = {"project_key": "-home-a", "session_id": SESSION}
SUBPATHS = (None, "subagents/agent-1", "subagents/agent-2")


class World:
    """An agent, the SDK that hands over what it writes, and a store in bad weather."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        self.clock = ManualClock()
        self.objects = FaultyObjects(BlockingObjects(MemoryStore(), "memory://", self.clock))
        self.settings = Settings.load(
            summary_pause_s=3600,
            compact_after_parts=0,
            append_deadline_s=0.5,
            linger_s=self.chance.choice([0.0, 0.0, 60.0]),
        )
        self.epoch = 0
        self.number = 0
        self.written: dict[str | None, list[Any]] = {}
        self.store = self.open(0)

    def open(self, epoch: int) -> TranscriptStore:
        return TranscriptStore(
            self.objects,
            scope="t",
            any_cwd=True,
            epoch=epoch,
            clock=self.clock,
            ids=Ids(epoch),
            settings=self.settings,
        )

    def path(self, subpath: str | None) -> Path:
        path = self.folder / (f"{SESSION}.jsonl" if subpath is None else f"{SESSION}/{subpath}.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    async def begin(self) -> None:
        """A claim, which salvages what the last one has left; then the SDK loads what is stored."""
        self.objects.faults.clear()
        self.epoch += 1
        self.store = self.open(self.epoch)
        await self.store.take_over(KEY["project_key"], SESSION)
        assert (await salvage(self.store, KEY, self.folder)).whole
        await self.assert_complete()
        for subpath in self.written:
            self.written[subpath] = list(await self.store.load(_key(subpath)) or ())
            lines = "".join(json.dumps(entry) + "\n" for entry in self.written[subpath])
            self.path(subpath).write_text(lines, encoding="utf-8")

    async def turn(self) -> None:
        """The agent says something; the weather changes."""
        for _ in range(self.chance.randrange(1, 12)):
            self.change_weather()
            await self.frame(self.chance.choice(SUBPATHS))
        try:
            found = await heal(self.store, KEY, self.folder, final=False)
        except Unavailable:
            return
        assert found.appended == 0
        assert found.whole or self.store.observer.ledger.given_up_entries

    async def frame(self, subpath: str | None) -> None:
        """The agent writes some entries to its file, and the SDK hands them over: three times, then no more."""
        batch = [self.entry(subpath) for _ in range(self.chance.randrange(1, 4))]
        self.write(subpath, batch)
        if self.chance.random() < 0.2:
            self.write(subpath, [{"type": "api-request", "n": self.number}])
        if self.chance.random() < 0.1:
            self.repeat_a_note(subpath)
        for _ in range(3):
            try:
                await self.store.append(_key(subpath), batch)
            except Unavailable:
                continue
            break

    def entry(self, subpath: str | None) -> Any:
        self.number += 1
        if self.chance.random() < 0.4:
            return {"type": self.chance.choice(["mode", "tools-used"]), "value": self.chance.randrange(3)}
        return said(self.number, parent=0)

    def repeat_a_note(self, subpath: str | None) -> None:
        """The command repeats the last note of a kind in its own file alone."""
        notes = [entry for entry in self.written.get(subpath, ()) if entry["type"] == "mode"]
        if notes:
            self.write(subpath, notes[-1:])

    def write(self, subpath: str | None, entries: list[Any]) -> None:
        self.written.setdefault(subpath, []).extend(entries)
        with self.path(subpath).open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(entry) + "\n" for entry in entries))

    def change_weather(self) -> None:
        draw = self.chance.random()
        if draw < 0.15:
            effect: Any = self.chance.choice(["fail", "lose_reply", "busy"])
            times = self.chance.choice([1, 3, 30, None])
            self.objects.faults.append(Fault(effect, self.chance.choice(["create", "*"]), times=times))
        elif draw < 0.4:
            self.objects.faults.clear()

    async def end(self) -> None:
        """The agent ends. Healing may fail at first."""
        with suppress(Unavailable):
            await heal(self.store, KEY, self.folder, final=True)
        self.objects.faults.clear()
        assert (await heal(self.store, KEY, self.folder, final=True)).whole
        assert await heal(self.store, KEY, self.folder, final=True) == Healing()
        assert self.store.unstored_entries == 0
        await self.assert_complete()

    async def assert_complete(self) -> None:
        """What is stored is what was written, in order, but for notes that say nothing new."""
        for subpath, written in self.written.items():
            stored: list[Any] = list(await self.open(0).load(_key(subpath)) or ())
            assert without_echoes(stored) == without_echoes(written)


def without_echoes(entries: list[Any]) -> list[Any]:
    """Leave out what is never handed over, and notes that say what the last one of their kind has said."""
    last: dict[str, Any] = {}
    kept = []
    for entry in entries:
        if entry["type"] not in NOT_MIRRORED and last.get(entry["type"]) != entry:
            kept.append(entry)
        last[entry["type"]] = entry
    return kept


def _key(subpath: str | None) -> SessionKey:
    return KEY if subpath is None else {**KEY, "subpath": subpath}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_whatever_the_agent_has_written_is_stored_in_order_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    async def main() -> None:
        world = World(tmp_path, seed)
        monkeypatch.setattr(backlog, "HELD_BYTES", world.chance.choice([50, 500, 1 << 20]))
        for _ in range(world.chance.randrange(1, 5)):
            await world.begin()
            for _ in range(world.chance.randrange(1, 5)):
                await world.turn()
            if world.chance.random() < 0.6:  # otherwise it dies here
                await world.end()
        await world.begin()  # whoever comes next finds all of it

    anyio.run(main)
