"""Why a workdir is a repository of its own: what happens in linked worktrees of one cache, and does not happen here.

Each trap is shown with plain git first. What borrowing objects costs is shown as well.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from everturn.workdirs import cache
from workdirs.yard import PERSON, Origin, Yard, clean, git, work

pytestmark = pytest.mark.slow

HEADS = "+refs/heads/*:refs/remotes/origin/*"
MakeTree = Callable[[str], Path]


class Shared:
    """A bare cache with linked worktrees, as it is set up by hand.

    Args:
        origin: What it is cloned from.
        folder: Where.
    """

    def __init__(self, origin: Origin, folder: Path) -> None:
        self.cache = folder / "cache.git"
        self._folder = folder
        folder.mkdir()
        git(folder, "clone", "--quiet", "--bare", origin.url, str(self.cache))
        git(self.cache, "config", "remote.origin.fetch", HEADS)
        git(self.cache, "fetch", "--quiet")

    def tree(self, agent: str) -> Path:
        """Make the worktree of an agent, on a branch of its name."""
        path = self._folder / agent
        git(self.cache, "worktree", "add", "--quiet", "--no-track", "-b", agent, str(path), "origin/main")
        return path


@pytest.fixture
def shared(origin: Origin, tmp_path: Path) -> Shared:
    return Shared(origin, tmp_path / "shared")


@pytest.fixture
def make_tree(yard: Yard, origin: Origin) -> MakeTree:
    """Opens the workdir of an agent, on a branch of its name, and lets go of it."""

    def make(agent: str) -> Path:
        workdir = yard.workdirs().open(work(origin, agent=agent), agent)
        workdir.close()
        return workdir.path

    return make


def fails(folder: Path, *arguments: str) -> bool:
    """Tell whether git fails."""
    done = subprocess.run(["git", *arguments], cwd=folder, env=PERSON, capture_output=True, check=False)
    return done.returncode != 0


def commit(path: Path, text: str = "mine\n") -> str:
    """Commit something, and return the commit."""
    (path / "a.txt").write_text(text)
    git(path, "commit", "--quiet", "-am", "Mine")
    return git(path, "rev-parse", "HEAD")


# --- What one agent configures ------------------------------------------------------------------------------------


def plant_hook(path: Path, trace: Path) -> None:
    """Have a script run after each commit and each checkout, wherever git looks for hooks here."""
    hooks = path / git(path, "rev-parse", "--git-path", "hooks")
    hooks.mkdir(exist_ok=True)
    for name in ("post-commit", "post-checkout"):
        (hooks / name).write_text(f"#!/bin/sh\npwd >> '{trace}'\n")
        (hooks / name).chmod(0o755)


def plant_config(path: Path, trace: Path) -> None:
    """Have git start a program to find out what has changed."""
    git(path, "config", "core.fsmonitor", f"pwd >> '{trace}'; false")


@pytest.mark.parametrize("plant", [plant_hook, plant_config])
def test_what_an_agent_plants_runs_in_another_linked_worktree_and_in_no_other_workdir(
    shared: Shared, make_tree: MakeTree, tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    for make, runs in ((shared.tree, True), (make_tree, False)):
        trace = tmp_path / f"trace-{runs}"
        theirs = make("other")
        plant(make("planter"), trace)
        commit(theirs)
        assert trace.exists() == runs


@pytest.mark.parametrize("plant", [plant_hook, plant_config])
def test_what_an_agent_plants_runs_when_the_next_linked_worktree_is_made_and_not_when_the_next_workdir_is(
    shared: Shared, make_tree: MakeTree, tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    for make, runs in ((shared.tree, True), (make_tree, False)):
        trace = tmp_path / f"trace-{runs}"
        plant(make("planter"), trace)
        trace.unlink(missing_ok=True)
        make("next")
        assert trace.exists() == runs


def test_linked_worktrees_have_one_stash_and_workdirs_each_their_own(shared: Shared, make_tree: MakeTree) -> None:
    for make, seen in ((shared.tree, True), (make_tree, False)):
        mine, theirs = make("mine"), make("theirs")
        (mine / "a.txt").write_text("not done yet\n")
        git(mine, "stash")
        assert bool(git(theirs, "stash", "list")) == seen


def test_a_branch_can_be_in_one_linked_worktree_only_and_in_any_number_of_workdirs(
    shared: Shared, origin: Origin, yard: Yard
) -> None:
    assert fails(shared.tree("first"), "switch", "main") is False
    assert fails(shared.tree("second"), "switch", "main")
    paths = {yard.workdirs().open(work(origin, agent=agent), "main").path for agent in ("first", "second")}
    assert {git(path, "branch", "--show-current") for path in paths} == {"main"}
    assert len(paths) == 2


# --- Many at once -------------------------------------------------------------------------------------------------


def test_a_linked_worktree_that_tracks_its_branch_cannot_be_made_while_the_config_is_written(
    shared: Shared, tmp_path: Path
) -> None:
    (shared.cache / "config.lock").touch()  # as each of many that are made at once has it for a moment
    add = ("worktree", "add", "--quiet", "-b")
    assert fails(shared.cache, *add, "one", "--track", str(tmp_path / "one"), "origin/main")
    assert not fails(shared.cache, *add, "two", "--no-track", str(tmp_path / "two"), "origin/main")


def test_many_workdirs_are_made_at_once_and_each_tracks_its_branch(yard: Yard, make_tree: MakeTree) -> None:
    agents = [f"agent-{number}" for number in range(16)]
    with ThreadPoolExecutor(len(agents)) as pool:
        paths = list(pool.map(make_tree, agents))
    assert [git(path, "config", f"branch.{agent}.merge") for path, agent in zip(paths, agents, strict=True)] == [
        f"refs/heads/{agent}" for agent in agents
    ]
    assert all(clean(path) for path in paths)
    assert not list(yard.cache.glob("*.lock"))


# --- What the remote has no more ----------------------------------------------------------------------------------


def test_pruning_a_mirror_deletes_the_branch_of_a_linked_worktree_and_no_branch_of_a_workdir(
    origin: Origin, make_tree: MakeTree, yard: Yard, tmp_path: Path
) -> None:
    mirror, linked = tmp_path / "mirror.git", tmp_path / "linked"
    git(tmp_path, "clone", "--quiet", "--mirror", origin.url, str(mirror))
    git(mirror, "worktree", "add", "--quiet", "-b", "mine", str(linked), "main")
    commit(linked)
    git(mirror, "fetch", "--quiet", "--prune")
    assert fails(linked, "rev-parse", "--verify", "HEAD")

    path = make_tree("mine")
    mine = commit(path)
    origin.push({"b.txt": "b\n"})
    make_tree("other")
    assert git(path, "rev-parse", "HEAD") == git(path, "rev-parse", "mine") == mine


def test_what_a_lender_prunes_is_missing_where_it_was_borrowed_and_the_cache_prunes_nothing(
    origin: Origin, make_tree: MakeTree, yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "PACKS", 1)  # so that the cache merges its packs soon
    old = origin.push({"c.txt": "c\n"}, "gone")
    lender, borrower = tmp_path / "lender.git", tmp_path / "borrower"
    git(tmp_path, "clone", "--quiet", "--bare", origin.url, str(lender))
    git(tmp_path, "clone", "--quiet", "--shared", "--branch", "gone", str(lender), str(borrower))
    path = make_tree("gone")
    origin.delete("gone")
    git(lender, "branch", "-D", "gone")
    git(lender, "gc", "--quiet", "--prune=now")
    assert fails(borrower, "log")

    for number in range(cache.PACKS_MORE + 2):
        origin.push({"b.txt": f"{number}\n"})
        make_tree(f"agent-{number}")
    assert len(list(yard.cache.glob("objects/pack/*.pack"))) < cache.PACKS_MORE
    assert git(path, "log", "-1", "--format=%H") == old
    git(path, "fsck", "--full")


# --- A cache that breaks ------------------------------------------------------------------------------------------


def truncate(repository: Path) -> None:
    """Cut off all packs, as a full disk does."""
    for pack in repository.glob("objects/pack/*.pack"):
        pack.chmod(0o600)
        with pack.open("r+b") as file:
            file.truncate(20)


@pytest.mark.parametrize("damage", [shutil.rmtree, truncate])
def test_a_damaged_cache_takes_the_commits_of_linked_worktrees_with_it_and_none_of_a_workdir(
    shared: Shared, make_tree: MakeTree, yard: Yard, origin: Origin, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    linked = shared.tree("mine")
    commit(linked)
    shutil.rmtree(shared.cache)  # what is left to do with a repository that cannot be read
    git(tmp_path, "clone", "--quiet", "--bare", origin.url, str(shared.cache))
    assert fails(linked, "log")

    path = make_tree("mine")
    mine = commit(path)
    damage(yard.cache)
    make_tree("other")
    assert make_tree("mine") == path
    assert git(path, "log", "-1", "--format=%H %s") == f"{mine} Mine"
    git(path, "rev-list", "--objects", "--all")  # nothing is missing


# --- What borrowing costs -----------------------------------------------------------------------------------------


def test_what_an_agent_fetches_is_in_every_linked_worktree_and_in_its_own_workdir_only(
    shared: Shared, make_tree: MakeTree, origin: Origin, yard: Yard
) -> None:
    for make, is_shared in ((shared.tree, True), (make_tree, False)):
        mine, theirs = make("mine"), make("theirs")
        latest = origin.push({"b.txt": f"{is_shared}\n"})
        git(mine, "fetch", "--quiet")
        assert not fails(mine, "cat-file", "-e", latest)
        assert fails(theirs, "cat-file", "-e", latest) != is_shared
    assert fails(yard.cache, "cat-file", "-e", latest)
