"""Sessions that people look at are kept as they were told, and told again when there is news."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from everturn.clock import ManualClock
from everturn.errors import Unavailable
from everturn.service.views.reading import Told
from everturn.service.views.shelf import MOST, MOST_CHARS, OLD_S, Shelf
from polling import wait_until


class Teller:
    """Tells sessions, and counts that.

    Args:
        clock: Stands still but while something is told.
        took_s: How long that takes.
        chars: How long they are.
    """

    def __init__(self, clock: ManualClock, took_s: float, chars: int = 10) -> None:
        self._clock = clock
        self.took_s = took_s
        self._chars = chars
        self.count = 0
        self.error: Exception | None = None
        self.gate: Callable[[], object] = lambda: None
        self.anew: list[str] = []
        self.shelf = Shelf(self.tell, clock, self.anew.append)

    def tell(self, _work: str, session_id: str) -> Told:
        """Tell a session."""
        self.gate()
        if self.error is not None:
            raise self.error
        self.count += 1
        self._clock.advance(self.took_s)
        return Told("journals", branch=f"{session_id} {self.count}", chars=self._chars)

    def get(self, version: int, session_id: str = "s") -> str:
        """Ask for a session, and return when it was told."""
        return str(self.shelf.get("task:t", session_id, version).branch)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_a_session_is_told_once_while_there_is_no_news(clock: ManualClock) -> None:
    teller = Teller(clock, 0.001)
    assert {teller.get(3) for _ in range(10)} == {"s 1"}


def test_what_is_quickly_told_is_told_again_as_soon_as_there_is_news(clock: ManualClock) -> None:
    teller = Teller(clock, 0.001)
    teller.get(3)
    clock.advance(1)
    assert teller.get(4) == "s 2"


def test_what_nobody_has_heard_of_for_long_is_told_again(clock: ManualClock) -> None:
    teller = Teller(clock, 0.001)
    teller.get(3)
    clock.advance(OLD_S + 1)
    assert teller.get(3) == "s 2"


def test_what_takes_long_is_told_again_in_the_background_and_then_there_is_news(clock: ManualClock) -> None:
    teller = Teller(clock, 1.0)
    teller.get(3)
    clock.advance(10)
    assert teller.get(4) == "s 1"
    wait_until(lambda: teller.anew == ["s"], "it was told again")
    assert teller.get(4) == "s 2"


def test_however_many_ask_at_first_it_is_told_once(clock: ManualClock) -> None:
    teller = Teller(clock, 1.0)
    gate = threading.Event()
    teller.gate = lambda: gate.wait(20)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(teller.get, 3) for _ in range(8)]
        gate.set()
        assert {each.result(20) for each in asked} == {"s 1"}


def test_a_session_that_cannot_be_told_at_all_is_an_error(clock: ManualClock) -> None:
    teller = Teller(clock, 0.001)
    teller.error = Unavailable("the bucket is gone", hint="wait")
    with pytest.raises(Unavailable):
        teller.get(3)
    teller.error = None
    assert teller.get(3) == "s 1"


def test_one_that_cannot_be_told_again_is_shown_as_it_was_and_says_so_once(clock: ManualClock) -> None:
    teller = Teller(clock, 0.001)
    teller.get(3)
    teller.error = Unavailable("the bucket is gone", hint="wait")
    for version in (4, 5):
        clock.advance(1)
        told = teller.shelf.get("task:t", "s", version)
    assert (told.branch, told.problems) == ("s 1", ("it could not be read again: the bucket is gone",))
    teller.error = Unavailable("the bucket does not answer", hint="wait")
    clock.advance(1)
    told = teller.shelf.get("task:t", "s", 6)
    assert told.problems == ("it could not be read again: the bucket does not answer",)


def test_only_the_sessions_asked_for_last_are_kept(clock: ManualClock) -> None:
    teller = Teller(clock, 0.001)
    for number in range(MOST + 1):
        teller.get(1, f"s{number}")
    assert teller.get(1, f"s{MOST}") == f"s{MOST} {MOST + 1}"
    assert teller.get(1, "s0") == f"s0 {MOST + 2}"


def test_long_ones_do_not_fill_the_memory(clock: ManualClock) -> None:
    teller = Teller(clock, 0.001, chars=MOST_CHARS)
    teller.get(1, "a")
    teller.get(1, "b")
    teller.get(1, "b")
    assert teller.get(1, "b") == "b 2"
    assert teller.get(1, "a") == "a 3"
