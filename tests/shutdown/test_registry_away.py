"""A registry that goes away: a run goes on while its lease lasts, and ends before anybody else could begin."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from polling import is_alive, wait_until
from registry.dynamo import Dynamo
from shutdown.conftest import MakeStage
from shutdown.proxy import Proxy
from shutdown.stage import Stage, Worker, note
from shutdown.worker import TRYING_S

pytestmark = [pytest.mark.cli, pytest.mark.slow]

TTL_S = 8.0
LONGER_TTL_S = 20.0  # leaves some seconds between the heartbeat that fails and the end of the lease


class SqliteFile:
    """A registry in a file that can be taken away: in one step, as a heartbeat may open it at any moment.

    Args:
        folder: A folder of its own.
    """

    def __init__(self, folder: Path) -> None:
        self._place = folder / "place"
        self.url = f"sqlite://{self._place / 'registry.db'}"
        (folder / "there").mkdir(parents=True)
        (folder / "away" / "registry.db").mkdir(parents=True)  # no file can be made in its place
        self.bring_back()

    def take_away(self) -> None:
        self._lead_to("away")

    def bring_back(self) -> None:
        self._lead_to("there")

    def _lead_to(self, name: str) -> None:
        link = self._place.with_name("next")
        link.symlink_to(name)
        link.replace(self._place)


class DynamoBehindProxy:
    """A table that cannot be reached for a while."""

    def __init__(self, proxy: Proxy) -> None:
        self.take_away = proxy.cut
        self.bring_back = proxy.mend


@pytest.fixture(params=["sqlite", "dynamodb"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def made(
    kind: str, make_stage: MakeStage, tmp_path: Path, dynamo: Dynamo
) -> Iterator[tuple[Stage, SqliteFile | DynamoBehindProxy]]:
    variables = {"EVERTURN_CLAIM_TTL_S": f"{TTL_S:g}", "EVERTURN_CLAIM_WAIT_S": "0", TRYING_S: "1"}
    if kind == "sqlite":
        file = SqliteFile(tmp_path / "registry")
        yield make_stage("streaming", EVERTURN_REGISTRY=file.url, **variables), file
        return
    dynamo.reset(None)
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy.to(dynamo.url))
        # A name that no other process of this host uses: agents of one work item in one registry end each other.
        variables |= {
            "AWS_ENDPOINT_URL_DYNAMODB": proxy.url,
            "EVERTURN_REGISTRY": f"dynamodb://away-{uuid.uuid4()}?region=us-east-1",
        }
        stage = make_stage("streaming", **variables)
        registry: Any = stage.runtime.registry  # reaches moto directly: its tables are those of the process
        registry.create_table()
        yield stage, DynamoBehindProxy(proxy)


def until_agent_is_gone(worker: Worker) -> float:
    """Wait until only the worker itself is left, if it is; return the time of day."""
    machine = worker.machine
    wait_until(
        lambda: not [pid for pid in machine.processes() if pid != worker.pid and is_alive(pid)],
        "the agent is gone",
        30,
    )
    return time.time()


def test_a_run_ends_before_its_lease_does(made: tuple[Stage, Any]) -> None:
    stage, registry = made
    with stage.machine("a").worker() as worker:
        stage.reach(worker)
        registry.take_away()
        began = time.time()
        gone_at = until_agent_is_gone(worker)
        worker.wait()
        stage.assert_nobody_is_left()
    registry.bring_back()
    assert worker.saw("error"), worker.last_words()
    assert worker.saw("error")[-1]["kind"] == "Unavailable", worker.last_words()
    assert "could not be renewed in time" in worker.saw("error")[-1]["message"]
    record = stage.record
    assert record is not None
    assert record.held_until is not None
    note(f"went on for {gone_at - began:.1f} s, and ended {record.held_until - gone_at:.1f} s before its lease")
    assert gone_at < record.held_until
    assert gone_at - began > float(stage.shared["EVERTURN_CLAIM_TTL_S"]) / 4
    stage.assert_whole(record.session_id, worker.machine)
    with stage.machine("b").worker(EVERTURN_CLAIM_WAIT_S="30") as other:
        assert other.wait() == 0, other.last_words()
    assert other.saw("ended")[0]["resumed"] is True


def test_a_run_does_not_notice_a_registry_that_is_back_in_time(made: tuple[Stage, Any]) -> None:
    stage, registry = made
    with stage.machine("a").worker(EVERTURN_CLAIM_TTL_S=f"{LONGER_TTL_S:g}") as worker:
        stage.reach(worker)
        registry.take_away()
        wait_until(lambda: "claim_not_renewed" in worker.machine.complaints(), "a heartbeat has failed")
        registry.bring_back()
        before = stage.record
        assert before is not None
        wait_until(lambda: stage.record != before, "the claim is renewed")
        stage.let_go(worker)
        assert worker.wait() == 0, worker.last_words()
    record = stage.record
    assert record is not None
    assert (record.held_until, record.tainted) == (None, None)


def test_without_a_registry_no_run_begins(made: tuple[Stage, Any]) -> None:
    stage, registry = made
    registry.take_away()
    machine = stage.machine("a")
    with machine.worker() as worker:
        assert worker.wait() != 0
    assert worker.saw("error")[-1]["kind"] in ("Denied", "Unavailable"), worker.last_words()
    assert worker.saw("ended")[0]["session_id"] is None
    assert stage.model.requests == []
    assert machine.acknowledged() == []
    assert list((machine.state / "runs").glob("*/")) == []
    registry.bring_back()
    assert stage.record is None


def test_a_run_ends_well_although_its_claim_cannot_be_released(made: tuple[Stage, Any]) -> None:
    stage, registry = made
    machine = stage.machine("a")
    with machine.worker(EVERTURN_CLAIM_TTL_S="120") as worker:  # it must not run out before it is looked at
        stage.reach(worker)
        registry.take_away()
        stage.let_go(worker)
        assert worker.wait() == 0, worker.last_words()
    assert worker.saw("result")[0]["ok"]
    registry.bring_back()
    record = stage.record
    assert record is not None
    assert record.held_until is not None  # it runs out
    stage.assert_whole(record.session_id, machine)
    with stage.machine("b").worker() as refused:
        refused.wait()
    assert refused.saw("error")[0]["kind"] == "Held", "another machine has to wait until it has run out"
    with machine.worker() as again:  # here it is known that nobody holds it
        assert again.wait() == 0, again.last_words()
    assert again.saw("ended")[0]["resumed"] is True
