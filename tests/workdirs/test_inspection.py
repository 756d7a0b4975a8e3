"""What an agent can leave in a workdir, and whether it is seen."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from everturn.errors import Unavailable
from everturn.workdirs.inspection import Unsaved, inspect
from workdirs.left_behind import LeftBehind, all_files, names

pytestmark = pytest.mark.slow

# --- Clean ----------------------------------------------------------------------------------------------------------


def test_a_fresh_workdir_has_nothing_unsaved(left: LeftBehind) -> None:
    assert left.look() == Unsaved()
    assert not left.look()
    assert left.look().reasons() == []


def test_looking_changes_nothing_and_leaves_nothing(left: LeftBehind) -> None:
    left.write("a.txt", "changed\n")
    left.agent("update-index", "--assume-unchanged", "b.txt")
    before = all_files(left.tree), all_files(left.cache)
    assert left.look()
    assert (all_files(left.tree), all_files(left.cache)) == before
    assert list(left.ours.iterdir()) == []


def test_ignored_files_are_never_unsaved(left: LeftBehind) -> None:
    left.write("build/out.o")
    left.write("x.log")
    left.write("lib/build/deep/out.o")
    assert not left.look()


def test_commits_that_only_the_reflog_knows_do_not_count(left: LeftBehind) -> None:
    left.commit()
    left.agent("reset", "--quiet", "--hard", "origin/main")
    assert not left.look()


def test_what_the_cache_fetched_later_is_not_unsaved(left: LeftBehind) -> None:
    tip = left.commit()
    left.agent("push", "--quiet", "origin", "HEAD:refs/heads/other")
    left.agent("update-ref", "-d", "refs/remotes/origin/other")
    assert left.look().tips == (("refs/heads/main", tip),)
    left.fetch()
    assert not left.look()


def test_a_stale_lock_of_the_index_is_in_nobodys_way(left: LeftBehind) -> None:
    (left.git_dir / "index.lock").touch()
    (left.git_dir / "HEAD.lock").touch()
    (left.git_dir / "refs" / "heads" / "main.lock").touch()
    assert not left.look()


def test_an_empty_repository_has_nothing_to_lose(left: LeftBehind) -> None:
    left.agent("update-ref", "-d", "refs/heads/main")
    left.agent("rm", "-r", "--quiet", "--cached", ".")
    for name in ("a.txt", "b.txt", "lib/c.txt", ".gitignore"):
        (left.tree / name).unlink()
    assert not left.look()


# --- Files ----------------------------------------------------------------------------------------------------------


def modified(left: LeftBehind) -> None:
    left.write("a.txt", "changed\n")


def same_size_at_once(left: LeftBehind) -> None:
    """Change a file in the second in which the index was written: by its times, it is still the same."""
    at = (1_700_000_000, 1_700_000_000)
    os.utime(left.tree / "a.txt", at)
    left.agent("update-index", "--refresh")
    left.write("a.txt", "z\n")
    os.utime(left.tree / "a.txt", at)
    os.utime(left.git_dir / "index", at)


def deleted(left: LeftBehind) -> None:
    (left.tree / "a.txt").unlink()


def staged(left: LeftBehind) -> None:
    left.write("a.txt", "changed\n")
    left.agent("add", "a.txt")


def staged_and_put_back(left: LeftBehind) -> None:
    staged(left)
    left.write("a.txt", "a\n")


def intended(left: LeftBehind) -> None:
    left.write("new.txt")
    left.agent("add", "--intent-to-add", "new.txt")


def made_executable(left: LeftBehind) -> None:
    (left.tree / "a.txt").chmod(0o755)


def linked_elsewhere(left: LeftBehind) -> None:
    deleted(left)
    (left.tree / "a.txt").symlink_to("/etc/hostname")


def folder_linked_elsewhere(left: LeftBehind) -> None:
    (left.tree / "lib").rename(left.folder / "lib")
    (left.tree / "lib").symlink_to(left.folder / "lib")


def assumed_unchanged(left: LeftBehind) -> None:
    left.agent("update-index", "--assume-unchanged", "a.txt", "b.txt")
    modified(left)


def skipped(left: LeftBehind) -> None:
    left.agent("update-index", "--skip-worktree", "a.txt")
    modified(left)


def assumed_and_skipped(left: LeftBehind) -> None:
    left.agent("update-index", "--skip-worktree", "a.txt")
    left.agent("update-index", "--assume-unchanged", "a.txt")
    modified(left)


def in_a_split_index(left: LeftBehind) -> None:
    left.agent("update-index", "--split-index")
    assert list(left.git_dir.glob("sharedindex.*"))
    modified(left)


def ignored_by_its_own_settings(left: LeftBehind) -> None:
    left.agent("config", "core.ignoreStat", "true")
    left.agent("config", "core.fileMode", "false")
    left.agent("config", "core.worktree", str(left.folder))
    made_executable(left)


def replaced_by_a_pipe(left: LeftBehind) -> None:
    deleted(left)
    os.mkfifo(left.tree / "a.txt")


CHANGES = [
    modified,
    same_size_at_once,
    deleted,
    staged,
    staged_and_put_back,
    intended,
    made_executable,
    linked_elsewhere,
    assumed_unchanged,
    skipped,
    assumed_and_skipped,
    in_a_split_index,
    ignored_by_its_own_settings,
    replaced_by_a_pipe,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_seen(left: LeftBehind, change: Callable[[LeftBehind], None]) -> None:
    change(left)
    found = left.look()
    assert (found.changed, found.tips, found.damage) == (1, (), None)
    assert found.reasons()[0] == "1 changed file"
    assert found.can_be_pushed


def test_a_folder_replaced_by_a_link_is_seen(left: LeftBehind) -> None:
    folder_linked_elsewhere(left)
    found = left.look()
    assert (found.changed, found.untracked) == (1, 1)


def untracked_file(left: LeftBehind) -> None:
    left.write("new.txt")


def odd_name(left: LeftBehind) -> None:
    left.write('a\nb\t"c"')


def name_that_is_no_utf8(left: LeftBehind) -> None:
    (Path(os.fsdecode(bytes(left.tree) + b"/\xff\xfe.txt"))).touch()


def name_like_an_option(left: LeftBehind) -> None:
    left.write("--help")


def other_case(left: LeftBehind) -> None:
    left.write("A.TXT")


def hidden_from_the_agents_status(left: LeftBehind) -> None:
    left.write("new.txt")
    left.agent("config", "status.showUntrackedFiles", "no")


def excluded_by_the_agent(left: LeftBehind) -> None:
    left.write("new.txt")
    (left.git_dir / "info" / "exclude").write_text("*\n")
    (left.folder / "everything").write_text("*\n")
    left.agent("config", "core.excludesFile", str(left.folder / "everything"))


def excluded_by_the_agents_user(left: LeftBehind) -> None:
    left.write("new.txt")
    ignore = Path.home() / ".config" / "git" / "ignore"
    ignore.parent.mkdir(parents=True)
    ignore.write_text("*\n")


def in_an_untracked_cache_that_lies(left: LeftBehind) -> None:
    left.agent("update-index", "--force-untracked-cache")
    left.agent("config", "core.untrackedCache", "true")
    left.agent("status")
    at = left.tree.stat()
    left.write("new.txt")
    os.utime(left.tree, ns=(at.st_atime_ns, at.st_mtime_ns))


def dangling_link(left: LeftBehind) -> None:
    (left.tree / "link").symlink_to("/no/such/file")


def huge_folder(left: LeftBehind) -> None:
    for number in range(2000):
        left.write(f"data/{number % 20}/{number}.bin", "")


UNTRACKED = [
    untracked_file,
    odd_name,
    name_that_is_no_utf8,
    name_like_an_option,
    other_case,
    hidden_from_the_agents_status,
    excluded_by_the_agent,
    excluded_by_the_agents_user,
    in_an_untracked_cache_that_lies,
    dangling_link,
    huge_folder,
]


@pytest.mark.parametrize("leave", UNTRACKED)
def test_an_untracked_file_is_seen(left: LeftBehind, leave: Callable[[LeftBehind], None]) -> None:
    leave(left)
    found = left.look()
    assert (found.changed, found.untracked, found.tips, found.damage) == (0, 1, (), None)
    assert found.reasons() == ["1 untracked file or folder"]


def test_what_our_own_rules_ignore_is_not_unsaved(left: LeftBehind) -> None:
    left.write(".claude/settings.local.json")
    with left.shadow(excludes=("settings.local.json",)) as shadow:
        assert not inspect(shadow, left.cache)


def test_a_folder_that_cannot_be_read_counts_as_unsaved(left: LeftBehind) -> None:
    left.write("secret/x").parent.chmod(0)
    try:
        found = left.look()
        assert found.untracked == 1 if os.geteuid() == 0 else "cannot be read" in (found.damage or "")
    finally:
        (left.tree / "secret").chmod(0o700)


def test_a_file_that_nobody_may_read_is_seen(left: LeftBehind) -> None:
    left.write("secret").chmod(0)
    assert left.look().untracked == 1


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


# --- Commits --------------------------------------------------------------------------------------------------------


def test_a_commit_that_was_not_pushed_is_seen(left: LeftBehind) -> None:
    tip = left.commit()
    found = left.look()
    assert found.tips == (("refs/heads/main", tip),)
    assert found.reasons() == ["1 ref that no remote has (refs/heads/main)"]


def test_a_commit_that_was_pushed_is_known_to_be_at_the_remote_only(left: LeftBehind) -> None:
    tip = left.commit()
    left.agent("push", "--quiet", "origin", "HEAD:refs/heads/topic")
    found = left.look()
    assert not found
    assert found.pushed_only == (("refs/heads/main", tip),)


def test_a_commit_on_top_of_one_that_was_pushed_is_seen(left: LeftBehind) -> None:
    left.commit()
    left.agent("push", "--quiet", "origin", "HEAD:refs/heads/topic")
    left.agent("branch", "topic")
    tip = left.commit()
    found = left.look()
    assert found.tips == (("refs/heads/main", tip),)
    assert names(found.pushed_only) == ["refs/heads/topic"]


def test_a_commit_that_only_another_remote_has_is_seen(left: LeftBehind) -> None:
    left.commit()
    left.agent("update-ref", "refs/remotes/fork/main", "HEAD")
    assert names(left.look().tips) == ["refs/heads/main"]


def test_a_detached_head_is_seen(left: LeftBehind) -> None:
    left.agent("checkout", "--quiet", "--detach")
    assert not left.look()
    tip = left.commit()
    assert left.look().tips == (("HEAD", tip),)


def test_an_unborn_branch_with_files_is_seen(left: LeftBehind) -> None:
    left.agent("checkout", "--quiet", "--orphan", "fresh")
    found = left.look()
    assert (found.changed, found.damage) == (4, None)


ODD_REFS = [
    "refs/heads/-x",
    "refs/heads/feature/x",
    "refs/heads/ünïcode-✨",
    "refs/heads/MAIN",
    "refs/heads/a;rm -rf",
    "refs/heads/$(touch x)",
    "refs/tags/v1",
    "refs/notes/commits",
    "refs/everturn/own",
    "refs/remotes-but-not",
]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ref", ODD_REFS)
def test_every_kind_of_ref_is_seen(left: LeftBehind, ref: str, packed: bool) -> None:
    tip = left.commit()
    place = left.git_dir / ref
    if packed:
        packed_refs = left.git_dir / "packed-refs"
        lines = [line for line in packed_refs.read_text().splitlines() if not line.startswith("#")]
        packed_refs.write_text("".join(f"{line}\n" for line in [*lines, f"{tip} {ref}"]), encoding="utf-8")
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{tip}\n")
    left.agent("reset", "--quiet", "--hard", "origin/main")
    assert left.look().tips == ((ref, tip),)


def test_a_ref_whose_name_is_no_utf8_is_seen(left: LeftBehind) -> None:
    tip = left.commit()
    (left.git_dir / "refs" / "heads" / os.fsdecode(b"\xff")).write_text(tip)
    left.agent("reset", "--quiet", "--hard", "origin/main")
    (reason,) = left.look().reasons()
    assert reason == "1 ref that no remote has (refs/heads/\\xff)"


def test_a_loose_ref_goes_before_a_packed_one(left: LeftBehind) -> None:
    old = left.agent("rev-parse", "HEAD")
    left.agent("pack-refs", "--all")
    tip = left.commit()
    assert f"{old} refs/heads/main" in (left.git_dir / "packed-refs").read_text()
    assert left.look().tips == (("refs/heads/main", tip),)


def test_an_annotated_tag_is_seen_and_one_that_the_cache_has_is_not(left: LeftBehind) -> None:
    left.agent("tag", "-a", "-m", "One", "v1")
    assert names(left.look().tips) == ["refs/tags/v1"]
    left.agent("push", "--quiet", "origin", "v1")
    left.fetch()
    assert not left.look()


def test_a_tag_of_a_file_is_seen(left: LeftBehind) -> None:
    blob = left.agent("hash-object", "-w", "--stdin", text="only here\n")
    left.agent("tag", "thing", blob)
    assert left.look().tips == (("refs/tags/thing", blob),)


def test_symbolic_refs_are_followed_to_where_the_commit_is(left: LeftBehind) -> None:
    left.agent("symbolic-ref", "refs/heads/alias", "refs/heads/main")
    left.agent("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main")
    left.agent("symbolic-ref", "refs/heads/nowhere", "refs/heads/gone")
    left.agent("symbolic-ref", "HEAD", "refs/heads/alias")
    assert not left.look()
    left.commit()
    assert names(left.look().tips) == ["refs/heads/main"]


def test_a_head_that_is_a_link_as_in_old_times_is_understood(left: LeftBehind) -> None:
    (left.git_dir / "HEAD").unlink()
    (left.git_dir / "HEAD").symlink_to("refs/heads/main")
    assert not left.look()


def test_all_entries_of_the_stash_are_seen(left: LeftBehind) -> None:
    entries = []
    for text in ("one\n", "two\n"):
        left.write("a.txt", text)
        left.agent("stash")
        entries.append(left.agent("rev-parse", "refs/stash"))
    found = left.look()
    assert found.stash == 2
    assert dict(found.tips) == {"stash@{0}": entries[1], "stash@{1}": entries[0]}
    assert found.reasons() == ["2 entries in the stash"]


def test_a_stash_without_its_log_is_seen(left: LeftBehind) -> None:
    left.write("a.txt", "one\n")
    left.agent("stash")
    (left.git_dir / "logs" / "refs" / "stash").unlink()
    assert left.look().stash == 1


def test_replaced_commits_and_lying_graphs_do_not_hide_a_commit(left: LeftBehind) -> None:
    tip = left.commit()
    left.agent("replace", tip, "refs/remotes/origin/main")
    assert dict(left.look().tips)["refs/heads/main"] == tip


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


def nested(left: LeftBehind, name: str, *files: str) -> Path:
    left.agent("init", "--quiet", name)
    for file in files:
        left.write(f"{name}/{file}")
    return left.tree / name


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


# --- Damage ---------------------------------------------------------------------------------------------------------


def other_git(left: LeftBehind) -> Path:
    return left.folder / "start" / ".git"


def no_git(left: LeftBehind) -> None:
    left.git_dir.rename(left.folder / "away")


def git_is_a_file(left: LeftBehind) -> None:
    no_git(left)
    left.git_dir.write_text(f"gitdir: {other_git(left)}\n")


def git_is_a_link(left: LeftBehind) -> None:
    no_git(left)
    left.git_dir.symlink_to(other_git(left))


def tree_is_a_link(left: LeftBehind) -> None:
    left.tree.rename(left.folder / "away")
    left.tree.symlink_to(left.folder / "start")


def tree_is_gone(left: LeftBehind) -> None:
    left.tree.rename(left.folder / "away")


def part_of_another(left: LeftBehind) -> None:
    (left.git_dir / "commondir").write_text(f"{other_git(left)}\n")


def objects_are_a_link(left: LeftBehind) -> None:
    (left.git_dir / "objects").rename(left.folder / "away")
    (left.git_dir / "objects").symlink_to(left.folder / "away")


def an_object_is_a_link(left: LeftBehind) -> None:
    (left.git_dir / "objects" / "ab").mkdir(exist_ok=True)
    (left.git_dir / "objects" / "ab" / ("0" * 38)).symlink_to("/etc/hostname")


def an_object_is_a_pipe(left: LeftBehind) -> None:
    os.mkfifo(left.git_dir / "objects" / "info" / "commit-graph")


def borrows_from_elsewhere(left: LeftBehind) -> None:
    (left.git_dir / "objects" / "info" / "alternates").write_text(f"{other_git(left) / 'objects'}\n")


def refs_are_a_link(left: LeftBehind) -> None:
    (left.git_dir / "refs").rename(left.folder / "away")
    (left.git_dir / "refs").symlink_to(left.folder / "away")


def a_ref_is_a_link(left: LeftBehind) -> None:
    (left.git_dir / "refs" / "heads" / "x").symlink_to("/etc/hostname")


def a_ref_is_a_pipe(left: LeftBehind) -> None:
    os.mkfifo(left.git_dir / "refs" / "heads" / "x")


def a_ref_is_empty(left: LeftBehind) -> None:
    (left.git_dir / "refs" / "heads" / "main").write_text("")


def a_ref_is_zeros(left: LeftBehind) -> None:
    (left.git_dir / "refs" / "heads" / "main").write_text("0" * 40)


def a_ref_is_huge(left: LeftBehind) -> None:
    (left.git_dir / "refs" / "heads" / "main").write_text("0" * 100_000)


def a_ref_names_nothing(left: LeftBehind) -> None:
    (left.git_dir / "refs" / "heads" / "x").write_text("1" * 40)


def a_ref_of_another_kind(left: LeftBehind) -> None:
    (left.git_dir / "refs" / "heads" / "x").write_text("1" * 64)


def packed_refs_are_garbage(left: LeftBehind) -> None:
    (left.git_dir / "packed-refs").write_bytes(b"\0\1garbage")


def packed_refs_are_a_pipe(left: LeftBehind) -> None:
    (left.git_dir / "packed-refs").unlink(missing_ok=True)
    os.mkfifo(left.git_dir / "packed-refs")


def packed_refs_are_endless(left: LeftBehind) -> None:
    with (left.git_dir / "packed-refs").open("ab") as file:
        file.truncate(1 << 40)


def no_head(left: LeftBehind) -> None:
    (left.git_dir / "HEAD").unlink()


def head_is_garbage(left: LeftBehind) -> None:
    (left.git_dir / "HEAD").write_bytes(b"\xff\xfe garbage")


def head_goes_round(left: LeftBehind) -> None:
    (left.git_dir / "refs" / "heads" / "main").write_text("ref: refs/heads/main\n")


def reftable(left: LeftBehind) -> None:
    (left.git_dir / "reftable").mkdir()


def index_is_garbage(left: LeftBehind) -> None:
    (left.git_dir / "index").write_bytes(b"DIRC garbage")


def index_is_cut_off(left: LeftBehind) -> None:
    content = (left.git_dir / "index").read_bytes()
    (left.git_dir / "index").write_bytes(content[: len(content) // 2])


def index_is_a_pipe(left: LeftBehind) -> None:
    (left.git_dir / "index").unlink()
    os.mkfifo(left.git_dir / "index")


def index_is_a_link(left: LeftBehind) -> None:
    (left.git_dir / "index").rename(left.folder / "away")
    (left.git_dir / "index").symlink_to(left.folder / "away")


def shared_index_is_gone(left: LeftBehind) -> None:
    left.agent("update-index", "--split-index")
    for path in left.git_dir.glob("sharedindex.*"):
        path.unlink()


def commit_is_cut_off(left: LeftBehind) -> None:
    tip = left.commit()
    path = left.git_dir / "objects" / tip[:2] / tip[2:]
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:5])


def tree_object_is_gone(left: LeftBehind) -> None:
    left.commit()
    tree = left.agent("rev-parse", "HEAD^{tree}")
    (left.git_dir / "objects" / tree[:2] / tree[2:]).unlink()


def parent_is_gone(left: LeftBehind) -> None:
    parent = left.commit()
    left.commit()
    (left.git_dir / "objects" / parent[:2] / parent[2:]).unlink()


def ignore_file_is_a_pipe(left: LeftBehind) -> None:
    os.mkfifo(left.tree / "lib" / ".gitignore")


def attributes_are_a_pipe(left: LeftBehind) -> None:
    os.mkfifo(left.tree / "lib" / ".gitattributes")


def head_inside_is_a_pipe(left: LeftBehind) -> None:
    inside = nested(left, "inside", "x.txt") / ".git" / "HEAD"
    inside.unlink()
    os.mkfifo(inside)


def gitfile_leads_to_a_pipe(left: LeftBehind) -> None:
    elsewhere = left.folder / "elsewhere"
    elsewhere.mkdir()
    os.mkfifo(elsewhere / "HEAD")
    left.write("inside/.git", f"gitdir: {elsewhere}\n")


def link_leads_to_a_pipe(left: LeftBehind) -> None:
    gitfile_leads_to_a_pipe(left)
    (left.tree / "inside" / ".git").unlink()
    (left.tree / "inside" / ".git").symlink_to(left.folder / "elsewhere")


@pytest.mark.parametrize(
    "damage",
    [
        no_git,
        git_is_a_file,
        git_is_a_link,
        tree_is_a_link,
        tree_is_gone,
        part_of_another,
        objects_are_a_link,
        an_object_is_a_link,
        an_object_is_a_pipe,
        borrows_from_elsewhere,
        refs_are_a_link,
        a_ref_is_a_link,
        a_ref_is_a_pipe,
        a_ref_is_empty,
        a_ref_is_zeros,
        a_ref_is_huge,
        a_ref_names_nothing,
        a_ref_of_another_kind,
        packed_refs_are_garbage,
        packed_refs_are_a_pipe,
        packed_refs_are_endless,
        no_head,
        head_is_garbage,
        head_goes_round,
        reftable,
        index_is_garbage,
        index_is_cut_off,
        index_is_a_pipe,
        index_is_a_link,
        shared_index_is_gone,
        commit_is_cut_off,
        tree_object_is_gone,
        parent_is_gone,
        ignore_file_is_a_pipe,
        attributes_are_a_pipe,
        head_inside_is_a_pipe,
        gitfile_leads_to_a_pipe,
        link_leads_to_a_pipe,
    ],
)
def test_what_cannot_be_looked_at_counts_as_unsaved(left: LeftBehind, damage: Callable[[LeftBehind], None]) -> None:
    damage(left)
    found = left.look()
    assert found
    assert found.damage
    assert not found.can_be_pushed
    assert found.reasons()[-1] == f"it could not be looked at: {found.damage}"
    assert list(left.ours.iterdir()) == []


def test_pipes_and_sockets_that_git_does_not_read_are_in_nobodys_way(left: LeftBehind) -> None:
    os.mkfifo(left.tree / "pipe")
    os.mkfifo(left.tree / "lib" / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(left.tree / "s"))
        assert not left.look()


def test_a_look_that_is_stopped_says_so(left: LeftBehind) -> None:
    stop = threading.Event()
    stop.set()
    with left.shadow() as shadow, pytest.raises(Unavailable, match="stopped"):
        inspect(shadow, left.cache, stop)


# --- What git writes differently from what it has stored ------------------------------------------------------------


def test_what_attributes_make_of_files_is_nobodys_work_but_a_change_of_it_is(left: LeftBehind) -> None:
    left.agent("config", "core.autocrlf", "false")
    (left.tree / "ends.txt").write_bytes(b"one\r\ntwo\r\n")
    left.agent("add", "ends.txt")
    (left.tree / ".gitattributes").write_text("*.txt text\n")
    left.agent("add", ".gitattributes")
    left.agent("commit", "--quiet", "-m", "Attributes that do not fit")
    left.agent("push", "--quiet", "origin", "HEAD:main")
    (left.tree / "ends.txt").write_bytes(b"one\r\ntwo\r\n")
    os.utime(left.tree / "ends.txt", (1, 1))
    assert left.look().changed == 0
    (left.tree / "ends.txt").write_bytes(b"one\r\nTWO\r\n")
    assert left.look().changed == 1
