"""Whether the service can do its work is looked up, never waited for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from everturn.clock import ManualClock
from everturn.errors import Denied, Unavailable
from everturn.service.parts import Parts
from everturn.service.web.app import make_app
from everturn.service.web.health import Ailment, Readiness, probes_of
from polling import wait_until
from served import settings_at


class Part:
    """Something that the service needs, and what becomes of whoever tries it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.tried = 0

    def __call__(self) -> None:
        self.tried += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def part() -> Part:
    return Part()


@pytest.fixture
def readiness(part: Part, clock: ManualClock) -> Iterator[Readiness]:
    made = Readiness({"store": part}, clock, pause_s=0.005, stale_s=20)
    yield made
    made.stop()


def tried(part: Part, readiness: Readiness) -> list[Ailment]:
    """What is told after the part was tried twice more."""
    seen = part.tried
    wait_until(lambda: part.tried > seen + 1, "it was tried")
    return readiness.ailments()


def test_what_was_not_tried_yet_cannot_be_used(readiness: Readiness) -> None:
    assert readiness.ailments() == [Ailment("store", "it has not answered yet")]


def test_what_fails_is_told_until_it_works_again(
    part: Part, readiness: Readiness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "everturn")
    readiness.start()
    assert tried(part, readiness) == []
    part.error = Unavailable("the store is away", hint="wait")
    assert tried(part, readiness) == [Ailment("store", "the store is away")]
    part.error = ZeroDivisionError("with a secret in it")
    assert tried(part, readiness) == [Ailment("store", "ZeroDivisionError was raised")]
    part.error = None
    assert tried(part, readiness) == []
    told = [record.message for record in caplog.records]
    assert [("part_unusable" in line, "part_usable" in line) for line in told] == [
        *[(True, False)] * 2,
        (False, True),
    ]  # once for each change
    assert "with a secret" not in caplog.text


def test_a_part_that_stays_away_is_told_once_in_whatever_words_it_says_so(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Some stores say how many microseconds a request took that failed."""
    tries = count()

    def probe() -> None:
        number = next(tries)
        if number < 20:
            raise Unavailable(f"no answer in {number} µs", hint="try again")
        if number < 40:
            raise Denied(f"request {number} is denied", hint="log in")

    caplog.set_level("INFO", "everturn")
    readiness = Readiness({"store": probe}, clock, pause_s=0.001)
    readiness.start()
    wait_until(lambda: not readiness.ailments(), "it is there again")
    readiness.stop()
    told = [json.loads(line) for line in caplog.messages]
    assert [(line["event"], line.get("reason")) for line in told] == [
        ("part_unusable", "no answer in 0 µs"),
        ("part_unusable", "request 20 is denied"),
        ("part_usable", None),
    ]


def test_a_part_that_hangs_is_noticed_and_hides_no_other(clock: ManualClock) -> None:
    over, hanging = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        over.wait()

    other = Part(Denied("not allowed", hint="mend it"))
    readiness = Readiness({"store": hang, "registry": other}, clock, pause_s=0.005, stale_s=20)
    readiness.start()
    assert hanging.wait(10)
    wait_until(lambda: len(readiness.ailments()) == 2 and other.tried, "both are told")
    assert readiness.ailments()[0] == Ailment("store", "it has not answered yet")
    wait_until(lambda: readiness.ailments()[1] == Ailment("registry", "not allowed"), "the other is told")
    readiness.stop()
    over.set()


def test_an_answer_gets_old(part: Part, clock: ManualClock) -> None:
    readiness = Readiness({"store": part}, clock, pause_s=3600, stale_s=20)
    readiness.start()
    wait_until(lambda: readiness.ailments() == [], "it was tried")
    clock.advance(21)
    assert readiness.ailments() == [Ailment("store", "it has not answered for 21 s")]
    readiness.stop()


def test_who_was_told_to_stop_does_not_begin(readiness: Readiness) -> None:
    readiness.phase = "stopping"
    readiness.start()
    assert readiness.phase == "stopping"


def test_readiness_is_told_by_status_and_in_words(tmp_path: Path, part: Part, readiness: Readiness) -> None:
    parts = Parts.open(settings_at(tmp_path))
    client = TestClient(make_app(parts, readiness=readiness), base_url="http://localhost")

    def said() -> tuple[int, dict[str, object]]:
        answer = client.get("/readyz")
        return answer.status_code, answer.json()

    assert said() == (503, {"status": "starting", "lacks": []})
    readiness.start()
    tried(part, readiness)
    assert said() == (200, {"status": "ready", "lacks": []})
    part.error = Unavailable("the store is away", hint="wait")
    tried(part, readiness)
    assert said() == (503, {"status": "unusable", "lacks": [{"part": "store", "message": "the store is away"}]})
    readiness.stop()
    assert said() == (503, {"status": "stopping", "lacks": []})
    assert client.get("/healthz").json() == {"status": "ok"}
    parts.close()


def test_a_new_place_can_be_used_and_nothing_of_it_is_missing(tmp_path: Path) -> None:
    parts = Parts.open(settings_at(tmp_path))
    probes = probes_of(parts)
    assert {"store", "registry"} <= probes.keys()
    for probe in probes.values():
        probe()  # it raises what is wrong
    parts.close()
