"""An hour of one agent, by the code of a run, with nothing left out that asks a store or a registry for anything.

An agent that never waits for its user goes through the recorded conversations. Each run claims the work item, fences
the transcript, writes journal and trace, beats, and lets go; the next one is another worker's, which resumes.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from heapq import merge
from pathlib import Path
from typing import Any

import anyio.to_thread
from claude_agent_sdk import Message, SessionKey
from claude_agent_sdk.types import ResultMessage

from bench.frames import Frame, rounds
from bench.scale.counting import Bucket, TableClient, Tally, size_of
from bench.scale.said import Said, begins, ends, messages_of
from bench.scale.turns import Turns
from everturn.clock import Ids, ManualClock
from everturn.journal.events import Ended, Prompt, Resumed, Started
from everturn.journal.journal import Journal
from everturn.journal.leftovers import Leftover
from everturn.journal.messages import Scribe
from everturn.journal.reading import RunRef
from everturn.log.encryption import SealedObjects
from everturn.log.objects import BlockingObjects
from everturn.log.objects import run as run_blocking
from everturn.log.stores import admit
from everturn.model import Claim, Holder, WorkItem
from everturn.registry import DynamoDbRegistry
from everturn.runner.dispatch import Dispatcher
from everturn.runner.handle import Progress
from everturn.runner.lease import Lease
from everturn.settings import Settings
from everturn.telemetry import default_metrics
from everturn.transcripts.store import TranscriptStore
from everturn.upkeep.traces import Trace, upload

LABEL = "s3://agents/everturn"
CWD = "/home/dev/project"
COMPACTION_THREAD = "everturn-compaction"
RUN = "claims, resumes and ends of runs"
PURPOSES = ("transcript", "journal", "compaction", RUN)

Step = tuple[float, int, Frame | Message]  # when, in which order at that time, what


@dataclass(frozen=True)
class Hour:
    """What is simulated of one agent.

    Attributes:
        seconds: How long.
        runs: How many runs follow each other in that time.
        settings: Those that differ from the defaults.
    """

    seconds: float = 3600.0
    runs: int = 2
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class Asked:
    """What one agent asked for.

    Attributes:
        tally: Of S3.
        read: Of S3, by whoever looks afterwards whether all of it is there.
        requests: Of DynamoDB, by operation.
        units: Of DynamoDB, read and write.
        item_bytes: How large the agent's item is.
        kept_bytes: What stays in the bucket, below each of the root's folders.
        kept_objects: How many objects that is.
        frames: How many appends the SDK made.
        entries: How many entries those were.
        loaded: How many entries a reader finds afterwards.
        seconds: How long it took, by the simulated clock.
    """

    tally: Tally
    read: Tally
    requests: Counter[str]
    units: Counter[str]
    item_bytes: int
    kept_bytes: Counter[str]
    kept_objects: int
    frames: int
    entries: int
    loaded: int
    seconds: float


def simulate(number: int, hour: Hour, objects: BlockingObjects | None = None) -> Asked:
    """Simulate an agent, the same whenever it is asked for.

    Args:
        number: Which one. It decides where in the recordings it begins, and all its ids.
        hour: What.
        objects: Where the store really is, if not in memory. It has to be empty.
    """
    clock = ManualClock(boot=Ids(number).session_id())  # as long as Linux's
    turns = Turns(clock)
    with tempfile.TemporaryDirectory(prefix="everturn-scale-") as folder, turns.taken():
        agent = _Agent(number, hour, clock, turns, Path(folder), objects)
        asked = anyio.run(agent.live)
    if turns.running:
        raise RuntimeError(f"still running: {turns.running}")
    return asked


class _Agent:
    def __init__(
        self,
        number: int,
        hour: Hour,
        clock: ManualClock,
        turns: Turns,
        folder: Path,
        objects: BlockingObjects | None,
    ) -> None:
        self._number = number
        self._hour = hour
        self._clock = clock
        self._turns = turns
        self._folder = folder
        self._ids = Ids(number)
        self._work = WorkItem.task(f"{number:06}")
        self._phase = RUN
        self._bucket = Bucket(clock, self._purpose, objects)
        self._table = TableClient(clock)
        self._frames = 0
        self._entries = 0

    async def live(self) -> Asked:
        """Live, and return what that took."""
        began = self._clock.elapsed()
        share_s = self._hour.seconds / self._hour.runs
        for number, frames in enumerate(_shares(self._number, share_s, self._hour.runs)):
            worker = _Worker(f"worker-{number}", self._bucket, self._table, self._hour, self._clock, self._ids)
            await self._run(worker, frames, began + number * share_s, share_s)
        item = self._table.table[self._work.key]
        asked = Asked(
            tally=self._bucket.tally,
            read=Tally(),
            requests=Counter(self._table.requests),
            units=Counter(self._table.units),
            item_bytes=size_of(item),
            kept_bytes=self._bucket.kept_bytes,
            kept_objects=self._bucket.objects,
            frames=self._frames,
            entries=self._entries,
            loaded=0,
            seconds=self._clock.elapsed() - began,
        )
        self._bucket.tally = asked.read
        return replace(asked, loaded=await self._load(item))

    async def _run(self, worker: _Worker, frames: Sequence[Frame], began: float, share_s: float) -> None:
        progress = Progress(self._ids.run_id(), cwd=Path(CWD))
        lease, store = await self._claim(worker, progress)
        journal = worker.open_journal(RunRef(self._work.key, progress.run_id), self._path(progress, "journal"))
        trace, scribe = Trace(self._path(progress, "trace"), self._clock), Scribe()
        for event in self._first(lease.claim, progress, worker):
            journal.write(event)
        trace.note("prompt", text="Go on.", resumed=progress.resumed)
        session_id, self._phase = lease.claim.session_id, "work"
        confirm = partial(worker.registry.confirm, lease.claim, CWD)
        confirm()
        for at_s, _, what in _steps(frames, session_id, share_s):
            self._turns.go_on(began + at_s)
            if isinstance(what, Frame):
                await self._append(store, session_id, what)
                continue
            if isinstance(what, ResultMessage):
                await store.drain()
                confirm()
            for event in scribe.events(what):
                journal.write(event)
            trace.message(what)
        await self._let_go(worker, progress, lease, store, journal, trace)

    async def _claim(self, worker: _Worker, progress: Progress) -> tuple[Lease, TranscriptStore]:
        """Do what `everturn.runner.conduct` does before the agent."""
        self._phase = RUN
        worker.admit(self._work.key)
        dispatcher = Dispatcher(worker.registry, worker, clock=self._clock, metrics=default_metrics())
        holder = Holder(worker.settings.worker, progress.run_id, self._clock.boot())
        claim, asked_at = await dispatcher.claim(
            self._work, holder, ttl_s=worker.settings.claim_ttl_s, wait_s=0, is_dead=lambda _: False
        )
        lease = Lease(
            worker.registry,
            claim,
            asked_at=asked_at,
            clock=self._clock,
            lost=_raise,
            renewed=lambda _: None,
            metrics=default_metrics(),
        )
        store = await dispatcher.take_over(lease, progress, _nothing)
        if progress.resumed:  # the SDK asks for the transcript, and for those of subagents
            key = progress.key
            await store.load(key)
            for subpath in await store.list_subkeys(key):
                await store.load({**key, "subpath": subpath})
        return lease, store

    async def _let_go(  # all that a run has
        self,
        worker: _Worker,
        progress: Progress,
        lease: Lease,
        store: TranscriptStore,
        journal: Journal,
        trace: Trace,
    ) -> None:
        """Do what `everturn.runner.closing` does, in its order."""
        self._phase = RUN
        await store.drain()
        await store.aclose()
        trace.close()
        worker.upload_trace(self._work.key, progress.run_id, trace.path, timeout_s=10)
        journal.write(Ended("completed", None))
        await anyio.to_thread.run_sync(journal.close, 10.0)
        await anyio.to_thread.run_sync(lease.end)
        worker.registry.release(lease.claim)
        self._turns.go_on(self._clock.elapsed())  # the journal's thread is told to end, and not waited for

    async def _append(self, store: TranscriptStore, session_id: str, frame: Frame) -> None:
        entries = frame.entries()
        key: SessionKey = {"project_key": "-home-dev-project", "session_id": session_id}
        await store.append(key if frame.subpath is None else {**key, "subpath": frame.subpath}, entries)
        self._turns.go_on(self._clock.elapsed())  # whatever that has set off in the background
        self._frames += 1
        self._entries += len(entries)

    async def _load(self, item: dict[str, Any]) -> int:
        """Return how many entries a guest finds."""
        worker = _Worker("reader", self._bucket, self._table, self._hour, self._clock, self._ids)
        key: SessionKey = {"project_key": "-home-dev-project", "session_id": item["session_id"]["S"]}
        async with worker.claimed(self._work.key, 0) as store:
            found = len(await store.load(key) or ())
            for subpath in await store.list_subkeys(key):
                found += len(await store.load({**key, "subpath": subpath}) or ())
        return found

    def _first(self, claim: Claim, progress: Progress, worker: _Worker) -> Iterator[Any]:
        before = None if claim.previous is None else claim.previous.run_id
        yield Started(
            run_id=progress.run_id,
            work_key=self._work.key,
            session_id=claim.session_id,
            epoch=claim.epoch,
            worker=worker.settings.worker,
            cwd=CWD,
            task_id=self._work.task_id,
            previous_run_id=before,
        )
        if progress.resumed:
            yield Resumed(claim.session_id, before, claim.took_over)
        yield Prompt("Go on.", bool(progress.resumed))

    def _path(self, progress: Progress, name: str) -> Path:
        return self._folder / f"{progress.run_id}-{name}.jsonl"

    def _purpose(self, key: str) -> str:
        if self._turns.current == COMPACTION_THREAD:
            return "compaction"
        if key.startswith("journal/"):
            return "journal"
        return "transcript" if self._phase == "work" else RUN


class _Worker:
    """A process with its own connections. It is what a `Dispatcher` calls its stores."""

    def __init__(
        self, name: str, bucket: Bucket, table: TableClient, hour: Hour, clock: ManualClock, ids: Ids
    ) -> None:
        # The defaults, whatever the environment says.
        self.settings = Settings.model_construct(worker=name, store=LABEL, **hour.settings)
        self.label = LABEL
        self.registry = DynamoDbRegistry(
            "agents", client=table, ages=self.settings.session_ages(), clock=clock, ids=ids
        )
        self._objects = SealedObjects(bucket, None, ids)
        self._clock = clock
        self._ids = ids

    def admit(self, scope: str) -> None:
        run_blocking(admit(self._objects, scope, self.label))

    def claimed(self, scope: str, epoch: int) -> TranscriptStore:
        return TranscriptStore(
            self._objects,
            scope=scope,
            any_cwd=True,
            epoch=epoch,
            settings=self.settings,
            clock=self._clock,
            ids=self._ids,
        )

    def upload_trace(self, scope: str, run_id: str, path: Path, *, timeout_s: float, late: bool = False) -> None:
        given = {"late": late, "timeout_s": timeout_s, "clock": self._clock, "ids": self._ids}
        run_blocking(upload(self._objects, scope, run_id, path, **given))  # type: ignore[arg-type]

    def open_journal(self, ref: RunRef, path: Path) -> Journal:
        return Journal.open(self._objects, ref, path, settings=self.settings, clock=self._clock, ids=self._ids)

    def ship_journal(self, ref: RunRef, path: Path) -> Leftover:
        raise AssertionError(f"no run dies here, and {ref.run_id} left a journal at {path}")


def _shares(number: int, share_s: float, runs: int) -> Iterator[list[Frame]]:
    """Yield the frames of one run after the other, each with times from 0. Agents begin in different places."""
    endless = _endless(number)
    end_s, held = 0.0, next(endless)
    for _ in range(runs):
        begin_s, end_s = end_s, end_s + share_s
        share: list[Frame] = []
        while held.at_s < end_s:
            share.append(replace(held, at_s=held.at_s - begin_s))
            held = next(endless)
        yield share


def _endless(number: int) -> Iterator[Frame]:
    begin_s, skipped = 0.0, 0
    for round_number, conversations in enumerate(rounds()):
        for conversation in conversations:
            if skipped < number % len(conversations):
                skipped += 1
                continue
            for frame in conversation:
                subpath = f"{frame.subpath}-{round_number}" if frame.subpath else None
                yield replace(frame, at_s=begin_s + frame.at_s - conversation[0].at_s, subpath=subpath)
            begin_s += conversation[-1].at_s - conversation[0].at_s


def _steps(frames: Sequence[Frame], session_id: str, share_s: float) -> Iterator[Step]:
    """Yield what happens in a run, in order. A frame goes to the store before its messages are heard."""
    appended = [(frame.at_s, 2 * index, frame) for index, frame in enumerate(frames)]
    before_s = [0.0, *(frame.at_s for frame in frames)]
    heard: list[tuple[float, int, Any]] = [(0.0, -1, begins(session_id, CWD))]
    for index, frame in enumerate(frames):
        said: list[Said] = messages_of(frame, before_s[index], session_id)
        heard += [(each.at_s, 2 * index + 1, each.message) for each in said]
    heard.append((share_s, 2 * len(frames), ends(session_id, share_s)))
    return merge(appended, heard, key=lambda step: step[:2])


async def _nothing(_: TranscriptStore) -> bool:
    return False


def _raise(error: Exception) -> None:
    raise error
