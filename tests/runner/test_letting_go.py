"""A run that could not do something on its way out leaves as little behind as can be, and says what it leaves."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import anyio
import anyio.to_thread
import pytest
from claude_agent_sdk import ClaudeSDKClient, Message, ResultMessage

from everturn import Run, Unavailable
from everturn.host.folders import RunFolder
from everturn.model import Claim
from everturn.registry import SqliteRegistry
from polling import until
from runner.stage import Desk, finish, kinds

ANSWERED = ["init", "AssistantMessage", "ResultMessage"]


def test_a_claim_whose_lease_cannot_be_written_is_released(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise Unavailable("the disk is full", hint="make room")

    monkeypatch.setattr(RunFolder, "extend_lease", refuse)
    with pytest.raises(Unavailable, match="the disk is full"):
        finish(desk.run())
    assert desk.record().held_until is None


def test_a_claim_that_was_asked_for_as_the_event_loop_ended_keeps_nobody_waiting_on_this_machine(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go, claimed = threading.Event(), threading.Event(), threading.Event()
    claim = SqliteRegistry.claim

    def wait_and_claim(*given: Any, **more: Any) -> Claim:
        asked.set()
        go.wait(20)
        try:
            return claim(*given, **more)
        finally:
            claimed.set()

    monkeypatch.setattr(SqliteRegistry, "claim", wait_and_claim)

    async def main() -> None:
        task = asyncio.ensure_future(anext(desk.run()))
        await until(asked.is_set, "the claim is asked for")
        task.add_done_callback(lambda _: go.set())
        asyncio.get_running_loop().call_later(1, go.set)

    asyncio.run(main())
    assert claimed.wait(20)
    run = desk.run()
    assert kinds(finish(run)) == ANSWERED


def test_an_agent_that_refuses_to_be_interrupted_is_ended_without_an_error(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: ClaudeSDKClient) -> None:
        raise Exception("Control request timeout: interrupt")  # noqa: TRY002  # as the SDK says it

    monkeypatch.setattr(ClaudeSDKClient, "interrupt", refuse)

    async def main() -> None:
        run = desk.run()
        await anext(run)
        run.stop("enough")
        async for _ in run:
            pass
        assert (run.stopped, run.missing_entries) == ("enough", 0)

    anyio.run(main)
    assert desk.record().held_until is None


@pytest.mark.slow
# Under trio, the SDK leaves a generator of its own unclosed when the loop ends before it; that warns when it goes.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_program_that_ends_without_closing_its_run_does_not_make_it_hurry(desk: Desk, backend: str) -> None:
    async def main() -> str:
        run = desk.run()
        await anext(run)
        return run.run_id

    run_id = anyio.run(main, backend=backend)
    gc.collect()  # so that it goes now
    assert [path.name for path in desk.store.rglob("*.jsonl.gz")] == [f"{run_id}.jsonl.gz"]
    assert desk.record().held_until is None


@pytest.mark.slow
@pytest.mark.parametrize("later", [False, True], ids=["at once", "one step later"])
def test_a_program_that_returns_at_the_result_leaves_its_agent_to_go_by_itself(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, later: bool
) -> None:
    killed: list[float] = []
    monkeypatch.setattr(RunFolder, "end_agent", lambda _, timeout_s: killed.append(timeout_s))

    async def main() -> Run:
        run = desk.run()
        async for message in run:
            if isinstance(message, ResultMessage):
                break
        if later:
            await asyncio.sleep(0)
        return run

    run = asyncio.run(main())
    gc.collect()  # what was left open, or never awaited, warns now
    assert killed == []
    assert (run.stopped, run.missing_entries) == ("cancelled", 0)
    assert desk.record().held_until is None


def test_an_event_loop_that_ends_in_the_moment_in_which_a_run_begins_comes_to_its_end(desk: Desk) -> None:
    run = desk.run()

    async def main() -> asyncio.Task[Message]:
        return asyncio.create_task(anext(run))

    assert asyncio.run(main()).cancelled()
    assert run.session_id is None
    assert desk.records() == []


def test_a_run_lets_go_also_where_no_thread_is_to_be_had(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everturn.runner.closing.start_thread", lambda *_: None)
    run = desk.run()
    assert kinds(finish(run)) == ANSWERED
    assert run.missing_entries == 0
    assert desk.record().held_until is None


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_run_that_is_stopped_does_not_wait_for_a_store_that_it_has_only_tried_out(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    runtime, asked, go = desk.runtime(), threading.Event(), threading.Event()

    def hang(_: str) -> None:
        asked.set()
        go.wait(20)

    monkeypatch.setattr(runtime._stores, "admit", hang)

    async def main() -> None:
        run = desk.run(runtime=runtime)
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, stop_when, asked, run)
            assert [message async for message in run] == []
        assert run.stopped == "enough"
        assert not go.is_set()

    try:
        anyio.run(main, backend=backend)
    finally:
        go.set()


def stop_when(asked: threading.Event, run: Run) -> None:
    asked.wait(20)
    run.stop("enough")
