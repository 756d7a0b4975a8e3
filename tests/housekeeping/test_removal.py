"""A workdir goes if nothing in it would be lost, a cache if nobody needs it. Else they stay, and it is said why."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from everturn.clock import Ids
from everturn.errors import NotFound
from everturn.housekeeping.removal import Fate, processes_in
from everturn.settings import inherited_environment
from everturn.workdirs.records import CacheRecord, WorkdirRecord
from everturn.workdirs.root import Root
from housekeeping.ground import DAY_S, Ground, as_json
from polling import wait_until

pytestmark = pytest.mark.slow


def has_sleeper(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], cwd=folder, env=inherited_environment()
    )


def commit(ground: Ground, workdir: WorkdirRecord) -> str:
    (ground.tree(workdir) / "a.txt").write_text("more\n")
    ground.agent(workdir, "commit", "--quiet", "--all", "--message", "Two")
    return ground.agent(workdir, "rev-parse", "HEAD")


def test_a_process_with_an_odd_name_can_be_shown(tmp_path: Path) -> None:
    program = tmp_path / os.fsdecode(b"x\x1b[2J\n\xff")
    program.symlink_to(shutil.which("sleep") or "")
    with subprocess.Popen([program, "60"], cwd=tmp_path, env=inherited_environment()) as process:
        wait_until(lambda: process.pid in processes_in([tmp_path]), "the process is there")
        assert processes_in([tmp_path])[process.pid].isprintable()
        process.kill()


# --- Workdirs -----------------------------------------------------------------------------------------------------


def test_a_workdir_with_everything_saved_goes_and_its_lock_stays(ground: Ground) -> None:
    workdir = ground.open()
    fate = ground.removal().remove(workdir.name, "expired")
    assert (fate.kind, fate.name, fate.action, fate.is_gone) == ("workdir", workdir.name, "removed", True)
    assert fate.freed_bytes > 0
    assert ground.names("trees") == ground.names("records") == []
    assert f"{workdir.name}.lock" in ground.names("locks")
    wait_until(lambda: not ground.names("trash"), "the trash is empty")
    assert ground.count("everturn_workdirs_removed_total", reason="expired") == 1


def test_what_was_ignored_does_not_keep_a_workdir(ground: Ground) -> None:
    workdir = ground.open()
    ground.build(workdir)
    assert ground.removal().remove(workdir.name, "expired").action == "removed"


@pytest.mark.parametrize("force", [False, True])
def test_a_workdir_with_a_run_in_it_stays_even_if_forced(ground: Ground, force: bool) -> None:
    run = ground.workdirs.open(ground.work())
    fate = ground.removal().remove(run.name, "reset", force=force)
    assert (fate.action, fate.reasons) == ("kept", ("a run is at work in it",))
    run.close()
    assert ground.removal().remove(run.name, "reset", force=force).is_gone


def test_a_workdir_with_a_process_in_it_stays_unless_forced(ground: Ground) -> None:
    workdir = ground.open()
    with has_sleeper(ground.tree(workdir) / "lib") as process:
        try:
            wait_until(lambda: processes_in([ground.tree(workdir)]), "the process is there")
            fate = ground.removal().remove(workdir.name, "reset")
            forced = ground.removal().remove(workdir.name, "reset", force=True)
        finally:
            process.kill()
    assert fate.action == "kept"
    assert f"({process.pid})" in fate.reasons[0]
    assert forced.action == "removed"


def test_a_process_in_a_linked_worktree_elsewhere_keeps_the_workdir(ground: Ground, tmp_path: Path) -> None:
    workdir = ground.open()
    elsewhere = tmp_path / "elsewhere"
    ground.agent(workdir, "worktree", "add", "--quiet", "--detach", str(elsewhere))
    with has_sleeper(elsewhere) as process:
        try:
            wait_until(lambda: processes_in([elsewhere]), "the process is there")
            fate = ground.removal().remove(workdir.name, "expired")
        finally:
            process.kill()
    assert fate.action == "kept"
    assert f"({process.pid})" in fate.reasons[0]


def test_a_worktree_that_was_deleted_or_never_was_one_is_no_matter(ground: Ground, tmp_path: Path) -> None:
    workdir = ground.open()
    elsewhere = tmp_path / "elsewhere"
    ground.agent(workdir, "worktree", "add", "--quiet", "--detach", str(elsewhere))
    shutil.rmtree(elsewhere)
    lie = ground.tree(workdir) / ".git" / "worktrees" / "lie"
    lie.mkdir()
    (lie / "gitdir").write_text("/.git\n")  # whoever says so would have every process keep the workdir
    asked: list[Path] = []
    ground.removal(find=lambda folders: asked.extend(folders) or {}).remove(workdir.name, "expired")  # type: ignore[func-returns-value]
    assert asked == [ground.tree(workdir)]


def test_this_process_does_not_keep_a_workdir(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    workdir = ground.open()
    monkeypatch.chdir(ground.tree(workdir))
    assert processes_in([ground.tree(workdir)]) == {}


@pytest.mark.parametrize("reason", ["expired", "evicted"])
def test_unsaved_work_stays_where_it_is_merely_in_the_way(ground: Ground, reason: str) -> None:
    workdir = ground.open()
    (ground.tree(workdir) / "new.txt").write_text("new\n")
    fate = ground.removal().remove(workdir.name, reason)  # type: ignore[arg-type]
    assert (fate.action, fate.reasons) == ("kept", ("1 untracked file or folder",))
    assert (ground.tree(workdir) / "new.txt").read_text() == "new\n"


def test_unsaved_work_in_a_workdir_that_has_to_go_is_quarantined(ground: Ground) -> None:
    workdir = ground.open()
    (ground.tree(workdir) / "new.txt").write_text("new\n")
    fate = ground.removal().remove(workdir.name, "reset")
    assert fate.action == "quarantined"
    assert fate.path is not None
    assert (Path(fate.path) / "tree" / "new.txt").read_text() == "new\n"
    assert "untracked" in (Path(fate.path) / "NOTE.md").read_text()
    assert ground.names("trees") == ground.names("records") == ground.names("trash") == []
    assert ground.count("everturn_workdir_rescues_total", how="quarantine") == 1


def test_unsaved_work_in_a_workdir_that_has_to_go_is_pushed_if_that_is_wanted(ground: Ground) -> None:
    workdir = ground.open()
    (ground.tree(workdir) / "new.txt").write_text("new\n")
    own = commit(ground, workdir)
    fate = ground.removal("push").remove(workdir.name, "reset")
    assert fate.action == "pushed"
    there = ground.git.run(["for-each-ref", "--format=%(refname) %(objectname)"], ground.remote()).split()
    refs = [word for word in there if word.startswith(f"refs/everturn/rescue/{workdir.name}/")]
    assert own in there
    assert any("new.txt" in ground.git.run(["ls-tree", "--name-only", ref], ground.remote()) for ref in refs)
    assert refs[0] in fate.reasons[0]
    assert ground.names("trees") == ground.names("quarantine") == []
    assert ground.count("everturn_workdir_rescues_total", how="push") == 1


def test_what_cannot_be_pushed_is_quarantined(ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
    workdir = ground.open()
    (ground.tree(workdir) / "new.txt").write_text("new\n")
    shutil.rmtree(ground.remote())
    assert ground.removal("push").remove(workdir.name, "reset").action == "quarantined"
    assert '"event": "rescue_not_pushed"' in caplog.text


@pytest.mark.parametrize("rescue", ["push", "quarantine"])
def test_force_discards_whatever_is_in_it(ground: Ground, rescue: str) -> None:
    workdir = ground.open()
    commit(ground, workdir)
    fate = ground.removal(rescue).remove(workdir.name, "reset", force=True)
    assert fate.action == "removed"
    assert ground.names("quarantine") == ground.names("trees") == []


@pytest.mark.parametrize("rescue", ["push", "quarantine"])
def test_a_dry_run_says_what_would_be_done_and_does_nothing(ground: Ground, rescue: str) -> None:
    saved, unsaved = ground.open("a"), ground.open("b")
    (ground.tree(unsaved) / "new.txt").write_text("new\n")
    removal = ground.removal(rescue)
    assert removal.remove(saved.name, "reset", dry_run=True).action == "removed"
    assert removal.remove(unsaved.name, "reset", dry_run=True).action == "rescued"
    assert ground.names("trees") == sorted([saved.name, unsaved.name])
    assert ground.names("quarantine") == ground.names("trash") == ground.names("unfinished") == []


def test_commits_that_only_the_remote_has_are_kept_in_the_cache(ground: Ground) -> None:
    workdir = ground.open()
    own = commit(ground, workdir)
    ground.agent(workdir, "push", "--quiet", "origin", "HEAD:refs/heads/feature")
    ground.agent(workdir, "fetch", "--quiet", "origin")
    assert ground.removal().remove(workdir.name, "expired").action == "removed"
    cache = CacheRecord(workdir.cache).repository(ground.root)
    refs = ground.git.run(["for-each-ref", "--format=%(refname) %(objectname)", "refs/everturn/kept"], cache)
    assert refs.startswith(f"refs/everturn/kept/{workdir.name}/")
    assert own in refs


def test_a_workdir_whose_cache_is_missing_stays_or_is_quarantined(ground: Ground) -> None:
    workdir = ground.open()
    shutil.rmtree(ground.root.caches / workdir.cache)
    fate = ground.removal().remove(workdir.name, "expired")
    assert fate.action == "kept"
    assert "its cache is missing" in fate.reasons[0]
    assert ground.removal("push").remove(workdir.name, "reset").action == "quarantined"


def test_a_root_without_its_folders_for_a_while_removes_all_the_same(ground: Ground) -> None:
    workdir = ground.open()
    for name in ("trash", "unfinished"):
        shutil.rmtree(ground.root.path / name)
    assert ground.removal().remove(workdir.name, "reset").action == "removed"
    assert ground.names("trees") == []


class Rigid(Root):
    """A root on a disk that nothing can be moved on."""

    def discard(self, path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))


def test_what_cannot_be_moved_stays_and_says_so(ground: Ground) -> None:
    workdir = ground.open(days_ago=1)
    (ground.root.quarantine / "x-1").mkdir()
    ground.root = Rigid(ground.root.path, ground.clock, Ids())
    removal = ground.removal()
    fates = [removal.remove(workdir.name, "reset", force=True), removal.remove_quarantined("x-1", force=True)]
    assert [fate.action for fate in fates] == ["kept", "kept"]
    assert {fate.reasons for fate in fates} == {("it cannot be moved: Read-only file system",)}
    ground.clock.advance(DAY_S)
    fate = next(fate for fate in ground.sweeper().sweep().fates if fate.name == "quarantine/x-1")
    assert (fate.kind, fate.action) == ("leftover", "kept")
    assert "Read-only file system" in fate.reasons[0]


def test_nothing_can_be_lost_in_a_workdir_that_was_still_being_made(ground: Ground) -> None:
    workdir = ground.open()
    workdir.but(is_settled=False).write(ground.root)
    (ground.tree(workdir) / "a.txt").unlink()  # the checkout was killed half-way
    assert ground.removal().remove(workdir.name, "expired").action == "removed"


def test_a_workdir_without_a_folder_or_without_a_record_goes_as_well(ground: Ground) -> None:
    ghost, saved, unsaved = ground.open("a"), ground.open("b"), ground.open("c")
    (ground.tree(unsaved) / "new.txt").write_text("new\n")
    shutil.rmtree(ground.tree(ghost))
    for workdir in (saved, unsaved):
        WorkdirRecord.file(ground.root, workdir.name).unlink()
    actions = [ground.removal("push").remove(each.name, "reset").action for each in (ghost, saved, unsaved)]
    assert actions == ["removed", "removed", "pushed"]
    assert ground.names("trees") == ground.names("records") == []


def test_a_workdir_is_kept_if_it_is_wanted_again_by_then(ground: Ground) -> None:
    workdir = ground.open()
    fate = ground.removal().remove(workdir.name, "expired", unless=lambda record: f"{record.name} is wanted")
    assert (fate.action, fate.reasons) == ("kept", (f"{workdir.name} is wanted",))


@pytest.mark.parametrize("name", ["no-such", "../root/trees", "", ".", "a/b", "-x", "Ä", "x\n", "x" * 300])
def test_a_name_that_is_none_of_ours_is_not_found(ground: Ground, name: str) -> None:
    ground.open()
    with pytest.raises(NotFound, match="there is no workdir"):
        ground.removal().remove(name, "reset", force=True)
    with pytest.raises(NotFound, match="there is no cache"):
        ground.removal().remove_cache(name, "evicted")


def test_what_became_of_it_can_be_written_as_json(ground: Ground) -> None:
    fate = Fate("workdir", "x", "pushed", ("1 changed file",), 5)
    assert as_json(fate.facts()) == {
        "kind": "workdir",
        "name": "x",
        "action": "pushed",
        "reasons": ["1 changed file"],
        "freed_bytes": 5,
        "path": None,
        "size_bytes": None,
    }


def test_folders_in_folders_without_end_are_deleted_like_others(ground: Ground) -> None:
    workdir = ground.open()
    place = os.open(ground.tree(workdir), os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("x", dir_fd=place)
        deeper = os.open("x", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = deeper
    os.close(place)
    ground.root.discard(ground.tree(workdir))
    ground.root.empty_trash()
    assert ground.names("trash") == []


# --- Shrinking ----------------------------------------------------------------------------------------------------


def test_shrinking_deletes_what_git_ignores_and_nothing_else(ground: Ground, tmp_path: Path) -> None:
    workdir = ground.open()
    tree = ground.tree(workdir)
    ground.build(workdir)
    (tree / "lib" / "x.log").write_text("log\n")
    (tree / "new.txt").write_text("new\n")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious.log").write_text("precious\n")
    (tree / "link.log").symlink_to(tmp_path / "outside")
    (tree / "build" / "link").symlink_to(tmp_path / "outside")
    fate = ground.removal().shrink(workdir.name)
    assert fate.action == "shrunk"
    assert fate.freed_bytes >= 100 * 1024
    assert sorted(path.name for path in tree.iterdir()) == [".git", ".gitignore", "a.txt", "lib", "new.txt"]
    assert (tree / "lib" / "b.txt").exists()
    assert not (tree / "lib" / "x.log").exists()
    assert (tmp_path / "outside" / "precious.log").exists()
    assert ground.record(workdir.name).ignored_bytes == 0


def test_shrinking_leaves_repositories_in_ignored_folders_alone(ground: Ground) -> None:
    workdir = ground.open()
    ground.build(workdir)
    inner = ground.tree(workdir) / "build" / "deps" / "inner"
    inner.mkdir(parents=True)
    ground.git.run(["init", "--quiet"], inner)
    (inner / "work.txt").write_text("work\n")
    ground.removal().shrink(workdir.name)
    assert (inner / "work.txt").exists()
    assert not (ground.tree(workdir) / "build" / "out.bin").exists()


def test_shrinking_obeys_nothing_that_the_agent_has_configured(ground: Ground) -> None:
    workdir = ground.open()
    trace = ground.folder / "it-ran"
    script = ground.folder / "trap"
    script.write_text(f"#!/bin/sh\ntouch {trace}\n")
    script.chmod(0o755)
    ground.build(workdir)
    (ground.tree(workdir) / "new.txt").write_text("new\n")
    ground.agent(workdir, "config", "core.fsmonitor", str(script))
    exclude = ground.tree(workdir) / ".git" / "info" / "exclude"
    exclude.write_text("new.txt\n")
    assert ground.removal().shrink(workdir.name).freed_bytes
    assert (ground.tree(workdir) / "new.txt").exists()
    assert not trace.exists()


def test_a_workdir_in_use_is_not_shrunk(ground: Ground) -> None:
    run = ground.workdirs.open(ground.work())
    ground.build(ground.record(run.name))
    assert ground.removal().shrink(run.name).action == "kept"
    run.close()
    assert ground.removal(find=lambda _: {1: "make"}).shrink(run.name).reasons == (
        "processes are at work in it: make (1)",
    )
    assert ground.removal().shrink(run.name, dry_run=True).freed_bytes
    assert (run.path / "build" / "out.bin").exists()


def test_a_workdir_that_cannot_be_looked_at_is_not_shrunk(ground: Ground) -> None:
    workdir = ground.open()
    ground.build(workdir)
    os.mkfifo(ground.tree(workdir) / "lib" / ".gitignore")  # git would wait for somebody to write into it
    assert ground.removal().shrink(workdir.name).action == "kept"
    (ground.tree(workdir) / "lib" / ".gitignore").unlink()
    (ground.tree(workdir) / ".git" / "index").unlink()  # nobody can tell which files are tracked
    assert ground.removal().shrink(workdir.name).action == "kept"


# --- Caches -------------------------------------------------------------------------------------------------------


def forgotten(ground: Ground, workdir: WorkdirRecord) -> None:
    """Remove a workdir without anybody keeping what was pushed from it."""
    ground.removal().remove(workdir.name, "reset", force=True)


def test_a_cache_that_nobody_borrows_from_goes(ground: Ground) -> None:
    workdir = ground.open(days_ago=1)
    forgotten(ground, workdir)
    fate = ground.removal().remove_cache(workdir.cache, "evicted")
    assert (fate.kind, fate.action) == ("cache", "removed")
    assert fate.freed_bytes > 0
    assert ground.names("caches") == []


def test_a_cache_stays_while_a_workdir_is_noted_that_borrows_from_it(ground: Ground) -> None:
    workdir = ground.open(days_ago=1)
    shutil.rmtree(ground.tree(workdir))
    fate = ground.removal().remove_cache(workdir.cache, "evicted")
    assert (fate.action, fate.reasons) == ("kept", (f"it is borrowed from by the workdir {workdir.name}",))


@pytest.mark.parametrize("place", ["trees/x-0123456789ab", "quarantine/x-1/tree", "unfinished/0123/tree"])
def test_a_cache_stays_while_a_tree_borrows_from_it_that_nobody_has_noted(ground: Ground, place: str) -> None:
    workdir = ground.open(days_ago=1)
    target = ground.root.path / place
    target.parent.mkdir(parents=True, exist_ok=True)
    ground.tree(workdir).rename(target)
    WorkdirRecord.file(ground.root, workdir.name).unlink()
    assert ground.removal().remove_cache(workdir.cache, "evicted").action == "kept"


def test_a_cache_stays_while_quarantined_work_came_from_it(ground: Ground) -> None:
    workdir = ground.open(days_ago=1)
    (ground.tree(workdir) / "new.txt").write_text("new\n")
    fate = ground.removal().remove(workdir.name, "reset")
    shutil.rmtree(Path(fate.path or "") / "tree" / ".git")
    kept = ground.removal().remove_cache(workdir.cache, "evicted")
    assert kept.action == "kept"
    assert kept.reasons[0].startswith("it is borrowed from by quarantine/")


def test_a_cache_stays_for_a_month_with_what_was_pushed_from_workdirs(ground: Ground) -> None:
    workdir = ground.open(days_ago=1)
    commit(ground, workdir)
    ground.agent(workdir, "push", "--quiet", "origin", "HEAD:refs/heads/feature")
    ground.agent(workdir, "fetch", "--quiet", "origin")
    ground.removal().remove(workdir.name, "expired")
    ground.clock.advance(29 * DAY_S)
    fate = ground.removal().remove_cache(workdir.cache, "evicted")
    assert (fate.action, "has kept what was pushed" in fate.reasons[0]) == ("kept", True)
    ground.clock.advance(2 * DAY_S)
    assert ground.removal().remove_cache(workdir.cache, "evicted").action == "removed"


def test_a_cache_that_was_used_a_moment_ago_stays(ground: Ground) -> None:
    workdir = ground.open()
    forgotten(ground, workdir)
    assert ground.removal().remove_cache(workdir.cache, "evicted").reasons == ("it was used a moment ago",)


def test_a_cache_that_somebody_is_at_work_on_stays(ground: Ground) -> None:
    workdir = ground.open(days_ago=1)
    forgotten(ground, workdir)
    with ground.root.locked_cache(workdir.cache, 0):
        fate = ground.removal().remove_cache(workdir.cache, "evicted")
    assert (fate.action, "another process" in fate.reasons[0]) == ("kept", True)
    assert ground.names("caches") != []
