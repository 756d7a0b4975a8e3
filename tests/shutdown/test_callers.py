"""Runs in programs of somebody else's, which cancel them, forget them, or handle signals themselves."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from shutdown.conftest import MakeStage
from shutdown.stage import GRACE_S, Stage, Worker, note, seconds_since

pytestmark = [pytest.mark.cli, pytest.mark.slow]

CALLER = Path(__file__).with_name("caller.py")
BOTH = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture
def stage(make_stage: MakeStage) -> Stage:
    return make_stage("streaming")


def assert_all_is_let_go(stage: Stage, worker: Worker) -> None:
    """When its event loop had ended, nothing was left of the run, and nothing is missing from the store."""
    assert worker.wait() == 0, worker.last_words()
    [after] = worker.saw("after")
    assert (after["children"], after["held_until"], after["tainted"]) == ([], None, None), worker.last_words()
    record = stage.record
    assert record is not None
    assert stage.assert_acknowledged_is_stored(record.session_id, worker.machine) > 0
    stage.assert_whole(record.session_id, worker.machine)
    stage.assert_nobody_is_left()


def test_a_run_handles_signals_that_were_left_to_their_default_and_leaves_all_as_it_was(stage: Stage) -> None:
    stage.calm = True
    with stage.machine("a").caller(CALLER, "handlers") as worker:
        assert_all_is_let_go(stage, worker)
    [seen] = worker.saw("handlers")
    # Ctrl-C is the event loop's, and SIGHUP the program's own.
    assert seen == {"event": "handlers", "same_after": True, "ours_during": [True, False, False], "own_kept": True}


def test_a_runtime_that_is_to_handle_no_signals_touches_none(stage: Stage) -> None:
    stage.calm = True
    with stage.machine("a").caller(CALLER, "no_handlers") as worker:
        assert_all_is_let_go(stage, worker)
    assert worker.saw("handlers")[0]["same_during"] is True


@BOTH
def test_a_program_stops_its_run_in_a_signal_handler_of_its_own(stage: Stage, backend: str) -> None:
    with stage.machine("a").caller(CALLER, "own_handler", backend) as worker:
        worker.wait_for("ready")
        worker.send(signal.SIGTERM)
        assert_all_is_let_go(stage, worker)
    assert worker.saw("heard_out")[0]["stopped"] == "told"


@BOTH
@pytest.mark.parametrize(
    ("scenario", "said", "stopped"),
    [
        ("dropped", "alone", None),
        ("closed_elsewhere", "closed", "closed"),
        ("timed_out", "timed_out", "cancelled"),
        ("stopped_by_a_thread", "heard_out", "enough"),
        ("loop_ends", "delta", None),
    ],
)
def test_whatever_its_caller_does_a_run_lets_go_of_everything(
    stage: Stage, scenario: str, said: str, stopped: str | None, backend: str
) -> None:
    with stage.machine("a").caller(CALLER, scenario, backend) as worker:
        assert_all_is_let_go(stage, worker)
    seen = worker.saw(said)[-1]
    assert (seen.get("stopped"), seen.get("children", [])) == (stopped, [])


@BOTH
def test_a_program_may_break_off_at_the_result_and_end(stage: Stage, backend: str) -> None:
    stage.calm = True
    with stage.machine("a").caller(CALLER, "broken_off", backend) as worker:
        assert_all_is_let_go(stage, worker)


@BOTH
@pytest.mark.parametrize("pause_s", [0, 0.03, 0.06, 0.1, 0.2])
def test_an_event_loop_may_end_while_a_run_lets_go(stage: Stage, pause_s: float, backend: str) -> None:
    with stage.machine("a").caller(CALLER, "loop_ends_while_it_lets_go", backend, pause_s=pause_s) as worker:
        assert_all_is_let_go(stage, worker)


def test_a_claim_that_nobody_waited_for_keeps_nobody_of_this_machine_waiting(stage: Stage) -> None:
    stage.calm = True
    machine = stage.machine("a")
    with machine.caller(CALLER, "loop_ends_while_it_claims") as worker:
        assert worker.wait() == 0, worker.last_words()
    with machine.worker(EVERTURN_CLAIM_WAIT_S="0") as again:
        assert again.wait() == 0, again.last_words()
    assert list((machine.state / "runs").glob("*/")) == []
    stage.assert_nobody_is_left()


@pytest.mark.parametrize("scenario", ["asyncio_timed_out", "loop_ends_with_task"])
def test_whatever_a_caller_does_with_asyncio_a_run_lets_go_of_everything(stage: Stage, scenario: str) -> None:
    with stage.machine("a").caller(CALLER, scenario) as worker:
        assert_all_is_let_go(stage, worker)


def test_a_run_that_is_cancelled_twice_hurries_even_without_a_store(stage: Stage) -> None:
    assert stage.proxy is not None
    with stage.machine("a").caller(
        CALLER, "cancelled_twice", variables={"EVERTURN_APPEND_DEADLINE_S": "20"}
    ) as worker:
        worker.wait_for("ready")
        stage.proxy.cut()
        begun = time.monotonic()
        worker.say("now")
        [ended] = worker.wait_for("ended")
        took_s = seconds_since(begun)
        worker.wait()
        whole_s = seconds_since(begun)
    note(f"cancelled twice: {took_s:.1f} s, {whole_s:.1f} s to the end of the process")
    assert (ended["children"], ended["stopped"]) == ([], "cancelled")
    assert took_s < GRACE_S
    assert whole_s < GRACE_S + 4
    stage.assert_nobody_is_left()
