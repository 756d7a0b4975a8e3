"""A real worker is killed with SIGKILL at many moments of a turn; another one, elsewhere, goes on.

Each time: every acknowledged entry is in the store, equal and in order, and the conversation continues.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from claude_agent_sdk import project_key_for_directory

from everturn import Runtime, WorkItem
from everturn.demo.machine import Event, Machine
from everturn.demo.worker import Plan
from everturn.registry import open_registry
from everturn.settings import Settings
from everturn.testing import (
    ModelRequest,
    Reply,
    ScriptedModel,
    Text,
    ToolUse,
    cli_environment,
    compare,
    make_repository,
    read_receipts,
)
from polling import wait_until
from support import StorePlace

TIMEOUT_S = 60.0
AIM_S = 0.001
PROMPT = "Count the sheep behind the hill."
RESUME_PROMPT = "You were interrupted. Go on counting."
BEGINNING = "I shall walk up the hill and look at the meadow behind it with my own eyes."
ENDING = "There are seven sheep behind the hill, and one of them looks back at me."
QUICK_TOOL = "echo seven sheep"
SLOW_TOOL = "touch in-the-tool; for i in $(seq 600); do sleep 0.1; done; echo seven sheep"


@dataclass
class Stage:
    """Two machines, one after the other, on one store and one registry."""

    folder: Path
    settings: Settings
    model: ScriptedModel
    environment: dict[str, str]
    repo: Path

    @property
    def work(self) -> WorkItem:
        return WorkItem("shepherd", str(self.repo), "1")

    def machine(self, name: str) -> Machine:
        plan = Plan("shepherd", str(self.repo), "1", PROMPT, RESUME_PROMPT, str(self.receipts(name)))
        return Machine(self.folder / name, self.environment, plan, lambda event: None)

    def receipts(self, name: str) -> Path:
        return self.folder / f"receipts-{name}.jsonl"

    def checkout(self, name: str) -> Path:
        return next(path for path in (self.folder / name / "workdirs" / "trees").iterdir() if path.is_dir())


Moment = Callable[[Stage, Machine], None]


def test_the_work_goes_on_after_a_kill(stage: Stage, moment: Moment) -> None:
    with stage.machine("a") as machine:
        moment(stage, machine)
        machine.kill()
    acknowledged = read_receipts(stage.receipts("a"))
    requests_before = len(stage.model.requests)

    with stage.machine("b") as machine:
        events = machine.wait(TIMEOUT_S)

    assert events[-1] == {"event": "result", "ok": True, "turns": events[-1]["turns"]}
    assert_nothing_lost(stage, events)
    assert_the_conversation_continues(stage.model.requests[requests_before], acknowledged.get(None, []), events)
    assert stage.model.script_errors == []


@pytest.mark.slow
def test_the_agent_of_a_worker_that_is_killed_alone_is_gone_when_the_work_goes_on(stage: Stage) -> None:
    with stage.machine("a") as machine:
        streaming(2)(stage, machine)
        left_behind = psutil.Process(machine.pid).children(recursive=True)
        psutil.Process(machine.pid).kill()
        _, alive = psutil.wait_procs(left_behind, timeout=TIMEOUT_S)
        with stage.machine("b") as other:
            events = other.wait(TIMEOUT_S)
    assert len(left_behind) >= 2  # a guard and its agent
    assert alive == []
    assert events[0]["resumed"] is True
    assert_nothing_lost(stage, events)


@pytest.mark.slow
def test_a_worker_can_die_again_and_again(stage: Stage) -> None:
    for name in ("a1", "a2", "a3"):
        with stage.machine(name) as machine:
            acknowledged_entries(4)(stage, machine)
            machine.kill()
    with stage.machine("b") as machine:
        events = machine.wait(TIMEOUT_S)
    assert events[0]["epoch"] == 4
    assert_nothing_lost(stage, events, before=("a1", "a2", "a3"))


# --- Moments -----------------------------------------------------------------------------------------------------


def claimed(stage: Stage, machine: Machine) -> None:
    """The session id is in the registry; the agent may not even have been started."""
    registry = open_registry(stage.settings.registry_url())
    poll(machine, lambda: registry.get(stage.work) is not None)


def asked(number: int) -> Moment:
    """The model has been asked, and has not answered yet."""

    def reached(stage: Stage, machine: Machine) -> None:
        stage.model.wait_for_requests(number, TIMEOUT_S)

    return reached


def streaming(number: int, chunks: int = 3) -> Moment:
    """The model is in mid-sentence."""

    def reached(stage: Stage, machine: Machine) -> None:
        stage.model.wait_until_streamed(number, chunks, TIMEOUT_S)

    return reached


def in_the_tool(stage: Stage, machine: Machine) -> None:
    """A tool is running."""
    poll(machine, lambda: any((stage.folder / "a" / "workdirs" / "trees").glob("*/in-the-tool")))


def acknowledged_entries(count: int) -> Moment:
    """So many entries have been acknowledged: a moment between two frames."""

    def reached(stage: Stage, machine: Machine) -> None:
        name = max(path.name for path in stage.folder.iterdir() if (path / "home").exists())
        poll(machine, lambda: sum(map(len, read_receipts(stage.receipts(name)).values())) >= count)

    return reached


def after_the_result(stage: Stage, machine: Machine) -> None:
    """The turn is over; the worker is about to let go of the agent."""
    machine.wait_for(lambda events: any(event["event"] == "result" for event in events), TIMEOUT_S)


MOMENTS: dict[str, Moment] = {
    "when-claimed": claimed,
    "at-the-first-request": asked(1),
    "in-the-first-words": streaming(1, 1),
    "in-a-tool-call": streaming(1, 16),
    "in-a-tool": in_the_tool,
    "at-the-second-request": asked(2),
    "in-the-last-words": streaming(2),
    "after-1-entry": acknowledged_entries(1),
    "after-5-entries": acknowledged_entries(5),
    "after-14-entries": acknowledged_entries(14),
    "after-19-entries": acknowledged_entries(19),
    "after-23-entries": acknowledged_entries(23),
    "after-the-result": after_the_result,
}
ON_S3 = ("when-claimed", "in-a-tool", "in-the-last-words", "after-5-entries")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every moment on the local folder, and some on S3. The others take the local folder alone."""
    if "moment" not in metafunc.fixturenames:
        if "stage" in metafunc.fixturenames:
            metafunc.parametrize("place", ["file_place"], indirect=True)
        return
    cases = [(name, "file_place") for name in MOMENTS] + [(name, "s3_place") for name in ON_S3]
    metafunc.parametrize(
        ("moment", "place"),
        [
            pytest.param(MOMENTS[name], place, id=f"{name}-{place.removesuffix('_place')}", marks=pytest.mark.slow)
            for name, place in cases
        ],
        indirect=["place"],
    )


# --- What it takes -----------------------------------------------------------------------------------------------


@pytest.fixture
def place(request: pytest.FixtureRequest) -> StorePlace:
    found: StorePlace = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def stage(place: StorePlace, tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    slow = "in-a-tool-" in request.node.name and "call" not in request.node.name
    model = ScriptedModel(lambda asked: answer(asked, SLOW_TOOL if slow else QUICK_TOOL))
    repo = make_repository(tmp_path / "meadow", {"README": "A meadow.\n"})
    folder = tmp_path / "stage"
    settings = Settings.load(
        store=place.url, registry=f"sqlite://{tmp_path / 'registry.db'}", state=tmp_path / "here"
    )
    with model.serve() as url:
        aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        environment = {
            **cli_environment(url, "", path=os.environ["PATH"]),
            **aws,
            "EVERTURN_STORE": settings.store_url(),
            "EVERTURN_REGISTRY": settings.registry_url(),
            "EVERTURN_CLAIM_TTL_S": "2",
            "EVERTURN_CLAIM_WAIT_S": "60",
        }
        folder.mkdir()
        yield Stage(folder, settings, model, environment, repo)


def answer(request: ModelRequest, tool: str) -> Reply:
    if RESUME_PROMPT in request.last_user_text():
        return Reply(Text("I go on. " + ENDING), delay_s=0.3, chunk_delay_s=0.03)
    if not request.tool_results():
        return Reply(Text(BEGINNING), ToolUse("Bash", {"command": tool}), delay_s=0.3, chunk_delay_s=0.03)
    return Reply(Text(ENDING), delay_s=0.3, chunk_delay_s=0.05)


def poll(machine: Machine, reached: Callable[[], bool]) -> None:
    """Look again and again, as often as leaves the worker its processor: a kill has to be well aimed."""

    def is_there() -> bool:
        if reached():
            return True
        assert machine.running, machine.wait(0)
        return False

    wait_until(is_there, "the moment", TIMEOUT_S, pause_s=AIM_S)


def assert_nothing_lost(stage: Stage, events: list[Event], before: tuple[str, ...] = ("a",)) -> None:
    acknowledged: dict[str | None, list[Any]] = {}
    for name in (*before, "b"):
        for subpath, entries in read_receipts(stage.receipts(name)).items():
            acknowledged.setdefault(subpath, []).extend(entries)
    stored = anyio.run(load, stage, events[0]["session_id"])
    verdict = compare(acknowledged[None], stored)
    assert set(acknowledged) == {None}
    assert verdict.lost == 0
    assert verdict.acknowledged > 0


async def load(stage: Stage, session_id: str) -> list[Any]:
    async with Runtime(stage.settings).open_store(stage.work.key) as store:
        key = {"project_key": project_key_for_directory(stage.folder), "session_id": session_id}
        return list(await store.load(key) or [])


def assert_the_conversation_continues(request: ModelRequest, acknowledged: list[Any], events: list[Event]) -> None:
    """The model is sent what was acknowledged before the kill or, if that is nothing, the full prompt."""
    sent = "\n".join(request.texts())
    if not acknowledged:
        assert events[0]["resumed"] is False or RESUME_PROMPT in sent
        return
    assert events[0]["resumed"] is True
    assert RESUME_PROMPT in sent
    for entry in acknowledged:
        if entry["type"] in ("user", "assistant"):
            for block in blocks(entry):
                assert block in sent or block in str(request.body), block


def blocks(entry: dict[str, Any]) -> list[str]:
    """Return what must reach the model of an entry: its text, the ids of its tool calls, their results."""
    content = entry["message"]["content"]
    if isinstance(content, str):
        return [content]
    return [block.get("text") or block.get("id") or block["tool_use_id"] for block in content]
