"""The worker frees real workdirs and sessions, and waits for real runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from everturn.clock import Ids
from everturn.logbook.entries import DeliveryEntry
from everturn.logbook.logbook import Logbook
from everturn.model import Holder
from everturn.service.worker import LAST_RETRY_S, DeliveryWorker
from housekeeping.ground import Ground, freeing, issue, issue_closed, make_remote
from polling import wait_until


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path, make_remote(tmp_path / "origin"))


@contextmanager
def working(ground: Ground, logbook: Logbook) -> Iterator[DeliveryWorker]:
    worker = DeliveryWorker(logbook, freeing(ground), ground.metrics, ground.clock, Ids(1))
    worker.start()
    try:
        yield worker
    finally:
        assert worker.stop(20)


def after(logbook: Logbook, attempts: int) -> DeliveryEntry:
    wait_until(lambda: logbook.deliveries.page(1)[0].attempts >= attempts, f"attempt {attempts}")
    return logbook.deliveries.page(1)[0]


def test_a_closed_issue_frees_its_workdir_once_the_run_in_it_has_ended(ground: Ground) -> None:
    work = issue(ground)
    workdir = ground.workdirs.open(work)
    claim = ground.registry.claim(work, Holder("w1", "run"), ttl_s=3600)
    logbook = Logbook(ground.folder / "logbook.db", clock=ground.clock)
    logbook.deliveries.put("github", "d-1", "issues", issue_closed(ground).facts()).result()
    with working(ground, logbook) as worker:
        waiting = after(logbook, 1)
        assert waiting.state == "waiting"
        assert waiting.details
        assert all(each.startswith("it is tried again: ") for each in waiting.details)
        ground.registry.release(claim)
        workdir.close()
        ground.clock.advance(LAST_RETRY_S)
        worker.wake()
        done = after(logbook, 2)
    assert (done.state, done.freed) == ("done", 2)
    assert {each.rpartition(": ")[2] for each in done.details} == {"its issue was closed"}
    assert ground.all() == []
    assert list(ground.registry.records()) == []
    assert ground.count("everturn_deliveries_total", outcome="freed") == 1
    logbook.close()
