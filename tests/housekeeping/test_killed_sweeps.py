"""Whenever a sweep or a removal is killed, the next sweep goes on: nothing unsaved is lost, nothing is left over."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from everturn.clock import SystemClock
from everturn.workdirs.records import WorkdirRecord
from housekeeping.freed import dying
from housekeeping.ground import DAY_S, HOUR_S, Ground

LEAST_CHANGES = 10
ROUNDS = 12


def prepared(ground: Ground) -> None:
    """Have one workdir of each kind."""
    for agent, unsaved in (("saved", False), ("unsaved", True), ("reset", True)):
        workdir = ground.open(agent, days_ago=9)
        ground.build(workdir)
        if unsaved:
            (ground.tree(workdir) / "new.txt").write_text(agent)
    ground.open("saved", "tools", days_ago=9)
    ghost = ground.open("ghost", days_ago=9)
    shutil.rmtree(ground.tree(ghost))
    orphan = ground.open("orphan", days_ago=9)
    WorkdirRecord.file(ground.root, orphan.name).unlink()


def unsaved_files(ground: Ground) -> list[str]:
    places = [*ground.root.trees.glob("*/new.txt"), *ground.root.quarantine.glob("*/tree/new.txt")]
    return sorted(path.read_text() for path in places)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_that_is_killed_at_any_moment_is_ended_by_the_next_one(ground: Ground, tmp_path: Path) -> None:
    prepared(ground)
    before = tmp_path / "before"
    shutil.copytree(ground.root.path, before, symlinks=True)
    with dying("housekeeping.sweep_once") as swept_until:
        changes = swept_until(ground, 0)
        assert changes is not None
        assert changes > LEAST_CHANGES
        died = 0
        for change in range(1, changes + 1):
            shutil.rmtree(ground.root.path)
            shutil.copytree(before, ground.root.path, symlinks=True)
            died += swept_until(ground, change) is None
            assert unsaved_files(ground) == ["reset", "unsaved"], change
            ground.clock.advance(2 * HOUR_S)
            ground.sweeper(quota_bytes=0).sweep()
            assert unsaved_files(ground) == ["reset", "unsaved"], change
            records = [name for name in ground.names("records") if name.endswith(".json")]
            assert ground.names("trees") == [name.removesuffix(".json") for name in records], change
            assert ground.names("trash") == ground.names("unfinished") == [], change
            for folder in ground.names("quarantine"):
                assert (ground.root.quarantine / folder / "NOTE.md").exists(), change
            ground.clock.advance(-2 * HOUR_S)
        assert died == changes
    for agent in ("saved", "unsaved", "reset", "ghost", "orphan"):
        workdir = ground.open(agent)
        ground.agent(workdir, "fsck", "--connectivity-only")


@pytest.mark.slow
def test_workdirs_can_be_opened_while_they_are_swept(tmp_path: Path, shop: Path) -> None:
    ground = Ground(tmp_path, shop, clock=SystemClock())  # type: ignore[arg-type]
    over = threading.Event()

    def work(agent: str) -> None:
        for number in range(ROUNDS):
            workdir = ground.workdirs.open(ground.work(agent), keep=number % 2 == 0)
            (workdir.path / "build").mkdir(exist_ok=True)
            (workdir.path / "build" / "out").write_text(agent)
            record = ground.record(workdir.name)
            assert ground.agent(record, "status", "--porcelain") == ""
            assert (workdir.path / "build" / "out").read_text() == agent
            workdir.close()

    def sweep() -> int:
        removed = 0
        while not over.is_set():
            report = ground.sweeper(max_age_days=1e-9 / DAY_S, quota_bytes=0).sweep()
            removed += sum(fate.action == "removed" and fate.kind == "workdir" for fate in report.fates)
        return removed

    ground.remote()
    with ThreadPoolExecutor(4) as threads:
        sweeping = threads.submit(sweep)
        working = [threads.submit(work, agent) for agent in ("a", "b", "c")]
        try:
            for each in working:
                each.result(timeout=120)
        finally:
            over.set()
        assert sweeping.result(timeout=120) > 0
