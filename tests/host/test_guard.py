"""The guard: nothing of what an agent starts outlives its run. Real processes, agents that are scripts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from everturn.clock import SystemClock
from everturn.host import guard
from everturn.host.agents import end_old_agents
from everturn.host.folders import RunFolders
from host.stage import LOOP, RUN, SESSION, TOOL_COUNT, TOOLS, Stage, Worker
from polling import wait_until

NOBODY = 65534

# The guard where no more processes can be started: as root, no limit of the system would stop it.
NO_PROCESS = """
import errno, os, runpy

def fork():
    raise OSError(errno.EAGAIN, "no more processes")

os.fork = fork
runpy.run_path({guard!r}, run_name="__main__")
"""


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "stage")


def started(stage: Stage, worker: Worker) -> None:
    worker.wait_for("ready")
    wait_until(lambda: len(stage.tools()) == TOOL_COUNT, "all tools run")


def lease(worker: Worker, seconds: float) -> None:
    """Have the lease end in some seconds."""
    worker.tell(f"lease {seconds}")
    worker.wait_for("extended")


def seconds_until_empty(stage: Stage) -> float:
    begin = time.monotonic()
    stage.wait_until_empty()
    return time.monotonic() - begin


@pytest.mark.slow
def test_a_killed_worker_takes_everything_with_it(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    with stage.worker(stage.busy_agent()) as worker:
        started(stage, worker)
        worker.process.kill()
        gone_s = seconds_until_empty(stage)
    with capsys.disabled():
        sys.stdout.write(f"\nafter a kill of the worker everything was gone in {gone_s * 1000:.0f} ms\n")
    notes = stage.notes()
    assert (notes["ended"], notes["code"], notes["left"]) == ("worker", guard.KILLED, [])


@pytest.mark.slow
def test_nothing_is_left_to_be_reaped(stage: Stage) -> None:
    with stage.worker(stage.busy_agent()) as worker:
        started(stage, worker)
        below = psutil.Process(worker.process.pid).children(recursive=True)
        worker.process.kill()
        stage.wait_until_empty()
        wait_until(lambda: not any(process.is_running() for process in below), "zombies are gone as well")


@pytest.mark.slow
def test_an_agent_whose_worker_is_paused_ends_with_its_lease(stage: Stage) -> None:
    with stage.worker(stage.busy_agent()) as worker:
        started(stage, worker)
        lease(worker, 2)
        worker.process.send_signal(signal.SIGSTOP)
        wait_until(
            lambda: [process.pid for process in stage.processes()] == [worker.process.pid], "the agent is gone"
        )
        assert stage.notes()["ended"] == "lease"
        worker.process.send_signal(signal.SIGCONT)
        worker.tell("end")
        assert worker.wait_for("ended")


@pytest.mark.slow
def test_a_lease_that_is_extended_keeps_the_agent(stage: Stage) -> None:
    with stage.worker(stage.busy_agent()) as worker:
        started(stage, worker)
        longer_s = time.monotonic() + 8

        def extended() -> bool:
            lease(worker, 6)
            return time.monotonic() > longer_s

        wait_until(extended, "the first lease would have ended")
        assert len(stage.tools()) == TOOL_COUNT


@pytest.mark.slow
def test_an_agent_whose_run_folder_is_deleted_ends(stage: Stage) -> None:
    with stage.worker(stage.busy_agent()) as worker:
        started(stage, worker)
        (stage.runs / RUN / "lease").unlink()
        wait_until(lambda: not stage.tools(), "the agent is gone")


@pytest.mark.slow
def test_what_an_agent_leaves_running_ends_with_it(stage: Stage) -> None:
    with stage.worker(stage.busy_agent(then="cat >/dev/null; exit 7")) as worker:
        started(stage, worker)
        worker.tell("close")
        assert json.loads(worker.wait_for("closed"))["code"] == 7
        assert stage.tools() == []
    assert stage.notes()["ended"] == "exit"


@pytest.mark.slow
def test_what_an_agent_leaves_running_may_end_by_itself_first(stage: Stage) -> None:
    farewell = stage.folder / "farewell"
    body = (
        f"sh -c 'trap \"touch {farewell}; exit\" TERM; {LOOP}' {stage.folder} polite & echo ready; sleep 0.3; exit 0"
    )
    with stage.worker(stage.agent(body)) as worker:
        worker.wait_for("ready")
        wait_until(farewell.exists, "the leftover process was asked to end")


@pytest.mark.slow
def test_an_agent_that_starts_things_without_end_is_ended(stage: Stage) -> None:
    breed = f"while :; do (sh -c '{LOOP}' {stage.folder} child &); sleep 0.02; done"
    start = "\n".join(f'(setsid sh -c "{breed}" {stage.folder} breeder &)' for _ in range(4))
    with stage.worker(stage.agent(f"{start}\necho ready\n{LOOP}")) as worker:
        worker.wait_for("ready")
        wait_until(lambda: len(stage.processes()) > 60, "there are many")
        worker.process.kill()
        stage.wait_until_empty(timeout_s=10)
    assert stage.notes()["left"] == []


@pytest.mark.slow
def test_the_worker_ends_its_agent_at_once(stage: Stage) -> None:
    with stage.worker(stage.busy_agent()) as worker:
        started(stage, worker)
        worker.tell("end")
        worker.wait_for("ended")
        assert stage.tools() == []
        assert worker.process.wait() == 0
    assert list(stage.runs.iterdir()) == [stage.runs / ".lock"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_guard_that_is_asked_to_stop_asks_the_agent(stage: Stage, number: int) -> None:
    agent = stage.agent(f"trap 'exit 3' TERM; echo ready; {LOOP}")
    with stage.worker(agent) as worker:
        pid = json.loads(worker.wait_for("started"))["pid"]
        worker.wait_for("ready")
        os.kill(pid, number)
        worker.tell("close")
        assert json.loads(worker.wait_for("closed"))["code"] == 3


@pytest.mark.slow
def test_an_agent_that_does_not_listen_is_killed_after_two_seconds(stage: Stage) -> None:
    with stage.worker(stage.busy_agent()) as worker:
        pid = json.loads(worker.wait_for("started"))["pid"]
        started(stage, worker)
        begin = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        worker.tell("close")
        assert json.loads(worker.wait_for("closed"))["code"] == guard.KILLED
        assert 1.5 < time.monotonic() - begin < 4.5
        assert stage.tools() == []


@pytest.mark.slow
def test_a_second_signal_hurries(stage: Stage) -> None:
    asked = stage.folder / "asked"
    with stage.worker(stage.agent(f"trap 'touch {asked}' TERM\n{TOOLS}\necho ready\n{LOOP}")) as worker:
        pid = json.loads(worker.wait_for("started"))["pid"]
        started(stage, worker)
        begin = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        wait_until(asked.exists, "the agent was asked to end")
        os.kill(pid, signal.SIGTERM)
        worker.tell("close")
        worker.wait_for("closed")
        assert time.monotonic() - begin < 1.5


@pytest.mark.slow
def test_the_agent_dies_with_its_guard_and_its_tools_are_found_by_their_marker(stage: Stage) -> None:
    with stage.worker(stage.busy_agent()) as worker:
        pid = json.loads(worker.wait_for("started"))["pid"]
        started(stage, worker)
        cli_pid = stage.notes()["cli_pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(cli_pid), "the agent command is gone")
        left = stage.tools()
        assert end_old_agents(SESSION, 1, timeout_s=5) == []
        ended = end_old_agents(SESSION, 2, timeout_s=5)
        assert len(left) == TOOL_COUNT
        # One has no environment: nobody knows any more that it was the agent's.
        assert stage.tools() == ["bare"]
        assert len(ended) >= TOOL_COUNT - 1
        for process in stage.processes():
            process.kill()


@pytest.mark.parametrize("ending", ["exit 0", "exit 41", "kill -9 $$", "kill -15 $$"])
def test_the_exit_code_is_the_agents(stage: Stage, ending: str) -> None:
    codes = {"exit 0": 0, "exit 41": 41, "kill -9 $$": 137, "kill -15 $$": 143}
    assert launched(stage, stage.agent(ending)).returncode == codes[ending]


def test_an_agent_that_cannot_be_started_is_told_in_one_line(stage: Stage) -> None:
    done = launched(stage, stage.folder / "nothing here")
    assert done.returncode == guard.NOT_STARTED
    [line] = done.stderr.decode().splitlines()
    assert "nothing here cannot be started: No such file or directory" in line
    assert stage.notes()["ended"] == "not_started"


def test_an_agent_for_which_there_is_no_process_is_told_in_one_line(stage: Stage) -> None:
    limited = stage.folder / "limited.py"
    limited.write_text(NO_PROCESS.format(guard=guard.__file__))
    done = launched(stage, stage.agent("exit 0"), program=limited)
    assert done.returncode == guard.NOT_STARTED
    [line] = done.stderr.decode().splitlines()
    assert line.endswith("cannot be started: Resource temporarily unavailable")
    assert stage.notes()["ended"] == "not_started"


@pytest.mark.slow
def test_arguments_and_bytes_reach_the_agent_unchanged_and_fast(stage: Stage) -> None:
    odd = ["a b", "", "it's", '"', "$HOME", "\n", "--", "é\udcff", "*"]
    echo = """printf '%s\\0' "$@" >&2; exec cat"""
    data = os.urandom(30_000_000)
    begin = time.monotonic()
    done = launched(stage, stage.agent(echo), *odd, data=data)
    took_s = time.monotonic() - begin
    assert done.stdout == data
    assert [os.fsdecode(argument) for argument in done.stderr.split(b"\0")] == [*odd, ""]
    assert took_s < 10


@pytest.mark.slow
def test_the_agent_alone_holds_its_output(stage: Stage) -> None:
    # It closes its output and goes on: whoever reads sees the end at once.
    with stage.worker(stage.agent("exec >&-; exec <&-; " + LOOP)):
        wait_until(lambda: stage.notes().get("cli_pid"), "the agent runs")
        pid = stage.notes()["pid"]
        ours = [Path(f"/proc/{pid}/fd/{number}") for number in (0, 1)]
        wait_until(lambda: all(path.samefile(os.devnull) for path in ours), "the guard has let go of both ends")


def test_the_agent_gets_ordinary_signals_and_the_marker_and_no_terminal(stage: Stage) -> None:
    look = "grep -E '^(SigIgn|SigBlk)' /proc/self/status; echo $EVERTURN_RUN; ps -o tty= -p $$"
    done = launched(stage, stage.agent(look))
    ignored, blocked = (int(line.split()[1], 16) for line in sorted(done.stdout.decode().splitlines()[:2])[::-1])
    ours = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1) | 1 << (signal.SIGTERM - 1)
    assert (ignored & ours, blocked) == (0, 0)
    assert done.stdout.decode().splitlines()[2:] == [f"{RUN}:{SESSION}:1:", "?"]


def test_signals_that_a_worker_has_blocked_reach_guard_and_agent(stage: Stage) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD, guard.END_NOW})
    try:
        done = launched(stage, stage.agent("exec grep -h ^SigBlk /proc/self/status /proc/$PPID/status"))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert [int(line.split()[1], 16) for line in done.stdout.decode().splitlines()] == [0, 0]


def test_without_a_lease_or_a_worker_nothing_is_started(stage: Stage) -> None:
    assert launched(stage, stage.agent("touch started"), lease_s=-1.0).returncode == guard.KILLED
    folder = RunFolders(stage.runs, clock=SystemClock()).open("run-2")
    folder.extend_lease(SystemClock().elapsed() + 60)
    launcher = folder.launcher(stage.agent("touch started"), session_id=SESSION, epoch=1)
    config = json.loads((folder.path / "guard.json").read_text())
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    (folder.path / "guard.json").write_text(json.dumps({**config, "worker_pid": gone.pid, "worker_started": "1"}))
    assert subprocess.run([launcher], cwd=stage.folder, check=False).returncode == guard.KILLED
    assert not (stage.folder / "started").exists()
    folder.close()


# --- The transcript ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_transcript_is_kept_with_those_of_subagents_and_no_others(stage: Stage) -> None:
    with stage.worker(stage.agent(f"echo ready; {LOOP}")) as worker:
        worker.wait_for("ready")
        write_sessions(stage.config_dir)
        worker.process.kill()
        stage.wait_until_empty()
    assert_kept(stage)
    assert stage.notes()["kept"] is True
    assert stage.config_dir.exists()


@pytest.mark.slow
def test_a_temporary_folder_of_a_resumed_session_is_removed_if_its_worker_died(stage: Stage) -> None:
    resumed = stage.temporary / "claude-resume-x1"
    agent = stage.agent(f"export CLAUDE_CONFIG_DIR={resumed}; echo ready; {LOOP}")
    with stage.worker(agent, environment={"CLAUDE_CONFIG_DIR": str(resumed)}) as worker:
        worker.wait_for("ready")
        write_sessions(resumed)
        (resumed / ".credentials.json").write_text("{}")
        worker.process.kill()
        stage.wait_until_empty()
    assert_kept(stage)
    assert list(stage.temporary.iterdir()) == []


@pytest.mark.slow
def test_a_folder_that_only_looks_temporary_stays(stage: Stage) -> None:
    mine = stage.folder / "claude-resume-mine"
    with stage.worker(stage.agent(f"echo ready; {LOOP}"), environment={"CLAUDE_CONFIG_DIR": str(mine)}) as worker:
        worker.wait_for("ready")
        write_sessions(mine)
        worker.process.kill()
        stage.wait_until_empty()
    assert_kept(stage)
    assert mine.exists()


@pytest.mark.slow
def test_what_a_killed_guard_has_not_kept_the_next_start_keeps(stage: Stage) -> None:
    resumed = stage.temporary / "claude-resume-x1"
    with stage.worker(stage.agent(f"echo ready; {LOOP}"), environment={"CLAUDE_CONFIG_DIR": str(resumed)}) as worker:
        pid = json.loads(worker.wait_for("started"))["pid"]
        worker.wait_for("ready")
        write_sessions(resumed)
        worker.process.send_signal(signal.SIGSTOP)  # or it would end its agent in an orderly way
        os.kill(pid, signal.SIGKILL)
        worker.process.kill()
        worker.process.wait()
        [folder] = RunFolders(stage.runs, clock=SystemClock()).leftovers()
        folder.end_agent(timeout_s=5)
        assert_kept(stage)
        assert folder.facts == {"work": RUN}
        folder.close()
    assert list(stage.temporary.iterdir()) == []


def test_a_transcript_that_cannot_be_linked_is_copied_and_what_is_no_file_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    write_sessions(tmp_path / "config")
    (tmp_path / "config/projects/-p" / SESSION / "link.jsonl").symlink_to("/etc/passwd")
    for _ in range(2):
        guard.keep_transcript(str(tmp_path / "config"), SESSION, str(tmp_path / "kept"))
    assert files_below(tmp_path / "kept") == EXPECTED


def become_somebody_to_whom_it_is_closed(closed: Path, whole: Path) -> None:
    """In a child of our own: whoever is not root closes it; root gives all else away, and then is somebody else."""
    closed.chmod(0)
    if os.access(closed, os.X_OK):
        for path in {whole, *whole.rglob("*")} - {closed}:
            os.chown(path, NOBODY, NOBODY)
        os.setuid(NOBODY)


def test_a_project_that_only_another_user_can_look_into_keeps_nothing_from_being_kept() -> None:
    with tempfile.TemporaryDirectory() as place:  # that, unlike `tmp_path`, another user may be let into
        config, kept = Path(place, "config"), Path(place, "kept")
        write_sessions(config)
        kept.mkdir()
        (config / "projects" / "foreign").mkdir()
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                become_somebody_to_whom_it_is_closed(config / "projects" / "foreign", Path(place))
                guard.keep_transcript(str(config), SESSION, str(kept))
                os._exit(0)
            os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        (config / "projects" / "foreign").chmod(0o700)
        assert (code, files_below(kept)) == (0, EXPECTED)


def test_nothing_to_keep_is_no_error(tmp_path: Path) -> None:
    guard.keep_transcript(str(tmp_path / "none"), SESSION, str(tmp_path / "kept"))
    assert not (tmp_path / "kept").exists()


# --- Where there is no /proc -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_with_what_every_system_has_the_agent_and_its_group_end_with_the_worker(stage: Stage) -> None:
    with stage.worker(stage.busy_agent(), portable=True) as worker:
        started(stage, worker)
        worker.process.kill()
        # What has left the group and lost its parent cannot be found without Linux.
        wait_until(lambda: stage.tools() == ["bare", "deaf", "orphan"], "the others are gone")
        wait_until(lambda: len(stage.processes()) == 3, "the agent and the guard are gone")
        for process in stage.processes():
            process.kill()


@pytest.mark.slow
def test_with_what_every_system_has_a_lease_ends_an_agent_and_the_code_is_passed_on(stage: Stage) -> None:
    agent = stage.agent(f"echo ready; {LOOP}")
    with stage.worker(agent, portable=True) as worker:
        worker.wait_for("ready")
        lease(worker, 1)
        worker.tell("close")
        assert json.loads(worker.wait_for("closed"))["code"] == guard.KILLED
        assert stage.notes()["ended"] == "lease"


# --- What it takes -----------------------------------------------------------------------------------------------

EXPECTED = {
    f"-p/{SESSION}.jsonl": "main\n",
    f"-p/{SESSION}/subagents/agent-1.jsonl": "sub\n",
    f"-p/{SESSION}/subagents/deep/agent-2.jsonl": "deep\n",
    f"-q/{SESSION}.jsonl": "elsewhere\n",
}


def write_sessions(config_dir: Path) -> None:
    for name, text in {**EXPECTED, "-p/other.jsonl": "no\n", "-p/other/subagents/agent-3.jsonl": "no\n"}.items():
        path = config_dir / "projects" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def assert_kept(stage: Stage) -> None:
    assert files_below(stage.runs / RUN / "transcript") == EXPECTED


def files_below(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def launched(
    stage: Stage, agent: Path, *arguments: str, data: bytes = b"", lease_s: float = 600.0, program: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Start an agent under a guard, or a program in its place, as a child of this process, and wait for its end."""
    clock = SystemClock()
    folder = RunFolders(stage.runs, clock=clock).open(RUN)
    folder.extend_lease(clock.elapsed() + lease_s)
    launcher = folder.launcher(agent, session_id=SESSION, epoch=1)
    if program is not None:
        launcher.write_text(launcher.read_text().replace(guard.__file__, str(program)))
    done = subprocess.run(
        [launcher, *arguments],
        input=data,
        capture_output=True,
        cwd=stage.folder,
        env=stage.environment(),
        timeout=60,
        check=False,
    )
    folder.close(keep=True)
    assert stage.processes() == []
    return done


@pytest.mark.slow
def test_a_guard_costs_little_time(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    agent = stage.agent("exit 0")
    clock = SystemClock()
    folder = RunFolders(stage.runs, clock=clock).open(RUN)
    folder.extend_lease(clock.elapsed() + 600)
    launcher = folder.launcher(agent, session_id=SESSION, epoch=1)
    times: dict[Path, list[float]] = {agent: [], launcher: []}
    for _ in range(15):
        for command, taken in times.items():
            begin = time.perf_counter()
            subprocess.run([command], env=stage.environment(), check=True)
            taken.append(time.perf_counter() - begin)
    plain_s, guarded_s = (sorted(taken)[len(taken) // 2] for taken in times.values())
    with capsys.disabled():
        sys.stdout.write(
            f"\nan agent that does nothing: {plain_s * 1000:.0f} ms; guarded: {guarded_s * 1000:.0f} ms\n"
        )
    folder.close()
    assert guarded_s - plain_s < 0.5


def test_the_guard_imports_nothing_of_everturn() -> None:
    code = f"import sys; exec(open({guard.__file__!r}).read(), {{'__name__': 'guard'}}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert not {"everturn", "typing", "pathlib", "subprocess", "contextlib"} & set(done.stdout.split())
