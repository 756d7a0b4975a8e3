"""The real agent command under a guard, with real tools, through the SDK."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from everturn.testing import ModelRequest, Reply, ScriptedModel, Text, ToolUse, cli_environment
from everturn.upkeep.local import read_transcript
from host.stage import RUN, SESSION, Stage, Worker
from polling import is_alive, wait_until

pytestmark = [pytest.mark.cli, pytest.mark.slow]

PROMPT = "Count the sheep."
AGAIN = "Count them again."
SHEEP = 4
FLOCK = (
    "echo flock; step() { while :; do sleep 0.1; done; }; "
    'nohup sh -c "while :; do sleep 0.1; done" sheep >/dev/null 2>&1 & '
    'setsid sh -c "while :; do sleep 0.1; done" sheep & '
    "(setsid nohup sh -c \"trap '' TERM HUP; while :; do sleep 0.1; done\" sheep >/dev/null 2>&1 &) ; "
)
IN_A_TOOL = FLOCK + "exec sh -c \"for i in $(seq 600 | tr '\\n' ' '); do sleep 0.1; done\" sheep"
QUICK_TOOL = FLOCK + "echo counted"


class Field:
    """A scripted model, a stage, and what their workers need."""

    def __init__(self, folder: Path, model: ScriptedModel, url: str) -> None:
        self.stage = Stage(folder)
        self.model = model
        self.url = url
        self.cwd = folder / "work dir's"
        self.cwd.mkdir()

    @contextlib.contextmanager
    def worker(self, prompt: str = PROMPT, **plan: Any) -> Iterator[Worker]:
        home = self.stage.folder / "home"
        home.mkdir(exist_ok=True)
        defaults = {
            "store": (self.stage.folder / "store").as_uri(),
            "cwd": str(self.cwd),
            "prompt": prompt,
            "resume": False,
            "deaf_to_ctrl_c": False,
            "environment": {
                **cli_environment(self.url, home, path=os.environ["PATH"], tmpdir=self.stage.temporary),
                "CLAUDE_CONFIG_DIR": "",
            },
        }
        with self.stage.worker(Path("unused"), program="sdk_worker.py", **{**defaults, **plan}) as worker:
            yield worker

    def sheep(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.cmdline()[-1:] == ["sheep"] and process.cwd() == str(self.cwd):
                    found.append(process)
        return found

    def is_empty(self) -> bool:
        return not self.stage.processes() and not self.sheep()

    def kept(self, run_id: str = RUN) -> dict[str, list[dict[str, Any]]]:
        """Return the kept transcripts, by the ends of their names."""
        folder = self.stage.runs / run_id / "transcript"
        return {path.relative_to(folder).as_posix(): read_transcript(path) for path in folder.rglob("*.jsonl")}


@pytest.fixture
def field(tmp_path: Path) -> Iterator[Field]:
    model = ScriptedModel(answer)
    with model.serve() as url:
        yield Field(tmp_path / "field", model, url)


def answer(request: ModelRequest) -> Reply:
    """Count in a tool that takes long, or a quick one, or have a subagent do it, as the prompt asks."""
    said = request.last_user_text()
    if "quickly" in said:
        return Reply(ToolUse("Bash", {"command": QUICK_TOOL}))
    if "delegate" in said:
        order = {"description": "Count", "prompt": "SUBAGENT: count", "run_in_background": False}
        return Reply(ToolUse("Agent", order))
    if "say" in said:
        return Reply(Text("Seven, slowly. " * 10), chunk_delay_s=0.1)
    if any(prompt in said for prompt in (PROMPT, AGAIN, "SUBAGENT")):
        return Reply(ToolUse("Bash", {"command": IN_A_TOOL}))
    return Reply(Text("Seven."))


def in_the_tool(field: Field) -> None:
    wait_until(lambda: len(field.sheep()) == SHEEP, "all sheep run")


def seconds_until_empty(field: Field) -> float:
    begin = time.monotonic()
    wait_until(field.is_empty, "everything is gone", timeout_s=5.0)
    return time.monotonic() - begin


def everything(worker: Worker) -> list[psutil.Process]:
    return psutil.Process(worker.process.pid).children(recursive=True)


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def told(line: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{line}\n")

    return told


def test_a_killed_worker_takes_the_agent_and_its_tools_with_it(field: Field, tell: Callable[[str], None]) -> None:
    with field.worker() as worker:
        in_the_tool(field)
        below = everything(worker)
        worker.process.kill()
        gone_s = seconds_until_empty(field)
        wait_until(lambda: not any(process.is_running() for process in below), "zombies are gone as well")
    tell(f"killed in a tool: all {len(below)} processes were gone in {gone_s * 1000:.0f} ms")
    assert len(below) > SHEEP
    [(name, entries)] = field.kept().items()
    assert name.endswith(f"/{SESSION}.jsonl")
    assert PROMPT in str(entries)
    assert "flock" in str(entries)


def test_a_killed_worker_of_a_resumed_session_leaves_nothing_but_the_transcript(field: Field) -> None:
    with field.worker("Count quickly.", run_id="first") as worker:
        worker.wait_for('"ended"')
        assert field.sheep() == []
    with field.worker("Count quickly.", run_id="second", resume=True, epoch=2) as worker:
        worker.wait_for('"ended"')
    with field.worker(AGAIN, resume=True, epoch=3) as worker:
        wait_until(lambda: any(field.stage.temporary.glob("claude-resume-*")), "the session is resumed")
        in_the_tool(field)
        worker.process.kill()
        seconds_until_empty(field)
    assert list(field.stage.temporary.glob("claude-resume-*")) == []
    [first], [second], [third] = (
        [[entry["uuid"] for entry in entries if "uuid" in entry] for entries in field.kept(run_id).values()]
        for run_id in ("first", "second", RUN)
    )
    assert first == second[: len(first)]
    assert second == third[: len(second)]
    assert len(first) < len(second) < len(third)
    assert AGAIN in str(field.kept())


def test_what_a_subagent_has_said_is_kept_as_well(field: Field) -> None:
    with field.worker("Please delegate the counting.") as worker:
        in_the_tool(field)
        worker.process.kill()
        seconds_until_empty(field)
    kept = field.kept()
    [sub] = [name for name in kept if "/subagents/" in name]
    assert "SUBAGENT: count" in str(kept[sub])
    assert len(kept) == 2


def test_a_run_that_ends_by_itself_leaves_nothing_running_and_ends_soon(
    field: Field, tell: Callable[[str], None]
) -> None:
    with field.worker("Count quickly.") as worker:
        connected = json.loads(worker.wait_for('"connected"'))
        assert json.loads(worker.wait_for('"result"'))["text"] == "Seven."
        assert len(field.sheep()) == SHEEP - 1
        left = json.loads(worker.wait_for('"disconnected"'))
        agent = json.loads(worker.wait_for('"agent"'))
        assert field.sheep() == []
        assert worker.process.wait() == 0
    tell(f"connected in {connected['seconds']:.2f} s, disconnected in {left['seconds']:.2f} s")
    assert agent == {"event": "agent", "alive": False, "ended": "exit", "code": 0, "kept": True}
    assert left["seconds"] < 4
    assert "Seven." in str(field.kept())


def test_a_paused_worker_loses_its_agent_when_its_lease_runs_out(field: Field) -> None:
    with field.worker() as worker:
        in_the_tool(field)
        worker.process.send_signal(signal.SIGSTOP)
        field.stage.end_lease()
        wait_until(lambda: not field.sheep() and len(field.stage.processes()) == 1, "the agent is gone")
        assert PROMPT in str(field.kept())
        assert field.stage.notes()["ended"] == "lease"


def test_ctrl_c_reaches_the_worker_and_not_the_agent(field: Field) -> None:
    with field.worker("Please say it.", deaf_to_ctrl_c=True, start_new_session=True) as worker:
        worker.wait_for('"connected"')
        field.model.wait_until_streamed(1, 3, 20)
        os.killpg(worker.process.pid, signal.SIGINT)
        worker.wait_for('"interrupted"')
        assert json.loads(worker.wait_for('"result"'))["text"].startswith("Seven, slowly. Seven")
        worker.wait_for('"ended"')


def test_the_sdks_own_way_to_stop_an_agent_works_through_the_guard(field: Field) -> None:
    with field.worker():
        in_the_tool(field)
        guard_pid = field.stage.notes()["pid"]
        os.kill(guard_pid, signal.SIGTERM)
        wait_until(lambda: not field.sheep() and not is_alive(guard_pid), "the tools and the guard are gone", 5)
    assert field.stage.notes()["ended"] in ("exit", "signal")
    assert PROMPT in str(field.kept())
