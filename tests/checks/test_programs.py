"""Programs that are old, missing, silent or talk nonsense."""

from __future__ import annotations

import os
import threading
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from everturn.checks import programs
from everturn.checks.findings import Finding
from everturn.host.agents import find_cli
from polling import Started, is_alive, wait_until

SYSTEM = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def only(findings: Iterable[Finding]) -> Finding:
    (found,) = findings
    return found


def program(folder: Path, name: str, *lines: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def said(environment: Mapping[str, str], command: Path, timeout_s: float = 10.0) -> Finding:
    return only(programs.agent(environment, threading.Event(), command, timeout_s))


def test_what_is_looked_for_is_what_is_asked_for_when_it_is_installed() -> None:
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    assert project["requires-python"] == f">={programs.dotted(programs.NEEDED_PYTHON)}"
    assert f"claude-agent-sdk>={programs.dotted(programs.TESTED_SDK)}" in project["dependencies"]
    pinned = (PYPROJECT.parent / "constraints.txt").read_text()
    assert f"claude-agent-sdk=={programs.dotted(programs.TESTED_SDK)}\n" in pinned


def test_a_python_that_is_too_old_fails() -> None:
    assert only(programs.python()).status == "pass"
    assert only(programs.python((3, 10, 14))).status == "fail"


@pytest.mark.parametrize(
    ("version", "status"), [("0.2.184", "pass"), ("0.10.0", "pass"), ("0.2.99", "warn"), ("?", "warn")]
)
def test_an_sdk_older_than_the_tested_one_is_a_warning(version: str, status: str) -> None:
    assert only(programs.sdk(version)).status == status


@pytest.mark.cli
def test_the_agent_command_is_the_one_that_runs_start() -> None:
    found = only(programs.agent(SYSTEM, threading.Event()))
    assert found.status == "pass"
    assert str(find_cli(None)) in found.message


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("echo '2.1.327 (Claude Code)'", "pass", "2.1.327"),
        ("echo '3.0.0 (Claude Code)'", "pass", "3.0.0"),
        ("echo '2.1.9 (Claude Code)'", "warn", "tested with"),
        ("echo '1.0.88 (Claude Code)'", "fail", "the SDK needs"),
        ("echo 'Segmentation fault'; exit 139", "fail", "does not tell a version: 'Segmentation fault'"),
        ("printf '\\377\\033[31m'", "fail", "does not tell a version"),
        ("exit 1", "fail", "does not tell a version: ''"),
        ("while :; do echo nonsense; done", "fail", "does not tell a version: 'nonsense"),
    ],
)
def test_an_agent_command_is_judged_by_what_it_says(tmp_path: Path, line: str, status: str, words: str) -> None:
    found = said(SYSTEM, program(tmp_path / "bin", "claude", line))
    assert found.status == status
    assert words in found.message
    assert (found.mend == "") == (status == "pass")


@pytest.mark.slow
def test_an_agent_command_that_hangs_is_ended_with_all_it_has_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    lines = (f"sleep 600 & echo $! > {pids}", "trap '' TERM", "wait")
    found = said(SYSTEM, program(tmp_path / "bin", "claude", *lines), timeout_s=0.5)
    assert found.status == "fail"
    assert "did not end within 0.5 s" in found.message
    pid = int(pids.read_text())
    wait_until(lambda: not is_alive(pid), "the end of what it had started")


def test_an_agent_command_sees_nothing_of_this_environment(tmp_path: Path) -> None:
    line = 'test -z "$ANTHROPIC_API_KEY" && test "$HOME" != /home/me && echo 9.9.9'
    command = program(tmp_path / "bin", "claude", line)
    environment = {**SYSTEM, "ANTHROPIC_API_KEY": "secret", "HOME": "/home/me"}
    assert "9.9.9" in said(environment, command).message


@pytest.mark.parametrize("kind", ["missing", "folder", "not executable", "not a program"])
def test_an_agent_command_that_cannot_be_started_fails(tmp_path: Path, kind: str) -> None:
    command = tmp_path / "claude"
    if kind == "folder":
        command.mkdir()
    elif kind != "missing":
        command.write_bytes(b"\x7fELF")
        command.chmod(0o644 if kind == "not executable" else 0o755)
    found = said(SYSTEM, command)
    assert (found.status, "cannot be started" in found.message) == ("fail", True)


def test_credentials_for_the_model_are_looked_for_and_not_shown(tmp_path: Path) -> None:
    assert only(programs.login({}, tmp_path)).status == "warn"
    found = only(programs.login({"ANTHROPIC_API_KEY": "very-secret"}, tmp_path))
    assert (found.status, found.message) == ("pass", "by ANTHROPIC_API_KEY")
    (tmp_path / ".credentials.json").write_text("{}")
    assert only(programs.login({}, tmp_path)).status == "pass"


def test_a_missing_git_fails(tmp_path: Path) -> None:
    found = only(programs.git({"PATH": str(tmp_path)}, threading.Event()))
    assert found.status == "fail"
    assert "install git" in found.mend


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("echo git version 2.50.1 '(Apple Git-155)'", "pass"),
        ("echo git version 2.32.0.windows.1", "pass"),
        ("echo git version 2.17.1", "fail"),
        ("echo gibberish", "fail"),
    ],
)
def test_a_git_is_judged_by_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, status: str
) -> None:
    program(tmp_path / "bin", "git", line)
    assert (
        only(programs.git({"PATH": f"{tmp_path / 'bin'}{os.pathsep}/usr/bin:/bin"}, threading.Event())).status
        == status
    )


def test_nothing_is_left_of_the_programs_that_were_asked(tmp_path: Path, started: Started) -> None:
    said({**SYSTEM, "TMPDIR": str(tmp_path)}, program(tmp_path / "bin", "claude", "echo 2.1.327"))
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]
    assert started() == []
