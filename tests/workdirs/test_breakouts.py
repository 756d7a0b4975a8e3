"""What an agent leaves in its workdir reaches nothing outside it, and keeps nobody from opening the workdir again.

Here the agent writes in its own workdir only, as one in a sandbox does, and knows git's formats well.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from everturn.git.deleting import remove
from everturn.git.runner import Git
from everturn.model import RepositoryOptions
from everturn.settings import inherited_environment
from everturn.workdirs.records import WorkdirRecord
from workdirs.scene import scribble
from workdirs.yard import Origin, Yard, clean, git, work

pytestmark = pytest.mark.slow

REGULAR = 0o100644


@pytest.fixture(autouse=True)
def cleared(yard: Yard) -> Iterator[None]:
    """Whoever deletes the folder of the tests would stumble."""
    yield
    remove(yard.root.path)


def write_index(tree: Path, entries: dict[str, str]) -> None:
    """Write an index that says of these files that they are what these blobs are, and have not changed since."""
    body = struct.pack(">4sII", b"DIRC", 2, len(entries))
    for name, blob in sorted(entries.items(), key=lambda entry: os.fsencode(entry[0])):
        found = (tree / name).lstat()
        times = (int(found.st_ctime), found.st_ctime_ns % 10**9, int(found.st_mtime), found.st_mtime_ns % 10**9)
        facts = (found.st_dev, found.st_ino, REGULAR, found.st_uid, found.st_gid, found.st_size)
        encoded = os.fsencode(name)
        entry = struct.pack(">10I", *(each & 0xFFFFFFFF for each in (*times, *facts)))
        entry += bytes.fromhex(blob) + struct.pack(">H", min(len(encoded), 0xFFF)) + encoded
        body += entry + b"\0" * (8 - len(entry) % 8)
    index = tree / ".git" / "index"
    index.write_bytes(body + hashlib.sha1(body, usedforsecurity=False).digest())
    os.utime(index, (2**31 - 1, 2**31 - 1))  # no file in it is younger


def entries_of(tree: Path) -> dict[str, str]:
    lines = git(tree, "ls-files", "--stage").splitlines()
    return {line.split("\t")[1]: line.split()[1] for line in lines}


def commit_of(tree: Path, path: str, blob: str) -> str:
    """Return a commit that has one more file than HEAD, at a path that git itself would not take."""
    value, kind, mode = blob, "blob", "100644"
    *folders, name = path.split("/")
    for folder in [name, *reversed(folders)][:-1]:
        value, kind, mode = git(tree, "mktree", text=f"{mode} {kind} {value}\t{folder}\n"), "tree", "040000"
    line = f"{mode} {kind} {value}\t{folders[0]}"
    top = git(tree, "mktree", text="\n".join([git(tree, "ls-tree", "HEAD"), line, ""]))
    return git(tree, "commit-tree", "-p", "HEAD", "-m", "Hostile", top)


def opened(yard: Yard, origin: Origin, *, keep: bool = False, how: str = "quarantine") -> Path:
    workdir = yard.workdirs(how=how).open(work(origin), "main", keep=keep)
    workdir.close()
    return workdir.path


# --- The index ------------------------------------------------------------------------------------------------------


def test_a_change_that_the_index_denies_does_not_reach_the_next_conversation(yard: Yard, origin: Origin) -> None:
    path = opened(yard, origin)
    told = entries_of(path)
    (path / "a.txt").write_text("evil\n")
    write_index(path, told)
    assert clean(path)  # so git believes it
    assert (opened(yard, origin) / "a.txt").read_text() == "a\n"


def test_a_change_within_the_second_of_the_checkout_does_not_stay(yard: Yard, origin: Origin) -> None:
    for _ in range(3):
        (opened(yard, origin, how="push") / "a.txt").write_text("b\n")
        assert (opened(yard, origin, how="push") / "a.txt").read_text() == "a\n"


@pytest.mark.parametrize("how", ["quarantine", "push"])
@pytest.mark.parametrize("absolute", [False, True])
def test_an_index_that_names_a_file_outside_does_not_take_it_along(
    yard: Yard, origin: Origin, tmp_path: Path, how: str, absolute: bool
) -> None:
    path = opened(yard, origin)
    victim = tmp_path / "outside" / "x"
    scribble(victim, b"outside\n")
    name = str(victim) if absolute else os.path.relpath(victim, path)
    blob = git(path, "hash-object", "-w", str(victim))
    told = entries_of(path)
    if not absolute:
        commit = commit_of(path, name, blob)
        git(path, "update-ref", "--no-deref", "HEAD", commit)
        git(path, "update-ref", "refs/remotes/origin/mine", commit)
    write_index(path, {**told, name: blob})
    opened(yard, origin, how=how)
    assert victim.read_bytes() == b"outside\n"


@pytest.mark.parametrize("where", ["hooks/post-checkout", "config"])
def test_an_index_that_names_a_file_of_git_does_not_take_it_along(yard: Yard, origin: Origin, where: str) -> None:
    path = opened(yard, origin)
    if where != "config":
        scribble(path / ".git" / where, b"x")
    name = f".git/{where}"
    blob = git(path, "hash-object", "-w", str(path / name))
    commit = commit_of(path, name, blob)
    told = entries_of(path)
    git(path, "update-ref", "--no-deref", "HEAD", commit)
    git(path, "update-ref", "refs/remotes/origin/mine", commit)
    write_index(path, {**told, name: blob})
    assert clean(opened(yard, origin))


def test_a_git_folder_that_is_written_while_we_are_at_work_is_not_obeyed(
    yard: Yard, origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something of the agent's is still alive in its container, and puts everything back as soon as it is gone."""
    origin.push({".gitattributes": "*.txt filter=x\n"})
    path = opened(yard, origin)
    origin.push({"a.txt": "new\n"})
    trap = f'[filter "x"]\n\tsmudge = touch {tmp_path}/sprung; cat\n'
    program = tmp_path / "programs" / "git"
    lines = [f"[ -d {path}/.git ] && printf '{trap}' >> {path}/.git/config", f'exec {shutil.which("git")} "$@"']
    scribble(program, "\n".join(["#!/bin/sh", *lines, ""]).encode())
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    yard.git = Git(inherited_environment(), timeout_s=60)
    opened(yard, origin)
    assert (path / "a.txt").read_text() == "new\n"
    assert not (tmp_path / "sprung").exists()


# --- What there is no end to ----------------------------------------------------------------------------------------


def dig(folder: Path, depth: int, name: str = "d") -> None:
    """Make folders in folders, deeper than a path may be long, with a file that git ignores in the last one."""
    folder.mkdir(parents=True, exist_ok=True)
    place = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=place)
        below = os.open(name, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(os.open("x.o", os.O_CREAT | os.O_WRONLY, dir_fd=place))
    os.close(place)


def circle_of_links(tree: Path) -> None:
    (tree / "sub").mkdir()
    (tree / "sub/.git").symlink_to(".git")


def repository_behind_a_circle(tree: Path) -> None:
    scribble(tree / "sub/.git", b"gitdir: l/x\n")
    (tree / "sub/l").symlink_to("l")


def worktree_behind_a_circle(tree: Path) -> None:
    repository_behind_a_circle(tree)
    scribble(tree / ".git/worktrees/w/gitdir", os.fsencode(tree / "sub/.git"))
    scribble(tree / ".git/worktrees/w/HEAD", b"ref: refs/heads/main\n")


def folder_that_is_a_circle(tree: Path) -> None:
    (tree / "lib/b.txt").unlink()
    (tree / "lib").rmdir()
    (tree / "lib").symlink_to("lib")


ENDLESS = {
    "a circle of links": circle_of_links,
    "a repository behind a circle": repository_behind_a_circle,
    "a worktree behind a circle": worktree_behind_a_circle,
    "a folder that is a circle": folder_that_is_a_circle,
    "deep": lambda tree: dig(tree, 1200),
    "deep in .git": lambda tree: dig(tree / ".git", 1200),
    "deep among large files": lambda tree: dig(tree / ".git/lfs/objects", 1200),
    "deeper than a path": lambda tree: dig(tree / ".git", 2200),
}


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("left", ENDLESS)
def test_what_has_no_end_keeps_nobody_from_opening_the_workdir(
    yard: Yard, origin: Origin, left: str, keep: bool
) -> None:
    path = opened(yard, origin)
    ENDLESS[left](path)
    opened(yard, origin, keep=keep)
    assert (opened(yard, origin) / "lib/b.txt").read_text() == "b\n"
    for kept in yard.quarantined():
        yard.root.discard(kept)
    yard.root.empty_trash()
    assert not list((yard.root.path / "trash").iterdir())
    assert not list((yard.root.path / "unfinished").iterdir())


def test_a_repository_that_is_deep_and_never_clean_can_be_opened(yard: Yard, origin: Origin) -> None:
    value, kind, mode = git(origin.path, "hash-object", "-w", "--stdin", text="one\r\n"), "blob", "100644"
    for name in ["x.txt", *["d"] * 1100]:
        value, kind, mode = git(origin.path, "mktree", text=f"{mode} {kind} {value}\t{name}\n"), "tree", "040000"
    attributes = git(origin.path, "hash-object", "-w", "--stdin", text="* text\n")
    lines = f"{git(origin.path, 'ls-tree', value)}\n100644 blob {attributes}\t.gitattributes\n"
    commit = git(origin.path, "commit-tree", "-m", "Deep", git(origin.path, "mktree", text=lines))
    git(origin.path, "update-ref", "refs/heads/main", commit)
    for _ in range(2):
        assert git(opened(yard, origin), "rev-parse", "HEAD") == commit
    assert not yard.quarantined()
    assert not list((yard.root.path / "unfinished").iterdir())


# --- What nobody may write to ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0, 0o500])
@pytest.mark.parametrize("where", ["", ".git", ".git/objects", "lib", "build", "build/deep/er"])
def test_a_folder_that_nobody_may_write_to_keeps_nobody_from_opening_the_workdir(
    yard: Yard, origin: Origin, where: str, mode: int
) -> None:
    """Permissions do not count for root; as anybody else, they do."""
    path = opened(yard, origin)
    scribble(path / where / "x.o")
    (path / where).chmod(mode)
    origin.push({"lib/b.txt": "new\n", "build/y": "y\n"})
    assert (opened(yard, origin) / "lib/b.txt").read_text() == "new\n"
    assert clean(path)
    for kept in yard.quarantined():
        yard.root.discard(kept)
    yard.root.discard(path)
    yard.root.empty_trash()
    assert not list((yard.root.path / "trash").iterdir())


def test_deleting_leaves_the_mode_of_a_file_that_has_another_name_outside(
    yard: Yard, origin: Origin, tmp_path: Path
) -> None:
    path = opened(yard, origin)
    victim = tmp_path / "victim"
    scribble(victim)
    victim.chmod(0o400)
    (path / "lib/x.o").hardlink_to(victim)
    (path / "lib").chmod(0o500)
    yard.root.discard(path)
    yard.root.empty_trash()
    assert victim.stat().st_mode & 0o777 == 0o400


# --- Where history ends ---------------------------------------------------------------------------------------------


def test_where_an_agent_says_that_history_ends_it_does_not_for_others(yard: Yard, origin: Origin) -> None:
    path = opened(yard, origin)
    git(path, "commit", "--quiet", "--allow-empty", "-m", "Mine")
    mine = git(path, "rev-parse", "HEAD")
    git(path, "update-ref", "refs/remotes/origin/mine", mine)
    scribble(path / ".git/shallow", f"{mine}\n".encode())
    opened(yard, origin)
    kept = [folder / "tree" for folder in yard.quarantined()]
    (place,) = [each for each in (yard.cache, *kept) if mine in git(each, "for-each-ref", "--format=%(objectname)")]
    (place / ".git/shallow").unlink(missing_ok=True)
    git(place, "push", "--quiet", "--force", str(origin.path), f"{mine}:refs/heads/main")
    other = yard.workdirs().open(work(origin, agent="other"), "main")
    assert git(other.path, "log", "--format=%s") == "Mine\nChange a.txt, lib/b.txt, .gitignore"
    assert not (yard.cache / "shallow").exists()


def test_what_was_pushed_from_a_shallow_workdir_is_kept(yard: Yard, origin: Origin) -> None:
    for number in range(3):
        origin.push({"n.txt": str(number)})
    origin.url = f"file://{origin.path}"
    yard.options[origin.url] = RepositoryOptions(depth=1)
    path = opened(yard, origin)
    assert (path / ".git/shallow").exists()
    git(path, "commit", "--quiet", "--allow-empty", "-m", "Mine")
    git(path, "push", "--quiet", "origin", "HEAD:mine")
    mine = git(path, "rev-parse", "HEAD")
    origin.delete("mine")
    opened(yard, origin)
    assert not yard.quarantined()
    assert mine in git(yard.cache, "for-each-ref", "--format=%(objectname)", "refs/everturn/kept")


# --- What is noted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"cache": "../../outside"},
        {"cache": "/outside"},
        {"last_used_at": 10**400},
        {"last_used_at": float("nan")},
        {"last_used_at": float("inf")},
        {"size_bytes": 10**30},
    ],
    ids=str,
)
def test_a_record_that_nobody_of_ours_wrote_is_none(yard: Yard, origin: Origin, changed: dict[str, object]) -> None:
    opened(yard, origin)
    (record,) = WorkdirRecord.all(yard.root)
    yard.root.write_record(record.file(yard.root, record.name), {**record.facts(), **changed})
    assert WorkdirRecord.read(yard.root, record.name) is None
    assert (opened(yard, origin) / "a.txt").exists()


def test_a_pipe_where_large_files_are_configured_keeps_nobody_waiting(yard: Yard, origin: Origin) -> None:
    path = opened(yard, origin)
    os.mkfifo(path / ".lfsconfig")
    opened(yard, origin)
    assert len(yard.quarantined()) == 1


def test_a_repository_whose_path_has_a_line_in_it_is_read_from_nowhere_else(
    yard: Yard, origin: Origin, tmp_path: Path
) -> None:
    path = opened(yard, origin)
    git(tmp_path, "init", "--quiet", "private")
    place = path / "x\n" / str(tmp_path / "private").lstrip("/")
    place.mkdir(parents=True)
    git(place, "init", "--quiet")
    git(place, "commit", "--quiet", "--allow-empty", "-m", "Mine")
    git(path, "update-index", "--add", "--cacheinfo", f"160000,{git(place, 'rev-parse', 'HEAD')},x")
    opened(yard, origin)
    assert len(yard.quarantined()) == 1
