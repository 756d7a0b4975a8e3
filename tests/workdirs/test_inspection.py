"""What an agent can leave in a workdir, and whether it is seen."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from everturn.workdirs.inspection import Unsaved
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
