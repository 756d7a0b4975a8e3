"""`everturn run` when it is told to end: its exit code tells why, and a second signal makes it hurry."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from everturn.model import Holder
from shutdown.conftest import MakeStage
from shutdown.stage import GRACE_S, PROMPT, RESUME_PROMPT, TASK, WORK, Machine, Stage, Worker, note, seconds_since

pytestmark = [pytest.mark.cli, pytest.mark.slow]

HURRIED_S = 3.0
MARGIN_S = 4.0  # for a machine that is busy


@pytest.fixture
def stage(make_stage: MakeStage) -> Stage:
    return make_stage("streaming", EVERTURN_CLAIM_WAIT_S="0")


@contextmanager
def running(machine: Machine, **variables: str) -> Iterator[Worker]:
    """Run the command on a machine."""
    command = [str(Path(sys.executable).with_name("everturn")), "run", "--task", TASK, "--json"]
    command += ["--prompt", PROMPT, "--resume-prompt", RESUME_PROMPT, "--permission-mode", "bypassPermissions"]
    with machine.start(command, **variables) as worker:
        yield worker


def wait_until_it_streams(stage: Stage) -> None:
    stage.model.wait_for_requests(1, 60)
    stage.model.wait_until_streamed(1, 4, 60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_command_in_good_order(stage: Stage, number: signal.Signals) -> None:
    machine = stage.machine("a")
    with running(machine) as worker:
        wait_until_it_streams(stage)
        worker.send(number)
        assert worker.wait() == 128 + number
        stage.assert_nobody_is_left()
    record = stage.record
    assert record is not None
    assert (record.held_until, record.tainted) == (None, None)
    stage.assert_whole(record.session_id, machine)
    assert f"stopped by {number.name}" in machine.complaints()


def test_a_command_that_has_lost_its_claim_says_so(stage: Stage) -> None:
    machine = stage.machine("a")
    with running(machine) as worker:
        wait_until_it_streams(stage)
        claim = stage.evict()
        assert worker.wait() == 3, worker.last_words()
        stage.assert_nobody_is_left()
    stage.runtime.registry.release(claim)


def test_a_command_whose_work_item_is_held_says_by_whom(stage: Stage) -> None:
    stage.runtime.registry.claim(WORK, Holder("somebody else", "run-1"), ttl_s=60)
    machine = stage.machine("a")
    with running(machine) as worker:
        assert worker.wait() == 75
    assert "held by somebody else" in machine.complaints()
    assert stage.model.requests == []


def test_a_command_that_could_not_store_its_turn_says_so(stage: Stage) -> None:
    assert stage.proxy is not None
    machine = stage.machine("a")
    with running(machine, EVERTURN_APPEND_DEADLINE_S="1") as worker:
        wait_until_it_streams(stage)
        stage.proxy.cut()
        stage.model.release()
        assert worker.wait() == 4, worker.last_words()
    assert "is not whole" in machine.complaints()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_makes_the_command_hurry_even_without_a_store(stage: Stage, number: signal.Signals) -> None:
    assert stage.proxy is not None
    with running(stage.machine("a"), EVERTURN_APPEND_DEADLINE_S="20") as worker:
        wait_until_it_streams(stage)
        stage.proxy.cut()
        worker.send(number)
        stage.wait_until_cut_off()
        begun = time.monotonic()
        worker.send(number)
        assert worker.wait() == 128 + number
        took_s = seconds_since(begun)
        stage.assert_nobody_is_left()
    note(f"hurried: {took_s:.1f} s")
    assert took_s < HURRIED_S + MARGIN_S


def test_a_second_signal_makes_a_worker_hurry_even_without_a_store(stage: Stage) -> None:
    assert stage.proxy is not None
    with stage.machine("a").worker(EVERTURN_APPEND_DEADLINE_S="20") as worker:
        stage.reach(worker)
        stage.proxy.cut()
        worker.send(signal.SIGTERM)
        stage.wait_until_cut_off()
        begun = time.monotonic()
        worker.send(signal.SIGTERM)
        assert worker.wait() == -signal.SIGTERM
        took_s = seconds_since(begun)
        stage.assert_nobody_is_left()
    note(f"hurried: {took_s:.1f} s")
    assert took_s < HURRIED_S + MARGIN_S


@pytest.mark.parametrize("durability", ["flush", "store"])
@pytest.mark.parametrize("end", ["SIGTERM", "SIGUSR1"])
def test_without_a_store_letting_go_takes_no_longer_than_its_grace(stage: Stage, end: str, durability: str) -> None:
    assert stage.proxy is not None
    settings = {"EVERTURN_APPEND_DEADLINE_S": "20", "EVERTURN_JOURNAL_DURABILITY": durability}
    with stage.machine("a").worker(**settings) as worker:
        stage.reach(worker)
        stage.proxy.cut()
        begun = time.monotonic()
        worker.send(signal.Signals[end])
        worker.wait()
        took_s = seconds_since(begun)
        stage.assert_nobody_is_left()
    note(f"without a store: {took_s:.1f} s")
    assert took_s < GRACE_S + MARGIN_S
    record = stage.record
    assert record is not None
    assert record.held_until is None
    assert record.tainted is not None


def test_what_a_machine_could_not_store_is_told_on_another_one(stage: Stage) -> None:
    assert stage.proxy is not None
    first = stage.machine("a")
    with first.worker(EVERTURN_APPEND_DEADLINE_S="1") as worker:
        stage.reach(worker)
        stage.proxy.cut()
        stage.model.release()
        worker.wait()
    stage.proxy.mend()
    with stage.machine("b").worker() as other:
        assert other.wait() == 0, other.last_words()
    [ended] = other.saw("ended")
    assert ended["resumed"] is True
    assert "is not whole" in " ".join(ended["warnings"])
    assert stage.assert_acknowledged_is_stored(ended["session_id"], first, stage.machine("b")) > 0


@pytest.mark.parametrize("end", ["SIGUSR1", "SIGTERM", "SIGINT"])
@pytest.mark.parametrize("moment", ["in-a-tool", "with-a-subagent"])
def test_under_trio_a_run_lets_go_in_good_order_too(make_stage: MakeStage, moment: str, end: str) -> None:
    stage = make_stage(moment)
    machine = stage.machine("a")
    with machine.worker(backend="trio") as worker:
        stage.reach(worker)
        worker.send(signal.Signals[end])
        code = worker.wait()
        stage.assert_nobody_is_left()
    assert code == {"SIGUSR1": 7, "SIGTERM": -signal.SIGTERM, "SIGINT": -signal.SIGINT}[end], worker.last_words()
    record = stage.record
    assert record is not None
    assert (record.held_until, record.tainted) == (None, None)
    assert stage.assert_acknowledged_is_stored(record.session_id, machine) > 0
    stage.assert_whole(record.session_id, machine)
