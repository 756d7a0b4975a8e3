"""What is freed on a ground, by whom, and what is left there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from everturn.forges.base import Happening
from everturn.housekeeping.freeing import Freed
from everturn.housekeeping.removal import Fate
from everturn.model import WorkItem
from everturn.settings import inherited_environment
from everturn.workdirs.names import workdir_name
from everturn.workdirs.records import WorkdirRecord
from housekeeping.ground import Ground, freeing

TESTS = Path(__file__).parents[1]
SHOP = "https://git.example/acme/shop.git"
SPELLINGS = (
    SHOP,
    "ssh://git@git.example/acme/shop.git",
    "git@git.example:acme/shop.git",
    "https://git.example/acme/shop",
)
FORK = "https://git.example/mallory/shop.git"


def free(ground: Ground, happening: Happening, *, dry_run: bool = False) -> Freed:
    made = freeing(ground)
    return made.free(happening, made.look(), dry_run=dry_run)


def worked(ground: Ground, work: WorkItem, branch: str | None = None) -> WorkdirRecord:
    """Have a workdir in which a run of a work item has ended."""
    workdir = ground.workdirs.open(work, branch)
    ground.session(work, workdir.path)
    workdir.close()
    return ground.record(workdir.name)


def noted(ground: Ground, work: WorkItem, branch: str | None = None) -> str:
    """Have the record of a workdir alone, and the session of a run in it: what is matched is what is noted."""
    ground.root.prepare()
    name = workdir_name(work, branch)
    record = WorkdirRecord(name, work.repo or "", work_key=work.key, agent=work.agent, branch=branch, cache="none")
    record.write(ground.root)
    ground.session(work, record.tree(ground.root))
    return name


def left(ground: Ground) -> set[str]:
    """Return the work items that have workdirs."""
    return {record.work_key for record in ground.all()}


def known(ground: Ground) -> set[str]:
    """Return the work items that have sessions."""
    return {record.work_key for record in ground.registry.records()}


def fate_of(freed: Freed, name: str) -> Fate:
    [fate] = [fate for fate in freed.fates if fate.name == name]
    return fate


def ground_of(ground: Ground) -> list[str]:
    """Return the arguments of a program that works on the same ground."""
    return [str(ground.folder), str(ground.origin), str(ground.clock.now())]


@contextmanager
def running(ground: Ground, branch: str = "") -> Iterator[subprocess.Popen[str]]:
    """Have another process be at work on the issue."""
    child = subprocess.Popen(
        [sys.executable, "-m", "housekeeping.at_work", *ground_of(ground), branch],
        env={**inherited_environment(), "PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "at work\n"
        yield child
        child.communicate(timeout=30)  # which ends it
    finally:
        child.kill()
        child.wait(30)


@contextmanager
def dying(program: str) -> Iterator[Callable[[Ground, int], int | None]]:
    """Give a way to run a program on a ground that dies at a change, each time in a new child of one process.

    It returns how many changes the program made, or `None` if it has died.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "housekeeping.dying", program],
        env={**inherited_environment(), "PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        orders, answers = process.stdin, process.stdout
        assert orders is not None
        assert answers is not None

        def run(ground: Ground, change: int) -> int | None:
            orders.write(json.dumps([*ground_of(ground), str(change)]) + "\n")
            orders.flush()
            code, returned = json.loads(answers.readline())
            assert code in (0, -signal.SIGKILL)
            return int(returned) if code == 0 else None

        yield run
        orders.close()
