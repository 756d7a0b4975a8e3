"""Time that is turned by hand, and ids that a seed reproduces."""

from __future__ import annotations

import sys
import time
import uuid

import pytest

from everturn.clock import Clock, Ids, ManualClock, SystemClock


def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(100.0)
    assert (clock.now(), clock.elapsed()) == (100.0, 100.0)
    clock.advance(2.5)
    assert (clock.now(), clock.elapsed()) == (102.5, 102.5)


def test_sleeping_by_a_manual_clock_moves_it_and_takes_no_time() -> None:
    clock = ManualClock(100.0)
    before_s = time.monotonic()
    clock.sleep(3600)
    assert time.monotonic() - before_s < 60
    assert (clock.now(), clock.elapsed()) == (3700.0, 3700.0)


def test_a_manual_clock_that_is_set_right_jumps_and_no_time_has_passed() -> None:
    clock = ManualClock(100.0)
    clock.jump(-60)
    clock.advance(1)
    assert (clock.now(), clock.elapsed()) == (41.0, 101.0)


def test_a_machine_that_was_not_started_anew_says_the_same_of_its_start() -> None:
    assert SystemClock().boot() == SystemClock().boot()
    assert (ManualClock().boot(), ManualClock(boot="later").boot()) == ("manual", "later")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says")
def test_linux_names_each_of_its_starts() -> None:
    assert str(uuid.UUID(SystemClock().boot())) == SystemClock().boot()


def test_two_manual_clocks_are_apart() -> None:
    first, second = ManualClock(), ManualClock()
    first.advance(1)
    assert first.now() == second.now() + 1


def test_the_system_clock_tells_the_time_of_day() -> None:
    before_s = time.time()
    assert before_s <= SystemClock().now() <= time.time()


def test_the_system_clock_goes_on_by_as_much_as_one_sleeps() -> None:
    clock = SystemClock()
    before_s = clock.elapsed()
    clock.sleep(0.02)
    assert clock.elapsed() - before_s >= 0.02


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock()], ids=["system", "manual"])
def test_elapsed_time_never_goes_back(clock: Clock) -> None:
    seen = [clock.elapsed() for _ in range(100)]
    assert seen == sorted(seen)


@pytest.mark.parametrize("seed", [None, 0, 7])
def test_a_session_id_is_a_uuid_of_version_4_in_its_usual_form(seed: int | None) -> None:
    ids = Ids(seed)
    for session_id in [ids.session_id() for _ in range(200)]:
        parsed = uuid.UUID(session_id)
        assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)
        assert str(parsed) == session_id


@pytest.mark.parametrize("seed", [None, 0, 7])
def test_a_token_is_sixteen_hexadecimal_digits(seed: int | None) -> None:
    ids = Ids(seed)
    for token in [ids.token() for _ in range(200)]:
        assert len(token) == 16
        assert set(token) <= set("0123456789abcdef")


@pytest.mark.parametrize("seed", [None, 7])
def test_ids_do_not_repeat(seed: int | None) -> None:
    ids = Ids(seed)
    assert len({ids.session_id() for _ in range(1000)} | {ids.token() for _ in range(1000)}) == 2000


def test_a_seed_reproduces_everything_and_another_seed_does_not() -> None:
    def drawn(seed: int | None) -> list[object]:
        ids = Ids(seed)
        return [ids.session_id(), ids.token(), ids.jitter(1.0), ids.session_id()]

    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)
    assert drawn(None) != drawn(None)


@pytest.mark.parametrize("seed", [None, 7])
def test_jitter_lies_between_nothing_and_its_limit(seed: int | None) -> None:
    ids = Ids(seed)
    drawn = [ids.jitter(2.0) for _ in range(500)]
    assert all(0 <= seconds <= 2.0 for seconds in drawn)
    assert min(drawn) < 0.5
    assert max(drawn) > 1.5
    assert ids.jitter(0) == 0
