"""The wish that a run ends, and what it breaks off."""

from __future__ import annotations

import threading

import anyio
import anyio.lowlevel
import pytest

from everturn import Fenced
from everturn.clock import ManualClock
from everturn.runner.interruption import Interruption
from everturn.runner.stopping import CANCELLED, CLOSED, LOST, Stop
from polling import WAIT_S, let_others_run

GRACE_S = 20.0
BOTH = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def fenced() -> Fenced:
    return Fenced("somebody else has it", hint="stop")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def stop(clock: ManualClock) -> Stop:
    return Stop(clock, GRACE_S)


# --- The wish -----------------------------------------------------------------------------------------------------


def test_nobody_has_asked_at_first(stop: Stop) -> None:
    assert (stop.reason, stop.error, stop.hurry) == (None, None, False)
    assert (stop.left_s, stop.took_s) == (GRACE_S, None)


def test_the_first_reason_stays_and_a_second_wish_means_to_hurry(stop: Stop) -> None:
    stop.request("SIGTERM")
    assert (stop.reason, stop.hurry) == ("SIGTERM", False)
    stop.request(CANCELLED)
    assert (stop.reason, stop.hurry) == ("SIGTERM", True)


def test_to_close_what_is_ending_already_does_not_mean_to_hurry(stop: Stop) -> None:
    stop.request("SIGTERM")
    stop.request(CLOSED, again=False)
    assert (stop.reason, stop.hurry) == ("SIGTERM", False)


def test_a_claim_that_is_lost_while_a_run_is_ending_makes_it_hurry_and_is_told(stop: Stop) -> None:
    stop.request("SIGTERM")
    error = fenced()
    stop.request(LOST, error)
    stop.request(LOST, fenced())
    assert (stop.reason, stop.error, stop.hurry) == ("SIGTERM", error, True)


def test_the_grace_period_begins_with_the_first_wish(stop: Stop, clock: ManualClock) -> None:
    clock.advance(100)
    stop.request("SIGTERM")
    clock.advance(15)
    stop.request("SIGTERM")
    assert (stop.left_s, stop.took_s) == (5, 15)
    clock.jump(-1000)
    assert stop.left_s == 5
    clock.advance(10)
    assert (stop.left_s, stop.took_s) == (0, 25)


def test_who_listens_hears_each_wish_and_at_once_what_came_before(stop: Stop) -> None:
    heard: list[bool] = []
    stop.request("SIGTERM")
    stop.listen(lambda: heard.append(stop.hurry))
    assert heard == [False]
    stop.request("SIGTERM")
    assert heard == [False, True]


# --- What it breaks off -------------------------------------------------------------------------------------------


def in_loop(work: object, backend: str) -> None:
    async def main() -> None:
        with anyio.fail_after(WAIT_S):
            await work()  # type: ignore[operator]

    anyio.run(main, backend=backend)


@BOTH
def test_work_is_broken_off_when_any_thread_asks(stop: Stop, backend: str) -> None:
    async def main() -> None:
        interruption = Interruption(stop)
        with interruption.unless_stopped():
            threading.Thread(target=stop.request, args=("SIGTERM",)).start()
            await anyio.sleep_forever()
        assert stop.reason == "SIGTERM"

    in_loop(main, backend)


@BOTH
def test_work_that_would_begin_after_the_wish_is_broken_off_at_its_first_wait(stop: Stop, backend: str) -> None:
    done: list[str] = []

    async def main() -> None:
        interruption = Interruption(stop)
        stop.request("SIGTERM")
        with interruption.unless_stopped():
            done.append("began")
            await anyio.sleep_forever()
            done.append("went on")

    in_loop(main, backend)
    assert done == ["began"]


@BOTH
def test_a_wish_from_before_the_run_began_counts(stop: Stop, backend: str) -> None:
    done: list[str] = []
    stop.request("SIGTERM")

    async def main() -> None:
        with Interruption(stop).unless_stopped():
            done.append("began")
            await anyio.sleep_forever()
            done.append("went on")

    in_loop(main, backend)
    assert done == ["began"]


@BOTH
def test_what_belongs_to_the_end_is_not_broken_off_by_the_first_wish_nor_by_a_cancellation(
    stop: Stop, backend: str
) -> None:
    done: list[str] = []

    async def main() -> None:
        interruption = Interruption(stop)
        with anyio.CancelScope() as outer:
            with interruption.unless_hurried(WAIT_S):
                stop.request("SIGTERM")
                outer.cancel()
                await let_others_run()
                done.append("stored")
            await anyio.lowlevel.checkpoint()
            done.append("went on")

    in_loop(main, backend)
    assert done == ["stored"]


@BOTH
def test_what_belongs_to_the_end_has_so_much_time(stop: Stop, backend: str) -> None:
    done: list[str] = []

    async def main() -> None:
        interruption = Interruption(stop)
        with interruption.unless_hurried(0.05):
            await anyio.sleep_forever()
            done.append("stored")
        with interruption.unless_hurried(WAIT_S):
            await anyio.lowlevel.checkpoint()
            done.append("next")

    in_loop(main, backend)
    assert done == ["next"]


@BOTH
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_what_belongs_to_the_end_has_less_time_in_a_hurry(stop: Stop, backend: str, when: str) -> None:
    async def main() -> None:
        interruption = Interruption(stop)
        stop.request("SIGTERM")
        if when == "before":
            stop.request("SIGTERM")
        begun = anyio.current_time()
        with interruption.unless_hurried(10 * WAIT_S, hurried_s=0.05):
            if when == "meanwhile":
                threading.Thread(target=stop.request, args=("SIGTERM",)).start()
            await anyio.sleep_forever()
        assert 0.05 <= anyio.current_time() - begun < WAIT_S

    in_loop(main, backend)


@BOTH
def test_a_hurry_gives_nobody_more_time(stop: Stop, backend: str) -> None:
    async def main() -> None:
        interruption = Interruption(stop)
        stop.request("SIGTERM")
        begun = anyio.current_time()
        with interruption.unless_hurried(0.05, hurried_s=10 * WAIT_S):
            stop.request("SIGTERM")
            await anyio.sleep_forever()
        assert anyio.current_time() - begun < WAIT_S

    in_loop(main, backend)


def test_a_wish_after_the_event_loop_has_ended_is_no_error(stop: Stop) -> None:
    async def main() -> Interruption:
        return Interruption(stop)

    for backend, is_second in (("asyncio", False), ("trio", True)):
        anyio.run(main, backend=backend)
        stop.request("SIGTERM")
        assert stop.hurry is is_second
