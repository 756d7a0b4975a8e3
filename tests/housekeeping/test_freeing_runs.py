"""Freeing beside runs: who is at work is waited for."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from everturn.forges.base import Happening
from everturn.housekeeping.freeing import Freed
from everturn.model import Holder, SessionRecord, WorkItem
from everturn.registry import SqliteRegistry
from housekeeping.freed import (
    dying,
    free,
    known,
    left,
    noted,
    running,
    worked,
)
from housekeeping.ground import Ground, freeing, issue, issue_closed
from polling import wait_until


def test_what_somebody_holds_is_waited_for_and_not_touched(ground: Ground) -> None:
    workdir = worked(ground, issue(ground))
    claim = ground.registry.claim(issue(ground), Holder("w9", "run-9", "another-machine"), ttl_s=60)
    before = ground.registry.records()
    for _ in range(2):
        freed = free(ground, issue_closed(ground))
        assert freed.gone == ()
        assert [each.split(" until ")[0] for each in freed.waiting] == [
            f"{issue(ground).key} is held by w9 (run run-9)"
        ]
    assert ground.registry.records() == before
    assert ground.names("trees") == [workdir.name]
    ground.registry.renew(claim, 60)
    ground.registry.release(claim)
    freed = free(ground, issue_closed(ground))
    assert {fate.name for fate in freed.gone} == {workdir.name, issue(ground).key}
    assert not freed.waiting


def test_a_worker_that_died_is_waited_for_until_its_claim_is_over(ground: Ground) -> None:
    worked(ground, issue(ground))
    ground.registry.claim(issue(ground), Holder("w9", "run-9"), ttl_s=60)
    assert free(ground, issue_closed(ground)).waiting
    ground.clock.advance(61)
    assert len(free(ground, issue_closed(ground)).gone) == 2


def test_a_clock_that_was_set_back_keeps_nobody_waiting(ground: Ground) -> None:
    worked(ground, issue(ground))
    ground.registry.claim(issue(ground), Holder("w9", "run-9"), ttl_s=60)
    ground.clock.jump(-86_400)
    assert free(ground, issue_closed(ground)).waiting
    ground.clock.advance(61)
    assert len(free(ground, issue_closed(ground)).gone) == 2


@pytest.mark.slow
def test_a_run_of_another_process_is_waited_for_and_all_is_freed_when_it_has_ended(ground: Ground) -> None:
    with running(ground) as child:
        freed = free(ground, issue_closed(ground))
        assert freed.waiting
        assert freed.gone == ()
        assert child.poll() is None
    assert left(ground) == known(ground) == {issue(ground).key}
    assert len(free(ground, issue_closed(ground)).gone) == 2


@pytest.mark.slow
def test_a_run_that_holds_a_workdir_without_a_claim_is_waited_for_and_keeps_its_session(ground: Ground) -> None:
    claim = ground.registry.claim(issue(ground), Holder("w1", "run-1"), ttl_s=60)
    with running(ground):
        ground.registry.release(claim)
        [name] = ground.names("trees")
        begun = time.monotonic()
        freed = free(ground, issue_closed(ground))
        assert time.monotonic() - begun < 1  # nobody is waited for: others are to be served
        assert freed.waiting == (f"{name}: a run is at work in it",)
        assert freed.gone == ()
        assert known(ground) == {issue(ground).key}
    assert len(free(ground, issue_closed(ground)).gone) == 2


@pytest.mark.slow
def test_a_run_that_was_killed_is_not_waited_for_longer_than_its_claim_lasts(ground: Ground) -> None:
    with running(ground) as child:
        child.kill()
    assert free(ground, issue_closed(ground)).waiting
    ground.clock.advance(3601)
    assert len(free(ground, issue_closed(ground)).gone) == 2


@pytest.mark.slow
def test_a_process_in_a_workdir_is_waited_for(ground: Ground) -> None:
    workdir = worked(ground, issue(ground))
    child = subprocess.Popen([sys.executable, "-c", "input()"], cwd=ground.tree(workdir), stdin=subprocess.PIPE)
    try:
        freed = free(ground, issue_closed(ground))
        assert f"({child.pid})" in freed.waiting[0]
        assert ground.names("trees") == [workdir.name]
        assert freed.gone == ()
        assert known(ground) == {issue(ground).key}
    finally:
        child.communicate(b"\n", timeout=30)
    assert free(ground, issue_closed(ground)).gone[-1].name == workdir.name


class Busy(SqliteRegistry):
    """A registry in which somebody is a moment faster than whoever frees."""

    def __init__(self, ground: Ground, when: str) -> None:
        super().__init__(ground.folder / "registry.db", clock=ground.clock)
        self._when = when
        self.claims: list[Any] = []

    def _begin(self, when: str) -> None:
        if when == self._when and not self.claims:
            key = self.records()[0].work_key
            agent, _, repo = key.rpartition("#")[0].partition("@")
            self.claims.append(self.claim(WorkItem(agent, repo, 7), Holder("w9", "run-9"), ttl_s=60))

    def get(self, work: WorkItem | str) -> SessionRecord | None:
        self._begin("before the look")
        found = super().get(work)
        self._begin("after the look")
        return found

    def drop(self, *arguments: Any, **more: Any) -> bool:
        dropped = super().drop(*arguments, **more)
        if self._when == "after the drop" and not self.claims:
            self.claims.append(self.claim(WorkItem("fixer", "/r", 7), Holder("w9", "run-9"), ttl_s=60))
        return dropped


@pytest.mark.parametrize("when", ["before the look", "after the look"])
def test_a_run_that_begins_meanwhile_keeps_its_session_and_its_workdir(ground: Ground, when: str) -> None:
    workdir = worked(ground, issue(ground))
    [before] = ground.registry.records()
    ground.registry = registry = Busy(ground, when)
    freed = free(ground, issue_closed(ground))
    assert freed.waiting
    assert freed.gone == ()
    assert ground.names("trees") == [workdir.name]
    [claim] = registry.claims
    assert (claim.session_id, claim.is_new) == (before.session_id, False)
    registry.renew(claim, 60)


def test_a_run_that_begins_between_two_workdirs_of_its_issue_keeps_the_second(ground: Ground) -> None:
    work = WorkItem("fixer", "/r", 7)
    names = sorted([noted(ground, work), noted(ground, work, "fix")])
    ground.registry = registry = Busy(ground, "after the drop")
    freed = free(ground, Happening("issue_closed", ("/r",), "7"))
    assert freed.waiting
    assert [record.name for record in ground.all()] == names[1:]
    [claim] = registry.claims
    assert claim.is_new
    registry.renew(claim, 60)


def test_whoever_frees_at_the_same_time_does_no_harm(ground: Ground) -> None:
    worked(ground, issue(ground))
    ready = threading.Barrier(4)

    def attempt(_: int) -> Freed:
        made = freeing(ground)
        holdings = made.look()
        ready.wait(30)
        return made.free(issue_closed(ground), holdings)

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(attempt, range(4)))
    assert sorted(fate.kind for freed in done for fate in freed.gone) == ["session", "workdir"]
    assert left(ground) == known(ground) == set()


@pytest.mark.slow
@pytest.mark.parametrize("unsaved", [False, True])
def test_whoever_is_killed_in_between_leaves_what_the_next_attempt_finds(
    ground: Ground, tmp_path: Path, unsaved: bool
) -> None:
    with dying("housekeeping.free_once") as freed_until:
        for change in range(1, 20):
            again = Ground(tmp_path / f"round-{change}", ground.origin)
            again.folder.mkdir()
            workdir = worked(again, issue(again))
            if unsaved:
                (again.tree(workdir) / "new.txt").write_text("mine")
            ended = freed_until(again, change)
            if ended is not None:
                break
            if not again.names("records"):  # nothing says any more what the workdir was about
                assert known(again) == set()
            free(again, issue_closed(again))
            assert left(again) == known(again) == set()
            assert again.names("trees") == again.names("records") == []
            kept = [*(again.root.path / "quarantine").glob("*/tree/new.txt")]
            assert len(kept) == unsaved
            assert_trash_is_deleted(again)
            shutil.rmtree(again.folder)
    assert ended is not None
    assert ended >= 3


def assert_trash_is_deleted(ground: Ground) -> None:
    wait_until(lambda: ground.names("trash") == [], "what was discarded is deleted in the background")
