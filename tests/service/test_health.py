"""Whether the service can do its work: what is found, and how often it is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from everturn.clock import SystemClock
from everturn.errors import Denied, Unavailable
from everturn.service.health import Probe, Readiness
from polling import wait_until


@contextmanager
def looking(probe: Probe) -> Iterator[Readiness]:
    readiness = Readiness({"store": probe}, SystemClock(), pause_s=0.001)
    readiness.start()
    try:
        yield readiness
    finally:
        readiness.stop()


def test_a_part_that_stays_away_is_told_once_in_whatever_words_it_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Some stores say how many microseconds a request took that failed."""
    tries = count()

    def probe() -> None:
        number = next(tries)
        if number < 20:
            raise Unavailable(f"no answer in {number} µs", hint="try again")
        if number < 40:
            raise Denied(f"request {number} is denied", hint="log in")

    with caplog.at_level("INFO", "everturn"), looking(probe) as readiness:
        wait_until(lambda: not readiness.ailments(), "it is there again")
    told = [json.loads(line) for line in caplog.messages]
    assert [(line["event"], line.get("reason")) for line in told] == [
        ("part_unusable", "no answer in 0 µs"),
        ("part_unusable", "request 20 is denied"),
        ("part_usable", None),
    ]


def test_what_is_said_last_is_what_is_shown() -> None:
    tries = count()

    def probe() -> None:
        raise Unavailable(f"no answer to request {next(tries)}", hint="try again")

    with looking(probe) as readiness:
        wait_until(
            lambda: next(tries) > 5 and "request 0" not in readiness.ailments()[0].message, "it was tried again"
        )
