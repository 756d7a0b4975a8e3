"""Whatever was hurt while nobody looked, opening works again, and what an agent has left is never lost.

Each hurt is tried for a conversation that goes on and for one that begins, with unsaved work in the workdir.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from workdirs.scene import MINE, Scene, cut, scribble
from workdirs.yard import Origin, Yard, git

Hurt = Callable[[Scene], None]

LOCKS = ("index.lock", "HEAD.lock", "packed-refs.lock", "shallow.lock", "config.lock", "refs/heads/feature.lock")


@pytest.fixture
def scene(yard: Yard, origin: Origin) -> Scene:
    made = Scene(yard, origin)
    made.work()
    return made


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _swap_for_file(path: Path) -> None:
    _delete(path)
    path.write_text("garbage")


def _swap_for_link(path: Path) -> None:
    aside = path.parent.parent / "elsewhere"
    path.rename(aside)
    path.symlink_to(aside)


def _stale_locks(git_dir: Path) -> None:
    for name in LOCKS:
        scribble(git_dir / name, b"")
    scribble(git_dir / "objects/pack/tmp_pack_x", b"PACK")
    scribble(git_dir / "objects/ab/tmp_obj_x", b"")


def _forget_ref(scene: Scene) -> None:
    packed = scene.cache / "packed-refs"
    packed.write_text("".join(line for line in packed.read_text().splitlines(keepends=True) if "main" not in line))


def _ref_to_nothing(scene: Scene) -> None:
    scribble(scene.cache / "refs/remotes/origin/feature", b"1" * 40 + b"\n")


def _initializing(scene: Scene) -> None:
    folder = scene.tree / ".git/worktrees/half"
    folder.mkdir(parents=True)
    (folder / "locked").write_text("initializing")
    (folder / "gitdir").write_text(f"{scene.tree}/half/.git\n")
    (folder / "HEAD").write_text("0" * 40 + "\n")
    (folder / "commondir").write_text("../..\n")


CACHE: dict[str, Hurt] = {
    "folder deleted": lambda scene: _delete(scene.cache.parent),
    "repository deleted": lambda scene: _delete(scene.cache),
    "swapped for a file": lambda scene: _swap_for_file(scene.cache),
    "pack empty": lambda scene: cut(scene.packs()[0], 0),
    "pack cut in its head": lambda scene: cut(scene.packs()[0], 10),
    "pack cut in the middle": lambda scene: cut(scene.packs()[0], 200),
    "pack cut by a byte": lambda scene: cut(scene.packs()[0], -1),
    "small pack cut": lambda scene: cut(scene.packs()[-1], -30),
    "pack deleted": lambda scene: _delete(scene.packs()[0]),
    "all packs deleted": lambda scene: [_delete(pack) for pack in scene.packs()] and None,
    "index of a pack deleted": lambda scene: _delete(scene.packs("idx")[-1]),
    "index of a pack garbage": lambda scene: scribble(scene.packs("idx")[0], b"\xfftOc" + b"\x07" * 1200),
    "index of a pack cut": lambda scene: cut(scene.packs("idx")[0], -7),
    "packed refs deleted": lambda scene: _delete(scene.cache / "packed-refs"),
    "packed refs garbage": lambda scene: scribble(scene.cache / "packed-refs"),
    "packed refs cut": lambda scene: cut(scene.cache / "packed-refs", -25),
    "a packed ref missing": _forget_ref,
    "a loose ref garbage": lambda scene: scribble(scene.cache / "refs/remotes/origin/main"),
    "a loose ref empty": lambda scene: scribble(scene.cache / "refs/remotes/origin/main", b""),
    "a ref to nothing": _ref_to_nothing,
    "HEAD garbage": lambda scene: scribble(scene.cache / "HEAD"),
    "HEAD deleted": lambda scene: _delete(scene.cache / "HEAD"),
    "config garbage": lambda scene: scribble(scene.cache / "config"),
    "config deleted": lambda scene: _delete(scene.cache / "config"),
    "shallow garbage": lambda scene: scribble(scene.cache / "shallow"),
    "commit graph garbage": lambda scene: scribble(scene.cache / "objects/info/commit-graph"),
    "multi-pack index garbage": lambda scene: scribble(scene.cache / "objects/pack/multi-pack-index"),
    "borrows from nowhere": lambda scene: scribble(scene.cache / "objects/info/alternates", b"/nowhere/objects\n"),
    "objects a file": lambda scene: _swap_for_file(scene.cache / "objects"),
    "objects a link": lambda scene: _swap_for_link(scene.cache / "objects"),
    "refs a file": lambda scene: _swap_for_file(scene.cache / "refs"),
    "refs a link": lambda scene: _swap_for_link(scene.cache / "refs"),
    "stale locks": lambda scene: _stale_locks(scene.cache),
    "record deleted": lambda scene: _delete(next(scene.yard.root.caches.glob("*.json"))),
    "record cut": lambda scene: cut(next(scene.yard.root.caches.glob("*.json")), 30),
    "leftovers": lambda scene: (
        [scribble(scene.yard.root.path / place / "half/repo.git/HEAD") for place in ("trash", "unfinished")] and None
    ),
}

TREE: dict[str, Hurt] = {
    "record deleted": lambda scene: _delete(scene.yard.root.records / f"{scene.name}.json"),
    "record cut": lambda scene: cut(scene.yard.root.records / f"{scene.name}.json", 40),
    "record empty": lambda scene: cut(scene.yard.root.records / f"{scene.name}.json", 0),
    "record of something else": lambda scene: scribble(
        scene.yard.root.records / f"{scene.name}.json", b'{"name": 7, "repo": []}'
    ),
    "record of odd kinds": lambda scene: scribble(
        scene.yard.root.records / f"{scene.name}.json",
        b'{"name": "%s", "cache": 7, "work_key": "x", "is_settled": "x"}' % scene.name.encode(),
    ),
    "stale locks": lambda scene: _stale_locks(scene.tree / ".git"),
    "locked: initializing": _initializing,
    "index deleted": lambda scene: _delete(scene.tree / ".git/index"),
    "index garbage": lambda scene: scribble(scene.tree / ".git/index"),
    "index cut": lambda scene: cut(scene.tree / ".git/index", 50),
    "git folder deleted": lambda scene: _delete(scene.tree / ".git"),
    "git folder a file": lambda scene: _swap_for_file(scene.tree / ".git"),
    "git folder a link": lambda scene: _swap_for_link(scene.tree / ".git"),
    "HEAD empty": lambda scene: scribble(scene.tree / ".git/HEAD", b""),
    "HEAD deleted": lambda scene: _delete(scene.tree / ".git/HEAD"),
    "packed refs garbage": lambda scene: scribble(scene.tree / ".git/packed-refs"),
    "branch empty": lambda scene: scribble(scene.tree / ".git/refs/heads/feature", b""),
    "branch to nothing": lambda scene: scribble(scene.tree / ".git/refs/heads/feature", b"1" * 40),
    "objects deleted": lambda scene: _delete(scene.tree / ".git/objects"),
    "alternates deleted": lambda scene: _delete(scene.tree / ".git/objects/info/alternates"),
    "an object empty": lambda scene: (
        [scribble(path, b"") for path in (scene.tree / ".git/objects").glob("??/*")] and None
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("keep", [True, False], ids=["goes on", "begins"])
@pytest.mark.parametrize("hurt", CACHE)
def test_a_hurt_cache_heals(scene: Scene, hurt: str, keep: bool) -> None:
    CACHE[hurt](scene)
    workdir = scene.open(keep=keep)
    scene.assert_nothing_lost()
    scene.assert_sound(cache=not keep)
    if keep:
        assert (workdir.outcome, workdir.warnings) == ("kept", [])
        assert all(scene.holders(name) == [scene.tree] for name in MINE)
    else:
        scene.assert_shows(scene.origin.has("refs/heads/feature"))
        git(scene.yard.quarantined()[0] / "tree", "log", "--stat")
    latest = scene.origin.push({"z.txt": "z\n"}, "feature")
    assert len(scene.open(keep=False).warnings) == int(keep)
    scene.assert_sound()
    scene.assert_shows(latest)
    scene.assert_nothing_lost()


@pytest.mark.slow
@pytest.mark.parametrize("keep", [True, False], ids=["goes on", "begins"])
@pytest.mark.parametrize("hurt", TREE)
def test_a_hurt_workdir_is_made_anew_or_left_as_it_is(scene: Scene, hurt: str, keep: bool) -> None:
    TREE[hurt](scene)
    workdir = scene.open(keep=keep)
    scene.assert_nothing_lost()
    if not keep or workdir.outcome != "kept":
        scene.assert_sound()
        scene.assert_shows(scene.origin.has("refs/heads/feature"))
        assert len(workdir.warnings) == 1
    assert scene.open(keep=False).outcome in ("new", "reused")
    scene.assert_sound()
    scene.assert_nothing_lost()


@pytest.mark.slow
@pytest.mark.parametrize("keep", [True, False], ids=["goes on", "begins"])
@pytest.mark.parametrize("instead", ["nothing", "file", "link"])
def test_a_workdir_that_was_deleted_by_hand_is_there_again(
    scene: Scene, tmp_path: Path, keep: bool, instead: str
) -> None:
    shutil.rmtree(scene.tree)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "thesis.txt").write_text("not ours")
    if instead == "file":
        scene.tree.write_text("garbage")
    if instead == "link":
        scene.tree.symlink_to(elsewhere)
    scene.open(keep=keep)
    scene.assert_sound()
    scene.assert_shows(scene.origin.has("refs/heads/feature"))
    assert [path.name for path in elsewhere.iterdir()] == ["thesis.txt"]
