"""Several processes at one mirror, and processes that are killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from everturn.journal.reading import RunRef
from everturn.mirrors.building import WAITING_GROUPS
from everturn.mirrors.keeping import Progress, catch_up, rebuild
from mirrors.ground import Ground, a_run, check_index, dump, lines_of_events, rows

WORKER = Path(__file__).with_name("worker.py")
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}


def start(folder: Path, *what: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER), str(folder), *what]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=ENVIRONMENT, cwd=folder)


def heard(process: subprocess.Popen[str]) -> int:
    """Wait for what a process says next."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        finish(process)
    return int(line)


def finish(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said


def kill_after(process: subprocess.Popen[str], runs: int) -> None:
    """Let a slow rebuild come so far, and kill it there."""
    assert process.stdin is not None
    while heard(process) < runs:
        process.stdin.write("go on\n")
        process.stdin.flush()
    process.kill()
    process.communicate()


def stored(folder: Path, count: int) -> Ground:
    ground = Ground(folder, on_disk=True)
    for number in range(count):
        ref = RunRef(f"task:{number % 3}", f"run-{number:03}")
        ground.store(ref, lines_of_events(a_run(ref.run_id, ref.scope, epoch=number)), parts=2)
    return ground


@pytest.mark.slow
def test_writers_readers_and_rebuilders_share_a_mirror(tmp_path: Path) -> None:
    ground = stored(tmp_path, 20)
    catch_up(ground.journals, ground.mirror())
    readers = [start(tmp_path, "read") for _ in range(2)]
    for process in readers:
        assert heard(process), "it reads"
    others = [start(tmp_path, *what) for what in (("fold", "a"), ("fold", "b"), ("rebuild",), ("catch up",))]
    for process in others:
        finish(process)
    (tmp_path / "enough").touch()
    for process in readers:
        finish(process)
    mirror = ground.mirror()
    check_index(mirror)
    catch_up(ground.journals, mirror)
    again = ground.mirror("again")
    rebuild(ground.journals, again)
    assert dump(mirror) == dump(again)


@pytest.mark.slow
def test_two_that_find_no_mirror_build_it_once(tmp_path: Path) -> None:
    ground = stored(tmp_path, 20)
    for process in [start(tmp_path, "catch up") for _ in range(3)]:
        finish(process)
    assert rows(ground.mirror(), "SELECT count(*) FROM runs") == [(20,)]
    names = [path.name for path in (tmp_path / "mirror").iterdir() if path.name.startswith("sqlite-")]
    names = [name for name in names if name.endswith(".db")]
    assert len(names) == 1


@pytest.mark.slow
@pytest.mark.parametrize("after", [3, 17])
def test_a_rebuild_that_is_killed_goes_on_from_where_it_was(tmp_path: Path, after: int) -> None:
    ground = stored(tmp_path, 40)
    kill_after(start(tmp_path, "rebuild slowly"), after)
    mirror, told = ground.mirror(), list[Progress]()
    assert not mirror.path.exists()
    catch_up(ground.journals, mirror, told=told.append)
    assert told[-1].runs_to_do <= 40 - after + WAITING_GROUPS + 2  # what was on its way to the file is read again
    again = ground.mirror("again")
    rebuild(ground.journals, again)
    assert dump(mirror) == dump(again)
    check_index(mirror)


@pytest.mark.slow
def test_after_the_machine_was_started_anew_a_rebuild_begins_anew(tmp_path: Path) -> None:
    ground = stored(tmp_path, 10)
    kill_after(start(tmp_path, "rebuild slowly"), 5)
    mirror, told = ground.mirror(), list[Progress]()
    mirror._clock._boot = "another"  # type: ignore[attr-defined]
    catch_up(ground.journals, mirror, told=told.append)
    assert told[-1].runs_to_do == 10
