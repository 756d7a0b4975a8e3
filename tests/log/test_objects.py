"""Every kind of store behaves the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from obstore.store import MemoryStore

from everturn.clock import ManualClock
from everturn.errors import Unavailable
from everturn.log.objects import LISTING_LIMIT_S, BlockingObjects, run
from everturn.log.stores import connect
from everturn.testing.faults import FaultyObjects
from log.bench import Bench
from support import StorePlace


@pytest.fixture
def objects(place: StorePlace) -> BlockingObjects:
    return connect(place.url, place.settings)


def content(objects: BlockingObjects | FaultyObjects, key: str) -> bytes | None:
    stored = run(objects.get(key))
    return None if stored is None else stored.data


def keys(objects: BlockingObjects | FaultyObjects, folder: str) -> list[str]:
    return sorted(item.key for item in run(objects.listing(folder)))


def test_an_object_is_created_once(objects: BlockingObjects) -> None:
    assert run(objects.create("folder/key", b"first")) is True
    assert run(objects.create("folder/key", b"second")) is False
    assert run(objects.create("folder/key", b"first")) is False
    assert content(objects, "folder/key") == b"first"


def test_what_is_not_there_is_none(objects: BlockingObjects) -> None:
    assert run(objects.get("folder/key")) is None
    assert run(objects.get_many(["one", "two", "folder/three"])) == [None, None, None]


def test_a_missing_object_is_none_whatever_its_name(objects: BlockingObjects) -> None:
    assert run(objects.get("sessions/NoSuchBucket/0000000001.jsonl.zst")) is None


def test_put_overwrites(objects: BlockingObjects) -> None:
    for data in (b"first", b"", b"third" * 1000):
        run(objects.put("folder/key", data))
        assert content(objects, "folder/key") == data


def test_objects_may_be_empty_or_large(objects: BlockingObjects) -> None:
    large = bytes(range(256)) * (24 << 12)
    assert run(objects.create("empty", b""))
    assert run(objects.create("large", large))
    assert content(objects, "empty") == b""
    assert content(objects, "large") == large
    assert {item.key: item.size_bytes for item in run(objects.listing(""))} == {"empty": 0, "large": len(large)}


def test_many_objects_come_in_the_order_of_their_keys(objects: BlockingObjects) -> None:
    names = [f"folder/{n:03}" for n in range(40)]
    for name in names:
        run(objects.create(name, name.encode()))
    asked = [*reversed(names), "folder/missing", names[3], names[3]]
    found = [stored and stored.data for stored in run(objects.get_many(asked))]
    assert found == [*(name.encode() for name in reversed(names)), None, b"folder/003", b"folder/003"]
    assert run(objects.get_many([])) == []
    assert [stored and stored.data for stored in run(objects.get_many(names[:1]))] == [b"folder/000"]


def test_a_listing_holds_everything_below_a_folder_and_nothing_else(objects: BlockingObjects) -> None:
    for key in ("a/1", "a/b/2", "a/b/c/3", "ab/4", "5"):
        run(objects.create(key, b""))
    assert keys(objects, "a") == ["a/1", "a/b/2", "a/b/c/3"]
    assert keys(objects, "a/b") == ["a/b/2", "a/b/c/3"]
    assert keys(objects, "") == ["5", "a/1", "a/b/2", "a/b/c/3", "ab/4"]
    assert keys(objects, "missing") == []
    assert keys(objects, "a/missing") == []


@pytest.mark.slow
def test_a_listing_may_be_longer_than_a_page(objects: BlockingObjects) -> None:
    for n in range(1001):
        run(objects.put(f"folder/{n}", b""))
    assert len(keys(objects, "folder")) == 1001


def test_folders_are_those_directly_inside(objects: BlockingObjects) -> None:
    for key in ("a/1", "a/b/2", "a/b/c/3", "a/d!2e/4", "ab/5"):
        run(objects.create(key, b""))
    assert sorted(run(objects.list_folders("a"))) == ["b", "d!2e"]
    assert sorted(run(objects.list_folders(""))) == ["a", "ab"]
    assert run(objects.list_folders("a/b/c")) == []
    assert run(objects.list_folders("missing")) == []


def test_a_folder_goes_with_its_last_object(objects: BlockingObjects) -> None:
    run(objects.create("a/b/1", b""))
    run(objects.delete(["a/b/1"]))
    assert run(objects.list_folders("a")) == []


def test_deleting_does_not_mind_what_is_not_there(objects: BlockingObjects) -> None:
    for key in ("a/1", "a/2", "a/3"):
        run(objects.create(key, b""))
    run(objects.delete(["missing", "a/1", "a/missing", "missing/a", "a/2"]))
    assert keys(objects, "") == ["a/3"]
    run(objects.delete(["a/1"]))
    run(objects.delete([]))
    assert keys(objects, "") == ["a/3"]


def test_a_deleted_object_can_be_created_again(objects: BlockingObjects) -> None:
    run(objects.create("a", b"first"))
    run(objects.delete(["a"]))
    assert run(objects.create("a", b"second"))
    assert content(objects, "a") == b"second"


def test_listing_and_fetching_tell_the_same_time(objects: BlockingObjects) -> None:
    run(objects.create("a", b""))
    (item,) = run(objects.listing(""))
    stored = run(objects.get("a"))
    assert stored is not None
    assert stored.modified_ms == item.modified_ms
    assert item.modified_ms > 1_600_000_000_000


def test_names_as_long_as_they_get_are_fine(objects: BlockingObjects) -> None:
    segment = "!c3!a9" * 40
    key = f"sessions/{segment}/{segment}/{segment[:120]}/main/0000000001-0000000002.jsonl.zst"
    assert run(objects.create(key, b"x"))
    assert keys(objects, f"sessions/{segment}") == [key]
    assert run(objects.list_folders(f"sessions/{segment}")) == [segment]


def test_waiting_goes_through_the_clock() -> None:
    bench = Bench()
    started = bench.clock.elapsed()
    run(bench.objects.wait(3600))
    assert bench.clock.elapsed() == started + 3600


def test_running_a_coroutine_that_suspends_is_a_mistake_that_is_told() -> None:
    class Pause:
        def __await__(self) -> Iterator[None]:
            yield

    async def suspends() -> None:
        await Pause()

    with pytest.raises(RuntimeError, match="suspended"):
        run(suspends())


class SuspendingClock(ManualClock):
    """The clock of a machine that is suspended whenever it looks at it."""

    def elapsed(self) -> float:
        self.advance(LISTING_LIMIT_S + 1)
        return super().elapsed()


def test_a_listing_that_took_too_long_is_not_believed() -> None:
    objects = BlockingObjects(MemoryStore(), "memory://", SuspendingClock())
    with pytest.raises(Unavailable, match="out of date"):
        run(objects.listing("folder"))


def test_every_request_but_a_create_is_made_again_if_it_could_not_be_prepared() -> None:
    failures: list[Exception] = []

    def prepare() -> None:
        if failures:
            raise failures.pop()

    objects = BlockingObjects(MemoryStore(), "memory://", ManualClock(), prepare=prepare)
    for act in (
        lambda: objects.listing(""),
        lambda: objects.list_folders(""),
        lambda: objects.get("key"),
        lambda: objects.put("key", b""),
        lambda: objects.delete(["key"]),
    ):
        failures.append(Unavailable("no credentials yet", hint="wait"))
        run(act())
    assert failures == []
