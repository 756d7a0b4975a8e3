"""Checks run beside each other; one that breaks, hangs or is given up does not stop the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from everturn.checks.findings import Check, Finding, examine, failed, passed, without_secrets
from everturn.clock import SystemClock
from everturn.errors import Unavailable

CLOCK = SystemClock()


def well(name: str) -> Check:
    return Check(name, lambda: [passed(name, "is well")])


def test_findings_come_in_the_order_of_the_checks_and_say_how_long_they_took() -> None:
    first = threading.Event()

    def late() -> Iterator[Finding]:
        first.wait(10)
        yield passed("a.one", "is well")
        yield failed("a.two", "is not", "mend it")

    def early() -> Iterator[Finding]:
        first.set()
        yield passed("b.one", "is well")

    told: list[int] = []
    found = examine([Check("a.one", late), Check("b.one", early)], CLOCK, told.append)
    assert [(each.name, each.status) for each in found] == [("a.one", "pass"), ("a.two", "fail"), ("b.one", "pass")]
    assert all(0 <= each.seconds < 10 for each in found)
    assert told == [1, 1]


@pytest.mark.parametrize(
    ("error", "message", "mend"),
    [
        (Unavailable("it does not answer", hint="wait"), "it does not answer", "wait"),
        (PermissionError(13, "Permission denied", "/x"), "Permission denied", "permissions"),
        (ZeroDivisionError("what now"), "the check itself broke", "report it"),
    ],
)
def test_a_check_that_breaks_is_a_failure_and_what_it_had_found_stands(
    error: Exception, message: str, mend: str
) -> None:
    def breaks() -> Iterator[Finding]:
        yield passed("a.one", "is well")
        raise error

    found = examine([Check("a.two", breaks), well("b")], CLOCK)
    assert [(each.name, each.status) for each in found] == [("a.one", "pass"), ("a.two", "fail"), ("b", "pass")]
    assert message in found[1].message
    assert mend in found[1].mend


def test_a_check_that_hangs_is_left_behind_and_puts_away_what_it_had_made_later() -> None:
    release, tidied = threading.Event(), threading.Event()

    def hangs() -> Iterator[Finding]:
        try:
            yield passed("a.one", "is well")
            release.wait(60)
            yield passed("a.two", "came too late")
        finally:
            tidied.set()

    def last(step: int) -> None:
        release.set()

    found = examine([Check("a.two", hangs, timeout_s=0.05), well("b")], CLOCK, last)
    assert [(each.name, each.status) for each in found] == [("a.one", "pass"), ("a.two", "fail"), ("b", "pass")]
    assert "took longer than 0.05 s" in found[1].message
    assert tidied.wait(10)


def test_whoever_interrupts_the_checks_has_what_they_made_put_away() -> None:
    begun, tidied = threading.Event(), threading.Event()
    release = threading.Event()

    def makes_something() -> Iterator[Finding]:
        try:
            begun.set()
            release.wait(60)
            yield passed("b", "is well")
        finally:
            tidied.set()

    def interrupt(_step: int) -> None:
        begun.wait(10)
        release.set()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examine([well("a"), Check("b", makes_something)], CLOCK, interrupt)
    assert tidied.is_set()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot use s3://key:secret@bucket/a@b", "cannot use s3://…@bucket/a@b"),
        ("at 'http://u:p@127.0.0.1:9000/x?X-Amz-Signature=ab'", "at 'http://…@127.0.0.1:9000/x?…'"),
        ("file:///home/me@work/store is well", "file:///home/me@work/store is well"),
        ("why? because", "why? because"),
    ],
)
def test_secrets_in_urls_are_not_shown(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    (found,) = examine([Check("a", lambda: [failed("a", text, text)])], CLOCK)
    assert (found.message, found.mend) == (shown, shown)
