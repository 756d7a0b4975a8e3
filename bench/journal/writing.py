"""What it costs to write an event before it is shown, beside bare writes of the same lines.

*bare* writes lines that are encoded already to an open file and flushes them; with `fsync` it has them on the disk,
too, by the call that the journal uses (`fdatasync`, the cheaper one); with `store` it creates an object of each.
*encoded* is the same with the line still to be made, by one call of a fast JSON library: nobody who writes JSON can
do without that. *write* is the run's own call, with events that are there; *message* begins with the SDK's message.

A journal ships what it writes to a store meanwhile, as it does in life. Nothing of ours goes on beside the bare ones.
"""

from __future__ import annotations

import gc
import os
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import obstore
import orjson
from claude_agent_sdk import Message
from obstore.store import S3Store

from bench.journal.agent import Agent
from bench.journal.texts import Texts
from everturn.clock import Ids, SystemClock
from everturn.journal.events import Event
from everturn.journal.journal import Journal
from everturn.journal.lines import line_of
from everturn.journal.messages import Scribe
from everturn.journal.reading import RunRef
from everturn.log.stores import connect
from everturn.settings import Settings

DURABILITIES = ("flush", "fsync", "store")
WAYS = ("bare", "encoded", "write", "message")
CLOSE_S = 60.0

Times: TypeAlias = "array[int]"  # of nanoseconds, one for each message
Write = Callable[[int], None]


@dataclass(frozen=True)
class Place:
    """Where is written.

    Attributes:
        folder: For files.
        store: The URL of the store that journals are shipped to.
        bucket: The bucket in which bare objects are created.
    """

    folder: Path
    store: str
    bucket: str


@dataclass(frozen=True)
class Stream:
    """What is written: the same in every way.

    Attributes:
        messages: As the SDK has them.
        events: What each of them says.
        lines: The lines of each.
        records: What stands in them.
    """

    messages: Sequence[Message]
    events: Sequence[Sequence[Event]]
    lines: Sequence[bytes]
    records: Sequence[Sequence[dict[str, Any]]]


@lru_cache(maxsize=1)
def stream_of(seed: int, texts: Texts, count: int) -> Stream:
    """Return so many messages of an agent, and what comes of them."""
    agent = Agent(Random(seed), texts, "11111111-2222-3333-4444-555555555555", "/home/dev/shop")
    messages: list[Message] = []
    while len(messages) < count:
        messages += [message for _, message in agent.turn()]
    del messages[count:]
    scribe, at_ms, seq = Scribe(), int(SystemClock().now() * 1000), 0
    events = [scribe.events(message) for message in messages]
    lines, records = list[bytes](), list[list[dict[str, Any]]]()
    for said in events:
        numbered = list(enumerate(said, seq + 1))
        lines.append(b"".join(line_of(event, number, at_ms) for number, event in numbered))
        records.append([event.record(number, at_ms) for number, event in numbered])
        seq += len(said)
    return Stream(messages, events, lines, records)


def measure(durability: str, way: str, place: Place, stream: Stream, pause_s: float) -> Times:
    """Write a stream one message after the other and return how long each took, in nanoseconds.

    Args:
        durability: What an event has to survive.
        way: How it is written.
        place: Where.
        stream: What.
        pause_s: How long to wait before each message.
    """
    with _writer(durability, way, place, stream) as write:
        gc.collect()
        gc.freeze()  # what this benchmark keeps in memory is nothing that a run's collector would look through
        try:
            return _timed(write, len(stream.messages), pause_s)
        finally:
            gc.unfreeze()


def _timed(write: Write, count: int, pause_s: float) -> Times:
    times, now = array("q", bytes(8 * count)), time.perf_counter_ns
    for number in range(count):
        if pause_s:
            time.sleep(pause_s)
        began = now()
        write(number)
        times[number] = now() - began
    return times


@contextmanager
def _writer(durability: str, way: str, place: Place, stream: Stream) -> Iterator[Write]:
    if way in ("write", "message"):
        with _journal(durability, place) as journal:
            yield _ours(journal, way, stream)
    elif durability == "store":
        yield _bare_objects(place, way, stream)
    else:
        path = place.folder / "bare.jsonl"
        with path.open("ab") as file:
            yield _bare_file(file, durability, way, stream)
        path.unlink()


@contextmanager
def _journal(durability: str, place: Place) -> Iterator[Journal]:
    settings = Settings.load(state=place.folder, store=place.store, journal_durability=durability)
    ref, path = RunRef("task:bench", Ids().token()), place.folder / "journal.jsonl"
    journal = Journal.open(connect(place.store, settings), ref, path, settings=settings)
    try:
        yield journal
    finally:
        journal.close(CLOSE_S)
        path.unlink()


def _ours(journal: Journal, way: str, stream: Stream) -> Write:
    events, messages, scribe = stream.events, stream.messages, Scribe()

    def write(number: int) -> None:
        for event in events[number]:
            journal.write(event)
        if journal.settles:
            journal.settle()

    def write_message(number: int) -> None:
        for event in scribe.events(messages[number]):
            journal.write(event)
        if journal.settles:
            journal.settle()

    return write if way == "write" else write_message


def _bare_file(file: Any, durability: str, way: str, stream: Stream) -> Write:
    lines, records, handle = stream.lines, stream.records, file.fileno()

    def write(number: int) -> None:
        file.write(lines[number])
        file.flush()

    def write_encoded(number: int) -> None:
        file.write(_encoded(records[number]))
        file.flush()

    chosen = write if way == "bare" else write_encoded
    if durability == "flush":
        return chosen

    def write_and_sync(number: int) -> None:
        chosen(number)
        os.fdatasync(handle)

    return write_and_sync


def _bare_objects(place: Place, way: str, stream: Stream) -> Write:
    lines, records = stream.lines, stream.records
    store, folder = S3Store(place.bucket, client_options={"allow_http": True}), Ids().token()

    def write(number: int) -> None:
        data = lines[number] if way == "bare" else _encoded(records[number])
        obstore.put(store, f"{folder}/{number:010}", data, mode="create", use_multipart=False)

    return write


def _encoded(records: Sequence[dict[str, Any]]) -> bytes:
    if len(records) == 1:
        return orjson.dumps(records[0], option=orjson.OPT_APPEND_NEWLINE)
    return b"".join([orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records])
