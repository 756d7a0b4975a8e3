"""The first run of a worker sweeps the registry, in the background and once."""

from __future__ import annotations

import json
import sqlite3
import threading
from typing import Any

import anyio
import pytest
from prometheus_client import CollectorRegistry

from everturn import Unavailable, WorkItem
from everturn.model import SessionRecord
from everturn.registry import Registry, SqliteRegistry
from everturn.runner.sweeping import Sweeper
from everturn.telemetry import Metrics
from polling import wait_until
from runner.stage import WORK, Desk, counted, finish, kinds

OLD = [WorkItem.task(f"old-{number}") for number in range(7)]
YOUNG = WorkItem.task("young")


@pytest.fixture
def aged(desk: Desk) -> Desk:
    for work in OLD:
        desk.use(work, hours_ago=25)
    desk.use(YOUNG, hours_ago=23)
    return desk


def keys(desk: Desk) -> set[str]:
    return {record.work_key for record in desk.records()}


def test_the_first_run_drops_every_stale_row_and_no_other(aged: Desk) -> None:
    swept, stale = counted("everturn_sweeps_total", outcome="done"), counted("everturn_stale_sessions_total")
    runtime = aged.runtime(sweep_on_start=True)
    finish(aged.run(runtime=runtime))
    wait_until(swept, "the sweep is over")
    assert keys(aged) == {WORK.key, YOUNG.key}
    assert (swept(), stale()) == (1, len(OLD))


def test_a_sweep_says_how_many_it_dropped(aged: Desk, caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics(CollectorRegistry())
    with caplog.at_level("INFO", "everturn"):
        dropped = Sweeper(aged.runtime().registry, metrics).sweep()
    assert [record.work_key for record in dropped] == [work.key for work in OLD]
    [line] = [record.message for record in caplog.records if '"event": "swept"' in record.message]
    assert json.loads(line)["dropped"] == len(OLD)
    assert metrics.registry.get_sample_value("everturn_sweeps_total", {"outcome": "done"}) == 1


def test_the_lines_of_the_sweep_are_not_those_of_the_run_that_began_it(
    aged: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "everturn"):
        finish(aged.run(runtime=aged.runtime(sweep_on_start=True)))
        lines = wait_until(lambda: [line for line in logged(caplog) if line["event"] == "swept"], "it was swept")
    dropped = [line for line in logged(caplog) if line["event"] == "stale_session_dropped"]
    assert len(dropped) == len(OLD)
    assert not any("task_id" in line for line in [*lines, *dropped])


def logged(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(record.message) for record in list(caplog.records) if record.name == "everturn"]


@pytest.mark.slow
def test_later_runs_sweep_no_more(aged: Desk) -> None:
    swept = counted("everturn_sweeps_total", outcome="done")
    runtime = aged.runtime(sweep_on_start=True)
    finish(aged.run(runtime=runtime))
    wait_until(swept, "the sweep is over")
    aged.use(OLD[0], hours_ago=25)
    finish(aged.run(runtime=runtime))
    assert not [thread for thread in threading.enumerate() if thread.name == "everturn-sweep"]
    assert keys(aged) == {WORK.key, YOUNG.key, OLD[0].key}


def test_it_may_be_left_out(aged: Desk) -> None:
    finish(aged.run(runtime=aged.runtime(sweep_on_start=False)))
    assert not [thread for thread in threading.enumerate() if thread.name == "everturn-sweep"]
    assert len(aged.records()) == len(OLD) + 2


def test_a_session_that_is_too_old_is_told_to_its_own_run_and_not_swept_from_under_it(aged: Desk) -> None:
    swept = counted("everturn_sweeps_total", outcome="done")
    run = aged.run(OLD[0], runtime=aged.runtime(sweep_on_start=True))
    finish(run)
    wait_until(swept, "the sweep is over")
    assert "was too old" in " ".join(run.warnings)
    assert {OLD[0].key, YOUNG.key} == keys(aged)


class SlowToSweep(SqliteRegistry):
    """A registry whose sweep takes as long as the test likes."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self.go = threading.Event()

    def sweep(self, *, dry_run: bool = False) -> list[SessionRecord]:
        self.go.wait(60)
        raise Unavailable("the registry is away", hint="wait")


def use_registry(monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    monkeypatch.setattr("everturn.runtime.open_registry", lambda *_, **__: registry)


def test_a_run_neither_waits_for_the_sweep_nor_fails_with_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SlowToSweep(desk.registry_file)
    use_registry(monkeypatch, slow)
    failed = counted("everturn_sweeps_total", outcome="failed")
    run = desk.run(runtime=desk.runtime(sweep_on_start=True))
    assert kinds(finish(run))[-1] == "ResultMessage"
    assert failed() == 0
    slow.go.set()
    wait_until(failed, "the sweep has failed")


def test_many_threads_begin_one_sweep(desk: Desk) -> None:
    metrics = Metrics(CollectorRegistry())
    sweeper = Sweeper(desk.runtime().registry, metrics)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(anyio.to_thread.run_sync, sweeper.begin)

    def done() -> float:
        return metrics.registry.get_sample_value("everturn_sweeps_total", {"outcome": "done"}) or 0.0

    anyio.run(main)
    wait_until(done, "the sweep is over")
    wait_until(lambda: "everturn-sweep" not in {each.name for each in threading.enumerate()}, "no thread is left")
    assert done() == 1


def test_a_damaged_registry_is_a_failed_sweep(desk: Desk) -> None:
    desk.use()
    with sqlite3.connect(desk.registry_file) as connection:
        connection.execute("DROP TABLE sessions")
    connection.close()
    metrics = Metrics(CollectorRegistry())
    with pytest.raises(Exception, match="damaged"):
        Sweeper(desk.runtime().registry, metrics).sweep()
    assert metrics.registry.get_sample_value("everturn_sweeps_total", {"outcome": "failed"}) == 1
