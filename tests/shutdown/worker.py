"""A worker for tests of how runs end: `python worker.py PLAN`. It says what happens, one JSON object a line.

Signals are left to their default, except SIGUSR1, which cancels the task that iterates the run.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import sniffio
from claude_agent_sdk import AssistantMessage, ClaudeAgentOptions, ResultMessage, StreamEvent

from everturn import EverturnError, Held, Run, Runtime, WorkItem
from everturn.registry import table
from everturn.telemetry import log_to_stderr
from everturn.testing import ReceiptedStore

FAILED = 5
CANCELLED = 7
TRYING_S = "TESTS_REGISTRY_TRYING_S"  # a variable: how long a registry on DynamoDB is tried, so that tests wait less


def say(event: str, **values: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **values}) + "\n")
    sys.stdout.flush()


def receipted(plan: dict[str, Any], **more: Any) -> Runtime:
    """Return a runtime that notes what was acknowledged."""
    return Runtime(make_store=partial(ReceiptedStore, receipts=Path(plan["receipts"])), **more)


def start(runtime: Runtime, plan: dict[str, Any]) -> Run:
    return runtime.run(
        WorkItem.task(plan["task"]),
        prompt=plan["prompt"],
        resume_prompt=plan["resume_prompt"],
        options=ClaudeAgentOptions(
            permission_mode="bypassPermissions",
            setting_sources=[],
            include_partial_messages=True,
            cli_path=plan.get("cli"),
        ),
    )


async def work(plan: dict[str, Any]) -> int:
    """Run the plan to its end, and say how it ended."""
    run = start(receipted(plan), plan)
    code = 0
    with anyio.CancelScope() as scope:
        cancel_on_signal(scope)
        try:
            await listen(run)
        except EverturnError as error:
            say("error", kind=type(error).__name__, message=str(error))
            code = FAILED
        finally:
            tell(run)
    return CANCELLED if scope.cancelled_caught else code


def cancel_on_signal(scope: anyio.CancelScope) -> None:
    """Have SIGUSR1 cancel this task: with asyncio as a foreign program would, with trio by a scope."""
    if sniffio.current_async_library() == "asyncio":
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, task.cancel)
        return
    import trio  # noqa: PLC0415  # not in the other workers

    token = trio.lowlevel.current_trio_token()
    signal.signal(signal.SIGUSR1, lambda *_: token.run_sync_soon(scope.cancel))


async def listen(run: Run) -> None:
    started = False
    async for message in run:
        if not started:
            started = True
            say("started", session_id=run.session_id, resumed=run.resumed, epoch=run.epoch)
        if isinstance(message, StreamEvent):
            say("delta")
        elif isinstance(message, AssistantMessage):
            say("said")
        elif isinstance(message, ResultMessage):
            say("result", ok=not message.is_error)


def tell(run: Run) -> None:
    say(
        "ended",
        run_id=run.run_id,
        session_id=run.session_id,
        resumed=run.resumed,
        epoch=run.epoch,
        stopped=run.stopped,
        missing=run.missing_entries,
        warnings=run.warnings,
    )


async def rounds(plan: dict[str, Any]) -> int:
    """Run the plan's work item again and again, each time at a word on standard input."""
    runtime = Runtime()
    while await anyio.to_thread.run_sync(sys.stdin.readline):
        run = start(runtime, plan)
        try:
            messages = [message async for message in run]
            result = messages[-1]
            ok = isinstance(result, ResultMessage) and not result.is_error
            say("ran", ok=ok, epoch=run.epoch, run_id=run.run_id)
        except Held as held:
            say("held", holder=held.holder, run_id=held.run_id, epoch=held.epoch)
    return 0


def main() -> int:
    plan = json.loads(sys.argv[1])
    table.TRYING_S = float(os.environ.get(TRYING_S, table.TRYING_S))
    log_to_stderr("info")
    what = rounds if plan.get("rounds") else work
    try:
        return anyio.run(what, plan, backend=plan["backend"])
    except asyncio.CancelledError:
        return CANCELLED


if __name__ == "__main__":
    sys.exit(main())
