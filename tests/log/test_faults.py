"""A store that misbehaves does so as it was told, and otherwise behaves."""

from __future__ import annotations

import pytest
from obstore.store import MemoryStore

from everturn.errors import Denied, Unavailable
from everturn.log.objects import BlockingObjects, Objects, run
from everturn.testing.faults import Fault, FaultyObjects


@pytest.fixture
def inner() -> BlockingObjects:
    return BlockingObjects(MemoryStore(), "memory://")


def keys(objects: Objects) -> list[str]:
    return sorted(item.key for item in run(objects.listing("")))


def test_without_faults_it_is_the_store_inside(inner: BlockingObjects) -> None:
    objects = FaultyObjects(inner)
    assert run(objects.create("a/1", b"x"))
    assert not run(objects.create("a/1", b"y"))
    run(objects.put("a/2", b"z"))
    assert [stored and stored.data for stored in run(objects.get_many(["a/2", "b", "a/1"]))] == [b"z", None, b"x"]
    assert run(objects.list_folders("")) == ["a"]
    run(objects.delete(["a/1"]))
    assert keys(objects) == keys(inner) == ["a/2"]
    assert objects.counts == {"create": 2, "put": 1, "get": 3, "list_folders": 1, "delete": 1, "listing": 1}


def test_a_request_that_fails_has_no_effect(inner: BlockingObjects) -> None:
    objects = FaultyObjects(inner, Fault("fail", "create"))
    with pytest.raises(Unavailable, match="create of a"):
        run(objects.create("a", b""))
    assert keys(inner) == []
    assert run(objects.create("a", b""))
    assert objects.counts["create"] == 2


def test_a_request_whose_reply_is_lost_has_its_effect(inner: BlockingObjects) -> None:
    objects = FaultyObjects(inner, Fault("lose_reply", times=3, error=Denied("no", hint="mend it")))
    for request in (objects.create("a", b""), objects.put("b", b""), objects.delete(["a"])):
        with pytest.raises(Denied):
            run(request)
    assert keys(objects) == ["b"]


def test_a_busy_store_creates_nothing(inner: BlockingObjects) -> None:
    objects = FaultyObjects(inner, Fault("busy"))
    assert not run(objects.create("a", b""))
    assert keys(inner) == []
    assert run(objects.create("a", b""))


def test_a_listing_hides_what_it_was_told_to(inner: BlockingObjects) -> None:
    objects = FaultyObjects(inner, Fault("hide", keys="*[23]", times=2))
    assert keys(objects) == []  # nothing to hide yet: it does not count
    for key in ("1", "2", "3"):
        run(objects.create(key, b""))
    assert [keys(objects), keys(objects), keys(objects)] == [["1"], ["1"], ["1", "2", "3"]]


def test_an_object_is_gone_for_those_who_fetch_it(inner: BlockingObjects) -> None:
    run(inner.create("a", b""))
    objects = FaultyObjects(inner, Fault("gone", keys="a"))
    assert run(objects.get_many(["b", "a", "a"]))[1] is None
    assert run(objects.get("a")) is not None


def test_a_fault_hits_matching_requests_as_often_as_it_was_told(inner: BlockingObjects) -> None:
    objects = FaultyObjects(inner, Fault("fail", "get", keys="x/*", times=2, after=1))
    run(objects.put("x/1", b""))
    run(objects.get("y/1"))
    run(objects.get("x/1"))
    for _ in range(2):
        with pytest.raises(Unavailable):
            run(objects.get("x/1"))
    run(objects.get("x/1"))
    assert objects.faults == []


def test_a_fault_may_stay_until_it_is_taken_away(inner: BlockingObjects) -> None:
    objects = FaultyObjects(inner, Fault("fail", times=None))
    for _ in range(5):
        with pytest.raises(Unavailable):
            run(objects.listing(""))
    objects.faults.clear()
    assert keys(objects) == []
