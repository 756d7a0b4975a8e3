"""Several runs in one process, and under each event loop."""

from __future__ import annotations

import json
import threading

import anyio
import pytest

from everturn import Held, Run, WorkItem
from runner.stage import DELTA, PROMPT, UNDER_TRIO, WORK, Desk, finish, kinds

ANSWERED = ["init", "AssistantMessage", "ResultMessage"]
BOTH = pytest.mark.parametrize("backend", ["asyncio", pytest.param("trio", marks=UNDER_TRIO)])


@pytest.mark.slow
@BOTH
def test_a_conversation_begins_and_goes_on(desk: Desk, backend: str) -> None:
    first, second = desk.run(), desk.run()
    for run in (first, second):
        assert kinds(finish(run, backend)) == ANSWERED
    assert (first.resumed, second.resumed) == (False, True)
    assert first.session_id == second.session_id
    assert desk.agent.prompts == [PROMPT, DELTA]


@pytest.mark.slow
@UNDER_TRIO
def test_a_conversation_that_began_under_one_event_loop_goes_on_under_the_other(desk: Desk) -> None:
    for backend in ("trio", "asyncio", "trio"):
        run = desk.run()
        finish(run, backend)
    assert run.resumed is True
    assert desk.agent.prompts == [PROMPT, DELTA, DELTA]


@BOTH
def test_two_runs_of_two_work_items_go_on_side_by_side(
    desk: Desk, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    works = [WorkItem.task("left"), WorkItem.task("right")]
    runtime = desk.runtime()
    runs = [desk.run(work, runtime=runtime, prompt=work.key) for work in works]
    met = [anyio.Event(), anyio.Event()]

    async def main() -> None:
        async def one(number: int) -> None:
            await anext(runs[number])
            met[number].set()
            await met[1 - number].wait()  # each has begun before either goes on
            assert kinds([message async for message in runs[number]]) == ANSWERED[1:]

        async with anyio.create_task_group() as group:
            for number in range(2):
                group.start_soon(one, number)

    with caplog.at_level("INFO", "everturn"):
        anyio.run(main, backend=backend)
    assert sorted(desk.agent.prompts) == [work.key for work in works]
    lines = [json.loads(record.message) for record in caplog.records if record.name == "everturn"]
    for run, work in zip(runs, works, strict=True):
        own = [line for line in lines if line.get("run_id") == run.run_id]
        assert {"run_started", "run_ended", "released"} <= {line["event"] for line in own}
        assert {line["task_id"] for line in own} == {work.key}
    assert {record.held_until for record in desk.records()} == {None}


def test_two_runs_of_one_work_item_in_one_process_are_one_run_and_one_refusal(desk: Desk) -> None:
    runtime = desk.runtime()

    async def main() -> None:
        first, second = desk.run(runtime=runtime), desk.run(runtime=runtime)
        await anext(first)
        with pytest.raises(Held, match=first.run_id):
            await anext(second)
        assert kinds([message async for message in first]) == ANSWERED[1:]

    anyio.run(main)
    assert len(desk.agent.starts) == 1


@pytest.mark.slow
def test_a_run_that_waits_goes_on_where_the_other_one_ended(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everturn.runner.dispatch.LOOK_AGAIN_S", 0.05)

    async def main() -> None:
        first, second = desk.run(), desk.run(runtime=desk.runtime(claim_wait_s=60))
        await anext(first)
        async with anyio.create_task_group() as group:

            async def wait() -> None:
                assert kinds([message async for message in second]) == ANSWERED

            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            async for _ in first:
                pass
        assert (second.resumed, second.session_id) == (True, first.session_id)

    anyio.run(main)


@pytest.mark.slow
def test_runs_in_threads_with_an_event_loop_each(desk: Desk) -> None:
    runs: list[Run] = []
    runtime = desk.runtime()

    def work(number: int) -> None:
        run = desk.run(WorkItem.task(f"thread-{number}"), runtime=runtime)
        assert kinds(finish(run)) == ANSWERED
        runs.append(run)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({run.session_id for run in runs}) == 3


def test_a_run_leaves_no_thread_behind(desk: Desk) -> None:
    finish(desk.run(WORK))
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {"everturn-heartbeat", "everturn-lease"}
