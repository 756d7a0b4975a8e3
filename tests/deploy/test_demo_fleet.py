"""`everturn demo-fleet`: there is something to see on each page, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from everturn.demo.fleet_story import CAST, PROJECTS, Part, reply
from everturn.testing import ModelRequest, Text, ToolUse, kill_machine
from polling import processes_below, wait_until

TIMEOUT_S = 90.0


def launch(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start the command in a folder that has a `tmp`."""
    return subprocess.Popen(
        [Path(sys.executable).with_name("everturn"), "demo-fleet", *options],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder / "tmp"), "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Demo:
    """The command, in a process of its own, and what it tells."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.tmp = folder / "tmp"
        self.tmp.mkdir()
        self.events: list[dict[str, Any]] = []
        self.process = launch(folder, "--json", *options)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def heard(self, kind: str) -> dict[str, Any]:
        """Wait for an event, and return it."""

        def look() -> list[dict[str, Any]]:
            found = [event for event in self.events if event["event"] == kind]
            assert found or self.process.poll() is None, self.process.communicate()
            return found

        return wait_until(look, kind, TIMEOUT_S)[0]

    def page(self, path: str) -> str:
        """Return what the service shows."""
        with urllib.request.urlopen(self.heard("serving")["url"] + path, timeout=10) as response:
            return str(response.read().decode())

    def end(self) -> int:
        """Wait until it has ended, and return its exit code."""
        code = self.process.wait(TIMEOUT_S)
        self._reader.join()
        return code

    def is_gone(self) -> bool:
        """Whether nothing of it is left, neither processes nor files."""
        return not processes_below(self.tmp) and not list(self.tmp.iterdir())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    started: list[Demo] = []

    def begin(*options: str) -> Demo:
        started.append(Demo(tmp_path, *options))
        return started[-1]

    yield begin
    for demo in started:
        kill_machine(demo.process.pid)
        demo.end()
        for stream in (demo.process.stdout, demo.process.stderr):
            assert stream is not None
            stream.close()


@pytest.mark.cli
@pytest.mark.slow
def test_each_page_has_something_to_show_until_it_is_interrupted(start: Callable[..., Demo]) -> None:
    demo = start("--runs", "3")
    assert demo.heard("serving") == demo.events[0]
    demo.heard("started")
    wait_until(lambda: "acme/" in demo.page("/"), "a live run on the page of the fleet")
    demo.heard("killed")
    demo.heard("merged")
    demo.heard("played")
    assert {event["issue"] for event in demo.events if event["event"] == "finished"} == {1, 2, 3}
    assert all(f"acme/{name}" in demo.page("/sessions") for name in ("shapes", "ledger"))
    wait_until(lambda: "was closed in" in demo.page("/log"), "the webhook in the log")
    assert "reset" in demo.page("/log")
    demo.process.send_signal(signal.SIGINT)
    assert demo.end() == 130
    assert demo.is_gone()
    assert not [event for event in demo.events if event["event"] in ("failed", "error")]


@pytest.mark.cli
@pytest.mark.slow
def test_once_ends_by_itself_and_says_what_came_of_it(start: Callable[..., Demo]) -> None:
    demo = start("--runs", "1", "--once")
    assert demo.end() == 0
    assert demo.events[-1] == {
        "who": "demo",
        "event": "ended",
        "runs": 2,
        "finished": 1,
        "killed": 1,
        "failed": 0,
    }
    assert [event["resumed"] for event in demo.events if event["event"] == "started"] == [False, True]
    assert demo.is_gone()


@pytest.mark.cli
@pytest.mark.slow
def test_whoever_changes_their_mind_at_once_leaves_nothing_behind(start: Callable[..., Demo]) -> None:
    demo = start()
    demo.heard("serving")
    demo.process.send_signal(signal.SIGTERM)
    assert demo.end() == 130
    assert demo.is_gone()


@pytest.mark.cli
@pytest.mark.slow
@pytest.mark.parametrize("options", [["--json"], []])
def test_it_ends_when_nobody_listens_any_more(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "tmp").mkdir()
    process = launch(tmp_path, *options)
    assert process.stdout is not None
    assert "http://127.0.0.1:" in process.stdout.readline()
    process.stdout.close()
    assert process.wait(TIMEOUT_S) == 141
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert not processes_below(tmp_path / "tmp")
    assert not list((tmp_path / "tmp").iterdir())


def sent(part: Part, *tools: str, prompts: tuple[str, ...] = ()) -> ModelRequest:
    """A request of an agent that has got these answers from its tools so far."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": part.prompt}]
    for number, answer in enumerate(tools):
        use = {"type": "tool_use", "id": f"t{number}", "name": "Bash", "input": {}}
        result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": answer}
        messages += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    messages += [{"role": "user", "content": prompt} for prompt in prompts]
    return ModelRequest(1, {"system": "Working directory: /somewhere/desk", "messages": messages}, True, True, 0.0)


@pytest.mark.parametrize("number", range(1, len(CAST) + 1))
def test_the_model_goes_on_where_its_tools_have_come_to(number: int) -> None:
    part, answers = Part(number), list[str]()
    while any(isinstance(block, ToolUse) for block in reply(sent(part, *answers)).blocks):
        answers.append("so be it")
        assert len(answers) < 10
    assert len(answers) == (6 if part.kind == "delegating" else 5)
    assert reply(sent(part, *answers[:2], prompts=(Part(1).resume_prompt,))) == reply(sent(part, *answers[:2]))


def test_somebody_who_asks_for_more_gets_more() -> None:
    part = Part(CAST.index("resumed") + 1)
    said = reply(sent(part, *["so be it"] * 5, prompts=(part.resume_prompt,))).blocks
    assert isinstance(said[-1], ToolUse)
    assert "README.md" in said[-1].input["command"]
    assert [type(block) for block in reply(sent(part, *["so be it"] * 6, prompts=(part.resume_prompt,))).blocks] == [
        Text
    ]


def test_a_dozen_parts_have_a_bit_of_everything() -> None:
    assert len(CAST) == 12
    assert CAST.count("killed") > 1
    assert {Part(number).project for number in range(1, 13)} == set(PROJECTS)
    assert {CAST[0], CAST[1]} == {"killed", "merged"}  # so that a few are enough to see what matters
