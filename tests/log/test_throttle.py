"""The throttle: as much as the store takes, and less as soon as it says so."""

from __future__ import annotations

import threading

import pytest

from everturn.clock import Ids, ManualClock
from everturn.errors import Unavailable
from everturn.log.patience import Backoff, Patience, patience_left_s
from everturn.log.throttle import FAR_ABOVE, LEAST_PACE, QUIET_S, Throttle
from polling import wait_until


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def throttle(clock: ManualClock) -> Throttle:
    return Throttle(clock, 16)


def go_well(throttle: Throttle, times: int) -> None:
    for _ in range(times):
        throttle.enter()
        throttle.leave(well=True)


def be_refused(throttle: Throttle) -> bool:
    ticket = throttle.enter()
    news = throttle.slow_down(ticket)
    throttle.leave(well=False)
    return news


def begun_in(throttle: Throttle, clock: ManualClock, seconds: float) -> int:
    """Count the requests that somebody in a hurry, whose requests take no time, can begin."""
    until = clock.elapsed() + seconds
    begun = 0
    while clock.elapsed() < until:
        go_well(throttle, 1)
        begun += 1
    return begun


def test_while_all_is_well_nothing_waits(throttle: Throttle, clock: ManualClock) -> None:
    started = clock.elapsed()
    go_well(throttle, 1000)
    assert (throttle.width, throttle.pace, clock.elapsed()) == (16, None, started)


# --- Width ---


def test_each_refusal_halves_the_width_down_to_one(throttle: Throttle) -> None:
    widths = []
    for _ in range(6):
        be_refused(throttle)
        widths.append(throttle.width)
    assert widths == [8, 4, 2, 1, 1, 1]


def test_refusals_of_one_round_trip_count_once(throttle: Throttle) -> None:
    tickets = [throttle.enter() for _ in range(16)]
    assert [throttle.slow_down(ticket) for ticket in tickets] == [True] + [False] * 15
    assert throttle.width == 8


def test_the_width_grows_by_one_for_a_width_of_successes(throttle: Throttle) -> None:
    for _ in range(3):
        be_refused(throttle)
    assert throttle.width == 2
    go_well(throttle, 2)
    assert throttle.width == 3
    go_well(throttle, 2)
    assert throttle.width == 3
    go_well(throttle, 1)
    assert throttle.width == 4
    go_well(throttle, 1000)
    assert throttle.width == 16


def test_failures_that_are_no_refusals_neither_widen_nor_narrow(throttle: Throttle) -> None:
    be_refused(throttle)
    for _ in range(100):
        throttle.enter()
        throttle.leave(well=False)
    assert throttle.width == 8


def test_no_more_are_in_flight_than_the_width_and_each_that_leaves_lets_one_in(clock: ManualClock) -> None:
    throttle = Throttle(clock, 2)
    throttle.enter()
    throttle.enter()
    inside = threading.Event()
    late = threading.Thread(target=lambda: (throttle.enter(), inside.set()))
    late.start()
    wait_until(lambda: throttle._waiting, "a thread that waits")
    assert not inside.is_set()
    throttle.leave(well=True)
    late.join()
    assert inside.is_set()


def test_who_waits_longer_for_room_than_there_is_time_is_told(clock: ManualClock) -> None:
    throttle = Throttle(clock, 1)
    throttle.enter()
    with pytest.raises(Unavailable, match="slow down"):
        throttle.enter(patience_s=0.01)
    throttle.leave(well=True)
    throttle.enter(patience_s=0.01)


def test_who_gives_up_in_the_last_moment_leaves_the_room_to_the_next(clock: ManualClock) -> None:
    throttle = Throttle(clock, 1)
    be_refused(throttle)
    throttle.enter()
    throttle._next_turn_at = clock.elapsed() + 100
    outcomes: list[str] = []

    def enter(patience_s: float) -> None:
        try:
            throttle.enter(patience_s)
        except Unavailable:
            outcomes.append("gave up")
        else:
            outcomes.append("entered")
            throttle.leave(well=False)  # those that were woken after this one wait for room again

    threads = [threading.Thread(target=enter, args=[patience_s]) for patience_s in (50, 50, 50, 1000)]
    for number, thread in enumerate(threads, 1):  # one by one, as they are woken in this order
        thread.start()
        wait_until(lambda: throttle._waiting == number, "a thread that waits")  # noqa: B023
    throttle.leave(well=False)
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4
    assert outcomes[:2] == ["gave up", "gave up"]
    assert "entered" in outcomes  # those that gave up have passed the room on


def test_many_threads_never_exceed_the_width(clock: ManualClock) -> None:
    throttle = Throttle(clock, 3)
    lock = threading.Lock()
    inside = most = 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            throttle.enter()
            with lock:
                inside += 1
                most = max(most, inside)
            with lock:
                inside -= 1
            throttle.leave(well=True)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= most <= 3
    assert inside == 0


# --- Pace ---


def test_the_pace_begins_at_half_of_the_rate_that_was_too_much(throttle: Throttle, clock: ManualClock) -> None:
    for _ in range(500):  # 100 a second
        go_well(throttle, 1)
        clock.advance(0.01)
    be_refused(throttle)
    assert throttle.pace == pytest.approx(50, rel=0.05)


def test_a_pace_spreads_requests_evenly(throttle: Throttle, clock: ManualClock) -> None:
    for _ in range(500):
        go_well(throttle, 1)
        clock.advance(0.01)
    be_refused(throttle)
    assert begun_in(throttle, clock, 0.9) == pytest.approx(45, abs=4)


def test_the_pace_has_a_floor(throttle: Throttle, clock: ManualClock) -> None:
    for _ in range(10):
        be_refused(throttle)
        clock.advance(0.5)
    assert throttle.pace is not None
    assert throttle.pace >= LEAST_PACE


def test_the_pace_grows_with_each_quiet_time(throttle: Throttle, clock: ManualClock) -> None:
    for _ in range(500):
        go_well(throttle, 1)
        clock.advance(0.01)
    be_refused(throttle)
    paces = []
    for _ in range(4):
        begun_in(throttle, clock, QUIET_S)
        paces.append(throttle.pace or 0)
    assert paces == sorted(paces)
    assert paces[-1] == pytest.approx(50 * 1.5**4, rel=0.05)


def test_the_pace_goes_away_when_it_is_far_above_what_is_asked_for(throttle: Throttle, clock: ManualClock) -> None:
    for _ in range(500):
        go_well(throttle, 1)
        clock.advance(0.01)
    be_refused(throttle)
    last = 0.0
    while (pace := throttle.pace) is not None:
        last = pace
        go_well(throttle, 1)
        clock.advance(0.1)  # 10 a second are asked for
        assert clock.elapsed() < 1_700_000_000 + 60
    assert last * 1.5 >= FAR_ABOVE * 9


def test_the_pace_is_gone_after_a_rest(throttle: Throttle, clock: ManualClock) -> None:
    be_refused(throttle)
    assert throttle.pace is not None
    clock.advance(60)
    assert throttle.pace is None


def test_a_turn_that_would_come_too_late_is_not_waited_for(throttle: Throttle, clock: ManualClock) -> None:
    be_refused(throttle)
    go_well(throttle, 1)
    before = clock.elapsed()
    with pytest.raises(Unavailable, match="too late"):
        throttle.enter(patience_s=0.01)
    assert clock.elapsed() == before


def test_those_who_cannot_wait_do_not_hold_up_the_others(throttle: Throttle, clock: ManualClock) -> None:
    be_refused(throttle)
    go_well(throttle, 1)
    for _ in range(100):
        with pytest.raises(Unavailable):
            throttle.enter(patience_s=0.01)
    before = clock.elapsed()
    go_well(throttle, 1)
    assert clock.elapsed() - before <= 1 / LEAST_PACE
    assert throttle._in_flight == 0


def test_a_store_with_a_fixed_rate_is_used_well_and_seldom_annoyed(throttle: Throttle, clock: ManualClock) -> None:
    """The store takes 20 requests a second and refuses the rest of each second."""
    served = refused = 0
    second, left = -1, 0
    while (now := clock.elapsed() - 1_700_000_000) < 120:
        if int(now) != second:
            second, left = int(now), 20
        ticket = throttle.enter()
        clock.advance(0.005)
        if left > 0:
            left -= 1
            served += 1
            throttle.leave(well=True)
        else:
            refused += 1
            throttle.slow_down(ticket)
            throttle.leave(well=False)
    assert served > 120 * 20 * 0.5
    assert refused < served * 0.1


# --- Backoff and patience ---


def test_pauses_double_up_to_a_limit_and_are_random_all_the_way_down() -> None:
    ids = Ids(7)
    runs = []
    for _ in range(300):
        pauses = Backoff(0.1, 1.0).pauses(ids)
        runs.append([next(pauses) for _ in range(6)])
    for number, most in enumerate((0.1, 0.2, 0.4, 0.8, 1.0, 1.0)):
        drawn = [run[number] for run in runs]
        assert max(drawn) <= most
        assert max(drawn) > most * 0.9
        assert min(drawn) < most * 0.1


class Waits:
    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    async def wait(self, seconds: float) -> None:
        self._clock.advance(seconds)


def test_patience_goes_for_what_is_inside_and_ends_with_it(clock: ManualClock) -> None:
    outer, inner = (Patience(Waits(clock), clock, Ids(1), deadline_s) for deadline_s in (20, 5))
    assert patience_left_s() == float("inf")
    with outer:
        clock.advance(2)
        assert patience_left_s() == 18
        with inner:
            assert patience_left_s() == 3
        assert patience_left_s() == 18
    assert patience_left_s() == float("inf")
