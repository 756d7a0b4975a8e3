"""With `linger_s`, frames share objects; nothing is lost but by the death of the process."""

from __future__ import annotations

import atexit
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from claude_agent_sdk import SessionKey
from obstore.store import MemoryStore

from everturn import Fenced, Invalid, Settings, TranscriptStore, Unavailable
from everturn.log.objects import BlockingObjects
from everturn.testing import Fault, FaultyObjects
from everturn.transcripts import backlog, linger
from polling import wait_until

KEY: SessionKey = {"project_key": "-home-a", "session_id": "7df19cb2-f002-4f12-a0f4-5b4be6b08923"}
SUB: SessionKey = {**KEY, "subpath": "subagents/agent-1"}
LONG_S = 60.0


@pytest.fixture
def objects() -> FaultyObjects:
    return FaultyObjects(BlockingObjects(MemoryStore(), "memory://"))


def store_on(
    objects: FaultyObjects, linger_s: float = LONG_S, *, epoch: int = 0, deadline_s: float = 0.1
) -> TranscriptStore:
    settings = Settings.load(linger_s=linger_s, summary_pause_s=3600, append_deadline_s=deadline_s)
    return TranscriptStore(objects, scope="task-1", settings=settings, epoch=epoch)


def entries(first: int, last: int) -> list[Any]:
    return [{"type": "user", "n": number} for number in range(first, last + 1)]


async def append_each(store: TranscriptStore, first: int, last: int, key: SessionKey = KEY) -> None:
    for entry in entries(first, last):
        await store.append(key, [entry])


def test_frames_that_come_together_share_one_object(objects: FaultyObjects) -> None:
    async def main() -> None:
        store = store_on(objects)
        await append_each(store, 1, 20)
        assert objects.counts["create"] == 0
        assert store.unstored_entries == 20
        await store.drain()
        assert objects.counts["create"] == 1
        assert store.unstored_entries == 0
        assert await store.load(KEY) == entries(1, 20)

    anyio.run(main)


def test_a_program_that_ends_while_the_store_is_away_waits_for_one_log_only(
    objects: FaultyObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_exit: list[Callable[[], None]] = []
    monkeypatch.setattr(atexit, "register", at_exit.append)

    async def main() -> None:
        store = store_on(objects)
        for number in range(3):
            await append_each(store, 1, 1, {**KEY, "subpath": f"subagents/agent-{number}"})
        objects.faults.append(Fault("fail", "create", times=None))
        at_exit[0]()
        assert store.observer.failed_appends == 1
        objects.faults.clear()
        at_exit[0]()
        assert store.unstored_entries == 0

    anyio.run(main)


def test_a_reader_in_the_same_process_sees_what_lingers(objects: FaultyObjects) -> None:
    async def main() -> None:
        store = store_on(objects)
        await append_each(store, 1, 2)
        assert await store.load(KEY) == entries(1, 2)
        await append_each(store, 1, 1, SUB)
        assert await store.list_subkeys({"project_key": KEY["project_key"], "session_id": KEY["session_id"]}) == [
            SUB["subpath"]
        ]
        await append_each(store, 3, 3)
        (row,) = await store.list_sessions(KEY["project_key"])
        assert row["session_id"] == KEY["session_id"]
        assert store.unstored_entries == 0

    anyio.run(main)


def test_what_lingers_is_stored_when_its_time_is_up(objects: FaultyObjects) -> None:
    async def main() -> None:
        store = store_on(objects, 0.02)
        await append_each(store, 1, 3)
        await anyio.to_thread.run_sync(lambda: wait_until(lambda: not store.unstored_entries, "all stored"))
        assert await store_on(objects).load(KEY) == entries(1, 3)

    anyio.run(main)


def test_closing_stores_everything(objects: FaultyObjects) -> None:
    async def main() -> None:
        async with store_on(objects) as store:
            await append_each(store, 1, 3)
            await append_each(store, 1, 2, SUB)
        assert await store_on(objects).load(KEY) == entries(1, 3)
        assert await store_on(objects).load(SUB) == entries(1, 2)

    anyio.run(main)


def test_what_comes_after_closing_is_stored_at_once(objects: FaultyObjects) -> None:
    async def main() -> None:
        store = store_on(objects)
        await append_each(store, 1, 1)
        await store.aclose()
        await append_each(store, 2, 2)
        assert store.unstored_entries == 0
        assert await store_on(objects).load(KEY) == entries(1, 2)

    anyio.run(main)


def test_an_append_during_the_close_is_stored(objects: FaultyObjects) -> None:
    """The program may end as soon as the store is closed, so nothing that was taken may wait for later."""

    async def main() -> None:
        store = store_on(objects)
        await append_each(store, 1, 1)
        assert store._backlog is not None
        stored = store._backlog._append

        async def slow(target: Any, batch: list[Any], patience: Any = None) -> None:
            await stored(target, batch, patience)
            if target.subpath:  # the last one to be written: somebody appends to the first one meanwhile
                worker = threading.Thread(target=anyio.run, args=(append_each, store, 2, 2))
                worker.start()
                worker.join()

        store._backlog._append = slow
        await append_each(store, 1, 1, SUB)
        await store.aclose()
        assert await store_on(objects).load(KEY) == entries(1, 2)

    anyio.run(main)


def test_many_entries_do_not_wait(objects: FaultyObjects) -> None:
    async def main() -> None:
        store = store_on(objects, deadline_s=20)
        await store.append(KEY, entries(1, linger.FULL_ENTRIES))
        assert store.unstored_entries == 0

    anyio.run(main)


def test_an_outage_delays_and_loses_nothing_and_doubles_nothing(objects: FaultyObjects) -> None:
    async def main() -> None:
        store = store_on(objects)
        outage = Fault("lose_reply", "create", times=None)
        objects.faults += [Fault("fail", "get", times=None), outage]
        await append_each(store, 1, 3)
        with pytest.raises(Unavailable):
            await store.drain()
        await append_each(store, 4, 5)
        with pytest.raises(Unavailable):
            await store.drain()
        assert store.unstored_entries == 5
        objects.faults.clear()
        await store.drain()
        assert store.unstored_entries == 0
        assert await store.load(KEY) == entries(1, 5)

    anyio.run(main)


def test_an_entry_that_is_no_json_is_refused_at_once(objects: FaultyObjects) -> None:
    async def main() -> None:
        store = store_on(objects)
        await append_each(store, 1, 1)
        bad: Any = [{"type": "user", "x": object()}]
        with pytest.raises(Invalid):
            await store.append(KEY, bad)
        assert await store.load(KEY) == entries(1, 1)

    anyio.run(main)


def test_a_fenced_store_takes_nothing_more(objects: FaultyObjects) -> None:
    async def main() -> None:
        old = store_on(objects, epoch=1)
        await old.take_over(KEY["project_key"], KEY["session_id"])
        await store_on(objects, epoch=2).take_over(KEY["project_key"], KEY["session_id"])
        await append_each(old, 1, 1)
        with pytest.raises(Fenced):
            await old.drain()
        with pytest.raises(Fenced):
            await append_each(old, 2, 2)
        assert old.unstored_entries >= 1

    anyio.run(main)


def test_when_the_store_stays_away_a_bounded_amount_is_held(
    objects: FaultyObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "HELD_BYTES", 100)

    async def main() -> None:
        store = store_on(objects)
        await store.append(KEY, entries(1, 10))
        with pytest.raises(Unavailable, match="wait to be stored"):
            await append_each(store, 11, 11)
        assert await store.load(KEY) == entries(1, 10)

    anyio.run(main)


PROGRAM = """
import anyio, sys
from everturn import Settings, TranscriptStore
key = {"project_key": "-home-a", "session_id": "7df19cb2-f002-4f12-a0f4-5b4be6b08923"}
async def main():
    store = TranscriptStore.open(sys.argv[1], scope="task-1", settings=Settings.load(linger_s=60))
    await store.append(key, [{"type": "user", "n": 1}])
anyio.run(main)
"""


LATE_PROGRAM = (
    PROGRAM
    + """
def refuse(thread):
    raise RuntimeError("can't create new thread at interpreter shutdown")
import atexit, threading
atexit.register(setattr, threading.Thread, "start", refuse)  # what Python does from 3.12 on
"""
).replace(
    "await store.append(key, [",
    """await store.append({**key, "session_id": "another"}, [{"type": "user", "n": 0}])
    await store.append(key, [""",
)


@pytest.mark.slow
def test_no_session_is_lost_where_a_program_that_ends_can_start_no_threads(tmp_path: Path) -> None:
    url = (tmp_path / "store").as_uri()
    command = [sys.executable, "-c", LATE_PROGRAM, url]
    done = subprocess.run(command, check=True, env={"HOME": str(tmp_path)}, timeout=60, capture_output=True)
    assert done.stderr == b""

    async def main() -> None:
        store = TranscriptStore.open(url, scope="task-1")
        assert await store.load({**KEY, "session_id": "another"}) == [{"type": "user", "n": 0}]
        assert await store.load(KEY) == [{"type": "user", "n": 1}]

    anyio.run(main)


@pytest.mark.slow
def test_a_program_that_ends_without_closing_stores_what_lingers(tmp_path: Path) -> None:
    url = (tmp_path / "store").as_uri()
    subprocess.run([sys.executable, "-c", PROGRAM, url], check=True, env={"HOME": str(tmp_path)}, timeout=60)

    async def main() -> None:
        assert await TranscriptStore.open(url, scope="task-1").load(KEY) == [{"type": "user", "n": 1}]

    anyio.run(main)
