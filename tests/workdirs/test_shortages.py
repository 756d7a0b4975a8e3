"""What the machine is short of, or a person has changed, is no damage: no cache is begun anew for it, no workdir is
moved away, and nothing that is nowhere else is given up."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from disks import obeying_permissions
from everturn.errors import EverturnError, Invalid, NotFound, Unavailable
from everturn.git.runner import GaveUp, Git
from everturn.model import RepositoryOptions, WorkItem
from everturn.settings import inherited_environment
from everturn.workdirs import cache
from workdirs.scene import Scene, cut, fsck
from workdirs.yard import PERSON, Origin, Yard, git, work

REAL_GIT = shutil.which("git")
KILLED = "kill -9 $$"
FULL = "echo 'error: unable to write file x: No space left on device' >&2; exit 128"

REOPEN = """
import sys
from pathlib import Path
from everturn.model import WorkItem
from workdirs.yard import Yard
print(Yard(Path(sys.argv[1])).workdirs().open(WorkItem("fixer", sys.argv[2], 8), keep=False).path)
"""


@pytest.fixture
def scene(yard: Yard, origin: Origin) -> Scene:
    made = Scene(yard, origin)
    made.work()
    return made


def let_fail(yard: Yard, folder: Path, command: str, how: str) -> Path:
    """Have one of git's commands fail for as long as there is the file that is returned."""
    folder.mkdir()
    failing = folder / "failing"
    failing.touch()
    program = folder / "git"
    program.write_text(f'#!/bin/sh\n[ "$1" = {command} ] && [ -e {failing} ] && {{ {how}; }}\nexec {REAL_GIT} "$@"\n')
    program.chmod(0o755)
    environment = inherited_environment()
    yard.git = Git({**environment, "PATH": f"{folder}:{environment['PATH']}"}, timeout_s=60)
    return failing


def let_the_remote_forget(scene: Scene) -> None:
    scene.origin.delete("feature")
    git(scene.origin.path, "gc", "--quiet", "--prune=now")


# --- git that comes to no end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [KILLED, FULL])
def test_what_is_only_in_a_damaged_cache_stays_if_it_cannot_be_taken_over_now(
    scene: Scene, tmp_path: Path, how: str
) -> None:
    let_the_remote_forget(scene)
    scene.packs("idx")[0].unlink()
    cut(scene.packs()[-1], -1)
    let_fail(scene.yard, tmp_path / "bin", "unpack-objects", how)
    scene.open(keep=True)
    assert list(scene.cache.parent.glob("left-*/objects/pack/*.pack"))
    scene.assert_nothing_lost()


@pytest.mark.parametrize("how", [KILLED, FULL])
@pytest.mark.parametrize("command", ["cat-file", "fsck"])
def test_a_git_that_is_killed_costs_neither_the_cache_nor_the_workdir(
    scene: Scene, tmp_path: Path, command: str, how: str
) -> None:
    failing = let_fail(scene.yard, tmp_path / "bin", command, how)
    for keep in (True, False):
        if command == "cat-file":
            with pytest.raises(Unavailable):
                scene.open(keep=keep)
        elif keep:
            scene.open(keep=True)
    assert scene.yard.counted("cache_repairs_total") == 0
    assert not scene.yard.quarantined()
    failing.unlink()
    assert scene.open(keep=True).outcome == "kept"
    scene.assert_sound()


def test_packs_that_cannot_be_merged_do_not_keep_anybody_from_working(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "PACKS", 1)
    let_fail(scene.yard, tmp_path / "bin", "repack", FULL)
    latest = scene.origin.push({"x.txt": "z\n"}, "feature")
    scene.open(keep=False)
    scene.assert_shows(latest)


def test_what_a_merge_of_packs_has_left_that_was_killed_is_removed(scene: Scene) -> None:
    packs = scene.cache / "objects" / "pack"
    left = [packs / ".tmp-12-pack-0000.pack", packs / ".tmp-12-pack-0000.idx"]
    for path in left:
        path.write_bytes(b"x" * 100)
    scene.open(keep=False)
    assert not [path for path in left if path.exists()]
    assert scene.yard.counted("cache_repairs_total") == 0


def test_a_shortage_is_said_to_be_one(yard: Yard, tmp_path: Path) -> None:
    let_fail(yard, tmp_path / "bin", "status", FULL)
    with pytest.raises(GaveUp, match="No space left") as caught:
        yard.git.run(["status"], tmp_path)
    assert caught.value.hint == "the machine is short of room on its disk"


def test_a_number_in_a_name_is_no_refusal_of_credentials(yard: Yard, tmp_path: Path) -> None:
    let_fail(yard, tmp_path / "bin", "fetch", "echo 'fatal: not our ref 4036e1' >&2; exit 128")
    with pytest.raises(Unavailable):
        yard.git.run(["fetch"], tmp_path)


# --- A wrong wish ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["refs/pull/8/head", "0" * 40, "403" + "0" * 37])
def test_for_what_is_not_there_the_cache_is_not_searched_for_damage(
    scene: Scene, tmp_path: Path, wanted: str
) -> None:
    let_fail(scene.yard, tmp_path / "bin", "fsck", f"touch {tmp_path / 'searched'}")
    with pytest.raises(NotFound):
        scene.open(keep=False, branch=wanted)
    assert not (tmp_path / "searched").exists()


def test_for_what_cannot_be_had_the_cache_is_not_searched_for_damage(scene: Scene, tmp_path: Path) -> None:
    let_fail(scene.yard, tmp_path / "bin", "fsck", f"touch {tmp_path / 'searched'}")
    let_fail(scene.yard, tmp_path / "more", "lfs", "exit 1")
    scene.yard.options[scene.origin.url] = RepositoryOptions(lfs=True)
    with pytest.raises(Invalid, match="git-lfs"):
        scene.open(keep=False)
    assert not (tmp_path / "searched").exists()


# --- Other options than before --------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [RepositoryOptions(blobless=True), RepositoryOptions(depth=1)])
def test_a_conversation_goes_on_where_it_was_when_its_repository_gets_another_cache(
    scene: Scene, changed: RepositoryOptions
) -> None:
    scene.yard.options[scene.origin.url] = changed
    for _ in range(2):
        workdir = scene.open(keep=True)
        assert (workdir.outcome, workdir.warnings) == ("kept", [])
    assert len(list(scene.yard.root.caches.glob("*.json"))) == 1
    shutil.rmtree(scene.cache)
    assert scene.open(keep=True).outcome == "kept"
    assert not fsck(scene.tree)


@pytest.mark.slow
def test_a_blobless_cache_can_be_fetched_into_any_number_of_times(
    yard: Yard, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "PACKS", 1)
    monkeypatch.setattr(cache, "PACKS_MORE", 2)
    git(origin.path, "config", "uploadpack.allowFilter", "true")
    yard.options[origin.url] = RepositoryOptions(blobless=True)
    forgotten = origin.push({"a.txt": "forgotten\n"}, "gone")
    for number in range(6):
        latest = origin.push({"a.txt": f"{number}\n"})
        yard.workdirs().open(work(origin), keep=False).close()
        origin.delete("gone")
    assert len(list(yard.cache.glob("objects/pack/*.pack"))) <= 3
    assert list(yard.cache.glob("objects/pack/*.promisor"))
    for commit in (latest, forgotten):
        assert git(yard.cache, "cat-file", "-t", commit) == "commit"
    assert not fsck(yard.cache)


# --- Trees that cannot be cleaned, remotes that stand on nothing ----------------------------------------------------


def test_a_workdir_that_cannot_be_cleaned_is_made_anew(yard: Yard, origin: Origin, tmp_path: Path) -> None:
    yard.workdirs().open(work(origin), keep=False).close()
    let_fail(yard, tmp_path / "bin", "clean", "echo 'warning: failed to remove build/x' >&2; exit 1")
    again = yard.workdirs().open(work(origin), keep=False)
    assert again.outcome == "new"
    assert (again.path / "a.txt").read_text() == "a\n"
    assert not list(yard.root.caches.glob("*/damaged-*"))


def test_a_remote_whose_head_is_on_no_branch_is_shown_at_that_commit(
    yard: Yard, origin: Origin, tmp_path: Path
) -> None:
    local = tmp_path / "local"
    subprocess.run(["git", "clone", "--quiet", origin.url, str(local)], env=PERSON, check=True)
    git(local, "checkout", "--quiet", "--detach")
    git(local, "commit", "--quiet", "--allow-empty", "-m", "On no branch")
    item = WorkItem("fixer", str(local), 7)
    for _ in range(2):
        with_commit = yard.workdirs().open(item, keep=False)
        assert git(with_commit.path, "rev-parse", "HEAD") == git(local, "rev-parse", "HEAD")
        with_commit.close()


def test_a_remote_whose_head_leaves_its_branch_is_shown_where_it_is_now(
    yard: Yard, origin: Origin, tmp_path: Path
) -> None:
    local = tmp_path / "local"
    subprocess.run(["git", "clone", "--quiet", origin.url, str(local)], env=PERSON, check=True)
    item = WorkItem("fixer", str(local), 7)
    yard.workdirs().open(item, keep=False).close()
    git(local, "checkout", "--quiet", "--detach")
    git(local, "commit", "--quiet", "--allow-empty", "-m", "On no branch")
    workdir = yard.workdirs().open(item, keep=False)
    assert git(workdir.path, "rev-parse", "HEAD") == git(local, "rev-parse", "HEAD")


@pytest.mark.slow
def test_what_was_pushed_and_cannot_be_copied_is_moved_away_with_its_workdir(
    yard: Yard, origin: Origin, tmp_path: Path
) -> None:
    workdir = yard.workdirs().open(work(origin), "fix/7")
    (workdir.path / "new.txt").write_text("pushed\n")
    git(workdir.path, "add", ".")
    git(workdir.path, "commit", "--quiet", "-m", "Pushed")
    git(workdir.path, "push", "--quiet")
    workdir.close()
    origin.delete("fix/7")
    let_fail(yard, tmp_path / "bin", "fetch", 'case "$*" in *--stdin*) echo "fatal: broken" >&2; exit 128;; esac')
    again = yard.workdirs().open(work(origin), "fix/7", keep=False)
    assert "cannot be kept in another way" in " ".join(again.warnings)
    (kept,) = yard.quarantined()
    assert (kept / "tree" / "new.txt").read_text() == "pushed\n"


@pytest.mark.slow
@pytest.mark.parametrize("place", [".", ".git"])
def test_a_workdir_that_was_made_read_only_is_no_dead_end(yard: Yard, origin: Origin, place: str) -> None:
    path = yard.workdirs().open(work(origin), keep=False).path
    (path / "new.txt").write_text("mine")
    (path / place).chmod(0o555)
    done = subprocess.run(
        [*obeying_permissions(), sys.executable, "-c", REOPEN, str(yard.root.path), origin.url],
        env={**inherited_environment(), "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "a.txt").exists()


def test_a_submodule_with_the_name_of_a_lock_is_none(yard: Yard, origin: Origin) -> None:
    workdir = yard.workdirs().open(work(origin))
    workdir.close()
    module = workdir.path / ".git" / "modules" / "yarn.lock"
    git(workdir.path, "init", "--quiet", "--bare", str(module))
    (workdir.path / ".git" / "index.lock").touch()
    yard.workdirs().open(work(origin)).close()
    assert (module / "HEAD").exists()
    assert not (workdir.path / ".git" / "index.lock").exists()


# --- Others who are at work -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_cache_that_is_just_being_changed_is_not_taken_for_a_damaged_one(scene: Scene) -> None:
    index = scene.packs("idx")[0]
    index.rename(index.with_suffix(".late"))

    def finish() -> None:
        index.with_suffix(".late").rename(index)
        lock.release()

    lock = scene.yard.root.try_workdir(f"cache-{scene.cache.parent.name}")
    assert lock is not None
    threading.Timer(0.3, finish).start()
    assert scene.open(keep=True).outcome == "kept"
    assert scene.yard.counted("cache_repairs_total") == 0


@pytest.mark.slow
def test_a_stopped_run_does_not_wait_for_what_a_remote_has_promised(
    yard: Yard, origin: Origin, tmp_path: Path
) -> None:
    yard.workdirs().open(work(origin), keep=False).close()
    let_fail(yard, tmp_path / "bin", "cat-file", "sleep 60")
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(EverturnError, match="stopped"):
        yard.workdirs().open(work(origin), "0" * 40, stop=stop)
