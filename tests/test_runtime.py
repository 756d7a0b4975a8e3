"""Durable runs of the real agent command: they begin, go on elsewhere, are taken over, fail and are ended."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from claude_agent_sdk import ResultMessage, StreamEvent, project_key_for_directory

from everturn import Corrupt, Fenced, Held, Invalid, NotFound, Run, Runtime, SessionRecord, WorkItem
from everturn.model import Holder
from everturn.testing import (
    Failure,
    ModelRequest,
    ReceiptedStore,
    Reply,
    ScriptedModel,
    ToolUse,
    compare,
    make_repository,
    read_receipts,
)
from machines import Machine, MakeMachine, finish, options, result_of
from polling import WAIT_S, Started, wait_until

PROMPT = "Mend the leaking tap in the kitchen."
FIRST_ANSWER = "The washer is worn; I have ordered a new one."
DELTA = "The washer has come. Go on."
WORK = WorkItem.task("tap")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeMachine:
    return lambda name: Machine(tmp_path / name, tmp_path / "shared", monkeypatch)


def stored(runtime: Runtime, work: WorkItem, session_id: str) -> list[Any] | None:
    async def load() -> list[Any] | None:
        store = runtime.open_store(work.key)
        return await store.load({"project_key": project_key_for_directory("/elsewhere"), "session_id": session_id})

    return anyio.run(load)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


class FirstRun:
    """A first run, seen from all sides, and what it left in the store and the registry."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machine = Machine(folder / "first", folder / "shared", monkeypatch)
        self.known_at_first_request: list[SessionRecord | None] = []
        self.model = ScriptedModel(self._answer)
        with self.model.serve() as url:
            self.machine.use(url)
            self.runtime = self.machine.runtime(worker="w1")
            self.run = self.runtime.run(WORK, prompt=PROMPT, resume_prompt=DELTA, options=options())
            self.before = (self.run.session_id, self.run.resumed, self.run.epoch, self.run.cwd)
            self.messages = finish(self.run)

    def _answer(self, _: ModelRequest) -> Reply:
        # The request is held until this returns: the agent is at its very first step.
        self.known_at_first_request.append(self.machine.runtime().registry.get(WORK))
        return Reply(FIRST_ANSWER)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> FirstRun:
    """One first run for all the tests that only look at it, or go on from a copy of it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in set(os.environ) - {"PYTEST_CURRENT_TEST"}:
            monkeypatch.delenv(name)
        return FirstRun(tmp_path_factory.mktemp("first-run"), monkeypatch)


@pytest.fixture
def begun(first_run: FirstRun, tmp_path: Path) -> FirstRun:
    """A conversation that has begun elsewhere: the machines of this test find its store and registry."""
    shutil.copytree(first_run.machine.shared, tmp_path / "shared")
    return first_run


# --- A first run ------------------------------------------------------------------------------------------------


@pytest.mark.cli
def test_a_first_run_sends_the_full_prompt_and_ends_with_the_result(first_run: FirstRun) -> None:
    result = result_of(first_run.messages)
    assert (result.is_error, result.result) == (False, FIRST_ANSWER)
    [request] = first_run.model.requests
    assert PROMPT in request.last_user_text()
    assert not any(DELTA in text for text in request.texts())


@pytest.mark.cli
def test_a_run_tells_its_session_epoch_and_directory(first_run: FirstRun) -> None:
    run = first_run.run
    assert first_run.before == (None, None, None, None)
    assert run.session_id == result_of(first_run.messages).session_id
    assert (run.resumed, run.epoch, run.cwd) == (False, 1, first_run.machine.desk)


@pytest.mark.cli
def test_the_session_is_in_the_registry_before_the_agent_starts(first_run: FirstRun) -> None:
    [record] = first_run.known_at_first_request
    assert record is not None
    assert (record.session_id, record.epoch, record.worker) == (first_run.run.session_id, 1, "w1")


@pytest.mark.cli
def test_a_run_notes_its_directory_and_its_last_use(first_run: FirstRun) -> None:
    record = first_run.runtime.registry.get(WORK)
    assert record is not None
    assert record.cwd == str(first_run.machine.desk)
    assert record.last_used_at > record.created_at


@pytest.mark.cli
def test_a_run_leaves_its_transcript_in_the_store_and_nothing_else_of_its_own(first_run: FirstRun) -> None:
    entries = stored(first_run.runtime, WORK, str(first_run.run.session_id))
    text = str(entries)
    assert PROMPT in text
    assert FIRST_ANSWER in text
    assert [name for name in files(first_run.machine.state) if not name.startswith("mirrors/")] == ["runs/.lock"]
    assert list(first_run.machine.desk.iterdir()) == []


# --- Going on ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.cli
def test_a_second_run_on_another_machine_goes_on_with_the_delta_prompt(begun: FirstRun, machine: MakeMachine) -> None:
    model = ScriptedModel([Reply("It is tight now.")])
    other = machine("second")
    with model.serve() as url:
        other.use(url)
        run = other.runtime().run(WORK, prompt=PROMPT, resume_prompt=DELTA, options=options())
        result = result_of(finish(run))
    assert (run.session_id, run.resumed, run.epoch, run.cwd) == (begun.run.session_id, True, 2, other.desk)
    assert (result.session_id, result.result) == (begun.run.session_id, "It is tight now.")
    [request] = model.requests
    said = "\n".join(request.texts())
    assert said.count(PROMPT) == 1
    assert said.index(PROMPT) < said.index(FIRST_ANSWER) < said.index(DELTA)
    assert DELTA in request.last_user_text()
    entries = stored(other.runtime(), WORK, str(run.session_id)) or []
    assert entries[: len(stored(begun.runtime, WORK, str(run.session_id)) or [])] == stored(
        begun.runtime, WORK, str(run.session_id)
    )
    assert "It is tight now." in str(entries)


@pytest.mark.slow
@pytest.mark.cli
def test_without_a_resume_prompt_the_prompt_is_said_again_in_the_directory_of_the_options(
    begun: FirstRun, machine: MakeMachine, tmp_path: Path
) -> None:
    model = ScriptedModel([Reply("Again?")])
    other = machine("second")
    garden = tmp_path / "garden"
    garden.mkdir()
    with model.serve() as url:
        other.use(url)
        run = other.runtime().run(WORK, prompt=PROMPT, options=options(cwd=garden))
        finish(run)
    assert (run.resumed, run.cwd) == (True, garden)
    [request] = model.requests
    assert PROMPT in request.last_user_text()
    said = "\n".join(request.texts())
    assert said.count(PROMPT) == 2
    assert f"Primary working directory: {garden}" in said


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "shop", {"tap.txt": "it leaks\n"})


@pytest.mark.slow
@pytest.mark.cli
@pytest.mark.filterwarnings(r"ignore:Async generator 'claude_agent_sdk\.:ResourceWarning")  # the SDK's, under trio
def test_work_on_a_repository_goes_on_in_another_checkout_under_trio(machine: MakeMachine, repository: Path) -> None:
    look = ToolUse("Bash", {"command": "cat tap.txt"})
    model = ScriptedModel([Reply(look), Reply(FIRST_ANSWER), Reply("Done.")])
    work = WorkItem("fixer", str(repository), 7)
    runs = []
    with model.serve() as url:
        for name in ("a", "b"):
            here = machine(name)
            here.use(url)
            run = here.runtime().run(work, prompt=PROMPT, resume_prompt=DELTA, options=options())
            assert not result_of(finish(run, backend="trio")).is_error
            assert run.cwd is not None
            assert run.cwd.parent == here.state / "workdirs" / "trees"
            assert (run.cwd / "tap.txt").exists()
            runs.append(run)
    assert [run.resumed for run in runs] == [False, True]
    assert runs[0].session_id == runs[1].session_id
    last = model.requests[-1]
    assert [answer for _, answer in last.tool_results()] == ["it leaks"]
    assert DELTA in last.last_user_text()


@pytest.mark.cli
@pytest.mark.parametrize("status", [400, pytest.param(403, marks=pytest.mark.slow)])
def test_after_a_failure_of_the_model_the_next_run_goes_on(machine: MakeMachine, status: int) -> None:
    def answer(request: ModelRequest) -> Reply | Failure:
        return Reply("Better.") if DELTA in request.last_user_text() else Failure(status, "some_error", "no way")

    model = ScriptedModel(answer)
    here = machine("a")
    with model.serve() as url:
        here.use(url)
        first, second = (
            here.runtime().run(WORK, prompt=PROMPT, resume_prompt=DELTA, options=options()) for _ in range(2)
        )
        failed = result_of(finish(first))
        assert failed.is_error
        assert "no way" in str(failed.result)
        assert result_of(finish(second)).result == "Better."
    assert (second.session_id, second.resumed) == (first.session_id, True)
    assert PROMPT in "\n".join(model.requests[-1].texts())


# --- Ending early -----------------------------------------------------------------------------------------------


async def take_until_it_speaks(run: Run, here: Machine) -> None:
    """Take messages up to the stalled reply. By then something is stored: frames come a little after messages."""
    async for message in run:
        if isinstance(message, StreamEvent) and message.event.get("delta", {}).get("type") == "text_delta":
            break
    await anyio.to_thread.run_sync(wait_until, here.has_stored, "something of the turn is stored")


async def drain(run: Run) -> None:
    async for message in run:
        assert not isinstance(message, ResultMessage)


@pytest.mark.slow
@pytest.mark.cli
def test_a_run_that_is_closed_in_mid_turn_leaves_no_process_and_loses_nothing(
    machine: MakeMachine, tmp_path: Path, started: Started
) -> None:
    model = ScriptedModel([Reply(ToolUse("Bash", {"command": "echo hi"})), Reply("a b c", stall_after_chunks=2)])
    here = machine("a")
    receipts = tmp_path / "receipts.jsonl"

    async def main() -> Run:
        runtime = Runtime(
            here.runtime().settings, make_store=lambda *args, **kw: ReceiptedStore(*args, receipts=receipts, **kw)
        )
        run = runtime.run(WORK, prompt=PROMPT, options=options(include_partial_messages=True))
        await take_until_it_speaks(run, here)
        assert started()
        await run.aclose()
        assert started() == []
        return run

    with model.serve() as url:
        here.use(url)
        run = anyio.run(main)
    entries = stored(here.runtime(), WORK, str(run.session_id)) or []
    verdict = compare(read_receipts(receipts)[None], entries)
    assert verdict.acknowledged > 0
    assert verdict.lost == 0
    assert "tool_result" in str(entries)  # it was shown before the run was closed


@pytest.mark.slow
@pytest.mark.cli
def test_a_run_that_is_evicted_in_mid_turn_stops_fenced_with_its_agent(
    machine: MakeMachine, started: Started
) -> None:
    def answer(request: ModelRequest) -> Reply:
        if DELTA in request.last_user_text():
            return Reply("I have taken over.")
        if not request.tool_results():
            return Reply(ToolUse("Bash", {"command": "echo hi"}))
        return Reply("I was here first.", stall_after_chunks=1)

    model = ScriptedModel(answer)
    here, there = machine("a"), machine("b")

    async def main() -> tuple[Run, Run]:
        first = here.runtime().run(WORK, prompt=PROMPT, options=options(include_partial_messages=True))
        await take_until_it_speaks(first, here)
        there.use(model.url)
        runtime = there.runtime()
        second = runtime.run(WORK, prompt=PROMPT, resume_prompt=DELTA, options=options())
        with pytest.raises(Held, match="held by") as refusal:
            await drain(second)
        evicted = runtime.registry.claim(WORK, Holder("operator"), ttl_s=30, instead_of=refusal.value)
        runtime.registry.release(evicted)
        second = runtime.run(WORK, prompt=PROMPT, resume_prompt=DELTA, options=options())
        assert not result_of([message async for message in second]).is_error
        model.release()
        with pytest.raises(Fenced):
            await drain(first)
        assert started() == []
        return first, second

    with model.serve() as url:
        here.use(url)
        first, second = anyio.run(main)
    assert (first.epoch, second.epoch) == (1, 3)
    assert (second.session_id, second.resumed) == (first.session_id, True)
    entries = str(stored(there.runtime(), WORK, str(first.session_id)))
    assert "I have taken over." in entries
    assert "here first" not in entries


# --- Refusals ---------------------------------------------------------------------------------------------------


def refused(run: Run, error: type[Exception], match: str) -> None:
    async def main() -> None:
        with anyio.fail_after(WAIT_S):
            await anext(run)

    with pytest.raises(error, match=match):
        anyio.run(main)


@pytest.mark.parametrize(
    "given",
    [
        {"resume": "11111111-1111-4111-8111-111111111111"},
        {"session_id": "11111111-1111-4111-8111-111111111111"},
        {"continue_conversation": True},
        {"fork_session": True},
        {"resume_session_at": "11111111-1111-4111-8111-111111111111"},
        {"enable_file_checkpointing": True},
        {"user": "nobody"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_options_that_the_work_item_decides_are_refused_at_once(machine: MakeMachine, given: dict[str, Any]) -> None:
    here = machine("a")
    here.use()
    with pytest.raises(Invalid, match=f"the option {next(iter(given))} cannot be set"):
        here.runtime().run(WORK, prompt=PROMPT, options=options(**given))
    assert not here.shared.exists()


def test_a_store_of_the_callers_own_is_refused_at_once(machine: MakeMachine) -> None:
    here = machine("a")
    here.use()
    runtime = here.runtime()
    own = Runtime.open(state=here.state, store="memory://").open_store("mine")
    with pytest.raises(Invalid, match="the option session_store cannot be set"):
        runtime.run(WORK, prompt=PROMPT, options=options(session_store=own))
    assert not here.shared.exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": " \n\t"}, "the prompt is empty"),
        ({"prompt": "x", "resume_prompt": ""}, "the resume prompt is empty"),
    ],
)
def test_an_empty_prompt_is_refused_at_once(machine: MakeMachine, given: dict[str, str], said: str) -> None:
    here = machine("a")
    here.use()
    with pytest.raises(Invalid, match=said):
        here.runtime().run(WORK, **given)  # type: ignore[arg-type]
    assert not here.shared.exists()


def test_a_directory_that_is_not_there_is_refused_at_once(machine: MakeMachine, repository: Path) -> None:
    here = machine("a")
    here.use()
    with pytest.raises(Invalid, match="there is no directory"):
        here.runtime().run(WORK, prompt=PROMPT, options=options(cwd=here.desk / "nowhere"))
    with pytest.raises(Invalid, match="brings its own directory"):
        here.runtime().run(WorkItem("a", str(repository), 1), prompt=PROMPT, options=options(cwd=here.desk))
    assert not here.state.exists()


@pytest.mark.parametrize(
    "given",
    [{"store": "ftp://example.org/x"}, {"store": "file://relative"}, {"registry": "postgres://x"}],
    ids=["scheme", "no path", "registry"],
)
def test_a_url_of_no_kind_we_know_is_refused_before_anything_is_made(
    machine: MakeMachine, given: dict[str, str]
) -> None:
    here = machine("a")
    here.use()
    with pytest.raises(Invalid, match="cannot make a"):
        here.runtime(**given)
    assert not here.shared.exists()


def test_a_store_that_is_refused_leaves_no_trace_in_the_registry(machine: MakeMachine) -> None:
    here = machine("a")
    here.use()
    gate = here.shared / "store" / "format.json"
    gate.parent.mkdir(parents=True)
    gate.write_text('{"format":"everturn","version":2}')
    refused(here.runtime().run(WORK, prompt=PROMPT), Invalid, "version 2")
    assert files(here.shared) == ["store/format.json"]


def test_a_work_item_that_is_too_long_for_the_store_is_refused_and_writes_nothing(machine: MakeMachine) -> None:
    here = machine("a")
    here.use()
    refused(here.runtime().run(WorkItem.task("x" * 300), prompt=PROMPT), Invalid, "too long")
    assert files(here.shared.parent) == []


def test_a_repository_that_is_not_there_leaves_no_trace(machine: MakeMachine) -> None:
    here = machine("a")
    here.use()
    work = WorkItem("fixer", str(here.desk / "nowhere"), 7)
    refused(here.runtime().run(work, prompt=PROMPT), NotFound, "nowhere")
    assert not here.shared.exists()
    assert not here.state.exists()


def test_a_store_that_is_refused_leaves_no_checkout(machine: MakeMachine, repository: Path) -> None:
    here = machine("a")
    here.use()
    gate = here.shared / "store" / "format.json"
    gate.parent.mkdir(parents=True)
    gate.write_text("{}")
    refused(here.runtime().run(WorkItem("fixer", str(repository), 7), prompt=PROMPT), Corrupt, "format.json")
    assert files(here.shared) == ["store/format.json"]
    assert not here.state.exists()


def test_a_run_that_is_closed_before_it_begins_has_touched_nothing(machine: MakeMachine, started: Started) -> None:
    here = machine("a")
    here.use()
    run = here.runtime().run(WORK, prompt=PROMPT)
    anyio.run(run.aclose)
    assert finish(run) == []
    assert not here.shared.exists()
    wait_until(lambda: started() == [], "no process was started", WAIT_S)
