"""Workdirs that cannot be looked at count as unsaved."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from everturn.errors import Unavailable
from everturn.workdirs.inspection import inspect
from workdirs.left_behind import LeftBehind, nested

pytestmark = pytest.mark.slow


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
