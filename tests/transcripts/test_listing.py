"""Listing costs a request for a thousand sessions, and never forgets what we wrote ourselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import anyio
import pytest
from claude_agent_sdk import SessionKey
from obstore.store import MemoryStore

from everturn import Settings, TranscriptStore, Unavailable
from everturn.log.format import encode_part
from everturn.log.objects import BlockingObjects, Item, run
from everturn.testing import Fault, FaultyObjects
from everturn.transcripts.layout import Layout
from everturn.transcripts.session_logs import Target
from everturn.transcripts.summaries import encode_summary

PROJECT = "-home-a"
LAYOUT = Layout("task-1")
CATALOG = LAYOUT.catalog(PROJECT)


class AgedObjects(FaultyObjects):
    """A memory whose objects were written 10 s apart, in the order in which they were first written."""

    def __init__(self) -> None:
        super().__init__(BlockingObjects(MemoryStore(), "memory://"))
        self.times: dict[str, int] = {}
        self._ticks: Iterator[int] = count(1_700_000_000_000, 10_000)

    async def put(self, key: str, data: bytes) -> None:
        self.times[key] = next(self._ticks)
        await super().put(key, data)

    async def listing(self, folder: str) -> list[Item]:
        return [
            Item(item.key, item.size_bytes, self.times.get(item.key, item.modified_ms))
            for item in await super().listing(folder)
        ]

    async def get_many(self, keys: Any) -> Any:
        found = await super().get_many(keys)
        return [
            type(stored)(stored.data, self.times.get(key, stored.modified_ms)) if stored else None
            for key, stored in zip(keys, found, strict=True)
        ]


def session_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def summary_key(number: int) -> str:
    return LAYOUT.summary(PROJECT, session_id(number))


def write_summary(objects: AgedObjects, number: int, title: str) -> None:
    data = encode_summary({"session_id": session_id(number), "mtime": 0, "data": {"custom_title": title}}, 1)
    run(objects.put(summary_key(number), data))


@pytest.fixture
def objects() -> AgedObjects:
    """100 sessions of one part, each with its summary."""
    store = AgedObjects()
    for number in range(100):
        _, data = encode_part(1, [{"uuid": "u"}], epoch=0, writer="", write_id="1" * 16)
        run(store.create(f"{LAYOUT.log(PROJECT, session_id(number), None)}/0000000001.jsonl.zst", data))
        write_summary(store, number, f"title {number}")
    store.counts.clear()
    return store


def store_on(objects: FaultyObjects) -> TranscriptStore:
    return TranscriptStore(objects, scope="task-1", settings=Settings.load(summary_pause_s=3600))


def titles(objects: FaultyObjects) -> dict[str, str]:
    async def main() -> dict[str, str]:
        found = await store_on(objects).list_session_summaries(PROJECT)
        return {row["session_id"]: row["data"]["custom_title"] for row in found}

    return anyio.run(main)


def expected(**changed: str) -> dict[str, str]:
    return {session_id(number): f"title {number}" for number in range(100)} | changed


def test_sessions_are_listed_with_two_listings_and_nothing_else(objects: AgedObjects) -> None:
    found = anyio.run(store_on(objects).list_sessions, PROJECT)
    assert {row["session_id"] for row in found} == set(expected())
    assert objects.counts == {"listing": 1, "list_folders": 1}


def test_the_second_listing_of_summaries_fetches_one_object_for_all(objects: AgedObjects) -> None:
    assert titles(objects) == expected()
    objects.counts.clear()
    assert titles(objects) == expected()
    assert objects.counts["listing"] + objects.counts["list_folders"] == 2
    assert objects.counts["get"] <= 2  # the catalog, and the one that may still change within its second


def test_a_summary_that_changed_is_fetched_anew(objects: AgedObjects) -> None:
    titles(objects)
    write_summary(objects, 7, "changed")
    objects.counts.clear()
    assert titles(objects) == expected(**{session_id(7): "changed"})
    assert objects.counts["get"] <= 4


def test_a_summary_that_changed_within_the_stores_second_is_not_served_from_the_catalog(objects: AgedObjects) -> None:
    titles(objects)
    newest = summary_key(99)
    time_ms = objects.times[newest]
    write_summary(objects, 99, "changed")
    objects.times[newest] = time_ms
    assert titles(objects)[session_id(99)] == "changed"


@pytest.mark.parametrize(
    "damage",
    [b"", b"{broken", b"[]", b"{}", b'{"summaries":[]}', b'{"summaries":{"x":1}}', b'{"summaries":{"x":[]}}'],
)
def test_a_damaged_catalog_is_made_anew(objects: AgedObjects, damage: bytes) -> None:
    run(objects.put(CATALOG, damage))
    assert titles(objects) == expected()
    stored = run(objects.get(CATALOG))
    assert stored is not None
    assert len(json.loads(stored.data)["summaries"]) >= 98


def test_who_may_not_write_can_list(objects: AgedObjects) -> None:
    objects.faults.append(Fault("fail", "put", times=None))
    assert titles(objects) == expected()


def test_nothing_of_a_deleted_session_stays_in_the_catalog(objects: AgedObjects) -> None:
    titles(objects)
    key: SessionKey = {"project_key": PROJECT, "session_id": session_id(5)}
    anyio.run(store_on(objects).delete, key)
    assert run(objects.get(CATALOG)) is None
    assert session_id(5) not in titles(objects)
    stored = run(objects.get(CATALOG))
    assert stored is not None
    assert b'title 5"' not in stored.data


def test_a_session_that_is_deleted_while_the_catalog_is_written_does_not_stay_in_it(objects: AgedObjects) -> None:
    put = objects.put

    async def put_late(name: str, data: bytes) -> None:
        if name == CATALOG:
            objects.put = put  # type: ignore[method-assign]
            await store_on(objects)._logs.delete(Target(PROJECT, session_id(5), None))
        await put(name, data)

    objects.put = put_late  # type: ignore[method-assign]
    assert set(titles(objects)) >= set(expected()) - {session_id(5)}
    assert run(objects.get(CATALOG)) is None


def test_few_sessions_need_no_catalog() -> None:
    objects = AgedObjects()

    async def main() -> None:
        async with store_on(objects) as store:
            for number in range(5):
                await store.append(
                    {"project_key": PROJECT, "session_id": session_id(number)}, [{"type": "user", "uuid": "u"}]
                )
            assert len(await store.list_session_summaries(PROJECT)) == 5

    anyio.run(main)
    assert run(objects.get(CATALOG)) is None


def test_a_listing_never_shows_the_writer_less_than_it_wrote(objects: AgedObjects) -> None:
    key: SessionKey = {"project_key": PROJECT, "session_id": session_id(3)}

    async def main() -> None:
        store = store_on(objects)
        line: Any = {"type": "user", "uuid": "v", "customTitle": "mine"}
        await store.append(key, [line])
        fault = Fault("fail", "put", keys=summary_key(3), times=2)
        objects.faults.append(fault)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await store.list_session_summaries(PROJECT)
        rows = {row["session_id"]: row["data"] for row in await store.list_session_summaries(PROJECT)}
        assert rows[session_id(3)]["custom_title"] == "mine"
        await store.aclose()

    anyio.run(main)


def test_a_summary_that_cannot_be_written_keeps_no_other_from_being_written(objects: AgedObjects) -> None:
    async def main() -> None:
        store = store_on(objects)
        for number, title in ((3, "mine"), (4, "mine, too")):
            line: Any = {"type": "user", "uuid": "v", "customTitle": title}
            await store.append({"project_key": PROJECT, "session_id": session_id(number)}, [line])
        objects.faults.append(Fault("fail", "put", keys=summary_key(3)))
        with pytest.raises(Unavailable):
            await store.list_sessions(PROJECT)
        await store.aclose()

    anyio.run(main)
    found = titles(objects)
    assert (found[session_id(3)], found[session_id(4)]) == ("mine", "mine, too")


def test_a_damaged_session_that_we_wrote_to_keeps_nobody_from_listing_the_others(objects: AgedObjects) -> None:
    key: SessionKey = {"project_key": PROJECT, "session_id": session_id(3)}

    async def main() -> None:
        store = store_on(objects)
        await objects.put(f"{LAYOUT.log(PROJECT, session_id(3), None)}/0000000001.jsonl.zst", b"damaged")
        await store.append(key, [{"type": "user", "uuid": "v"}])
        assert len(await store.list_sessions(PROJECT)) == 100
        await store.aclose()

    anyio.run(main)
