"""Unsaved work is brought to safety whole, or the workdir stays."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from everturn.errors import Conflict, EverturnError, NotFound, Unavailable
from everturn.git.runner import Git, with_config
from everturn.git.shadow import Shadow
from everturn.settings import inherited_environment
from everturn.workdirs import rescue
from everturn.workdirs.inspection import Unsaved, inspect
from everturn.workdirs.rescue import keep_pushed, push_rescue, quarantine
from workdirs.left_behind import FILES, LeftBehind, all_files, names

pytestmark = pytest.mark.slow

BASE = "refs/everturn/rescue/shop-1/t1"


def push(left: LeftBehind, url: str = "") -> list[str]:
    with left.shadow() as shadow:
        found = inspect(shadow, left.cache)
        return push_rescue(shadow, url or str(left.remote), "shop-1", "t1", found)


def content(left: LeftBehind, ref: str) -> dict[str, str]:
    """Return the files of a commit at the remote."""
    listed = left.agent("ls-tree", "-r", "-z", "--name-only", ref, at=left.remote)
    return {name: left.agent("show", f"{ref}:{name}", at=left.remote) for name in listed.split("\0") if name}


def plain(files: dict[str, str]) -> dict[str, str]:
    return {name: text.strip() for name, text in files.items()}


# --- Pushing --------------------------------------------------------------------------------------------------------


def test_files_go_into_a_commit_on_top_of_head(left: LeftBehind) -> None:
    head = left.agent("rev-parse", "HEAD")
    left.write("a.txt", "changed\n")
    (left.tree / "b.txt").unlink()
    left.write("new/deep/x.txt", "new\n")
    left.write("build/out.o", "ignored\n")
    before = all_files(left.tree)
    (ref,) = push(left)
    assert ref == f"{BASE}/1-files"
    expected = {**FILES, "a.txt": "changed", "new/deep/x.txt": "new"}
    del expected["b.txt"]
    assert content(left, ref) == plain(expected)
    assert left.agent("rev-parse", f"{ref}^@", at=left.remote) == head
    assert left.agent("show", "-s", "--format=%an <%ae>%n%s", ref, at=left.remote) == (
        "Everturn <everturn@example.invalid>\nUnsaved files of shop-1, t1"
    )
    assert all_files(left.tree) == before


def test_names_of_files_come_through_whatever_they_are(left: LeftBehind) -> None:
    odd = ["--all", "a\nb", "tab\there", '"quoted"', "ünïcode", ":(top)x", "*", "a.TXT", "-", "x "]
    for name in odd:
        left.write(name)
    Path(os.fsdecode(bytes(left.tree) + b"/\xff")).touch()
    (ref,) = push(left)
    listed = left.agent("ls-tree", "-r", "-z", "--name-only", ref, at=left.remote).split("\0")
    assert set(listed) >= {*odd, os.fsdecode(b"\xff")}


def test_what_is_only_in_the_index_is_kept_beside_it(left: LeftBehind) -> None:
    left.write("a.txt", "staged\n")
    left.agent("add", "a.txt")
    left.write("a.txt", "in the tree\n")
    (ref,) = push(left)
    assert content(left, ref)["a.txt"] == "in the tree"
    assert content(left, f"{ref}^2")["a.txt"] == "staged"


def test_files_of_a_repository_without_commits_are_pushed(left: LeftBehind) -> None:
    left.agent("checkout", "--quiet", "--orphan", "fresh")
    (ref,) = push(left)
    assert content(left, ref) == plain(FILES)
    assert left.agent("rev-list", "--count", ref, at=left.remote) == "1"


def test_links_stay_links_and_lead_nowhere(left: LeftBehind) -> None:
    (left.tree / "link").symlink_to("/etc/hostname")
    (left.tree / "lib").rename(left.folder / "lib")
    (left.tree / "lib").symlink_to(left.folder / "lib")
    (ref,) = push(left)
    found = content(left, ref)
    assert (found["link"], found["lib"]) == ("/etc/hostname", str(left.folder / "lib"))
    assert "lib/c.txt" not in found


def test_pipes_are_left_out(left: LeftBehind) -> None:
    (left.tree / "a.txt").unlink()
    os.mkfifo(left.tree / "a.txt")
    (ref,) = push(left)
    assert "a.txt" not in content(left, ref)


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree", "--intent-to-add"])
def test_flags_in_the_index_hide_nothing(left: LeftBehind, flag: str) -> None:
    left.write("new.txt", "changed\n")
    left.agent(*(["add", flag, "new.txt"] if flag == "--intent-to-add" else ["update-index", flag, "a.txt"]))
    left.write("a.txt", "changed\n")
    (ref,) = push(left)
    assert content(left, ref) == plain({**FILES, "a.txt": "changed", "new.txt": "changed"})


def test_files_outside_a_sparse_checkout_are_in_the_commit(left: LeftBehind) -> None:
    left.agent("sparse-checkout", "set", "--no-cone", "/lib/")
    left.write("lib/c.txt", "changed\n")
    (ref,) = push(left)
    assert content(left, ref) == plain({**FILES, "lib/c.txt": "changed"})


def test_a_large_file_goes_into_the_commit_itself(with_large_file: LeftBehind) -> None:
    with_large_file.write("big.bin", "large\nand larger\n")
    (ref,) = push(with_large_file)
    assert content(with_large_file, ref)["big.bin"] == "large\nand larger"


def test_a_merge_with_conflicts_is_pushed_as_it_stands(left: LeftBehind) -> None:
    left.agent("checkout", "--quiet", "-b", "side")
    left.write("a.txt", "side\n")
    left.agent("commit", "--quiet", "-am", "Side")
    left.agent("checkout", "--quiet", "main")
    left.write("a.txt", "main\n")
    left.agent("commit", "--quiet", "-am", "Main")
    with pytest.raises(subprocess.CalledProcessError):
        left.agent("merge", "side")
    files, *others = push(left)
    assert "<<<<<<< HEAD\nmain\n=======\nside" in content(left, files)["a.txt"]
    pushed = {left.agent("rev-parse", ref, at=left.remote) for ref in others}
    assert pushed == {left.agent("rev-parse", branch) for branch in ("main", "side")}


def test_commits_stashes_and_tags_are_pushed_each_once(left: LeftBehind) -> None:
    left.write("a.txt", "one\n")
    left.agent("stash")
    left.write("a.txt", "two\n")
    left.agent("stash")
    tip = left.commit()
    left.agent("branch", "feature/x")
    left.agent("branch", "feature-x")
    left.agent("tag", "-a", "-m", "One", "v1")
    with left.shadow() as shadow:
        found = inspect(shadow, left.cache)
        refs = push_rescue(shadow, str(left.remote), "shop-1", "t1", found)
    pushed = [left.agent("rev-parse", ref, at=left.remote) for ref in refs]
    assert sorted(pushed) == sorted({commit for _, commit in found.tips})
    assert len(pushed) == 4
    assert tip in pushed
    assert all(re.fullmatch(BASE + r"/\d-[A-Za-z0-9-]+", ref) for ref in refs)


def test_very_many_tips_are_all_pushed(left: LeftBehind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rescue, "PUSHED_AT_ONCE", 3)
    for number in range(7):
        left.agent("checkout", "--quiet", "-b", f"b{number}", "origin/main")
        left.commit(str(number))
    assert len(push(left)) == 7


def test_nothing_unsaved_pushes_nothing(left: LeftBehind) -> None:
    assert push(left) == []
    assert left.agent("for-each-ref", "refs/everturn", at=left.remote) == ""


def test_what_commits_cannot_hold_is_not_pushed_in_part(left: LeftBehind) -> None:
    left.commit()
    left.agent("init", "--quiet", "inside")
    left.write("inside/x.txt")
    with pytest.raises(Conflict, match=r"cannot be pushed: 1 repository or worktree inside it .*\(inside\)"):
        push(left)
    (left.git_dir / "HEAD").unlink()
    with pytest.raises(Conflict, match="could not be looked at"):
        push(left)
    assert left.agent("for-each-ref", "refs/everturn", at=left.remote) == ""


def hook(left: LeftBehind, name: str, body: str) -> None:
    path = left.remote / "hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_a_remote_that_refuses_is_an_error(left: LeftBehind) -> None:
    left.write("new.txt")
    hook(left, "pre-receive", "exit 1")
    with pytest.raises(Unavailable, match="git push failed"):
        push(left)


def test_a_remote_that_takes_one_of_two_is_an_error(left: LeftBehind) -> None:
    left.commit()
    left.write("new.txt")
    hook(left, "update", 'case "$1" in *files) exit 1;; esac')
    with pytest.raises(Unavailable, match="git push failed"):
        push(left)


def test_a_remote_that_forgets_what_it_took_is_found_out(left: LeftBehind) -> None:
    left.write("new.txt")
    hook(left, "post-receive", "while read old new ref; do git update-ref -d $ref; done")
    with pytest.raises(Unavailable, match=f"{BASE}/1-files is not at the remote"):
        push(left)


def test_a_remote_that_is_gone_is_an_error(left: LeftBehind) -> None:
    left.write("new.txt")
    with pytest.raises((NotFound, Unavailable)):
        push(left, str(left.folder / "nowhere.git"))


def test_a_commit_that_lacks_an_object_is_not_taken_for_pushed(left: LeftBehind) -> None:
    left.commit()
    blob = left.agent("rev-parse", "HEAD:work.txt")
    (left.git_dir / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(EverturnError):
        push(left)


def test_what_the_remote_needs_to_know_is_told_to_git_where_it_talks_to_it(left: LeftBehind) -> None:
    left.write("new.txt")

    def told(base: Mapping[str, str]) -> dict[str, str]:
        trace = {"GIT_TRACE": str(left.folder / "trace")}
        return {**with_config({f"url.{left.remote}.insteadOf": "shop:"}, base), **trace}

    git = Git(inherited_environment(), 20, credentials=told)
    with Shadow.of(git, left.tree, left.cache / "objects", left.ours) as shadow:
        push_rescue(shadow, "shop:", "shop-1", "t1", inspect(shadow, left.cache))
    trace = (left.folder / "trace").read_text()
    assert "git push" in trace
    assert "git ls-remote" in trace
    assert "commit-tree" not in trace


# --- Keeping in the cache -------------------------------------------------------------------------------------------


def keep(left: LeftBehind) -> list[str]:
    with left.shadow() as shadow:
        found = inspect(shadow, left.cache)
        return keep_pushed(left.git, shadow, left.cache, "shop-1", found.pushed_only)


def test_what_was_pushed_stays_when_its_branch_is_gone(left: LeftBehind) -> None:
    left.agent("checkout", "--quiet", "-b", "feature/x")
    tip = left.commit()
    left.agent("push", "--quiet", "origin", "HEAD")
    assert keep(left) == [f"refs/everturn/kept/shop-1/feature-x-{tip[:12]}"]
    left.agent("push", "--quiet", "origin", "--delete", "feature/x")  # it was squashed and merged
    left.agent("fetch", "--quiet", "--prune", "origin")
    assert left.look() == Unsaved()
    left.agent("gc", "--quiet", "--prune=now", at=left.cache)
    left.agent("fsck", "--strict", "--connectivity-only", at=left.cache)
    assert left.agent("show", f"{tip}:work.txt", at=left.cache) == "Work"


def test_what_was_pushed_and_is_not_kept_is_unsaved_when_its_branch_is_gone(left: LeftBehind) -> None:
    left.commit()
    left.agent("push", "--quiet", "origin", "HEAD:topic")
    left.agent("push", "--quiet", "origin", "--delete", "topic")
    assert names(left.look().tips) == ["refs/heads/main"]


def test_odd_names_are_kept_under_plain_ones(left: LeftBehind) -> None:
    tip = left.commit()
    left.agent("push", "--quiet", "origin", "HEAD:topic")
    for ref in ("-x", "a.lock", "feature/x", "é", "x" * 200):
        (left.git_dir / "refs" / "heads" / ref).parent.mkdir(exist_ok=True)
        (left.git_dir / "refs" / "heads" / ref).write_text(tip)
    kept = keep(left)
    assert all(re.fullmatch(r"refs/everturn/kept/shop-1/[A-Za-z0-9-]{1,60}-[0-9a-f]{12}", ref) for ref in kept)
    assert left.agent("for-each-ref", "--format=%(refname)", "refs/everturn", at=left.cache).split() == sorted(kept)


def test_the_oldest_protocol_is_good_enough_to_keep_commits(left: LeftBehind) -> None:
    tip = left.commit()
    left.agent("push", "--quiet", "origin", "HEAD:topic")
    left.agent("reset", "--quiet", "--hard", "origin/main")  # so that the commit is not HEAD's
    (left.folder / "gitconfig").write_text("[protocol]\n\tversion = 0\n")
    git = Git(inherited_environment(), 20, left.folder / "gitconfig")
    with left.shadow() as shadow:
        assert keep_pushed(git, shadow, left.cache, "shop-1", (("refs/heads/topic", tip),))


def test_keeping_twice_and_keeping_nothing_change_nothing(left: LeftBehind) -> None:
    assert keep(left) == []
    left.commit()
    left.agent("push", "--quiet", "origin", "HEAD:topic")
    (ref,) = keep(left)
    before = left.agent("for-each-ref", at=left.cache)
    assert keep(left) == []
    with left.shadow() as shadow:
        tip = left.agent("rev-parse", "HEAD")
        assert keep_pushed(left.git, shadow, left.cache, "shop-1", (("refs/heads/main", tip),)) == [ref]
    assert left.agent("for-each-ref", at=left.cache) == before


# --- Quarantine -----------------------------------------------------------------------------------------------------

RECORD = {"name": "shop-1", "repo": "https://example.org/shop", "branch": "feature/x", "work_key": "issue:7"}


def put_away(left: LeftBehind, reasons: tuple[str, ...] = ("1 changed file",)) -> Path:
    return quarantine(left.folder / "quarantine", left.tree, RECORD, reasons, "20260101-120000")


def test_quarantine_takes_everything_and_says_why(left: LeftBehind) -> None:
    left.write("a.txt", "changed\n")
    left.write("build/out.o", "ignored\n")
    before = {Path(name).relative_to(left.tree): facts for name, facts in all_files(left.tree).items()}
    folder = put_away(left)
    assert folder == left.folder / "quarantine" / "shop-1-20260101-120000"
    assert not left.tree.exists()
    after = {Path(name).relative_to(folder / "tree"): facts for name, facts in all_files(folder / "tree").items()}
    assert after == before
    assert json.loads((folder / "record.json").read_text()) == RECORD
    note = (folder / "NOTE.md").read_text()
    for expected in ("- 1 changed file", "issue:7", "feature/x", str(left.tree), f"rm -rf {folder}"):
        assert expected in note


def test_two_at_the_same_time_have_folders_of_their_own(left: LeftBehind) -> None:
    first = put_away(left)
    left.tree.mkdir()
    second = put_away(left)
    left.tree.mkdir()
    third = put_away(left)
    assert [path.name for path in (first, second, third)] == [
        "shop-1-20260101-120000",
        "shop-1-20260101-120000-2",
        "shop-1-20260101-120000-3",
    ]


def test_a_workdir_that_cannot_be_moved_stays_where_it_is(left: LeftBehind, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(Unavailable, match="could not be moved into quarantine: Invalid cross-device link"):
        put_away(left)
    assert left.look() == Unsaved()
    assert list((left.folder / "quarantine").iterdir()) == []


def test_what_cannot_be_looked_at_can_be_put_away(left: LeftBehind) -> None:
    left.git_dir.rename(left.folder / "away")
    left.git_dir.symlink_to("/nowhere")
    assert (put_away(left, tuple(left.look().reasons())) / "tree" / "a.txt").exists()


def commands(folder: Path, containing: str) -> str:
    """Return those commands of the note."""
    lines = [line.strip() for line in (folder / "NOTE.md").read_text().splitlines() if line.startswith("    ")]
    return "\n".join(line for line in lines if containing in line)


def shell(left: LeftBehind, text: str) -> str:
    environment = {**inherited_environment(), "HOME": str(left.folder / "home")}
    done = subprocess.run(["sh", "-ec", text], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_commands_in_the_note_get_the_work_back(left: LeftBehind) -> None:
    tip = left.commit()
    left.agent("worktree", "add", "--quiet", "-b", "wt", ".claude/worktrees/x")
    left.write("a.txt", "changed\n")
    folder = put_away(left)
    assert "[core]" in shell(left, commands(folder, ".git/config"))
    assert " M a.txt" in shell(left, commands(folder, "status") + " --short")
    assert tip in shell(left, commands(folder, "--not --remotes"))
    shell(left, commands(folder, "worktree repair"))
    assert left.agent("status", "--short", at=folder / "tree/.claude/worktrees/x") == ""
    shell(left, commands(folder, "push origin"))
    assert left.agent("rev-parse", "refs/heads/rescued", at=left.remote) == tip
    shell(left, f"{commands(folder, 'mv ')}\n{commands(folder, 'repack')}")
    left.cache.rename(left.folder / "no-cache")
    rescued = left.folder / "home" / "rescued"
    assert (rescued / "a.txt").read_text() == "changed\n"
    left.agent("fsck", "--strict", at=rescued)
    shell(left, commands(folder, "rm -rf"))
    assert not folder.exists()


def test_a_note_can_be_written_whatever_things_are_called(left: LeftBehind, tmp_path: Path) -> None:
    odd = tmp_path / "it's a $(touch x) folder"
    left.folder.rename(odd)
    moved = LeftBehind(odd)
    (moved.git_dir / "objects" / "info" / "alternates").write_text(f"{moved.cache / 'objects'}\n")
    moved.agent("config", "remote.origin.url", str(moved.remote))
    (moved.git_dir / "refs" / "heads" / os.fsdecode(b"\xff")).write_text(moved.commit())
    folder = put_away(moved, tuple(moved.look().reasons()))
    assert "refs/heads/\\xff" in (folder / "NOTE.md").read_text()
    shell(moved, commands(folder, "push origin"))
    assert moved.agent("rev-parse", "refs/heads/rescued", at=moved.remote)
