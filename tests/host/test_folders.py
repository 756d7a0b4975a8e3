"""Run folders: who lives is known by a lock, and what a dead run left is found once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from disks import mounted
from everturn.clock import ManualClock, SystemClock
from everturn.errors import Conflict, Invalid, Unavailable
from everturn.git.deleting import remove
from everturn.host import guard
from everturn.host.folders import RunFolder, RunFolders
from host.stage import LOOP, RUN, SESSION, Stage
from polling import wait_until


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state" / "runs"


@pytest.fixture
def folders(root: Path) -> RunFolders:
    return RunFolders(root, clock=SystemClock())


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "stage")


@pytest.mark.slow
def test_a_run_is_dead_when_its_process_is(stage: Stage) -> None:
    folders = RunFolders(stage.runs, clock=SystemClock())
    assert not folders.is_dead(RUN)
    with stage.worker(stage.agent(f"echo ready; {LOOP}")) as worker:
        worker.wait_for("ready")
        assert not folders.is_dead(RUN)
        assert folders.leftovers() == []
        worker.process.send_signal(signal.SIGSTOP)
        assert not folders.is_dead(RUN)
        worker.process.kill()
        wait_until(lambda: folders.is_dead(RUN), "the run is dead")


def test_a_live_run_is_not_dead_for_its_own_process_and_is_gone_after_it(folders: RunFolders, root: Path) -> None:
    folder = folders.open("r1")
    assert (folder.path, folder.run_id) == (root / "r1", "r1")
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert not folders.is_dead("r1")
    folder.close()
    folder.close()
    assert not folders.is_dead("r1")
    assert not folder.path.exists()


def test_a_run_has_one_folder(folders: RunFolders) -> None:
    folder = folders.open("r1")
    with pytest.raises(Conflict, match="run r1 has a folder already"):
        folders.open("r1")
    folder.close()


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a:b", "x" * 200, "a\n"])
def test_a_name_that_is_no_name_is_refused(folders: RunFolders, name: str) -> None:
    with pytest.raises(Invalid, match="is no run id"):
        folders.open(name)


def test_leftovers_are_handed_out_once_and_stay_dead(folders: RunFolders, root: Path) -> None:
    for name in ("r1", "r2", "r3"):
        folder = folders.open(name)
        if name != "r3":
            folder.note(work=name)
        folder.close(keep=True)
    alive = folders.open("r4")
    left = RunFolders(root, clock=SystemClock()).leftovers()
    assert [(folder.run_id, folder.facts) for folder in left] == [("r1", {"work": "r1"}), ("r2", {"work": "r2"})]
    assert folders.leftovers() == []
    assert folders.is_dead("r1")
    assert not (root / "r3").exists()  # there was nothing in it
    left[0].close()
    left[1].close(keep=True)
    again = folders.leftovers()
    assert [folder.run_id for folder in again] == ["r2"]
    for folder in (*again, alive):
        folder.close()
    assert [path.name for path in root.iterdir()] == [".lock"]


def test_what_is_left_of_a_folder_that_was_being_made_or_deleted_is_deleted(
    folders: RunFolders, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folders.open("r1")
    folder.note(work="r1")
    folder.transcript.mkdir()
    (root / "made").mkdir()  # and its maker was killed
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # as if killed when the files are gone
    folder.close()
    assert sorted(path.name for path in folder.path.iterdir()) == ["lock", "transcript"]
    monkeypatch.undo()
    assert folders.leftovers() == []
    assert [path.name for path in root.iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_locked_does_not_keep_others_from_being_found(
    folders: RunFolders, root: Path
) -> None:
    for name in ("r1", "r2"):
        folder = folders.open(name)
        folder.note(work=name)
        folder.close(keep=True)
    (root / "r1" / "care").mkdir()
    (root / "r0").write_text("no folder")
    left = folders.leftovers()
    assert [folder.run_id for folder in left] == ["r2"]
    left[0].close()


def test_notes_of_another_release_do_not_keep_a_leftover_from_being_found(folders: RunFolders) -> None:
    for name in ("r1", "r2"):
        folder = folders.open(name)
        guard.write_json(str(folder.path / "agent.json"), {"pid": 1})
        if name == "r1":
            folder.note(work=name)
        folder.close(keep=True)
    left = folders.leftovers()
    assert [(folder.run_id, folder.agent) for folder in left] == [("r1", None)]
    left[0].end_agent(timeout_s=1)
    left[0].close()


def test_a_fork_at_the_wrong_moment_does_not_lock_all_folders(
    folders: RunFolders, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    children = []

    def fork(*_: object) -> None:
        child = os.fork()
        if not child:
            os.close(write)
            os.read(read, 1)  # until the parent has looked
            os._exit(0)
        children.append(child)

    monkeypatch.setattr(RunFolders, "_take_care", fork)
    (root / "r1").mkdir(parents=True)
    folders.leftovers()
    monkeypatch.undo()
    RunFolders(root, clock=ManualClock()).open("r2").close()
    os.close(write)
    os.waitpid(children[0], 0)
    os.close(read)


def test_a_journal_is_not_deleted_though_nothing_tells_whose_it_is(folders: RunFolders, root: Path) -> None:
    folder = folders.open("run-1")
    folder.journal.write_text("a line\n")
    folder.close(keep=True)
    (left,) = folders.leftovers()
    assert (left.facts, left.journal.read_text()) == ({}, "a line\n")
    left.close()


def test_no_folder_of_runs_means_no_leftovers(folders: RunFolders, root: Path) -> None:
    assert folders.leftovers() == []
    assert not root.exists()


def test_a_fork_does_not_keep_the_lock(folders: RunFolders) -> None:
    folder = folders.open("r1")
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(write)
        os.read(read, 1)  # until the parent has looked
        os._exit(0)
    assert not folders.is_dead("r1")  # what the child has let go of is still ours
    folder.forget()  # as when we die
    wait_until(lambda: folders.is_dead("r1"), "the child has let go of the lock")
    os.close(write)
    os.waitpid(child, 0)
    os.close(read)


def test_children_do_not_inherit_the_lock(folders: RunFolders) -> None:
    folder = folders.open("r1")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, close_fds=False) as child:
        folder.forget()
        wait_until(lambda: folders.is_dead("r1"), "the run is dead")
        assert child.poll() is None


def test_notes_add_up(folders: RunFolders) -> None:
    folder = folders.open("r1")
    assert folder.facts == {}
    folder.note(work="a", epoch=1)
    folder.note(epoch=2, cwd="/x")
    assert folder.facts == {"work": "a", "epoch": 2, "cwd": "/x"}
    folder.close()


def test_a_lease_is_written_over_in_place_and_read_back(folders: RunFolders) -> None:
    folder = folders.open("r1")
    lease = folder.path / "lease"
    assert guard.read_lease(str(lease)) == 0
    for until in (1.5, 123456789.25, 3.0):
        folder.extend_lease(until)
        assert guard.read_lease(str(lease)) == until
    size = lease.stat().st_size
    lease.write_bytes(guard.lease_text(7.0)[:20] + guard.lease_text(8.0)[20:])  # half written
    assert guard.read_lease(str(lease)) == 0
    assert lease.stat().st_size == size
    folder.close()


def test_what_cannot_be_written_is_told(folders: RunFolders) -> None:
    folder = folders.open("r1")
    folder.path.rename(folder.path.with_name("away"))
    for attempt in (lambda: folder.extend_lease(1.0), lambda: folder.note(a=1)):
        with pytest.raises(Unavailable, match=r"r1 cannot be written: No such file"):
            attempt()
    folder.close()


def test_a_process_that_got_the_guards_id_is_no_agent(folders: RunFolders, root: Path) -> None:
    folder = folders.open("r1")
    ours = guard.look_up(os.getpid())
    assert ours is not None
    for started in (ours.started, ""):
        guard.write_json(
            str(folder.path / "agent.json"),
            {"pid": os.getpid(), "started": started, "cli_pid": None, "config_dir": str(root), "session_id": SESSION}
            | {"cwd": "/", "temporary": "/tmp"},
        )
        agent = folder.agent
        assert agent is not None
        assert (agent.is_alive, agent.find()) == (False, {})
        folder.end_agent(timeout_s=1)
    folder.close()


@pytest.mark.slow
def test_folders_without_end_in_a_transcript_are_told_in_one_sentence(folders: RunFolders, tmp_path: Path) -> None:
    deepest = tmp_path / "config" / "projects" / "p" / SESSION
    deepest.mkdir(parents=True)
    inside = os.open(deepest, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("a", dir_fd=inside)  # no path is as long
        outer, inside = inside, os.open("a", os.O_RDONLY, dir_fd=inside)
        os.close(outer)
    os.close(inside)
    folder = folders.open("r1")
    facts = {"pid": 0, "started": "", "cli_pid": None, "config_dir": str(tmp_path / "config"), "cwd": "/"}
    guard.write_json(str(folder.path / "agent.json"), {**facts, "temporary": "/tmp", "session_id": SESSION})
    with pytest.raises(Unavailable, match="folders lie too deep"):
        folder.end_agent(5)
    folder.close()
    remove(tmp_path / "config")  # which pytest could not


def test_a_half_written_note_is_no_note(folders: RunFolders) -> None:
    folder = folders.open("r1")
    (folder.path / "run.json").write_text('{"wor')
    (folder.path / "agent.json").write_text("[]")
    assert (folder.facts, folder.agent) == ({}, None)
    folder.close()


def test_ending_an_agent_that_was_never_started_is_nothing(folders: RunFolders) -> None:
    folder = folders.open("r1")
    folder.end_agent(timeout_s=1)
    assert not folder.transcript.exists()
    folder.close()


@pytest.mark.slow
def test_the_agent_is_known_by_what_its_guard_notes(stage: Stage) -> None:
    with stage.worker(stage.agent(f"echo ready; {LOOP}")) as worker:
        worker.wait_for("ready")
        with reading(stage) as folder:
            agent = wait_until(lambda: folder.agent, "the guard has noted itself")
            assert agent.is_alive
            assert (agent.session_id, agent.config_dir, agent.ended) == (SESSION, stage.config_dir, None)
            worker.process.kill()
            stage.wait_until_empty()
            after = folder.agent
            assert after is not None
            assert (after.is_alive, after.ended, after.kept) == (False, "worker", True)


@contextlib.contextmanager
def reading(stage: Stage) -> Iterator[RunFolder]:
    """Look at the folder of a run that is another process's."""
    lock = os.open(os.devnull, os.O_RDONLY)
    folder = RunFolder(stage.runs / RUN, lock, SystemClock())
    yield folder
    folder.close(keep=True)


# --- The check ---------------------------------------------------------------------------------------------------


def test_a_good_folder_passes_and_keeps_nothing_of_the_check(folders: RunFolders, root: Path) -> None:
    folders.check()
    assert list(root.iterdir()) == []


def test_a_file_system_without_locks_is_refused(root: Path) -> None:
    def not_implemented(descriptor: int, kind: int) -> None:
        raise OSError(38, "Function not implemented")

    with pytest.raises(Invalid, match=r"runs: Function not implemented \(put `state` on a local disk\)"):
        RunFolders(root, clock=SystemClock(), lock=not_implemented).check()
    assert list(root.iterdir()) == []


def test_locks_that_do_not_hold_are_refused(root: Path) -> None:
    with pytest.raises(Invalid, match="locks do not hold"):
        RunFolders(root, clock=SystemClock(), lock=lambda descriptor, kind: None).check()


def test_a_place_that_cannot_hold_folders_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Invalid, match="cannot hold the folders of runs: Not a directory"):
        RunFolders(tmp_path / "file" / "runs", clock=SystemClock()).check()


def test_a_disk_from_which_no_program_may_be_started_is_refused(root: Path) -> None:
    with mounted(root, "noexec"), pytest.raises(Invalid, match="programs may not be started from"):
        RunFolders(root, clock=SystemClock()).check()


def test_a_lock_on_all_folders_is_not_waited_for_for_ever(root: Path) -> None:
    root.mkdir(parents=True)
    with (root / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="stays locked"):
            RunFolders(root, clock=ManualClock()).open("r1")
