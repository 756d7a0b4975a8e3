"""Places that are no good for a run: a full disk, a file of agents that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from disks import fill, mounted
from everturn import Held
from everturn.model import Holder
from shutdown.conftest import MakeStage
from shutdown.stage import WORK, Machine

pytestmark = pytest.mark.cli


@pytest.mark.slow
def test_a_run_whose_state_is_on_a_full_disk_is_refused_and_leaves_no_claim(make_stage: MakeStage) -> None:
    stage = make_stage()
    machine = stage.machine("a")
    with mounted(machine.state, "size=1m"):
        filler = fill(machine.state, 0)
        with machine.worker() as worker:
            worker.wait()
        [error] = worker.saw("error")
        assert "No space left" in error["message"]
        record = stage.record
        assert record is None or record.held_until is None
        assert stage.model.requests == []
        filler.unlink()
        with machine.worker() as again:
            assert again.wait() == 0, again.last_words()


@pytest.mark.slow
@pytest.mark.parametrize("left_bytes", [0, 4096, 16384])
def test_a_disk_that_fills_up_while_the_agent_works_costs_nothing_but_the_trace(
    make_stage: MakeStage, left_bytes: int
) -> None:
    stage = make_stage("streaming")
    machine = stage.machine("a")
    with mounted(machine.state, "size=512k"), machine.worker() as worker:
        stage.reach(worker)
        fill(machine.state, left_bytes)
        stage.let_go(worker)
        assert worker.wait() == 0, worker.last_words()
        stage.assert_nobody_is_left()
    record = stage.record
    assert record is not None
    assert (record.held_until, record.tainted) == (None, None)
    assert stage.assert_acknowledged_is_stored(record.session_id, machine) > 0
    stage.assert_whole(record.session_id, machine)


@pytest.mark.slow
def test_a_registry_whose_disk_fills_up_while_the_agent_works_does_not_end_the_run(
    make_stage: MakeStage, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "size=256k"):
        stage = make_stage(
            "streaming", EVERTURN_REGISTRY=f"sqlite://{disk / 'registry.db'}", EVERTURN_CLAIM_TTL_S="20"
        )
        machine = stage.machine("a")
        with machine.worker() as worker:
            stage.reach(worker)
            filler = fill(disk, 0)
            stage.let_go(worker)
            assert worker.wait() == 0, worker.last_words()
        filler.unlink()
        record = stage.record
        assert record is not None
        stage.assert_whole(record.session_id, machine)
        with machine.worker() as again:
            assert again.wait() == 0, again.last_words()
        assert again.saw("ended")[0]["resumed"] is True


@pytest.mark.slow
def test_a_wrong_file_of_agents_is_refused_before_anything_is_touched(make_stage: MakeStage) -> None:
    stage = make_stage()
    machine = stage.machine("a")
    (machine.desk / "agents.json").write_text('{"fixer": {"max_session_age_ms": -1}}')
    with machine.worker() as worker:
        assert worker.wait() != 0
    assert "agents.json gives the agent 'fixer' a wrong max_session_age_ms: -1" in machine.complaints()
    assert stage.record is None
    assert not machine.state.exists()


@pytest.mark.slow
def test_a_work_item_that_somebody_else_holds_is_refused_and_left_alone(make_stage: MakeStage) -> None:
    stage = make_stage(EVERTURN_CLAIM_WAIT_S="0")
    claim = stage.runtime.registry.claim(WORK, Holder("w7", "run-7"), ttl_s=60)
    machine: Machine = stage.machine("a")
    with machine.worker() as worker:
        worker.wait()
    [error] = worker.saw("error")
    assert error["kind"] == Held.__name__
    assert "held by w7" in error["message"]
    assert stage.model.requests == []
    assert stage.stored(claim.session_id) == []
    assert stage.runtime.registry.renew(claim, 60).epoch == 1
