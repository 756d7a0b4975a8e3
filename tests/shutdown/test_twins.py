"""Two workers and one work item: one runs. A worker that sleeps through the end of its claim does no harm."""

from __future__ import annotations

import signal
import uuid
from typing import Any

import pytest

from polling import is_alive, processes_below, wait_until
from registry.dynamo import Dynamo
from shutdown.conftest import MakeStage
from shutdown.stage import RESUME_PROMPT, Stage, Worker, note

pytestmark = [pytest.mark.cli, pytest.mark.slow]


def race(stage: Stage, rounds: int) -> None:
    """Let two workers run the same work item at the same moment, again and again."""
    with (
        stage.machine("a").worker(rounds=True, EVERTURN_CLAIM_WAIT_S="0") as one,
        stage.machine("b").worker(rounds=True, EVERTURN_CLAIM_WAIT_S="0") as two,
    ):
        winners = []
        for number in range(1, rounds + 1):
            for worker in (one, two):
                worker.say("go")
            winners.append(assert_one_has_run(number, one, two))
    note(f"{winners.count('a')} rounds were a's, {winners.count('b')} b's")
    stage.assert_nobody_is_left()


def assert_one_has_run(number: int, *workers: Worker) -> str:
    """One of the two has run the work item, with the next epoch, and the other one was told by whom."""
    wait_until(lambda: sum(len(seen(worker)) for worker in workers) == 2 * number, f"round {number}", 60)
    last = {worker.machine.name: seen(worker)[number - 1] for worker in workers}
    [(winner, ran)] = [each for each in last.items() if each[1]["event"] == "ran"]
    [refused] = [each for each in last.values() if each["event"] == "held"]
    assert ran["ok"] is True
    assert (ran["epoch"], refused["epoch"]) == (number, number), [worker.last_words() for worker in workers]
    assert (refused["holder"], refused["run_id"]) == (winner, ran["run_id"])
    return winner


def seen(worker: Worker) -> list[dict[str, Any]]:
    assert worker.process.poll() is None, worker.last_words()
    return [event for event in worker.events if event["event"] in ("ran", "held")]


@pytest.mark.timeout(1200)
def test_of_two_workers_that_race_for_a_work_item_one_runs_and_one_is_refused(make_stage: MakeStage) -> None:
    race(make_stage(), 50)


@pytest.mark.timeout(400)
def test_they_do_on_dynamodb_too(make_stage: MakeStage, dynamo: Dynamo) -> None:
    dynamo.reset(None)
    variables = {
        "AWS_ENDPOINT_URL_DYNAMODB": dynamo.url,
        "EVERTURN_REGISTRY": f"dynamodb://twins-{uuid.uuid4()}?region=us-east-1",
    }
    stage = make_stage(**variables)
    registry: Any = stage.runtime.registry  # reaches moto directly: its tables are those of the process
    registry.create_table()
    race(stage, 20)


@pytest.mark.parametrize("same_machine", [False, True], ids=["another-machine", "same-machine"])
@pytest.mark.parametrize("moment", ["streaming", "in-a-tool"])
def test_a_worker_that_slept_through_the_end_of_its_claim_is_fenced(
    make_stage: MakeStage, moment: str, same_machine: bool
) -> None:
    stage = make_stage(moment)
    first = stage.machine("a")
    with first.worker() as sleeper:
        stage.reach(sleeper)
        sleeper.send(signal.SIGSTOP)
        wait_until(lambda: alive(first.processes()) == [sleeper.pid], "its agent is ended by its guard", 15)
        stage.calm = True
        other = first if same_machine else stage.machine("b")
        with other.worker() as taker:
            assert taker.wait() == 0, taker.last_words()
        [took] = taker.saw("ended")
        assert (took["resumed"], took["epoch"]) == (True, 2)
        before = stage.stored(took["session_id"])
        sleeper.send(signal.SIGCONT)
        sleeper.wait()
        assert sleeper.saw("error")[-1]["kind"] == "Fenced", sleeper.last_words()
    assert stage.stored(took["session_id"]) == before
    assert RESUME_PROMPT in str(before)
    assert stage.assert_acknowledged_is_stored(took["session_id"], first) > 0
    record = stage.record
    assert record is not None
    assert (record.epoch, record.held_until, record.tainted) == (2, None, None)
    assert list((first.state / "runs").glob("*/")) == []
    assert not processes_below(stage.folder)


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if is_alive(pid)]
