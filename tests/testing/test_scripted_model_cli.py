"""The real agent command believes the scripted model."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from everturn.testing.model import (
    Disconnect,
    Failure,
    ModelRequest,
    Reply,
    ScriptedModel,
    Thinking,
    ToolUse,
    cli_environment,
)

if TYPE_CHECKING:
    from pathlib import Path

# The SDK lays its options over the environment of its process, so each turn has a process of its own.
TURN = textwrap.dedent(
    """
    import asyncio, json, sys
    from claude_agent_sdk import ClaudeAgentOptions, query

    async def turn():
        options = ClaudeAgentOptions(cwd=sys.argv[1], permission_mode="bypassPermissions", setting_sources=[])
        async for message in query(prompt=sys.argv[2], options=options):
            said = {"type": type(message).__name__, "subtype": getattr(message, "subtype", None)}
            print(json.dumps(said | {"result": getattr(message, "result", None)}))

    asyncio.run(turn())
    """
)


def run_turn(model: ScriptedModel, tmp_path: Path, prompt: str, *, quiet: bool = True) -> list[dict[str, Any]]:
    """Run one turn of the real agent command and return what the SDK's messages were."""
    home, cwd, tmpdir = (tmp_path / name for name in ("home", "work", "tmp"))
    for directory in (home, cwd, tmpdir):
        directory.mkdir()
    with model.serve() as url:
        environment = cli_environment(url, home, tmpdir=tmpdir)
        if not quiet:
            del environment["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"]
            # A proxy that is not there keeps whatever else it now asks for on this machine.
            environment["HTTPS_PROXY"] = "http://127.0.0.1:9"
        done = subprocess.run(
            [sys.executable, "-c", TURN, str(cwd), prompt],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.cli
def test_the_real_command_takes_a_turn(tmp_path: Path) -> None:
    model = ScriptedModel([Reply(Thinking("a greeting"), "Hello there.")])
    messages = run_turn(model, tmp_path, "Say hello to me")
    assert (messages[0]["type"], messages[0]["subtype"]) == ("SystemMessage", "init")
    assert messages[-1] == {"type": "ResultMessage", "subtype": "success", "result": "Hello there."}
    [request] = model.requests
    assert request.streaming
    assert "Say hello to me" in request.last_user_text()
    assert model.side_requests == []


@pytest.mark.slow
@pytest.mark.cli
def test_the_real_command_runs_a_tool_and_brings_back_its_result(tmp_path: Path) -> None:
    call = ToolUse("Bash", {"command": "echo from-$((40 + 2)) > made; cat made", "description": "Make a file"})
    model = ScriptedModel([Reply("Let me see.", call), Reply("Done.")])
    messages = run_turn(model, tmp_path, "Make it")
    assert messages[-1]["result"] == "Done."
    _, second = model.requests
    [(call_id, name, _)] = second.tool_uses()
    assert name == "Bash"
    assert second.tool_results() == [(call_id, "from-42")]
    assert (tmp_path / "work" / "made").read_text() == "from-42\n"


@pytest.mark.slow
@pytest.mark.cli
def test_the_real_command_tries_again_after_a_failure_and_a_cut(tmp_path: Path) -> None:
    model = ScriptedModel([Failure(), Disconnect(Reply("one two three"), after_chunks=2), Reply("At last.")])
    messages = run_turn(model, tmp_path, "Try")
    assert [message["type"] for message in messages if message["subtype"] == "api_retry"] == ["SystemMessage"] * 2
    assert messages[-1]["result"] == "At last."
    assert len(model.requests) == 3


@pytest.mark.slow
@pytest.mark.cli
def test_the_steps_of_a_subagent_of_the_real_command_are_in_the_script(tmp_path: Path) -> None:
    delegate = {"description": "Count", "prompt": "COUNT THEM", "run_in_background": False}

    def script(request: ModelRequest) -> Reply:
        if "COUNT THEM" in request.last_user_text():
            return Reply("There are seven.")
        return Reply("Seven.") if request.tool_results() else Reply(ToolUse("Agent", delegate))

    model = ScriptedModel(script)
    messages = run_turn(model, tmp_path, "How many?")
    assert messages[-1]["result"] == "Seven."
    first, inner, last = model.requests
    assert inner.system_text() != first.system_text()
    assert "There are seven." in last.tool_results()[0][1]


@pytest.mark.slow
@pytest.mark.cli
def test_the_real_command_asks_on_the_side_for_a_title_only_when_it_may(tmp_path: Path) -> None:
    model = ScriptedModel([Reply("Fixed.")], side_reply='{"title": "Flaky login"}')
    messages = run_turn(model, tmp_path, "Please fix the flaky login test", quiet=False)
    assert messages[-1]["result"] == "Fixed."
    assert len(model.requests) == 1
    [title] = model.side_requests
    assert "fix the flaky login test" in title.last_user_text()
