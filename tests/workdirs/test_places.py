"""Places that are no good for workdirs: a full disk, one that cannot be written to, a machine without git."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from disks import fill, mounted, remount
from everturn.errors import Denied, EverturnError, NotFound, Unavailable
from everturn.git.runner import Git
from everturn.settings import inherited_environment
from everturn.workdirs.records import WorkdirRecord
from everturn.workdirs.rescuer import Rescuer
from everturn.workdirs.root import MARKER
from workdirs.scene import Scene, fsck, scribble
from workdirs.yard import Origin, Yard, clean, work

pytestmark = pytest.mark.slow

LIMITED = """
import resource, signal, sys
from pathlib import Path
from workdirs.yard import Yard
from everturn.errors import EverturnError
from everturn.model import WorkItem
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    Yard(Path(sys.argv[1])).workdirs().open(WorkItem("fixer", sys.argv[2], 7), "feature", keep=sys.argv[4] == "keep")
except EverturnError as error:
    print(error)
    sys.exit(3)
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    folder = tmp_path / "disk"
    with mounted(folder, "size=2m"):
        yield folder


def test_on_a_full_disk_nothing_is_held_and_nothing_taken_for_damaged(small: Path, origin: Origin) -> None:
    yard = Yard(small / "workdirs")
    workdir = yard.workdirs().open(work(origin), run_id="r1")
    workdir.close()
    filler = fill(small, 0)
    with pytest.raises(Unavailable, match="No space left"):
        yard.workdirs().open(work(origin), run_id="r2")
    with pytest.raises(Denied, match="No space left"):
        yard.workdirs().open(work(origin, 8), run_id="r2")
    for name in (workdir.name, yard.workdirs().path(work(origin, 8)).name):
        lock = yard.root.try_workdir(name)
        assert lock is not None
        lock.release()
    record = WorkdirRecord.read(yard.root, workdir.name)
    assert record is not None
    rescuer = Rescuer(yard.root, yard.git, how="quarantine", metrics=yard.metrics)
    with pytest.raises(Unavailable, match="No space left"):
        rescuer.is_whole(record)
    filler.unlink()
    assert rescuer.is_whole(record)


@pytest.mark.slow
@pytest.mark.parametrize("left_kib", [0, 4, 8, 16, 32, 48, 64, 96, 128, 192])
@pytest.mark.parametrize("keep", [True, False], ids=["goes on", "begins"])
def test_a_full_disk_is_one_clear_error_and_no_work_is_lost(
    small: Path, origin: Origin, left_kib: int, keep: bool
) -> None:
    scene = Scene(Yard(small / "workdirs"), origin)
    scene.work()
    latest = origin.push({"big.txt": "".join(f"{number}\n" for number in range(12000))}, "feature")
    filler = fill(small, left_kib * 1024)
    for _ in range(2):
        with suppress(EverturnError):
            scene.open(keep=keep)
        scene.assert_nothing_lost()
    filler.unlink()
    scene.open(keep=False)
    scene.assert_sound()
    scene.assert_shows(latest)
    scene.assert_nothing_lost()


@pytest.mark.slow
@pytest.mark.parametrize("limit_kib", [0, 1, 2, 4, 8, 16, 64])
@pytest.mark.parametrize("keep", ["keep", "begin"])
def test_files_that_cannot_be_written_are_one_clear_error_and_no_work_is_lost(
    yard: Yard, origin: Origin, limit_kib: int, keep: str
) -> None:
    scene = Scene(yard, origin)
    scene.work()
    latest = origin.push({"big.txt": "".join(f"{number}\n" for number in range(12000))}, "feature")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(yard.root.path), origin.url, str(limit_kib * 1024), keep],
        env={**inherited_environment(), "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 3), done.stderr
    scene.assert_nothing_lost()
    scene.open(keep=False)
    scene.assert_sound()
    scene.assert_shows(latest)
    scene.assert_nothing_lost()


@pytest.mark.parametrize("keep", [True, False], ids=["goes on", "begins"])
def test_a_disk_that_cannot_be_written_to_is_said_to_be_one(small: Path, origin: Origin, keep: bool) -> None:
    scene = Scene(Yard(small / "workdirs"), origin)
    remount(small, "ro")
    with pytest.raises(Denied, match="Read-only file system"):
        scene.open(keep=keep)
    with pytest.raises(Denied, match="Read-only file system"):
        scene.yard.workdirs().open(work(origin, 8))
    remount(small, "rw")
    assert scene.open(keep=keep).warnings == []
    scene.assert_sound()


def test_a_folder_that_cannot_be_made_is_said_to_be_one(small: Path, origin: Origin) -> None:
    remount(small, "ro")
    with pytest.raises(Denied, match="cannot write to"):
        Yard(small / "workdirs").workdirs().open(work(origin))


@pytest.mark.parametrize("keep", [True, False], ids=["goes on", "begins"])
def test_without_git_there_is_no_workdir_and_it_is_said(
    yard: Yard, origin: Origin, tmp_path: Path, keep: bool
) -> None:
    scene = Scene(yard, origin)
    scene.work()
    yard.git, good = Git({**inherited_environment(), "PATH": str(tmp_path / "nowhere")}, timeout_s=60), yard.git
    with pytest.raises(NotFound, match="no git command"):
        scene.open(keep=keep)
    assert scene.holders("mine.txt") == [scene.tree]
    for ask in (yard.workdirs().check, yard.workdirs().open):
        with pytest.raises(NotFound, match="no git command"):
            ask(work(origin, 9))
    yard.git = good
    scene.open(keep=keep)
    scene.assert_nothing_lost()
    scene.assert_sound()


def test_a_git_that_may_not_be_run_is_said_to_be_one(yard: Yard, origin: Origin, tmp_path: Path) -> None:
    scribble(tmp_path / "bin" / "git", b"no program")
    (tmp_path / "bin" / "git").chmod(0o755)
    yard.git = Git({**inherited_environment(), "PATH": str(tmp_path / "bin")}, timeout_s=60)
    with pytest.raises(EverturnError, match="could not be started"):
        yard.workdirs().open(work(origin))


def test_a_first_start_that_was_killed_is_no_strangers_folder(yard: Yard, origin: Origin) -> None:
    for name in ("trees", "locks"):
        (yard.root.path / name).mkdir(parents=True)
    scribble(yard.root.path / f".{MARKER}.half", b"{")
    assert clean(yard.workdirs().open(work(origin)).path)


def test_many_may_start_at_once_for_the_first_time(origin: Origin, tmp_path: Path) -> None:
    for number in range(20):
        root = tmp_path / f"root{number}"

        def prepare(_: int, root: Path = root) -> None:
            Yard(root).root.prepare()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(prepare, range(8)))
        assert (root / MARKER).is_file()


def test_a_lock_whose_file_was_deleted_is_still_one_runs_alone(yard: Yard, origin: Origin) -> None:
    """Whoever waits for the file that is gone would hold a lock that nobody else asks for."""
    yard.root.prepare()
    first = yard.root.try_workdir("x")
    assert first is not None
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(yard.root.try_workdir, "x", 30)
        (yard.root.path / "locks/x.lock").unlink()
        first.release()
        second = waiting.result()
    assert second is not None
    assert yard.root.try_workdir("x") is None
    assert os.fstat(second.descriptor).st_nlink == 1
    second.release()


def test_links_in_a_workdir_lead_no_removal_of_stale_locks_elsewhere(yard: Yard, origin: Origin) -> None:
    scene = Scene(yard, origin)
    locks = yard.root.path / "locks"
    before = sorted(locks.iterdir())
    refs = scene.tree / ".git/refs"
    refs.rename(scene.tree / ".git/refs-before")
    refs.symlink_to(locks)
    (scene.tree / ".git/objects/link").symlink_to(locks)
    scene.open(keep=True)
    assert sorted(locks.iterdir()) == before
    assert not fsck(scene.tree)
