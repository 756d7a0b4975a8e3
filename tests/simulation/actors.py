"""What the actors do: the real code, used as its users use it."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from everturn.errors import Corrupt, Fenced, Unavailable
from everturn.log.compaction import clear_deleted, collect, compact
from everturn.log.deletion import delete_log
from everturn.log.format import Header
from everturn.log.reader import Log, read
from everturn.log.writer import LogWriter
from simulation.oracle import Batch, Begun, Violation
from simulation.store import FOLDER
from simulation.themes import Tempo, Theme
from simulation.world import Actor

RETRY_PAUSES_S = (0.2, 0.8)  # what the SDK does with a batch that fails
DEADLINE_S = 20.0
OPEN_ATTEMPTS = 6


@dataclass(frozen=True)
class Protocol:
    """The code under test. Mutants replace some of it."""

    writer: type[LogWriter] = LogWriter
    read: Callable[..., Awaitable[Log]] = read
    delete_log: Callable[..., Awaitable[None]] = delete_log
    compact: Callable[..., Awaitable[Any]] = compact
    collect: Callable[..., Awaitable[Any]] = collect


class Watcher:
    """An `Observer` that counts."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor

    def wrote(self, folder: str, header: Header, size_bytes: int, seconds: float) -> None:
        """See `Observer.wrote`."""

    def passed(self, folder: str, other: Header | None) -> None:
        """See `Observer.passed`."""
        self._actor.world.happened("numbers taken by others")

    def failed(self, folder: str, count: int, error: Exception) -> None:
        """See `Observer.failed`."""
        self._actor.world.happened("appends given up")


class Crew:
    """Makes the lives of a world's actors.

    Args:
        protocol: The code under test.
        theme: What the scenario is about.
        rng: Draws from the theme what holds for all of them.
    """

    def __init__(self, protocol: Protocol, theme: Theme, rng: random.Random) -> None:
        self._protocol = protocol
        self._theme = theme
        self._tempo = Tempo(rng.choice(theme.thinks_s), rng.choice(theme.often_long))
        self._batches = rng.choice(theme.batches)

    async def guest(self, actor: Actor) -> None:
        """Append, with no claim."""
        await self._write(actor, self._writer(actor, 0))

    async def claimed(self, actor: Actor, epoch: int) -> None:
        """Take the log over with a claim, load it, and append until somebody else takes over."""
        writer = self._writer(actor, epoch)
        try:
            if await self._open(actor, writer, epoch):
                await self._write(actor, writer, epoch)
        except Fenced:
            actor.world.happened("writers fenced")
            actor.world.note(actor.name, "fenced", "", "")
        except Corrupt as error:
            actor.world.oracle.refused(actor.name, error)

    async def reader(self, actor: Actor, times: int) -> None:
        """Read the log again and again."""
        for _ in range(times):
            await actor.sleep(self._tempo.think_s(actor.rng))
            begun = actor.world.oracle.begun()
            try:
                log = await self._protocol.read(actor.objects, FOLDER)
                actor.world.oracle.ended(actor.name, begun, log, log.entries())
            except Unavailable as error:
                actor.world.happened("reads given up")
                if actor.world.is_over:
                    raise Violation("I6", f"{actor.name} got nothing from a store that was well: {error}") from error
            except Corrupt as error:
                actor.world.oracle.refused(actor.name, error)

    async def deleter(self, actor: Actor, times: int) -> None:
        """Delete the log now and then, and again if that did not succeed."""
        for _ in range(times):
            await actor.sleep(actor.rng.choice(self._theme.deletes_after_s) * actor.rng.random())
            begun = actor.world.oracle.begun()
            try:
                await self._protocol.delete_log(actor.objects, FOLDER, lambda epoch: self._writer(actor, epoch))
                actor.world.oracle.deleted(actor.name, begun)
            except (Unavailable, Fenced):
                actor.world.happened("deletions given up")
            except Corrupt as error:
                actor.world.oracle.refused(actor.name, error)

    async def compactor(self, actor: Actor, times: int) -> None:
        """Compact the log and free what has been compacted long ago."""
        for _ in range(times):
            await actor.sleep(actor.rng.uniform(0.2, 1) * self._theme.compacts_every_s)
            try:
                await self._protocol.compact(
                    actor.objects, FOLDER, writer=actor.name, ids=actor.ids, everything=actor.rng.random() < 0.3
                )
                if actor.rng.random() < 0.5:
                    await actor.sleep(actor.rng.uniform(0, 2.5) * self._theme.compacts_every_s)
                now_ms = actor.world.store.modified_ms(actor.world.now) if actor.rng.random() < 0.5 else None
                await self._protocol.collect(actor.objects, FOLDER, now_ms=now_ms)
                if now_ms is not None and actor.rng.random() < 0.3:
                    await clear_deleted(actor.objects, FOLDER, now_ms=now_ms)
            except Unavailable:
                actor.world.happened("compactions given up")
            except Corrupt as error:
                actor.world.oracle.refused(actor.name, error)

    def _writer(self, actor: Actor, epoch: int) -> LogWriter:
        return self._protocol.writer(
            actor.objects,
            FOLDER,
            clock=actor.clock,
            ids=actor.ids,
            observer=Watcher(actor),
            epoch=epoch,
            writer=actor.name,
            deadline_s=DEADLINE_S,
        )

    async def _open(self, actor: Actor, writer: LogWriter, epoch: int) -> bool:
        for _ in range(OPEN_ATTEMPTS):
            begun: Begun = actor.world.oracle.begun()
            try:
                log = await writer.open()
            except Unavailable:
                await actor.sleep(self._tempo.think_s(actor.rng))
                continue
            actor.world.oracle.loaded(actor.name, epoch, begun, log, log.entries())
            return True
        return False

    async def _write(self, actor: Actor, writer: LogWriter, epoch: int = 0) -> None:
        given: list[Batch] = []
        for _ in range(self._batches):
            await actor.sleep(self._tempo.think_s(actor.rng))
            if epoch and actor.rng.random() < 0.05:
                await self._check(actor, writer)
            batch = actor.world.oracle.given(actor.name, _entries(actor, given))
            given.append(batch)
            await self._append(actor, writer, batch)

    async def _append(self, actor: Actor, writer: LogWriter, batch: Batch) -> None:
        """Append as the SDK does: three attempts with the same list, then the batch is dropped."""
        for pause_s in (*RETRY_PAUSES_S, None):
            try:
                seq = await writer.append(batch.entries)
            except Unavailable:
                if pause_s is not None:
                    await actor.sleep(pause_s)
                continue
            except Corrupt as error:
                actor.world.oracle.refused(actor.name, error)
                return
            actor.world.oracle.acknowledged(batch, seq)
            return
        actor.world.happened("batches dropped")

    async def _check(self, actor: Actor, writer: LogWriter) -> None:
        try:
            await writer.check()
        except Unavailable:
            actor.world.happened("checks given up")


def _entries(actor: Actor, given: list[Batch]) -> list[dict[str, Any]]:
    """Make the entries of a batch: some without a `uuid`, and now and then some with a `uuid` that came before."""
    rng = actor.rng
    entries: list[dict[str, Any]] = []
    before = [entry["uuid"] for entry in rng.choice(given).entries if "uuid" in entry] if given else []
    for number in range(rng.choice((1, 1, 2, 3))):
        entry: dict[str, Any] = {"by": actor.name, "at": number}
        chance = rng.random()
        if chance < 0.1 and before:
            entry["uuid"] = rng.choice(before)
            actor.world.happened("repeated uuids")
        elif chance < 0.7:
            entry["uuid"] = actor.ids.token()
        entries.append(entry)
    return entries
