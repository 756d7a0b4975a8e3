"""The sweep brings together what the registry knows, what is noted and what is there, and says why it kept what."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from everturn.clock import Ids
from everturn.errors import Conflict, Denied, Unavailable
from everturn.housekeeping.removal import Fate
from everturn.housekeeping.sweeping import SWEEP_LOCK, Report
from everturn.model import SessionRecord
from everturn.registry import SqliteRegistry
from everturn.workdirs.records import CacheRecord, WorkdirRecord
from everturn.workdirs.root import MARKER, SWEPT, Root
from housekeeping.ground import DAY_S, HOUR_S, Ground, as_json
from polling import wait_until

pytestmark = pytest.mark.slow


class Away(SqliteRegistry):
    """A registry that does not answer."""

    def records(self) -> list[SessionRecord]:
        raise Unavailable("it does not answer", hint="wait")


def fate_of(report: Report, name: str) -> Fate:
    [fate] = [fate for fate in report.fates if fate.name == name]
    return fate


# --- Age ----------------------------------------------------------------------------------------------------------


def test_what_nobody_has_used_for_too_long_goes_and_all_else_stays(ground: Ground) -> None:
    old, young = ground.open("a", "tools", days_ago=8), ground.open("b", days_ago=6)
    report = ground.sweeper().sweep()
    assert fate_of(report, old.name).action == fate_of(report, old.cache).action == "removed"
    assert fate_of(report, young.name).reasons == ("it was last used 6 days ago",)
    assert fate_of(report, young.cache) in report.kept
    assert ground.names("trees") == [young.name]
    assert ground.names("trash") == []
    assert report.freed_bytes == sum(fate.freed_bytes for fate in report.fates) > 0


def test_unsaved_work_and_runs_stay_however_old_and_it_is_said_why(ground: Ground) -> None:
    unsaved = ground.open("a", days_ago=100)
    (ground.tree(unsaved) / "new.txt").write_text("new\n")
    run = ground.workdirs.open(ground.work("b"))
    ground.age(run.name, 100)
    report = ground.sweeper().sweep()
    assert fate_of(report, unsaved.name).reasons == ("1 untracked file or folder",)
    assert fate_of(report, run.name).reasons == ("a run is at work in it",)
    assert ground.names("quarantine") == []
    run.close()


def test_unsaved_work_in_a_linked_worktree_keeps_its_workdir(ground: Ground) -> None:
    workdir = ground.open(days_ago=100)
    inner = ground.tree(workdir) / "build" / "worktrees" / "x"
    ground.agent(workdir, "worktree", "add", "--quiet", "--detach", str(inner))
    (inner / "new.txt").write_text("new\n")
    assert fate_of(ground.sweeper().sweep(), workdir.name).action == "kept"
    shutil.rmtree(inner)
    assert fate_of(ground.sweeper().sweep(), workdir.name).action == "removed"


def test_a_dry_run_says_what_a_sweep_would_do_and_does_nothing(ground: Ground) -> None:
    old = ground.open("a", days_ago=8)
    ghost = ground.open("b", days_ago=8)
    shutil.rmtree(ground.tree(ghost))
    report = ground.sweeper().sweep(dry_run=True)
    assert report.dry_run
    assert fate_of(report, old.name).action == "removed"
    assert fate_of(report, ghost.name).action == "dropped"
    assert ground.names("trees") == [old.name]
    assert ground.names("records") == [f"{each.name}.{kind}" for each in (old, ghost) for kind in ("index", "json")]
    assert not (ground.root.path / SWEPT).exists()
    assert ground.sweeper().sweep().fates[0].action == "removed"


# --- The registry -------------------------------------------------------------------------------------------------


def test_a_workdir_stays_until_its_session_can_not_be_resumed_any_more(ground: Ground) -> None:
    workdir = ground.open(days_ago=8)
    ground.session(ground.work(), ground.tree(workdir))
    report = ground.sweeper().sweep()
    assert fate_of(report, workdir.name).reasons == ("the session of task:fixer-shop can still be resumed in it",)
    ground.clock.advance(DAY_S + 1)
    assert fate_of(ground.sweeper().sweep(), workdir.name).action == "removed"


def test_a_session_in_a_linked_worktree_keeps_the_workdir_that_it_is_linked_to(
    ground: Ground, tmp_path: Path
) -> None:
    workdir = ground.open(days_ago=8)
    inner = ground.tree(workdir) / "build" / "x"
    ground.agent(workdir, "worktree", "add", "--quiet", "--detach", str(inner))
    ground.session(ground.work("another"), inner)
    assert "can still be resumed" in fate_of(ground.sweeper().sweep(), workdir.name).reasons[0]


def test_a_session_elsewhere_keeps_nothing(ground: Ground, tmp_path: Path) -> None:
    workdir = ground.open(days_ago=8)
    ground.session(ground.work(), tmp_path / "elsewhere")
    report = ground.sweeper().sweep()
    assert fate_of(report, workdir.name).action == "removed"
    assert [fate for fate in report.fates if fate.kind == "session"] == []


def test_a_session_whose_folder_is_not_there_is_reported(ground: Ground) -> None:
    workdir = ground.open()
    ground.session(ground.work(), ground.tree(workdir) / "lib")
    ground.removal().remove(workdir.name, "reset")
    fate = fate_of(ground.sweeper().sweep(), "task:fixer-shop")
    assert (fate.kind, fate.action) == ("session", "kept")
    assert str(ground.tree(workdir)) in fate.reasons[0]
    assert ground.registry.get(ground.work()) is not None


def test_nothing_expires_while_the_registry_is_away(ground: Ground) -> None:
    workdir = ground.open(days_ago=100)
    shutil.rmtree(ground.tree(ghost := ground.open("b")))
    ground.registry = Away(ground.folder / "registry.db", clock=ground.clock)
    report = ground.sweeper().sweep()
    assert fate_of(report, workdir.name).reasons == ("a session may still want it",)
    assert "the registry does not say (it does not answer)" in report.notes[0]
    assert fate_of(report, ghost.name).action == "dropped"


# --- Notes and folders --------------------------------------------------------------------------------------------


def test_a_record_without_a_folder_is_dropped(ground: Ground) -> None:
    workdir = ground.open()
    shutil.rmtree(ground.tree(workdir))
    fate = fate_of(ground.sweeper().sweep(), workdir.name)
    assert (fate.kind, fate.action) == ("record", "dropped")
    assert ground.names("records") == []


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_text("{")])
def test_a_workdir_of_ours_without_a_record_gets_one(ground: Ground, spoil: object) -> None:
    workdir = ground.open(days_ago=100)
    ground.session(ground.work(), ground.tree(workdir))
    spoil(WorkdirRecord.file(ground.root, workdir.name))  # type: ignore[operator]
    assert fate_of(ground.sweeper().sweep(), workdir.name).action == "adopted"
    found = ground.record(workdir.name)
    assert (found.repo, found.cache, found.branch) == (workdir.repo, workdir.cache, "main")
    assert (found.work_key, found.agent) == ("task:fixer-shop", "fixer")
    assert found.last_used_at == ground.clock.now()  # its age begins anew
    assert found.is_settled


@pytest.mark.parametrize("name", ["x-0123456789ab", "Somebody's files"])
def test_a_folder_that_is_none_of_ours_is_never_touched(ground: Ground, name: str) -> None:
    ground.open()
    folder = ground.root.trees / name
    folder.mkdir()
    ground.git.run(["init", "--quiet"], folder)
    ground.clock.advance(100 * DAY_S)
    fate = fate_of(ground.sweeper(quota_bytes=0).sweep(), name)
    assert (fate.action, len(fate.reasons)) == ("kept", 1)
    assert (folder / ".git").exists()


@pytest.mark.parametrize("link", ["missing", "fifo", "other", "round"])
def test_a_folder_that_only_says_that_it_is_ours_is_not_believed(ground: Ground, link: str) -> None:
    ground.open()
    info = ground.root.trees / "x-0123456789ab" / ".git" / "objects" / "info"
    info.mkdir(parents=True)
    if link == "missing":
        (info / "alternates").write_text(f"{ground.root.caches}/no-such/repo.git/objects\n")
    elif link == "fifo":
        os.mkfifo(info / "alternates")
    elif link == "other":
        (info / "alternates").write_text("/\0\n")
    else:
        (info / "alternates").symlink_to(info / "alternates")
    assert fate_of(ground.sweeper().sweep(), "x-0123456789ab").action == "kept"


def test_a_link_to_a_workdir_is_no_workdir(ground: Ground) -> None:
    workdir = ground.open()
    (ground.root.trees / "x-0123456789ab").symlink_to(ground.tree(workdir))
    assert fate_of(ground.sweeper().sweep(), "x-0123456789ab").action == "kept"
    assert ground.names("records") == [f"{workdir.name}.index", f"{workdir.name}.json"]


def test_a_workdir_whose_cache_is_missing_stays(ground: Ground) -> None:
    workdir = ground.open(days_ago=100)
    shutil.rmtree(ground.root.caches / workdir.cache)
    report = ground.sweeper().sweep()
    assert "its cache is missing" in fate_of(report, workdir.name).reasons[0]
    assert f"{workdir.name} get it back" in fate_of(report, workdir.cache).reasons[0]
    assert ground.workdirs.open(ground.work()).outcome == "kept"


def test_a_cache_without_a_record_gets_one(ground: Ground) -> None:
    workdir = ground.open(days_ago=100)
    CacheRecord.file(ground.root, workdir.cache).unlink()
    assert fate_of(ground.sweeper().sweep(), workdir.cache).action == "adopted"
    found = CacheRecord.read(ground.root, workdir.cache)
    assert found is not None
    assert (found.repo, found.last_used_at) == (workdir.repo, ground.clock.now())


def test_a_cache_of_which_nothing_is_known_stays(ground: Ground) -> None:
    ground.open()
    (ground.root.caches / "x-0123456789ab").mkdir()
    fate = fate_of(ground.sweeper().sweep(), "x-0123456789ab")
    assert (fate.kind, fate.action) == ("cache", "kept")


# --- What others have left ----------------------------------------------------------------------------------------


def test_what_a_dead_process_was_making_goes_after_an_hour(ground: Ground) -> None:
    ground.open()
    left = ground.root.path / "unfinished" / "0123"
    (left / "tree").mkdir(parents=True)
    assert fate_of(ground.sweeper().sweep(), "0123").action == "kept"
    ground.clock.advance(HOUR_S + 60)
    (left / "tree" / "new").touch()
    os.utime(left / "tree" / "new", (ground.clock.now(), ground.clock.now()))
    assert fate_of(ground.sweeper().sweep(), "0123").action == "kept"
    ground.clock.advance(HOUR_S + 60)
    assert fate_of(ground.sweeper().sweep(dry_run=True), "0123").action == "removed"
    assert ground.names("unfinished/0123") == ["tree"]  # whatever a look left there would make it young again
    assert fate_of(ground.sweeper().sweep(), "0123").action == "removed"
    assert ground.names("unfinished") == ground.names("trash") == []


def test_what_a_living_process_is_making_stays_whatever_the_clock_says(ground: Ground) -> None:
    ground.open()
    with ground.root.unfinished() as folder:
        ground.clock.jump(100 * DAY_S)
        fate = fate_of(ground.sweeper().sweep(), folder.name)
        assert (fate.action, fate.reasons) == ("kept", ("somebody is at work in it",))
        assert folder.exists()


def test_records_that_were_half_written_and_quarantines_that_were_not_needed_go(ground: Ground) -> None:
    ground.open()
    halves = [
        ground.root.records / ".x.json.0123",
        ground.root.caches / ".x.json.0123",
        ground.root.path / ".x.json.1",
    ]
    for path in halves:
        path.write_text("{")
    (ground.root.quarantine / "x-1").mkdir()
    (ground.root.quarantine / "x-1" / "NOTE.md").write_text("note\n")
    fates = ground.sweeper().sweep().fates
    assert len(fates) == 2  # of the workdir and of its cache
    assert all(path.exists() for path in halves)
    ground.clock.advance(HOUR_S + 60)
    ground.sweeper().sweep()
    assert not any(path.exists() for path in halves)
    assert ground.names("quarantine") == []


def test_trash_is_emptied(ground: Ground) -> None:
    workdir = ground.open()
    ground.root.discard(ground.tree(workdir))
    report = ground.sweeper().sweep(dry_run=True)
    assert len(ground.names("trash")) == 1
    report = ground.sweeper().sweep()
    assert report.fates[0].kind == "trash"
    assert report.freed_bytes > 0
    assert ground.names("trash") == []


def test_trash_that_cannot_be_deleted_is_reported(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    workdir = ground.open()
    ground.root.discard(ground.tree(workdir))
    monkeypatch.setattr(ground.root, "empty_trash", lambda: None)
    report = ground.sweeper().sweep()
    [fate] = [fate for fate in report.fates if fate.kind == "trash"]
    assert (fate.action, fate.reasons) == ("kept", ("it cannot be deleted",))
    assert fate.size_bytes
    assert report.freed_bytes == 0


def test_what_lies_in_quarantine_is_reported_with_its_size_and_never_removed(ground: Ground) -> None:
    workdir = ground.open()
    (ground.tree(workdir) / "new.txt").write_text("new\n")
    ground.removal().remove(workdir.name, "reset")
    ground.clock.advance(1000 * DAY_S)
    report = ground.sweeper(quota_bytes=0, free_bytes=10**15).sweep()
    [fate] = [fate for fate in report.fates if fate.kind == "quarantine"]
    assert (fate.action, bool(fate.size_bytes)) == ("kept", True)
    assert (Path(fate.path or "") / "tree" / "new.txt").exists()


# --- Around it ----------------------------------------------------------------------------------------------------


def test_a_sweep_ends_with_making_room(ground: Ground) -> None:
    workdir = ground.open(days_ago=1)
    report = ground.sweeper(quota_bytes=0).sweep()
    assert [(fate.name, fate.action) for fate in report.fates[-2:]] == [
        (workdir.name, "removed"),
        (workdir.cache, "removed"),
    ]
    assert report.missing_bytes == 0


def test_a_root_that_is_not_there_is_an_empty_report_and_stays_away(ground: Ground) -> None:
    assert ground.sweeper().sweep().fates == ()
    ground.sweeper().begin_if_due()
    assert not ground.root.path.exists()


def test_a_root_that_may_not_be_looked_at_is_told_and_stops_no_run(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    ground.root = Root(ground.folder / ("long" * 100), ground.clock, Ids())
    ground.sweeper().begin_if_due()
    assert "cannot look at" in json.loads(caplog.messages[-1])["error"]
    with pytest.raises(Denied, match="File name too long"):
        ground.sweeper().sweep()


def test_a_folder_without_our_marker_is_not_swept(ground: Ground) -> None:
    workdir = ground.open(days_ago=100)
    (ground.root.path / MARKER).unlink()
    assert ground.sweeper().sweep().fates == ()
    assert ground.tree(workdir).exists()


def test_a_root_of_a_newer_release_is_not_swept(ground: Ground) -> None:
    workdir = ground.open(days_ago=100)
    (ground.root.path / MARKER).write_text('{"everturn": "workdirs", "version": 2}')
    with pytest.raises(Conflict, match="version 2"):
        ground.sweeper().sweep()
    assert ground.tree(workdir).exists()
    assert ground.count("everturn_workdir_sweeps_total", outcome="failed") == 1


def test_one_sweeps_at_a_time(ground: Ground) -> None:
    ground.open()
    lock = ground.root.try_workdir(SWEEP_LOCK)
    assert lock is not None
    with pytest.raises(Conflict, match="is sweeping"):
        ground.sweeper().sweep()
    lock.release()
    ground.sweeper().sweep()


def test_one_that_cannot_be_looked_at_does_not_keep_the_others(ground: Ground) -> None:
    bad, good = ground.open("a", days_ago=9), ground.open("b", days_ago=9)
    for name in (bad.name, f"cache-{bad.cache}"):
        (ground.root.path / "locks" / f"{name}.lock").unlink()
        (ground.root.path / "locks" / f"{name}.lock").mkdir()
    report = ground.sweeper().sweep()
    assert fate_of(report, bad.name).action == "kept"
    assert fate_of(report, good.name).action == "removed"


def test_a_sweep_is_noted_counted_and_logged(ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
    ground.open(days_ago=9)
    with caplog.at_level("INFO", "everturn"):
        report = ground.sweeper().sweep()
    noted = json.loads((ground.root.path / SWEPT).read_text())
    assert noted["ended_at"] == ground.clock.now()
    [line] = [json.loads(record.message) for record in caplog.records if '"workdirs_swept"' in record.message]
    assert (line["removed"], line["kept"], line["freed_bytes"]) == (2, 0, report.freed_bytes)
    assert ground.count("everturn_workdir_sweeps_total", outcome="done") == 1
    assert ground.count("everturn_workdirs_bytes", kind="trees") == 0


def test_a_report_can_be_written_as_json(ground: Ground) -> None:
    workdir = ground.open(days_ago=9)
    facts = as_json(ground.sweeper().sweep().facts())
    assert isinstance(facts, dict)
    assert set(facts) == {"fates", "notes", "freed_bytes", "missing_bytes", "dry_run", "seconds"}
    assert facts["fates"][0]["name"] == workdir.name


# --- In the background --------------------------------------------------------------------------------------------


def swept(ground: Ground) -> float:
    return ground.count("everturn_workdir_sweeps_total", outcome="done")


def test_a_sweep_begins_in_the_background_once_the_last_one_is_long_ago(ground: Ground) -> None:
    workdir = ground.open(days_ago=9)
    ground.sweeper().begin_if_due()
    wait_until(lambda: swept(ground) == 1, "the first sweep is over")
    assert not ground.tree(workdir).exists()
    ground.clock.advance(DAY_S - 1)
    ground.sweeper().begin_if_due()  # another process, so to say
    ground.clock.advance(2)
    ground.sweeper().begin_if_due()
    wait_until(lambda: swept(ground) == 2, "the second sweep is over")


def test_no_sweep_begins_where_none_is_wanted(ground: Ground) -> None:
    ground.open(days_ago=9)
    before = set(threading.enumerate())
    ground.sweeper(interval_s=0).begin_if_due()
    assert set(threading.enumerate()) == before


def test_a_sweep_in_the_future_says_that_a_clock_was_wrong(ground: Ground) -> None:
    ground.open()
    ground.sweeper().sweep()
    ground.clock.jump(-10 * DAY_S)
    ground.sweeper().begin_if_due()
    wait_until(lambda: swept(ground) == 2, "there is another one")


def test_a_sweep_in_the_background_that_fails_is_logged_and_counted(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    ground.open()
    (ground.root.path / MARKER).write_text('{"everturn": "workdirs", "version": 2}')
    ground.sweeper().begin_if_due()
    wait_until(lambda: '"workdirs_sweep_failed"' in caplog.text, "it is logged")
    assert ground.count("everturn_workdir_sweeps_total", outcome="failed") == 1


def test_another_process_that_sweeps_is_no_failure(ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
    ground.open()
    lock = ground.root.try_workdir(SWEEP_LOCK)
    assert lock is not None
    sweeper = ground.sweeper()
    sweeper.begin_if_due()
    names = {"everturn-workdirs"}
    wait_until(lambda: not names & {thread.name for thread in threading.enumerate()}, "the thread is over")
    lock.release()
    assert "workdirs_sweep_failed" not in caplog.text
    assert ground.count("everturn_workdir_sweeps_total", outcome="failed") == 0
