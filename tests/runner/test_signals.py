"""Signals that would end the program end its runs first, and do what they would have done afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from everturn.clock import SystemClock
from everturn.runner.signals import ENDING, Signals
from everturn.runner.stopping import Stop

LEFT_TO_DEFAULT = """
import signal, sys
from everturn.clock import SystemClock
from everturn.runner.signals import Signals
from everturn.runner.stopping import Stop

signals, stop = Signals(), Stop(SystemClock(), 5.0)
number = getattr(signal, sys.argv[1])
forget = signals.watch(stop)
signal.raise_signal(number)
signal.raise_signal(number)
print(stop.reason, stop.hurry, flush=True)
forget()
print("lives", flush=True)
"""


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Whatever a test does, the handlers are as they were."""
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def stop() -> Stop:
    return Stop(SystemClock(), 5.0)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in ENDING]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGHUP", marks=pytest.mark.slow)])
def test_a_program_that_handles_no_signals_dies_by_it_when_its_run_has_ended(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT_TO_DEFAULT, name], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -getattr(signal, name)
    assert done.stdout.split() == [name, "True"]
    assert done.stderr == ""


def test_a_run_that_ends_by_itself_leaves_the_handlers_as_they_were(stop: Stop) -> None:
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    before = handlers()
    signals = Signals()
    forget = signals.watch(stop)
    assert handlers() != before
    forget()
    assert handlers() == before
    assert stop.reason is None


def test_ctrl_c_interrupts_the_program_when_its_run_has_ended(stop: Stop) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    forget = Signals().watch(stop)
    signal.raise_signal(signal.SIGINT)
    assert stop.reason == "SIGINT"
    with pytest.raises(KeyboardInterrupt):
        forget()


def test_every_run_is_stopped_and_the_last_one_raises_the_signal_again(stop: Stop) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signals, other = Signals(), Stop(SystemClock(), 5.0)
    forget_one, forget_other = signals.watch(stop), signals.watch(other)
    signal.raise_signal(signal.SIGINT)
    assert (stop.reason, other.reason) == ("SIGINT", "SIGINT")
    forget_other()
    signal.raise_signal(signal.SIGINT)
    assert (stop.hurry, other.hurry) == (True, False)
    with pytest.raises(KeyboardInterrupt):
        forget_one()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_the_program_handles_itself_stays_its_own(stop: Stop) -> None:
    received: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    own = signal.getsignal(signal.SIGTERM)
    forget = Signals().watch(stop)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGHUP)
    assert received == [signal.SIGTERM]
    assert stop.reason is None
    assert signal.getsignal(signal.SIGTERM) is own
    forget()
    assert signal.getsignal(signal.SIGTERM) is own


def test_a_handler_that_the_program_sets_while_a_run_lasts_stays(stop: Stop) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    forget = Signals().watch(stop)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    forget()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_runs_one_after_the_other_are_each_watched(stop: Stop) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signals = Signals()
    signals.watch(stop)()
    second = Stop(SystemClock(), 5.0)
    forget = signals.watch(second)
    signal.raise_signal(signal.SIGINT)
    assert (stop.reason, second.reason) == (None, "SIGINT")
    with pytest.raises(KeyboardInterrupt):
        forget()
    third = Stop(SystemClock(), 5.0)
    signals.watch(third)()  # the signal was for those before it
    assert third.reason is None


def test_in_another_thread_no_signal_is_touched(stop: Stop) -> None:
    before = handlers()
    during: list[list[object]] = []

    def work() -> None:
        forget = Signals().watch(stop)
        during.append(handlers())
        forget()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert during == [before]


FORKED = """
import os, signal
from everturn.clock import SystemClock
from everturn.runner.signals import process_signals
from everturn.runner.stopping import Stop

stop = Stop(SystemClock(), 5.0)
process_signals.watch(stop)
ready, tell = os.pipe()
child = os.fork()
if not child:
    os.write(tell, b"!")
    signal.alarm(20)
    while True:
        signal.pause()
os.read(ready, 1)
os.kill(child, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), stop.reason)
signal.raise_signal(signal.SIGTERM)
print(stop.reason, flush=True)
"""


@pytest.mark.slow
def test_a_child_that_was_forked_while_a_run_lasts_ends_when_it_is_told_to() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == [str(-signal.SIGTERM), "None", "SIGTERM"]
