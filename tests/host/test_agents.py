"""The agents of this host: old ones end before a new one begins; the command is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from prometheus_client import CollectorRegistry

from everturn.errors import Conflict, Fenced, NotFound
from everturn.host.agents import (
    Marker,
    end_agents_of_run,
    end_old_agents,
    find_cli,
    find_processes,
    is_guard,
    mark_of,
    marker_of,
)
from everturn.settings import RUN_MARKER, Settings
from everturn.telemetry import Metrics
from host.stage import RUN, SESSION, TOOL_COUNT, Stage
from polling import wait_until

OTHER = str(uuid.uuid4())


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "stage")


def test_agents_of_another_session_of_the_same_work_item_are_old() -> None:
    work = mark_of(f"sqlite:///{SESSION}", "task:1")
    elsewhere = mark_of(f"sqlite:///{OTHER}", "task:1")
    with (
        marked(f"r:{OTHER}:9:{work}") as given_up,
        marked(f"r:{SESSION}:2:{work}") as ours,
        marked(f"r:{OTHER}:9:{elsewhere}") as another,
    ):
        assert end_old_agents(SESSION, 2, work=work, timeout_s=5) == [given_up.pid]
        assert all(process.is_running() for process in (ours, another))


def test_a_claim_that_was_lost_meanwhile_ends_nothing() -> None:
    work = mark_of(f"sqlite:///{SESSION}", "task:1")

    def lost() -> None:
        raise Fenced("task:1 was claimed again", hint="stop")

    with marked(f"r:{OTHER}:9:{work}") as newer:
        with pytest.raises(Fenced):
            end_old_agents(SESSION, 2, work=work, timeout_s=5, confirm=lost)
        assert newer.is_running()
        assert end_old_agents(str(uuid.uuid4()), 2, timeout_s=5, confirm=lost) == []  # there is nothing to end
        assert end_old_agents(SESSION, 2, work=work, timeout_s=5, confirm=lambda: None) == [newer.pid]


@contextmanager
def marked(text: str) -> Iterator[psutil.Process]:
    with subprocess.Popen(["sleep", "600"], env={"PATH": os.environ["PATH"], RUN_MARKER: text}) as process:
        seen = psutil.Process(process.pid)
        wait_until(lambda: RUN_MARKER in seen.environ(), "the process has its environment")
        yield seen
        process.kill()


@pytest.mark.slow
def test_an_old_agent_is_ended_with_its_guard_and_all_its_tools_and_counted(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics(CollectorRegistry())
    with stage.worker(stage.busy_agent(), epoch=3) as worker, caplog.at_level("INFO", "everturn"):
        worker.wait_for("ready")
        wait_until(lambda: len(stage.tools()) == TOOL_COUNT, "all tools run")
        guard_pid = stage.notes()["pid"]
        assert end_old_agents(SESSION, 3, timeout_s=10, metrics=metrics) == []
        assert end_old_agents(OTHER, 9, timeout_s=10, metrics=metrics) == []
        ended = end_old_agents(SESSION, 4, timeout_s=10, metrics=metrics)
        assert [process.pid for process in stage.processes()] == [worker.process.pid]
        assert guard_pid in ended
        assert stage.notes()["kept"] is True
    assert metrics.registry.get_sample_value("everturn_old_agents_ended_total") == len(ended) >= TOOL_COUNT + 2
    [line] = [json.loads(record.message) for record in caplog.records]
    assert (line["event"], line["epoch"], line["pids"]) == ("old_agents_ended", 4, ended)


def test_only_processes_of_the_session_with_a_lower_epoch_are_old() -> None:
    with (
        marked(f"r:{SESSION}:1") as old,
        marked(f"r:{SESSION}:2") as same,
        marked(f"r:{OTHER}:1") as another,
        marked("whatever") as odd,
        marked(f"r:{SESSION}:x") as odder,
        marked(f"r:{SESSION}:{'1' * 5000}") as oddest,
    ):
        assert marker_of(old.pid) == Marker("r", SESSION, 1)
        assert [marker_of(process.pid) for process in (odd, odder, oddest)] == [None, None, None]
        assert end_old_agents(SESSION, 2, timeout_s=5) == [old.pid]
        assert all(process.is_running() for process in (same, another, odd, odder, oddest))


@pytest.mark.slow
@pytest.mark.parametrize("portable", [False, True])
def test_a_guard_is_known_by_its_command_line(stage: Stage, portable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # as wide as a terminal, to which `ps` cuts its lines
    with stage.worker(stage.busy_agent()) as worker:
        worker.wait_for("ready")
        known = [process.pid for process in stage.processes() if is_guard(process.pid, portable=portable)]
        assert known == [stage.notes()["pid"]]
    assert not is_guard(known[0], portable=portable)


def test_what_does_not_end_is_a_conflict() -> None:
    with marked(f"r:{SESSION}:1") as old:
        found = find_processes(lambda marker: marker.session_id == SESSION)
        assert set(found) == {old.pid}
        with pytest.raises(Conflict, match=f"is still there: process {old.pid}"):
            # Not a moment is given to it.
            end_old_agents(SESSION, 2, timeout_s=-1, metrics=Metrics(CollectorRegistry()))


@pytest.mark.slow
def test_a_run_that_was_started_by_the_old_agent_itself_is_refused() -> None:
    code = f"from everturn.host.agents import end_old_agents; end_old_agents({SESSION!r}, 2, timeout_s=1)"
    environment = {"PATH": os.environ["PATH"], RUN_MARKER: f"r:{SESSION}:1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "was started by the agent of session" in done.stderr


@pytest.mark.slow
def test_a_workdir_is_not_cleared_by_what_its_last_agent_has_started() -> None:
    with marked(f"r:{SESSION}:1") as left:
        code = "from everturn.host.agents import end_agents_of_run; end_agents_of_run('r', timeout_s=1)"
        given = {"env": {"PATH": os.environ["PATH"], RUN_MARKER: f"r:{SESSION}:1"}, "capture_output": True}
        done = subprocess.run([sys.executable, "-c", code], check=False, text=True, **given)
        assert "was started by the agent of run r" in done.stderr
        assert end_agents_of_run("r", timeout_s=5) == [left.pid]


def test_settings_are_read_inside_an_agents_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_MARKER, f"{RUN}:{SESSION}:1")
    assert Settings.load().store is None


# --- Where the command is ----------------------------------------------------------------------------------------


def test_the_command_that_was_asked_for_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "my claude"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_cli(command) == command
    assert find_cli("my claude") == command
    monkeypatch.chdir(tmp_path)
    assert find_cli("./my claude") == command


@pytest.mark.parametrize("name", ["/not/there", "not-there", "./not-there"])
def test_a_command_that_is_not_there_is_not_found(name: str) -> None:
    with pytest.raises(NotFound, match=r"there is no agent command .*not.there \(check the option cli_path\)"):
        find_cli(name)


def test_the_command_that_came_with_the_sdk_goes_before_others() -> None:
    assert find_cli(None).parts[-3:] == ("claude_agent_sdk", "_bundled", "claude")


def test_without_the_sdks_own_the_search_path_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound, match="there is no agent command"):
        find_cli(None)
    command = tmp_path / "claude"
    command.write_text("")
    command.chmod(0o700)
    assert find_cli(None) == command
