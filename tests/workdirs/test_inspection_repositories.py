"""Repositories inside a workdir, submodules, large files: what of them is unsaved."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from everturn.workdirs.inspection import Unsaved
from workdirs.left_behind import LeftBehind, nested

pytestmark = pytest.mark.slow

# --- Begun and not finished -----------------------------------------------------------------------------------------


def conflicting(left: LeftBehind) -> None:
    left.agent("checkout", "--quiet", "-b", "side")
    left.write("a.txt", "side\n")
    left.agent("commit", "--quiet", "-am", "Side")
    left.agent("checkout", "--quiet", "main")
    left.write("a.txt", "main\n")
    left.agent("commit", "--quiet", "-am", "Main")


@pytest.mark.parametrize(
    ("command", "operation"),
    [
        (["merge", "side"], "a merge"),
        (["rebase", "side"], "a rebase"),
        (["rebase", "--apply", "side"], "a rebase"),
        (["cherry-pick", "side"], "a cherry-pick"),
        (["revert", "HEAD~1"], None),
    ],
)
def test_an_operation_that_stopped_half_way_is_seen(
    left: LeftBehind, command: list[str], operation: str | None
) -> None:
    conflicting(left)
    left.agent("branch", "--force", "before")
    if command[0] == "revert":
        left.write("a.txt", "later\n")
        left.agent("commit", "--quiet", "-am", "Later")
        operation = "a revert"
    with pytest.raises(subprocess.CalledProcessError):
        left.agent(*command)
    found = left.look()
    assert found.operation == operation
    assert f"{operation} that was not finished" in found.reasons()
    assert found.changed == 1


def test_a_bisection_is_seen(left: LeftBehind) -> None:
    left.agent("bisect", "start")
    found = left.look()
    assert (found.operation, found.changed) == ("a bisection", 0)
    assert found


def test_what_a_rebase_has_put_aside_is_seen(left: LeftBehind) -> None:
    conflicting(left)
    left.write("b.txt", "put aside\n")
    with pytest.raises(subprocess.CalledProcessError):
        left.agent("rebase", "--autostash", "side")
    found = left.look()
    aside = (left.git_dir / "rebase-merge" / "autostash").read_text().strip()
    assert dict(found.tips)["rebase-merge/autostash"] == aside


# --- Repositories inside it -----------------------------------------------------------------------------------------


def test_a_worktree_without_work_in_it_does_not_count(left: LeftBehind) -> None:
    left.agent("worktree", "add", "--quiet", "-b", "wt", ".claude/worktrees/[x] y")
    assert not left.look()


@pytest.mark.parametrize("ignored", [False, True])
def test_work_in_a_linked_worktree_is_seen(left: LeftBehind, ignored: bool) -> None:
    place = "build/x" if ignored else ".claude/worktrees/x"
    left.agent("worktree", "add", "--quiet", "-b", "wt", place)
    left.write(f"{place}/new.txt")
    found = left.look()
    assert found.nested == (place,)
    assert not found.can_be_pushed
    assert f"1 repository or worktree inside it with work of its own ({place})" in found.reasons()


def test_a_commit_in_a_linked_worktree_is_seen(left: LeftBehind) -> None:
    left.agent("worktree", "add", "--quiet", "--detach", ".claude/worktrees/x")
    tip = left.commit(at=left.tree / ".claude/worktrees/x")
    found = left.look()
    assert found.tips == (("worktrees/x/HEAD", tip),)
    assert found.nested == ()


def test_a_commit_in_a_linked_worktree_that_was_deleted_is_seen(left: LeftBehind) -> None:
    left.agent("worktree", "add", "--quiet", "--detach", "../x")
    tip = left.commit(at=left.tree.parent / "x")
    left.agent("worktree", "lock", "../x")
    subprocess.run(["rm", "-rf", str(left.tree.parent / "x")], check=True)
    found = left.look()
    assert found.tips == (("worktrees/x/HEAD", tip),)
    assert found.nested == ()


def test_a_worktree_outside_that_needs_this_one_is_seen(left: LeftBehind) -> None:
    left.agent("worktree", "add", "--quiet", "-b", "wt", "../x")
    assert left.look().nested == (str(left.tree.parent / "x"),)


def test_a_worktree_that_points_to_somebody_elses_tree_is_not_looked_at(left: LeftBehind) -> None:
    left.agent("worktree", "add", "--quiet", "-b", "wt", "../x")
    (left.git_dir / "worktrees" / "x" / "gitdir").write_text(f"{left.folder / 'start' / '.git'}\n")
    assert left.look().nested == ()


def test_a_repository_inside_with_files_is_seen(left: LeftBehind) -> None:
    nested(left, "vendor/tool", "x.txt")
    found = left.look()
    assert (found.nested, found.untracked) == (("vendor/tool",), 1)


def test_a_repository_around_tracked_files_is_seen(left: LeftBehind) -> None:
    nested(left, "lib")
    left.commit(at=left.tree / "lib")
    (left.tree / "lib" / "work.txt").unlink()
    found = left.look()
    assert (found.nested, found.changed) == (("lib",), 0)


def test_a_repository_inside_with_nothing_in_it_does_not_count(left: LeftBehind) -> None:
    nested(left, "empty")
    assert not left.look()


def test_a_repository_in_an_ignored_folder_is_ignored(left: LeftBehind) -> None:
    nested(left, "build/pip/src", "x.txt")
    assert not left.look()


@pytest.fixture
def with_submodule(left: LeftBehind) -> LeftBehind:
    """The workdir, with a submodule that is checked out and pushed."""
    tool = left.folder / "tool.git"
    left.agent("clone", "--quiet", "--bare", str(left.remote), str(tool), at=left.folder)
    left.agent("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(tool), "tools/tool")
    left.agent("commit", "--quiet", "-m", "Tool")
    left.agent("push", "--quiet", "origin", "HEAD:main")
    left.fetch()
    return left


def test_a_submodule_as_it_was_checked_out_is_not_unsaved(with_submodule: LeftBehind) -> None:
    assert not with_submodule.look()


def changed_file(tool: Path, left: LeftBehind) -> None:
    (tool / "a.txt").write_text("changed\n")


def new_file(tool: Path, left: LeftBehind) -> None:
    (tool / "new.txt").touch()


def new_commit(tool: Path, left: LeftBehind) -> None:
    left.commit(at=tool)


def new_commit_elsewhere(tool: Path, left: LeftBehind) -> None:
    left.commit(at=tool)
    left.agent("branch", "mine", at=tool)
    left.agent("reset", "--quiet", "--hard", "HEAD~1", at=tool)


def stash(tool: Path, left: LeftBehind) -> None:
    changed_file(tool, left)
    left.agent("stash", at=tool)


def no_repository(tool: Path, left: LeftBehind) -> None:
    (tool / ".git").unlink()


@pytest.mark.parametrize("leave", [changed_file, new_file, new_commit, new_commit_elsewhere, stash, no_repository])
def test_work_in_a_submodule_is_seen(with_submodule: LeftBehind, leave: Callable[[Path, LeftBehind], None]) -> None:
    leave(with_submodule.tree / "tools/tool", with_submodule)
    assert with_submodule.look().nested == ("tools/tool",)


def test_a_commit_in_a_submodule_that_is_not_checked_out_is_seen(with_submodule: LeftBehind) -> None:
    new_commit_elsewhere(with_submodule.tree / "tools/tool", with_submodule)
    with_submodule.agent("submodule", "--quiet", "deinit", "tools/tool")
    assert with_submodule.look().nested == (".git/modules/tools/tool",)


def test_another_commit_of_a_submodule_that_is_staged_is_a_change(with_submodule: LeftBehind) -> None:
    left, tool = with_submodule, with_submodule.tree / "tools/tool"
    left.commit(at=tool)
    left.agent("push", "--quiet", "origin", "HEAD:main", at=tool)
    assert left.look().nested == ("tools/tool",)
    left.agent("add", "tools/tool")
    found = left.look()
    assert (found.changed, found.nested) == (1, ())


# --- Large files ----------------------------------------------------------------------------------------------------


def test_large_files_that_are_as_they_were_checked_out_are_not_changed(
    with_large_file: LeftBehind,
) -> None:
    os.utime(with_large_file.git_dir / "index", (1, 1))  # so that every file is compared
    assert not with_large_file.look()
    with_large_file.write("big.bin", "other\n")
    assert with_large_file.look().changed == 1


def test_commits_that_only_name_a_large_file_cannot_be_pushed(with_large_file: LeftBehind) -> None:
    with_large_file.write(".git/lfs/objects/ab/cd/abcd", "large\n")
    assert not with_large_file.look()
    with_large_file.commit()
    found = with_large_file.look()
    assert not found.can_be_pushed
    assert found.reasons()[-1] == "large files that commits only name"


# --- Sparse, shallow and partial ------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [[], ["--sparse-index"]])
@pytest.mark.parametrize("mode", ["--cone", "--no-cone"])
def test_files_outside_a_sparse_checkout_are_not_missing(left: LeftBehind, mode: str, index: list[str]) -> None:
    left.agent("sparse-checkout", "init", mode, *index)
    left.agent("sparse-checkout", "set", mode, *index, "lib" if mode == "--cone" else "/lib/")
    assert (left.tree / "a.txt").exists() == (mode == "--cone")
    assert not left.look()
    left.write("lib/c.txt", "changed\n")
    assert left.look().changed == 1


def test_files_that_were_made_outside_a_sparse_checkout_are_seen(left: LeftBehind) -> None:
    left.agent("sparse-checkout", "set", "--no-cone", "/lib/")
    assert not (left.tree / "a.txt").exists()
    left.write("a.txt", "changed\n")
    left.write("new.txt")
    found = left.look()
    assert (found.changed, found.untracked) == (1, 1)


def test_what_was_pushed_counts_as_unsaved_where_history_was_cut_off_here(left: LeftBehind) -> None:
    left.publish("1")
    far = left.publish("2")
    left.agent("fetch", "--quiet", "--depth=1", f"file://{left.remote}", "+refs/heads/*:refs/remotes/origin/*")
    assert (left.git_dir / "shallow").exists()
    left.agent("reset", "--quiet", "--hard", "origin/main")
    assert left.look() == Unsaved(tips=(("refs/heads/main", far),))
    tip = left.commit()
    assert left.look().tips == (("refs/heads/main", tip),)


def test_what_a_partial_clone_lacks_is_not_fetched_to_look(left: LeftBehind) -> None:
    left.publish()
    left.agent("config", "uploadpack.allowFilter", "true", at=left.remote)
    asked = left.trap()
    left.agent("fetch", "--quiet", "--filter=blob:none", f"file://{left.remote}", "main:refs/remotes/origin/main")
    left.agent("config", "extensions.partialClone", "origin")
    left.agent("config", "remote.origin.promisor", "true")
    left.agent("update-ref", "refs/heads/main", "refs/remotes/origin/main")
    left.agent("config", "remote.origin.url", f"ext::{asked.program}")
    left.agent("config", "protocol.ext.allow", "always")
    left.agent("config", "remote.origin.uploadpack", str(asked.program))
    found = left.look()
    assert found.damage is None
    assert found.changed == 1  # the file from afar was not checked out
    assert not asked.ran
