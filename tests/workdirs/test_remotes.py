"""Remotes change: they move, rename, delete, rewrite, and are down. Workdirs and what is in them outlast that."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from everturn.errors import EverturnError, NotFound, Unavailable
from everturn.model import WorkItem
from everturn.workdirs import cache
from git.https_git import serve
from workdirs.scene import Scene, cut, fsck
from workdirs.yard import Origin, Yard, clean, git, work

pytestmark = pytest.mark.slow


@pytest.fixture
def scene(yard: Yard, origin: Origin) -> Scene:
    return Scene(yard, origin)


def test_a_remote_that_has_moved_is_not_found_and_the_workdir_stays(scene: Scene) -> None:
    scene.work()
    scene.origin.path.rename(scene.origin.path.with_name("moved"))
    for _ in range(2):
        with pytest.raises(NotFound, match="does not appear to be a git repository"):
            scene.open(keep=False)
        assert scene.open(keep=True).outcome == "kept"
    assert scene.yard.counted("cache_repairs_total") == 0
    scene.assert_nothing_lost()
    scene.origin.path.with_name("moved").rename(scene.origin.path)
    assert scene.open(keep=False).outcome == "new"
    scene.assert_nothing_lost()


def test_a_redirect_is_not_followed_and_said_to_be_one(yard: Yard, origin: Origin) -> None:
    with serve(origin.path.parent, None) as host:
        host.redirects["/"] = "http://127.0.0.1:9/"
        with pytest.raises(NotFound, match="302") as caught:
            yard.workdirs().open(WorkItem("fixer", f"{host.url}/shop", 7))
    assert "give its new URL" in caught.value.hint
    assert not list(yard.root.trees.iterdir())


def test_a_default_branch_that_was_renamed_is_followed(yard: Yard, origin: Origin) -> None:
    path = yard.workdirs().open(work(origin)).path
    git(origin.path, "branch", "-m", "main", "trunk")
    git(origin.path, "symbolic-ref", "HEAD", "refs/heads/trunk")
    workdir = yard.workdirs().open(work(origin, 8))
    assert git(workdir.path, "branch", "--show-current") == "trunk"
    assert git(workdir.path, "rev-parse", "--abbrev-ref", "origin/HEAD") == "origin/trunk"
    assert git(path, "log", "--format=%s", "origin/main")
    assert not fsck(path)


def test_a_default_branch_that_is_not_there_begins_a_branch_of_its_own(yard: Yard, origin: Origin) -> None:
    git(origin.path, "symbolic-ref", "HEAD", "refs/heads/nowhere")
    path = yard.workdirs().open(work(origin), "main").path
    assert git(path, "rev-parse", "HEAD") == origin.has("refs/heads/main")


@pytest.mark.parametrize("has_work", [False, True])
def test_a_branch_that_vanished_begins_anew_at_the_default_branch(scene: Scene, has_work: bool) -> None:
    if has_work:
        scene.work()
    scene.origin.delete("feature")
    kept = scene.open(keep=True)
    assert (kept.outcome, kept.warnings) == ("kept", [])
    begun = scene.open(keep=False)
    assert [("has no branch feature any more" in warning) for warning in begun.warnings] == [
        True,
        *[False] * has_work,
    ]
    assert git(scene.tree, "branch", "--show-current") == "feature"
    scene.assert_shows(scene.origin.has("refs/heads/main"))
    assert scene.open(keep=False).warnings == []
    if has_work:
        scene.assert_nothing_lost()


def test_a_branch_that_was_never_there_is_nothing_to_warn_of(scene: Scene) -> None:
    for _ in range(2):
        workdir = scene.open(keep=False, branch="new")
        assert workdir.warnings == []


@pytest.mark.parametrize("has_work", [False, True])
def test_a_branch_that_was_pushed_by_force_is_shown_as_it_is_now(scene: Scene, has_work: bool) -> None:
    if has_work:
        scene.work()
    before = git(scene.neighbour, "rev-parse", "HEAD")
    scene.origin.delete("feature")
    git(scene.origin.path, "gc", "--quiet", "--prune=now")
    now = scene.origin.push({"other.txt": "other\n"}, "feature")
    scene.open(keep=False)
    scene.assert_shows(now)
    scene.assert_sound()
    assert git(scene.neighbour, "show", f"{before}:x.txt")
    if has_work:
        scene.assert_nothing_lost()


def test_history_that_the_remote_forgot_stays_for_those_who_borrow_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "PACKS", 2)
    scene.work()
    for number in range(4):
        scene.origin.delete("feature")
        git(scene.origin.path, "gc", "--quiet", "--prune=now")
        scene.origin.push({f"{number}.txt": f"{number}\n"}, "feature")
        scene.yard.workdirs().open(WorkItem(f"agent{number}", scene.origin.url, 7), "feature").close()
    assert len(scene.packs()) <= 3
    assert scene.open(keep=True).outcome == "kept"
    scene.assert_sound()
    assert git(scene.tree, "log", "--stat")


@pytest.mark.parametrize(("first", "then"), [("feature", "feature/x"), ("feature/x", "feature")])
@pytest.mark.parametrize("what", ["refs/heads", "refs/pull"])
def test_a_branch_in_the_place_of_another_ones_folder_is_fetched(
    yard: Yard, origin: Origin, first: str, then: str, what: str
) -> None:
    old = origin.push({"one.txt": "1\n"}, ref=f"{what}/{first}")
    path = yard.workdirs().open(work(origin), f"{what}/{first}").path
    git(origin.path, "update-ref", "-d", f"{what}/{first}")
    new = origin.push({"two.txt": "2\n"}, ref=f"{what}/{then}")
    for item in (work(origin, agent="tester"), work(origin, agent="other")):
        opened = yard.workdirs().open(item, f"{what}/{then}").path
        assert git(opened, "rev-parse", "HEAD") == new
        assert clean(opened)
        assert not fsck(opened)
    assert git(path, "rev-parse", "HEAD") == old
    assert not fsck(path)
    assert not fsck(yard.cache)


def test_two_branches_of_which_one_is_the_others_folder_are_worked_on_in_turn(yard: Yard, origin: Origin) -> None:
    for names in (["feature"], ["feature/x", "feature/y"], ["feature"]):
        for name in ("feature", "feature/x", "feature/y"):
            if origin.has(f"refs/heads/{name}"):
                origin.delete(name)
        for name in names:
            commit = origin.push({f"{name}.txt": name}, name)
            workdir = yard.workdirs().open(work(origin), name, keep=False)
            assert git(workdir.path, "rev-parse", "HEAD", f"origin/{name}").split() == [commit] * 2
            assert not fsck(workdir.path)
            workdir.close()


def test_a_ref_with_a_name_that_ends_a_line_in_unicode_is_only_a_name(yard: Yard, origin: Origin) -> None:
    names = ["a\u2028b", "c\u0085d", "e\u2029f"]
    for name in names:
        origin.push({"odd.txt": name}, name)
    for name in [None, *names]:
        workdir = yard.workdirs().open(work(origin), name)
        assert git(workdir.path, "branch", "--show-current") == (name or "main")
        assert not fsck(workdir.path)


def test_a_remote_that_is_down_does_not_cost_the_cache(scene: Scene) -> None:
    scene.origin.path.rename(scene.origin.path.with_name("down"))
    packs = scene.packs()
    for _ in range(2):
        with pytest.raises(EverturnError):
            scene.open(keep=False)
    assert scene.packs() == packs
    assert scene.yard.counted("cache_repairs_total") == 0


def test_what_needs_no_remote_is_mended_without_it(scene: Scene) -> None:
    scene.work()
    scene.packs("idx")[0].unlink()
    shutil.rmtree(scene.origin.path)
    workdir = scene.open(keep=True)
    assert (workdir.outcome, workdir.warnings) == ("kept", [])
    scene.assert_sound()
    scene.assert_nothing_lost()


def test_what_needs_the_remote_waits_for_it_and_is_left_as_it_is(scene: Scene) -> None:
    scene.work()
    cut(scene.packs()[0], 100)
    away = scene.origin.path.with_name("down")
    scene.origin.path.rename(away)
    for keep in (True, False, True):
        with pytest.raises((NotFound, Unavailable)):
            scene.open(keep=keep)
        assert scene.holders("mine.txt") == [scene.tree]
    away.rename(scene.origin.path)
    assert scene.open(keep=True).outcome == "kept"
    scene.open(keep=False)
    scene.assert_sound()
    scene.assert_nothing_lost()


def test_what_no_remote_has_any_more_is_taken_out_of_a_damaged_cache(scene: Scene) -> None:
    """The good packs go on, and from the bad one comes what was before the damage."""
    scene.work()
    scene.origin.delete("feature")
    git(scene.origin.path, "gc", "--quiet", "--prune=now")
    scene.packs("idx")[0].unlink()
    cut(scene.packs()[-1], -1)  # its checksum: all of its objects can still be read
    workdir = scene.open(keep=True)
    assert (workdir.outcome, workdir.warnings) == ("kept", [])
    assert not fsck(scene.tree)
    assert not fsck(scene.neighbour)
    assert not list(scene.cache.parent.glob("damaged-*"))


def test_a_mending_that_was_killed_is_finished(scene: Scene, tmp_path: Path) -> None:
    scene.work()
    scene.origin.delete("feature")
    git(scene.origin.path, "gc", "--quiet", "--prune=now")
    scene.cache.rename(scene.cache.parent / "damaged-x")
    assert scene.open(keep=True).outcome == "kept"
    assert not fsck(scene.tree)
    assert not fsck(scene.neighbour)
    assert not list(scene.cache.parent.glob("damaged-*"))
