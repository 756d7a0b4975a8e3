"""What a caller holds of a run, and how messages come to it."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from claude_agent_sdk import Message, SystemMessage

from everturn import Unavailable
from everturn.clock import SystemClock
from everturn.runner.handle import Mailbox, Progress, Run
from everturn.runner.stopping import Stop
from polling import WAIT_S, until

BOTH = pytest.mark.parametrize("backend", ["asyncio", "trio"])
Main = Callable[[], Awaitable[None]]


def message(word: str) -> Message:
    return SystemMessage(subtype=word, data={})


def in_loop(main: Main, backend: str) -> None:
    async def limited() -> None:
        with anyio.fail_after(WAIT_S):
            await main()

    anyio.run(limited, backend=backend)


class Drive:
    """A run's task that says some words, and then lets go.

    Args:
        words: What it says.
        error: What it ends with.
    """

    def __init__(self, *words: str, error: Exception | None = None) -> None:
        self.words = words
        self.error = error
        self.log: list[str] = []
        self.progress = Progress("run-1")
        self.stop = Stop(SystemClock(), 5.0)
        self.may_let_go = True

    def run(self) -> Run:
        return Run(self.progress, self.stop, self._drive)

    async def _drive(self, mailbox: Mailbox) -> None:
        heard = anyio.Event()
        self.stop.listen(heard.set)
        try:
            for word in self.words:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._cancel_when, heard, group.cancel_scope)
                    self.log.append(f"says {word}")
                    await mailbox.put(message(word))
                    self.log.append(f"said {word}")
                    group.cancel_scope.cancel()
                if self.stop.reason is not None:
                    break
        finally:
            with anyio.CancelScope(shield=True):
                await until(lambda: self.may_let_go or self.stop.hurry, "it may let go")
                self.log.append("let go")
            mailbox.end(self.error)

    async def _cancel_when(self, heard: anyio.Event, scope: anyio.CancelScope) -> None:
        await heard.wait()
        scope.cancel()


# --- The mailbox --------------------------------------------------------------------------------------------------


@BOTH
def test_whoever_puts_a_message_waits_until_it_is_taken(backend: str) -> None:
    log: list[str] = []

    async def main() -> None:
        mailbox = Mailbox()

        async def put() -> None:
            for word in ("a", "b"):
                await mailbox.put(message(word))
                log.append(f"put {word}")

        async with anyio.create_task_group() as group:
            group.start_soon(put)
            await anyio.wait_all_tasks_blocked()
            assert log == []
            await mailbox.get()
            await anyio.wait_all_tasks_blocked()
            assert log == ["put a"]
            await mailbox.get()

    in_loop(main, backend)
    assert log == ["put a", "put b"]


@BOTH
def test_whoever_takes_a_message_waits_until_there_is_one(backend: str) -> None:
    async def main() -> None:
        mailbox = Mailbox()
        taken: list[Message] = []

        async def take() -> None:
            taken.append(await mailbox.get())

        async with anyio.create_task_group() as group:
            group.start_soon(take)
            await anyio.wait_all_tasks_blocked()
            mailbox.post(message("a"))
        assert taken == [message("a")]

    in_loop(main, backend)


@BOTH
def test_two_equal_messages_are_two(backend: str) -> None:
    async def main() -> None:
        mailbox = Mailbox()
        log: list[str] = []

        async def put(name: str) -> None:
            await mailbox.put(message("same"))
            log.append(name)

        async with anyio.create_task_group() as group:
            group.start_soon(put, "first")
            await anyio.wait_all_tasks_blocked()
            group.start_soon(put, "second")
            await anyio.wait_all_tasks_blocked()
            await mailbox.get()
            await anyio.wait_all_tasks_blocked()
            assert log == ["first"]
            await mailbox.get()

    in_loop(main, backend)


def test_what_was_posted_before_the_end_is_taken_then_the_error_comes_once() -> None:
    async def main() -> None:
        mailbox = Mailbox()
        mailbox.post(message("a"))
        mailbox.end(Unavailable("it is away", hint="wait"))
        assert await mailbox.get() == message("a")
        with pytest.raises(Unavailable):
            await mailbox.get()
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await mailbox.get()

    in_loop(main, "asyncio")


def test_a_message_whose_sender_was_cancelled_is_still_taken() -> None:
    async def main() -> None:
        mailbox = Mailbox()
        with anyio.move_on_after(0):
            await mailbox.put(message("a"))
        mailbox.end(None)
        assert await mailbox.get() == message("a")

    in_loop(main, "asyncio")


# --- The run ------------------------------------------------------------------------------------------------------


async def words_of(run: Run) -> list[str]:
    return [each.subtype async for each in run if isinstance(each, SystemMessage)]


@BOTH
def test_a_run_begins_when_it_is_iterated_and_ends_with_its_last_message(backend: str) -> None:
    drive = Drive("a", "b")
    run = drive.run()
    assert drive.log == []

    async def main() -> None:
        assert await words_of(run) == ["a", "b"]
        assert await words_of(run) == []

    in_loop(main, backend)
    assert drive.log == ["says a", "said a", "says b", "said b", "let go"]
    assert run.stopped is None


@BOTH
def test_what_goes_wrong_is_raised_after_the_last_message(backend: str) -> None:
    run = Drive("a", error=Unavailable("it is away", hint="wait")).run()

    async def main() -> None:
        assert await anext(run) == message("a")
        with pytest.raises(Unavailable):
            await anext(run)
        with pytest.raises(StopAsyncIteration):
            await anext(run)

    in_loop(main, backend)


@BOTH
def test_a_run_that_is_stopped_hands_over_what_it_had_said(backend: str) -> None:
    drive = Drive("a", "b", "c")
    run = drive.run()

    async def main() -> None:
        assert await anext(run) == message("a")
        await anyio.wait_all_tasks_blocked()
        run.stop("enough")
        assert await words_of(run) == ["b"]

    in_loop(main, backend)
    assert run.stopped == "enough"
    assert drive.log[-1] == "let go"


@BOTH
def test_to_close_a_run_waits_until_it_has_let_go_and_ends_its_iteration(backend: str) -> None:
    drive = Drive("a", "b")

    async def main() -> None:
        async with drive.run() as run:
            await anext(run)
        assert drive.log[-1] == "let go"
        assert run.stopped == "closed"
        assert await words_of(run) == []
        await run.aclose()

    in_loop(main, backend)


@BOTH
def test_any_task_may_close_a_run_that_another_one_iterates(backend: str) -> None:
    drive = Drive("a")
    drive.may_let_go = False

    async def main() -> None:
        run = drive.run()
        async with anyio.create_task_group() as group:
            await anext(run)
            group.start_soon(run.aclose)
            group.start_soon(run.aclose)
            await anyio.wait_all_tasks_blocked()
            drive.may_let_go = True
            assert await words_of(run) == []

    in_loop(main, backend)
    assert drive.log[-1] == "let go"
    assert drive.stop.hurry is False


@BOTH
def test_who_is_cancelled_while_waiting_for_a_message_leaves_when_the_run_has_let_go(backend: str) -> None:
    drive = Drive("a")
    run = drive.run()

    async def main() -> None:
        drive.may_let_go = False
        await anext(run)  # it says no more, and takes its time
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def cancel() -> None:
                    await anyio.wait_all_tasks_blocked()
                    scope.cancel()
                    drive.may_let_go = True

                group.start_soon(cancel)
                await anext(run)
        assert scope.cancelled_caught
        assert drive.log[-1] == "let go"

    in_loop(main, backend)
    assert run.stopped == "cancelled"


@pytest.mark.slow
def test_a_second_cancellation_makes_a_run_hurry() -> None:
    import asyncio  # noqa: PLC0415  # only its tasks can be cancelled twice

    drive = Drive("a")

    async def main() -> None:
        run = drive.run()
        drive.may_let_go = False
        await anext(run)
        task = asyncio.ensure_future(anext(run))
        for _ in range(2):
            await anyio.wait_all_tasks_blocked()
            assert not drive.stop.hurry
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert drive.stop.hurry is True
        assert drive.log[-1] == "let go"

    in_loop(main, "asyncio")


@pytest.mark.slow
@BOTH
def test_a_run_that_is_forgotten_is_stopped(backend: str) -> None:
    drive = Drive("a", "b")

    async def main() -> None:
        run: Any = drive.run()
        await anext(run)
        await anyio.wait_all_tasks_blocked()
        del run
        gc.collect()
        await until(lambda: drive.log[-1] == "let go", "it has let go")

    in_loop(main, backend)
    assert drive.stop.reason == "closed"


@BOTH
def test_a_program_that_ends_without_closing_its_run_lets_go_of_it(backend: str) -> None:
    drive = Drive("a", "b")
    run = drive.run()

    async def main() -> None:
        await anext(run)

    in_loop(main, backend)
    assert drive.log[-1] == "let go"


def test_a_run_that_never_began_is_closed_at_no_cost() -> None:
    drive = Drive("a")
    run = drive.run()
    anyio.run(run.aclose)
    del run
    gc.collect()
    assert (drive.log, drive.stop.reason) == ([], None)


def test_a_warning_is_told_once() -> None:
    progress = Progress("run-1")
    progress.warn("a", "b")
    progress.warn("b", "c")
    assert progress.warnings == ("a", "b", "c")
