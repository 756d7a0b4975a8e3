"""A store compacts what it writes, without being asked and without being waited for."""

from __future__ import annotations

import random
from typing import Any

import anyio
import pytest
from claude_agent_sdk import SessionKey
from obstore.store import MemoryStore
from prometheus_client import CollectorRegistry

from everturn import Settings, TranscriptStore
from everturn.log import compactor
from everturn.log.objects import BlockingObjects, run
from everturn.log.reader import list_spans
from everturn.telemetry import Metrics
from everturn.testing import Fault, FaultyObjects
from everturn.transcripts.observer import StoreObserver
from polling import wait_until

KEY: SessionKey = {"project_key": "-home-a", "session_id": "7df19cb2-f002-4f12-a0f4-5b4be6b08923"}
FOLDER = f"sessions/task-1/-home-a/{KEY['session_id']}/main"


def entry(number: int) -> Any:
    return {"type": "user", "uuid": f"u-{number}", "n": number}


@pytest.fixture
def objects() -> FaultyObjects:
    return FaultyObjects(BlockingObjects(MemoryStore(), "memory://"))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def store_on(objects: FaultyObjects, metrics: Metrics, after_parts: int) -> TranscriptStore:
    settings = Settings.load(compact_after_parts=after_parts, summary_pause_s=3600)
    return TranscriptStore(objects, scope="task-1", settings=settings, observer=StoreObserver(metrics=metrics))


async def fill(store: TranscriptStore, count: int) -> None:
    for number in range(count):
        await store.append(KEY, [entry(number)])


def segments(objects: FaultyObjects) -> list[Any]:
    return [span for span in run(list_spans(objects, FOLDER)) if span.segment]


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"everturn_{name}_total", labels) or 0.0


def test_a_growing_transcript_is_compacted_on_the_way(objects: FaultyObjects, metrics: Metrics) -> None:
    async def main() -> None:
        async with store_on(objects, metrics, 10) as store:
            await fill(store, 35)
            wait_until(lambda: segments(objects), "a segment")
            assert await store.load(KEY) == [entry(number) for number in range(35)]
        assert await store.load(KEY) == [entry(number) for number in range(35)]

    anyio.run(main)
    assert segments(objects)
    assert value(metrics, "compactions", outcome="done") >= 1
    assert value(metrics, "parts_written", kind="data") == 35


def test_with_zero_nothing_is_compacted(objects: FaultyObjects, metrics: Metrics) -> None:
    async def main() -> None:
        async with store_on(objects, metrics, 0) as store:
            await fill(store, 35)

    anyio.run(main)
    assert segments(objects) == []


def test_a_compaction_that_fails_fails_no_append_and_is_counted(objects: FaultyObjects, metrics: Metrics) -> None:
    async def main() -> None:
        objects.faults.append(Fault("fail", "create", keys="*/main/*-*", times=None))
        async with store_on(objects, metrics, 10) as store:
            await fill(store, 12)
            wait_until(lambda: value(metrics, "compactions", outcome="failed"), "a failed compaction")
        objects.faults.clear()
        assert len(await store.load(KEY) or []) == 12
        assert store.unstored_entries == 0

    anyio.run(main)
    assert value(metrics, "compactions", outcome="failed") == 1
    assert value(metrics, "mirror_failures") == 0


def test_a_worker_that_goes_on_with_a_long_uncompacted_transcript_compacts_it(
    objects: FaultyObjects, metrics: Metrics
) -> None:
    async def main() -> None:
        await fill(store_on(objects, metrics, 0), 50)
        async with store_on(objects, metrics, 10) as store:
            await store.append(KEY, [entry(50)])
            wait_until(lambda: segments(objects), "a segment")
        assert len(await store.load(KEY) or []) == 51

    anyio.run(main)
    (segment,) = segments(objects)
    assert (segment.first, segment.last) == (1, 51)


def test_two_writers_that_meet_are_counted(objects: FaultyObjects, metrics: Metrics) -> None:
    async def main() -> None:
        one, two = store_on(objects, metrics, 0), store_on(objects, metrics, 0)
        await one.append(KEY, [entry(1)])
        await two.append(KEY, [entry(2)])
        await one.append(KEY, [entry(3)])
        assert [found["n"] for found in await two.load(KEY) or []] == [1, 2, 3]

    anyio.run(main)
    assert value(metrics, "writers_met") == 1


def test_what_this_process_has_written_is_merged_without_fetching_it(
    objects: FaultyObjects, metrics: Metrics
) -> None:
    async def main() -> None:
        async with store_on(objects, metrics, 10) as store:
            await fill(store, 10)
            wait_until(lambda: segments(objects), "a segment")
            assert objects.counts["get"] == 0
        assert [found["n"] for found in await store.load(KEY) or []] == list(range(10))

    anyio.run(main)


def test_what_others_have_written_in_between_is_merged_too(objects: FaultyObjects, metrics: Metrics) -> None:
    async def main() -> None:
        other = store_on(objects, metrics, 0)
        async with store_on(objects, metrics, 10) as store:
            for number in range(10):
                await (other if number % 3 == 1 else store).append(KEY, [entry(number)])
            wait_until(lambda: segments(objects), "a segment")
        assert [found["n"] for found in await store.load(KEY) or []] == list(range(10))

    anyio.run(main)
    assert segments(objects)[0].last == 10


def test_a_part_that_is_too_large_to_keep_is_fetched_and_the_others_are_not(
    objects: FaultyObjects, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compactor, "HELD_BYTES", 10_000)
    noise = random.Random(1).randbytes(20_000).hex()

    async def main() -> None:
        async with store_on(objects, metrics, 10) as store:
            for number in range(10):
                await store.append(KEY, [entry(number) | ({"noise": noise} if number == 5 else {})])
            wait_until(lambda: segments(objects), "a segment")
            assert objects.counts["get"] == 1

    anyio.run(main)


def test_of_large_parts_only_so_much_is_kept(
    objects: FaultyObjects, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compactor, "HELD_BYTES", 1000)

    async def main() -> None:
        async with store_on(objects, metrics, 10) as store:
            await fill(store, 10)
            wait_until(lambda: segments(objects), "a segment")
        assert [found["n"] for found in await store.load(KEY) or []] == list(range(10))

    anyio.run(main)
    assert objects.counts["get"] > 1
