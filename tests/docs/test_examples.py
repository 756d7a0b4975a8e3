"""The examples run, and the README shows what they contain."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from everturn.testing import ModelRequest, Reply, ScriptedModel, Text, cli_environment, make_repository

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

pytestmark = [pytest.mark.cli, pytest.mark.slow]


def run(name: str, *arguments: str, environment: dict[str, str], cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        env=environment,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def remembers(request: ModelRequest) -> Reply:
    """Say how much of the conversation is known."""
    asked = sum(message["role"] == "user" for message in request.messages)
    return Reply(Text(f"You have spoken {asked} times."))


def test_store_in_sdk_goes_on_in_a_second_process_and_directory(tmp_path: Path) -> None:
    arguments = ((tmp_path / "store").as_uri(), "task-42", "Hello")
    model = ScriptedModel(remembers)
    with model.serve() as url:
        for number, home in enumerate(("one", "two"), 1):
            (tmp_path / home).mkdir()
            environment = cli_environment(url, tmp_path / home, path=os.environ["PATH"], tmpdir=tmp_path)
            said = run("store_in_sdk.py", *arguments, environment=environment, cwd=tmp_path / home)
            assert said == f"You have spoken {number} times.\n"


def test_durable_run_goes_on_when_it_is_run_again(tmp_path: Path) -> None:
    repo = make_repository(tmp_path / "web", {})
    with ScriptedModel(remembers).serve() as url:
        environment = {
            **cli_environment(url, tmp_path, path=os.environ["PATH"], tmpdir=tmp_path),
            "EVERTURN_STATE": str(tmp_path / "state"),
        }
        first = run("durable_run.py", str(repo), "42", environment=environment, cwd=tmp_path)
        second = run("durable_run.py", str(repo), "42", environment=environment, cwd=tmp_path)
    assert "began in" in first
    assert "went on in" in second
    assert "You have spoken 2 times." in second


def test_scripted_agent_passes(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    assert run("scripted_agent.py", environment=environment, cwd=tmp_path) == "passed\n"


def test_without_a_key_starts_a_command_whose_agent_knows_what_the_tutorials_ask(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    command = (sys.executable, str(EXAMPLES / "store_in_sdk.py"), (tmp_path / "store").as_uri(), "task-42")
    first = run("without_a_key.py", *command, "Remember the word heron.", environment=environment, cwd=tmp_path)
    second = run("without_a_key.py", *command, "Which word was it?", environment=environment, cwd=tmp_path)
    assert (first, second) == ("I shall remember: heron.\n", "The word was heron.\n")


def test_every_example_is_run_here_or_in_test_readers() -> None:
    here = {"store_in_sdk.py", "durable_run.py", "scripted_agent.py", "without_a_key.py"}
    readers = {"read_plain.py", "read_with_duckdb.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == here | readers
