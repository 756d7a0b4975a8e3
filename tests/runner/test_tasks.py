"""A task that belongs to nobody, and a way into its event loop."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import anyio
import anyio.lowlevel
import pytest

from everturn.runner.tasks import Loop, spawn
from polling import WAIT_S, let_others_run

BOTH = pytest.mark.parametrize("backend", ["asyncio", "trio"])
whose: ContextVar[str] = ContextVar("whose", default="nobody's")


@BOTH
def test_a_task_goes_on_when_its_maker_is_cancelled_or_done(backend: str) -> None:
    done = threading.Event()

    async def main() -> None:
        ended = anyio.Event()

        async def work() -> None:
            await let_others_run()
            done.set()
            ended.set()

        with anyio.CancelScope() as scope:
            spawn(work())
            scope.cancel()
            await anyio.lowlevel.checkpoint()
        with anyio.fail_after(WAIT_S):
            await ended.wait()

    anyio.run(main, backend=backend)
    assert done.is_set()


@BOTH
def test_a_task_is_cancelled_and_waited_for_when_the_event_loop_ends(backend: str) -> None:
    log: list[str] = []

    async def work() -> None:
        try:
            log.append("began")
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(log.append, "cleaned up in a thread")
                await let_others_run()
            log.append("ended")

    async def main() -> None:
        spawn(work())
        while not log:
            await anyio.lowlevel.checkpoint()

    anyio.run(main, backend=backend)
    assert log == ["began", "cleaned up in a thread", "ended"]


@BOTH
def test_a_task_sees_the_context_of_its_maker_and_changes_only_its_own(backend: str) -> None:
    seen: list[str] = []

    async def main() -> None:
        ended = anyio.Event()

        async def work() -> None:
            seen.append(whose.get())
            whose.set("the task's")
            ended.set()

        whose.set("the maker's")
        spawn(work())
        await ended.wait()
        seen.append(whose.get())

    anyio.run(main, backend=backend)
    assert seen == ["the maker's", "the maker's"]


@BOTH
def test_any_thread_has_something_done_in_the_loop(backend: str) -> None:
    async def main() -> None:
        loop, done = Loop(), anyio.Event()
        here = threading.current_thread()
        threads: list[threading.Thread] = []

        def note() -> None:
            threads.append(threading.current_thread())
            done.set()

        threading.Thread(target=loop.call, args=(note,)).start()
        with anyio.fail_after(WAIT_S):
            await done.wait()
        assert threads == [here]

    anyio.run(main, backend=backend)


@BOTH
def test_what_comes_after_the_end_of_the_loop_is_left_undone(backend: str) -> None:
    async def main() -> Loop:
        return Loop()

    called: list[None] = []
    anyio.run(main, backend=backend).call(lambda: called.append(None))
    assert called == []
