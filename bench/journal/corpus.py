"""Journals to rebuild a mirror from: runs of agents that do nothing, written to a store as runs write theirs.

Their parts are those that would have been shipped: what is written within a second. Their logs are compacted while
they are written, and what that merged is freed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from random import Random

from bench.compact import freeing_at_once
from bench.journal.agent import Agent
from bench.journal.texts import Texts
from bench.plan import Row
from everturn.clock import Ids, SystemClock
from everturn.journal.events import Ended, Event, Prompt, Resumed, Started
from everturn.journal.lines import line_of
from everturn.journal.messages import Scribe
from everturn.journal.reading import RunRef
from everturn.journal.shipping import Appender
from everturn.log.objects import Objects
from everturn.log.stores import connect
from everturn.model import WorkItem
from everturn.settings import Settings
from everturn.telemetry import default_metrics

AGENTS = ("alice", "bob", "carol", "dora", "emil")
REPOS = tuple(f"https://git.example/{name}" for name in ("shop/web", "shop/api", "shop/search", "tools/lint"))
FIRST_MS = 1_788_000_000_000
MOST_DAYS = 60
DAY_MS = 86_400_000
ITEM_BYTES = 8_000_000
KILLED = 0.2


@dataclass
class Made:
    """What was made.

    Attributes:
        runs: How many journals.
        killed: How many of them end in the middle of something.
        lines: How many lines.
        lines_bytes: How long those are together.
        by_type: How many lines of each type.
        bytes_by_type: How long those are together.
    """

    runs: int = 0
    killed: int = 0
    lines: int = 0
    lines_bytes: int = 0
    by_type: Counter[str] = field(default_factory=Counter)
    bytes_by_type: Counter[str] = field(default_factory=Counter)

    def note(self, kind: str, line: bytes) -> None:
        """Note a line."""
        self.lines += 1
        self.lines_bytes += len(line)
        self.by_type[kind] += 1
        self.bytes_by_type[kind] += len(line)

    def add(self, other: Made) -> None:
        """Note what somebody else has made."""
        self.runs += other.runs
        self.killed += other.killed
        self.lines += other.lines
        self.lines_bytes += other.lines_bytes
        self.by_type += other.by_type
        self.bytes_by_type += other.bytes_by_type

    def as_row(self) -> Row:
        """Return it as JSON has it."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


Timed = tuple[int, Event]  # when, in milliseconds since the Unix epoch


class Item:
    """A work item and the runs that it takes.

    Args:
        number: Decides everything, together with what is installed.
        texts: What is said and read.
    """

    def __init__(self, number: int, texts: Texts) -> None:
        self._random = Random(number)
        self._agent_name, self._repo = self._random.choice(AGENTS), self._random.choice(REPOS)
        self._work = WorkItem(self._agent_name, self._repo, number + 1)
        self._session_id = self._token(32)
        self._at_ms = FIRST_MS + self._random.randrange(MOST_DAYS * DAY_MS)
        self.key = self._work.key
        self._cwd = f"/home/dev/{self._work.key.replace('/', '-')}"
        self._agent = Agent(self._random, texts, self._session_id, self._cwd)
        self._before: tuple[str, bool] | None = None  # the run before, and whether it was killed
        self._epoch = 0

    def run(self) -> tuple[RunRef, list[Timed], bool]:
        """Return the next run: whose it is, what happens in it, and whether it is killed."""
        run_id, before = self._token(20), self._before
        killed = self._random.random() < KILLED
        self._before = (run_id, killed)
        self._epoch += 1
        self._at_ms += self._random.randrange(DAY_MS)
        events = list(self._events(run_id, before))
        if killed:
            events = events[: self._random.randrange(len(events) // 4, len(events))]
        return RunRef(self.key, run_id), events, killed

    def _events(self, run_id: str, before: tuple[str, bool] | None) -> Iterator[Timed]:
        previous, took_over = before or (None, False)
        given = {"agent": self._agent_name, "repo": self._repo, "issue": str(self._work.issue)}
        started = Started(
            run_id, self.key, self._session_id, self._epoch, "bench", self._cwd, **given, previous_run_id=previous
        )
        yield self._at_ms, started
        if before is not None:
            yield self._at_ms, Resumed(self._session_id, previous, took_over)
        scribe = Scribe()
        for turn in range(self._random.randint(1, 3)):
            yield self._at_ms, Prompt(self._agent.prompt(), turn > 0 or before is not None)
            said = self._agent.turn()
            for seconds, message in [self._agent.init(), *said] if turn == 0 else said:
                self._at_ms += round(1000 * seconds)
                for event in scribe.events(message):
                    yield self._at_ms, event
        yield self._at_ms, Ended("completed")

    def _token(self, digits: int) -> str:
        return self._random.randbytes(digits // 2).hex()


def make_corpus(folder: Path, size_bytes: int, files: int, processes: int) -> Made:
    """Write journals into a store in a folder.

    Args:
        folder: The store's folder.
        size_bytes: About how long all lines are together.
        files: From how many files their texts come.
        processes: How many processes write.
    """
    numbers = range(max(1, round(size_bytes / ITEM_BYTES)))
    item_bytes = min(ITEM_BYTES, size_bytes)
    write = partial(_write_item, folder, item_bytes, files)
    made = Made()
    if processes == 1:
        for each in map(write, numbers):
            made.add(each)
        return made
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for each in pool.map(write, numbers):
            made.add(each)
    return made


def settings_for(folder: Path, **given: object) -> Settings:
    """Return settings for a store in a folder."""
    state = folder.parent / f"{folder.name}-state"
    return Settings.load(state=state, store=folder.as_uri(), worker="bench", **given)


@cache
def texts_of(files: int) -> Texts:
    """Return the texts that a process takes from."""
    return Texts(files)


def _write_item(folder: Path, size_bytes: int, files: int, number: int) -> Made:
    settings, made = settings_for(folder), Made()
    objects = connect(settings.store_url(), settings)
    item = Item(number, texts_of(files))
    with freeing_at_once():
        while made.lines_bytes < size_bytes:
            ref, events, killed = item.run()
            made.runs += 1
            made.killed += killed
            _write_run(objects, ref, events, settings, made)
    return made


def _write_run(objects: Objects, ref: RunRef, events: list[Timed], settings: Settings, made: Made) -> None:
    given = {"clock": SystemClock(), "ids": Ids(), "metrics": default_metrics()}
    appender = Appender(objects, ref.folder, settings=settings, **given)
    ship_ms = round(1000 * settings.journal_ship_s)
    frame: list[bytes] = []
    began_ms = events[0][0]
    for seq, (at_ms, event) in enumerate(events, 1):
        if frame and at_ms - began_ms >= ship_ms:
            _ship(appender, frame)
            frame, began_ms = [], at_ms
        line = line_of(event, seq, at_ms)
        made.note(event.TYPE, line)
        frame.append(line)
    _ship(appender, frame)
    appender.close()


def _ship(appender: Appender, frame: list[bytes]) -> None:
    """Append a part; if it has a compaction begin, wait for that, which is over long before an agent's next part."""
    appender.append(b"".join(frame))
    appender._compactor.wait()
