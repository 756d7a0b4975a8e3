"""Opening is killed with SIGKILL, before, in and after each git command, and at random. Then it works again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from everturn.settings import inherited_environment
from polling import wait_until
from workdirs.opener import REFUSED, Order, opener
from workdirs.scene import Scene, fsck
from workdirs.yard import Origin, Yard, git

pytestmark = pytest.mark.slow

FILES = {f"src/{folder}/{number}.txt": f"{number}\n" * 50 for folder in "abcdef" for number in range(50)}
WRAPPER = """#!/bin/sh
read -r n < {folder}/count
n=$((n + 1))
echo $n > {folder}/count
if [ $n = {at} ]; then
    case {when} in
        before) kill -9 $PPID; exit 1 ;;
        in) kill -9 $PPID; exec {git} "$@" ;;
        with) {git} "$@" & kill -9 $! $PPID; exit 1 ;;
        after) {git} "$@"; kill -9 $PPID; exit 1 ;;
    esac
fi
exec {git} "$@"
"""


def kill_at(folder: Path, at: int, when: str) -> Path:
    """Make a git that kills who has started it at its n-th command."""
    folder.mkdir(exist_ok=True)
    (folder / "count").write_text("0\n")
    program = folder / "git"
    real = shutil.which("git", path=inherited_environment()["PATH"])
    program.write_text(WRAPPER.format(folder=folder, at=at, when=when, git=real))
    program.chmod(0o755)
    return folder


def for_the_first_time(scene: Scene) -> None:
    shutil.rmtree(scene.yard.root.path)


def in_a_new_workdir(scene: Scene) -> None:
    scene.yard.root.discard(scene.tree)
    scene.origin.push({"new.txt": "new\n"}, "feature")


def again_and_clean(scene: Scene) -> None:
    scene.origin.push({"new.txt": "new\n", "a.txt": "theirs\n"}, "feature")


def with_work_in_it(scene: Scene) -> None:
    scene.origin.push({"new.txt": "new\n"}, "feature")
    scene.work()


def pushed_and_forgotten(scene: Scene) -> None:
    git(scene.tree, "commit", "--quiet", "--allow-empty", "-m", "Pushed")
    git(scene.tree, "push", "--quiet", "origin", "HEAD:gone")
    scene.origin.delete("gone")
    scene.origin.push({"new.txt": "new\n"}, "feature")


def with_a_damaged_cache(scene: Scene) -> None:
    scene.work()
    scene.packs("idx")[0].unlink()
    path = scene.packs()[-1]
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-5])


PREPARED = [
    for_the_first_time,
    in_a_new_workdir,
    again_and_clean,
    with_work_in_it,
    pushed_and_forgotten,
    with_a_damaged_cache,
]


CASES = [(prepare, "quarantine") for prepare in PREPARED] + [(with_work_in_it, "push")]


@pytest.mark.parametrize("when", ["before", "in", "with", "after"])
@pytest.mark.parametrize(("prepare", "how"), CASES, ids=[f"{prepare.__name__} {how}" for prepare, how in CASES])
def test_killed_at_any_git_command_it_works_again(
    yard: Yard, origin: Origin, tmp_path: Path, prepare: Callable[[Scene], None], when: str, how: str
) -> None:
    scene = Scene(yard, origin)
    prepare(scene)
    before = tmp_path / "before"
    if yard.root.path.exists():
        shutil.copytree(yard.root.path, before, symlinks=True)
    with opener() as opens:
        for at in range(1, 100):
            shutil.rmtree(yard.root.path, ignore_errors=True)
            if before.exists():
                shutil.copytree(before, yard.root.path, symlinks=True)
            path = str(kill_at(tmp_path / "bin", at, when))
            opens.start(Order(str(yard.root.path), origin.url, how=how, path=path))
            code = opens.wait()
            assert code in (0, -signal.SIGKILL), at
            _assert_it_works(scene, how, keep=at % 2 == 0)
            if code == 0:
                break
    assert at > 3


def _assert_it_works(scene: Scene, how: str, *, keep: bool) -> None:
    has_work = bool(scene.yard.root.quarantine.exists() and scene.holders("mine.txt"))
    scene.yard.workdirs(how=how, wait_s=30).open(scene.item, "feature", keep=keep).close()
    rescued = git(scene.origin.path, "for-each-ref", "--format=%(refname)", "refs/everturn").split()
    if has_work and not rescued:
        scene.assert_nothing_lost()
    if not keep:
        scene.assert_shows(scene.origin.has("refs/heads/feature"))
    for place in (scene.tree, scene.cache):
        assert not fsck(place)
    # Who goes on where it was leaves the cache alone; whoever works on that next takes away what a git has left.
    for place in (scene.tree / ".git", *(() if keep else (scene.cache,))):
        assert not list(place.rglob("*.lock"))
    for ref in rescued:
        git(scene.origin.path, "update-ref", "-d", ref)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_random_it_works_again(yard: Yard, origin: Origin, tmp_path: Path, seed: int) -> None:
    """Four times fifty. The agents open, go on, begin anew and leave work, while the remote changes."""
    chance = random.Random(seed)
    pause = threading.Event()
    diary = tmp_path / "diary"
    diary.touch()
    origin.push(FILES, "feature")
    scene = Scene(yard, origin)
    took_s = 0.25
    with opener() as opens:
        for number in range(50):
            if chance.random() < 0.1:
                shutil.rmtree(scene.cache.parent)
            changed = dict.fromkeys(chance.sample(sorted(FILES), 40), f"{number}\n" * 50)
            latest = origin.push(changed, "feature")
            pid = opens.start(
                Order(str(scene.yard.root.path), origin.url, seed=seed * 1000 + number, diary=str(diary))
            )
            pause_s = chance.random() * 2 * took_s  # about every second one comes to an agent, unless others are busy
            if number % 5:
                pause.wait(pause_s)
            else:
                noted = diary.stat().st_size
                wait_until(lambda noted=noted: diary.stat().st_size > noted, "what an agent has noted", 60)
            os.kill(pid, signal.SIGKILL)
            code = opens.wait()
            assert code == -signal.SIGKILL, code
            begun = time.monotonic()
            workdir = scene.yard.workdirs(wait_s=30).open(scene.item, "feature", keep=False)
            workdir.close()
            took_s = time.monotonic() - begun  # on this machine, as busy as it is
            scene.assert_shows(latest)
            assert not list(scene.cache.rglob("*.lock")) + list((scene.tree / ".git").rglob("*.lock"))
            if number % 10 == 9:
                assert not fsck(scene.tree)
                assert not fsck(scene.cache)
                _assert_all_is_there(scene, diary)
    assert code != REFUSED
    assert diary.read_text()


def _assert_all_is_there(scene: Scene, diary: Path) -> None:
    """What agents have noted is in quarantine, in the files or in a commit."""
    trees = [kept / "tree" for kept in scene.yard.quarantined()]
    there = {path.name for tree in trees for path in tree.glob("mine-*")}
    left = set(diary.read_text().split()) - there
    for tree in trees:
        if left:
            left -= {Path(name).name for name in git(tree, "log", "--all", "--format=", "--name-only").split()}
    assert not left
