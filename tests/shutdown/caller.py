"""Programs that treat their runs in all kinds of ways: `python caller.py SCENARIO PLAN`. Each says what it sees."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import anyio
from claude_agent_sdk import ResultMessage, StreamEvent

import polling
from everturn import EverturnError, Run, Runtime, WorkItem
from everturn.telemetry import log_to_stderr
from polling import until
from shutdown.worker import receipted, say, start

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
Plan = dict[str, Any]


async def until_it_speaks(run: Run) -> None:
    async for message in run:
        if isinstance(message, StreamEvent) and message.event.get("delta", {}).get("type") == "text_delta":
            say("delta")
            return


async def listen(run: Run) -> None:
    async for _ in run:
        pass
    say("heard_out", stopped=run.stopped)


def children() -> list[int]:
    return [each.pid for each in polling.children()]


async def handlers(plan: Plan) -> None:
    """Look at the handlers of signals before, during and after a run."""
    signal.signal(signal.SIGHUP, lambda *_: None)
    own = signal.getsignal(signal.SIGHUP)
    before = [signal.getsignal(number) for number in NUMBERS]
    run = start(receipted(plan), plan)
    await anext(run)
    during = [signal.getsignal(number) for number in NUMBERS]
    await listen(run)
    say(
        "handlers",
        same_after=[signal.getsignal(number) for number in NUMBERS] == before,
        ours_during=[one is not other for one, other in zip(before, during, strict=True)],
        own_kept=signal.getsignal(signal.SIGHUP) is own,
    )


async def no_handlers(plan: Plan) -> None:
    """The same when it was asked to touch none."""
    run = start(receipted(plan, handle_signals=False), plan)
    before = [signal.getsignal(number) for number in NUMBERS]
    await anext(run)
    say("handlers", same_during=[signal.getsignal(number) for number in NUMBERS] == before)
    await listen(run)


async def own_handler(plan: Plan) -> None:
    """Stop the run in a signal handler of the program's own."""
    run = start(receipted(plan), plan)
    signal.signal(signal.SIGTERM, lambda *_: run.stop("told"))
    await until_it_speaks(run)
    say("ready")
    await listen(run)


async def dropped(plan: Plan) -> None:
    """Forget a run in the middle."""
    run = start(receipted(plan), plan)
    await until_it_speaks(run)
    del run
    gc.collect()
    await until(lambda: not children(), "all that it has started is gone")
    say("alone")


async def closed_elsewhere(plan: Plan) -> None:
    """Close the run from another task than the one that iterates it."""
    run = start(receipted(plan), plan)
    await until_it_speaks(run)
    async with anyio.create_task_group() as group:
        group.start_soon(listen, run)
        await anyio.wait_all_tasks_blocked()
        await run.aclose()
        say("closed", children=children(), stopped=run.stopped)


async def timed_out(plan: Plan) -> None:
    """Set a time limit around the loop."""
    run = start(receipted(plan), plan)
    await until_it_speaks(run)
    with anyio.move_on_after(0.5) as scope:
        await listen(run)
    say("timed_out", children=children(), caught=scope.cancelled_caught, stopped=run.stopped)


async def asyncio_timed_out(plan: Plan) -> None:
    """The same by the means of asyncio."""
    run = start(receipted(plan), plan)
    await until_it_speaks(run)
    try:
        async with asyncio.timeout(0.5):
            await listen(run)
    except TimeoutError:
        say("timed_out", children=children(), caught=True, stopped=run.stopped)


async def cancelled_twice(plan: Plan) -> None:
    """Cancel the task, and once more before it has ended."""
    run = start(receipted(plan), plan)
    await until_it_speaks(run)
    say("ready")
    await anyio.to_thread.run_sync(sys.stdin.readline)
    task = asyncio.create_task(listen(run))
    await anyio.wait_all_tasks_blocked()
    task.cancel()
    await until(lambda: run.stopped, "the run has heard of it")
    task.cancel()
    with suppress(asyncio.CancelledError, EverturnError):
        await task
    say("ended", children=children(), stopped=run.stopped)


async def loop_ends(plan: Plan) -> None:
    """Leave the event loop with a run in progress that nobody iterates at the moment."""
    run = start(receipted(plan), plan)
    kept.append(run)
    await until_it_speaks(run)


async def broken_off(plan: Plan) -> None:
    """Leave the loop at the result, and the event loop at once."""
    async for message in start(receipted(plan), plan):
        if isinstance(message, ResultMessage):
            say("result")
            break


async def loop_ends_while_it_lets_go(plan: Plan) -> None:
    """Ask the run to stop, and leave the event loop while it does."""
    run = start(receipted(plan), plan)
    kept.append(run)
    await until_it_speaks(run)
    run.stop()
    await anyio.sleep(plan["pause_s"])  # the moment within its letting go is what varies
    say("left")


async def loop_ends_while_it_claims(plan: Plan) -> None:
    """Leave the event loop while the registry is being asked for a claim."""
    runtime = receipted(plan)
    asked = threading.Event()
    claim = runtime.registry.claim

    def slowly(*args: Any, **more: Any) -> Any:
        claimed = claim(*args, **more)
        asked.set()
        threading.Event().wait(0.5)
        return claimed

    runtime.registry.claim = slowly  # type: ignore[method-assign]
    run = start(runtime, plan)
    kept.append(run)
    tasks.append(asyncio.create_task(listen(run)))
    await asyncio.to_thread(asked.wait)
    say("left")


async def loop_ends_with_task(plan: Plan) -> None:
    """Leave the event loop while another task iterates a run."""
    run = start(receipted(plan), plan)
    kept.append(run)
    await until_it_speaks(run)
    tasks.append(asyncio.create_task(listen(run)))
    await anyio.wait_all_tasks_blocked()


async def stopped_by_a_thread(plan: Plan) -> None:
    """Stop the run from another thread."""
    run = start(receipted(plan), plan)
    await until_it_speaks(run)
    async with anyio.create_task_group() as group:
        group.start_soon(listen, run)
        await anyio.to_thread.run_sync(run.stop, "enough")


kept: list[Run] = []
tasks: list[asyncio.Task[None]] = []
SCENARIOS: dict[str, Callable[[Plan], Coroutine[Any, Any, None]]] = {
    each.__name__: each
    for each in (
        handlers,
        no_handlers,
        own_handler,
        dropped,
        closed_elsewhere,
        timed_out,
        asyncio_timed_out,
        cancelled_twice,
        broken_off,
        loop_ends,
        loop_ends_while_it_lets_go,
        loop_ends_while_it_claims,
        loop_ends_with_task,
        stopped_by_a_thread,
    )
}


def main() -> None:
    scenario, plan = SCENARIOS[sys.argv[1]], json.loads(sys.argv[2])
    log_to_stderr("info")
    if plan["backend"] == "trio":
        import trio  # noqa: PLC0415  # not in the other programs

        trio.run(scenario, plan)
    else:
        asyncio.run(scenario(plan))
    record = Runtime().registry.get(WorkItem.task(plan["task"]))
    say("after", children=children(), held_until=record and record.held_until, tainted=record and record.tainted)


if __name__ == "__main__":
    main()
