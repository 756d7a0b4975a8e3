"""Requests in their turn, and again where that is safe; against a real server that misbehaves."""

from __future__ import annotations

import gc
import json
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from obstore.store import MemoryStore

from everturn.clock import Ids, ManualClock, SystemClock
from everturn.errors import Corrupt, Denied, Invalid, Unavailable
from everturn.log.names import part
from everturn.log.objects import BlockingObjects, run
from everturn.log.patience import Patience
from everturn.log.reader import read
from everturn.log.requests import Requests
from everturn.log.writer import LogWriter
from everturn.testing import LoopbackS3
from log.bench import FOLDER, Recorder
from log.troubled import SLOW_DOWN, Answer, Troubled, answering, hang_up, objects_of, refusing, troubled_server
from polling import wait_until

Operation = Callable[[BlockingObjects], Coroutine[Any, Any, Any]]

OPERATIONS: dict[str, Operation] = {
    "get": lambda objects: objects.get("a/1"),
    "get_many": lambda objects: objects.get_many(["a/1", "a/2", "missing"]),
    "listing": lambda objects: objects.listing("a"),
    "list_folders": lambda objects: objects.list_folders(""),
    "delete": lambda objects: objects.delete(["a/2"]),
    "put": lambda objects: objects.put("a/1", b"one"),
}


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[LoopbackS3, Troubled]]:
    with troubled_server() as both:
        yield both


@pytest.fixture
def trouble(served: tuple[LoopbackS3, Troubled]) -> Iterator[Troubled]:
    trouble = served[1]
    yield trouble
    trouble.end()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def objects(
    served: tuple[LoopbackS3, Troubled], trouble: Troubled, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> BlockingObjects:
    """Objects that have something in them, and whose waiting takes no time."""
    objects = objects_of(served[0], monkeypatch, clock)
    for key in ("a/1", "a/2"):
        run(objects.create(key, b"one"))
    trouble.asked.clear()
    trouble.refused = 0
    return objects


def kinds(trouble: Troubled) -> dict[str, Answer]:
    return {
        "500": refusing("500 Internal Server Error", "InternalError"),
        "cut off": refusing("400 Bad Request", "RequestTimeout"),
        "KMS": refusing("400 Bad Request", "KMS.ThrottlingException"),
        "502": answering("502 Bad Gateway"),
        "503": SLOW_DOWN,
        "429": answering("429 Too Many Requests"),
        "hang-up": hang_up,
        "silence": trouble.stay_silent,
    }


def crossed(operations: Iterable[str], kinds: Sequence[str]) -> list[Any]:
    """Return every operation with every kind of trouble; what is fast has each of both once."""
    first = next(iter(operations))
    return [
        pytest.param(operation, kind, marks=() if operation == first or kind == kinds[0] else pytest.mark.slow)
        for operation in operations
        for kind in kinds
    ]


# --- What is tried again, and what is not ---


@pytest.mark.parametrize(
    ("operation", "kind"),
    crossed(OPERATIONS, ["500", "cut off", "KMS", "502", "503", "429", "hang-up"]),
)
def test_what_may_be_done_twice_is_tried_again(
    objects: BlockingObjects, trouble: Troubled, operation: str, kind: str
) -> None:
    expected = run(OPERATIONS[operation](objects))
    trouble.troubles = [kinds(trouble)[kind]] * 2
    assert run(OPERATIONS[operation](objects)) == expected
    assert objects.retried == trouble.refused == 2
    assert objects.throttled == (2 if kind in ("KMS", "503", "429") else 0)


@pytest.mark.parametrize(
    "operation", ["get", *(pytest.param(name, marks=pytest.mark.slow) for name in ("listing", "delete"))]
)
def test_a_server_that_says_nothing_is_asked_again(
    served: tuple[LoopbackS3, Troubled], trouble: Troubled, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    objects = objects_of(served[0], monkeypatch, request_timeout_s=0.2, transfer_timeout_s=0.2)
    run(objects.create("a/1", b"one"))
    trouble.troubles = [trouble.stay_silent]
    run(OPERATIONS[operation](objects))
    assert (objects.retried, objects.throttled) == (1, 0)


@pytest.mark.parametrize("kind", ["500", "503", "hang-up"])
def test_creating_is_never_tried_again_inside(objects: BlockingObjects, trouble: Troubled, kind: str) -> None:
    trouble.troubles = [kinds(trouble)[kind]]
    with pytest.raises(Unavailable):
        run(objects.create("new", b"one"))
    assert len(trouble.asked) == 1
    assert objects.throttled == (kind == "503")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refusing("403 Forbidden", "AccessDenied"), Denied),
        (refusing("400 Bad Request", "ExpiredToken"), Denied),
        (refusing("400 Bad Request", "InvalidRequest"), Invalid),
    ],
    ids=["forbidden", "expired", "invalid"],
)
def test_what_is_refused_for_good_is_not_tried_again(
    objects: BlockingObjects, trouble: Troubled, operation: str, answer: Answer, error: type[Exception]
) -> None:
    trouble.rule = lambda _request: answer
    with pytest.raises(error):
        run(OPERATIONS[operation](objects))
    assert objects.retried == 0


def test_a_read_is_tried_until_its_deadline_and_the_error_says_that_the_store_throttles(
    objects: BlockingObjects, trouble: Troubled, clock: ManualClock
) -> None:
    trouble.rule = lambda _request: SLOW_DOWN
    started = clock.elapsed()
    with pytest.raises(Unavailable, match=r"asks to slow down \(503 SlowDown\)"):
        run(objects.get("a/1"))
    assert 5 < clock.elapsed() - started <= 10 + 5
    assert objects.retried > 5


def test_inside_an_operation_nothing_is_begun_after_its_deadline(
    objects: BlockingObjects, trouble: Troubled, clock: ManualClock
) -> None:
    trouble.rule = lambda _request: refusing("500 Internal Server Error", "InternalError")
    patience = Patience(objects, clock, Ids(1), deadline_s=3)
    with pytest.raises(Unavailable):
        run(patience.insist(lambda: objects.get_many(["a/1", "a/2"])))
    assert patience.used_s <= 3


def test_an_append_begins_nothing_after_its_deadline_whatever_it_waits_for(
    objects: BlockingObjects, trouble: Troubled, clock: ManualClock
) -> None:
    writer = LogWriter(objects, FOLDER, clock=clock, ids=Ids(1), observer=Recorder(), deadline_s=3)
    run(writer.append([{"n": 1}]))
    run(objects.put(f"{FOLDER}/{part(2).file_name}", b"somebody else's"))
    failing = refusing("500 Internal Server Error", "InternalError")
    trouble.rule = lambda request: failing if request["REQUEST_METHOD"] == "GET" else None
    started = clock.elapsed()
    with pytest.raises(Unavailable):
        run(writer.append([{"n": 2}]))
    assert clock.elapsed() - started <= 3


def test_one_deletion_of_many_that_fails_is_told_by_its_cause(objects: BlockingObjects, trouble: Troubled) -> None:
    def failing(code: str) -> Answer:
        error = f"<Error><Key>prefix/a/1</Key><Code>{code}</Code><Message>no</Message></Error>"
        return answering("200 OK", f"<DeleteResult>{error}</DeleteResult>")

    trouble.troubles = [failing("AccessDenied")]
    with pytest.raises(Denied, match="AccessDenied"):
        run(objects.delete(["a/1", "a/2"]))
    trouble.troubles = [failing("InternalError"), failing("SlowDown")]
    run(objects.delete(["a/1", "a/2"]))
    assert run(objects.listing("")) == []
    assert objects.throttled >= 1


# --- Throttling ---


@pytest.mark.slow
def test_a_store_that_takes_few_requests_at_once_is_asked_for_fewer_and_all_reads_succeed(
    served: tuple[LoopbackS3, Troubled], trouble: Troubled, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LeapingClock(SystemClock):
        """The real clock, as several threads wait at the same time, but it can leap ahead."""

        leapt_s = 0.0

        def elapsed(self) -> float:
            return super().elapsed() + self.leapt_s

    clock = LeapingClock()
    objects = objects_of(served[0], monkeypatch, clock, retry_start_s=0.01, retry_limit_s=0.05)
    throttle = objects.requests.throttle
    keys = [f"b/{number}" for number in range(60)]
    for key in keys:
        run(objects.create(key, key.encode()))
    trouble.refused = 0
    widths: list[int] = []

    def three_at_once(_request: Any) -> Answer | None:
        widths.append(throttle.width)
        return SLOW_DOWN if trouble.in_flight > 3 else None

    trouble.rule = three_at_once
    found = run(objects.get_many(keys))
    assert [stored and stored.data for stored in found] == [key.encode() for key in keys]
    assert objects.throttled == trouble.refused > 0
    assert min(widths) < 16
    assert throttle.pace is not None

    trouble.rule = lambda _request: None
    clock.leapt_s = 60
    run(objects.get_many(keys * 2))
    assert (throttle.width, throttle.pace) == (16, None)


@pytest.mark.slow
def test_a_store_that_takes_few_requests_a_second_serves_all_of_them_in_the_end(
    objects: BlockingObjects, trouble: Troubled, clock: ManualClock
) -> None:
    seconds: dict[int, int] = {}

    def ten_a_second(_request: Any) -> Answer | None:
        second = int(clock.elapsed())
        seconds[second] = seconds.get(second, 0) + 1
        return SLOW_DOWN if seconds[second] > 10 else None

    trouble.rule = ten_a_second
    started = clock.elapsed()
    for _ in range(200):
        assert run(objects.get("a/1")) is not None
    assert 19 <= clock.elapsed() - started < 60
    assert objects.throttled < 60


@pytest.mark.slow
def test_appends_to_a_store_that_throttles_are_neither_lost_nor_doubled(
    objects: BlockingObjects, trouble: Troubled, clock: ManualClock
) -> None:
    numbers = iter(range(10_000))
    trouble.rule = lambda _request: SLOW_DOWN if next(numbers) % 3 else None
    writer = LogWriter(objects, FOLDER, clock=clock, ids=Ids(1), observer=Recorder())
    for number in range(25):
        run(writer.append([{"n": number}]))
    trouble.rule = lambda _request: None
    assert [entry["n"] for entry in run(read(objects, FOLDER)).entries()] == list(range(25))


def test_a_store_that_throttles_is_told_of_in_the_log_now_and_then(
    objects: BlockingObjects, trouble: Troubled, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "everturn")
    trouble.troubles = [SLOW_DOWN] * 3
    run(objects.get("a/1"))
    clock.advance(6)
    trouble.troubles = [SLOW_DOWN]
    run(objects.get("a/1"))
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "everturn"]
    assert [(line["event"], line["throttled"]) for line in lines] == [("store_throttles", 1), ("store_throttles", 4)]
    assert lines[0]["in_flight_limit"] == 8


# --- Listings ---


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch, objects: BlockingObjects, trouble: Troubled) -> list[str]:
    """Pages of ten, on both sides, and 35 keys."""
    monkeypatch.setattr("everturn.log.objects.PAGE", 10)
    keys = [f"c/{number:02}" for number in range(35)]
    for key in keys:
        run(objects.create(key, b""))
    trouble.asked.clear()

    def ten_keys(request: dict[str, Any]) -> None:
        request["QUERY_STRING"] += "&max-keys=10"

    trouble.rule = ten_keys
    return keys


def test_a_listing_goes_on_where_it_broke_off(
    objects: BlockingObjects, trouble: Troubled, small_pages: list[str]
) -> None:
    pages = iter([None, None, SLOW_DOWN, None, SLOW_DOWN])
    rule = trouble.rule
    trouble.rule = lambda request: rule(request) or next(pages, None)
    assert [item.key for item in run(objects.listing("c"))] == small_pages
    resumed = [asked for asked in trouble.asked if "start-after" in asked and "continuation-token" not in asked]
    assert [asked.partition("start-after=")[2][:15] for asked in resumed] == ["prefix%2Fc%2F19", "prefix%2Fc%2F29"]
    assert len(trouble.asked) == 4 + 2


def without_order(objects: BlockingObjects) -> BlockingObjects:
    clients = replace(objects._clients, lists_in_order=False)
    return BlockingObjects(lambda: clients, "label", objects._clock)


def test_a_listing_without_order_begins_again_when_it_breaks_off(
    objects: BlockingObjects, trouble: Troubled, small_pages: list[str]
) -> None:
    pages = iter([None, None, SLOW_DOWN, None, None, hang_up])
    rule = trouble.rule
    trouble.rule = lambda request: rule(request) or next(pages, None)
    assert [item.key for item in run(without_order(objects).listing("c"))] == small_pages
    assert not any("start-after" in asked for asked in trouble.asked)


def test_a_listing_without_order_whose_later_pages_never_come_is_given_up(
    objects: BlockingObjects, trouble: Troubled, small_pages: list[str]
) -> None:
    rule = trouble.rule
    trouble.rule = lambda request: (
        rule(request) or (SLOW_DOWN if "continuation-token" in request["QUERY_STRING"] else None)
    )
    with pytest.raises(Unavailable):
        run(without_order(objects).listing("c"))


@pytest.mark.parametrize("name", ["c//d", "c/a\x01b", "c/../d"])
def test_a_foreign_object_with_an_impossible_name_is_named(
    served: tuple[LoopbackS3, Troubled], objects: BlockingObjects, trouble: Troubled, name: str
) -> None:
    bucket = objects._label.split("/")[2]
    served[0].client().put_object(Bucket=bucket, Key=f"prefix/{name}", Body=b"")
    trouble.asked.clear()
    with pytest.raises(Corrupt, match="name that cannot be listed") as caught:
        run(objects.listing("c"))
    assert name.replace("\x01", "\\x01") in caught.value.message
    assert len(trouble.asked) == 1
    assert [item.key for item in run(objects.listing("a"))] == ["a/1", "a/2"]


# --- Many at once ---


def test_fetching_many_stops_at_the_first_failure(objects: BlockingObjects, trouble: Troubled) -> None:
    trouble.rule = lambda _request: refusing("403 Forbidden", "AccessDenied")
    with pytest.raises(Denied):
        run(objects.get_many([f"a/{number}" for number in range(500)]))
    assert len(trouble.asked) <= 2 * 16


def test_fetching_many_works_without_helpers_at_the_end_of_the_process() -> None:
    objects = BlockingObjects(MemoryStore(), "memory://")
    run(objects.create("a", b"x"))
    run(objects.get_many(["a", "b"]))
    assert objects._helpers is not None
    objects._helpers.shutdown()  # as an interpreter does that ends
    found = run(objects.get_many(["a", "b", "a"]))
    assert [stored and stored.data for stored in found] == [b"x", None, b"x"]


def test_helpers_end_with_the_objects_they_help() -> None:
    def helpers() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread not in before]

    before = set(threading.enumerate())
    objects = BlockingObjects(MemoryStore(), "memory://")
    run(objects.get_many([str(number) for number in range(100)]))
    assert helpers()
    del objects
    gc.collect()
    wait_until(lambda: not helpers(), "the helpers' end")


def test_one_at_a_time_is_possible() -> None:
    objects = BlockingObjects(
        MemoryStore(), "memory://", requests=Requests("memory://", clock=ManualClock(), width=1)
    )
    run(objects.create("a", b"x"))
    assert [stored and stored.data for stored in run(objects.get_many(["a", "b"]))] == [b"x", None]
