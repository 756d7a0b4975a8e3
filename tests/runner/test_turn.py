"""One turn with an agent that fails in every way it can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Self

import anyio
import pytest
from claude_agent_sdk import CLIConnectionError, Message, ProcessError, ResultMessage, SystemMessage

from everturn.clock import SystemClock
from everturn.runner import turn as module
from everturn.runner.interruption import Interruption
from everturn.runner.stopping import Stop
from everturn.runner.turn import ConversationLost, Turn
from polling import WAIT_S, until

LOST = "No conversation found with session ID: 1"
HELLO: Message = SystemMessage(subtype="init", data={})
DEAF = CLIConnectionError("Cannot write to terminated process (exit code: 1)")


def result(*, error: str | None = None) -> ResultMessage:
    subtype = "error_during_execution" if error else "success"
    return ResultMessage(subtype, 1, 1, error is not None, 1, "1", errors=[error] if error else None)


class Puppet:
    """An agent that does as it is told.

    Args:
        connect: What starting it raises.
        say: What saying the prompt raises.
        says: What it says; an exception is raised, and `None` is silence.
    """

    def __init__(
        self, *says: Message | Exception | None, connect: Exception | None = None, say: Exception | None = None
    ) -> None:
        self._connect, self._say, self._says = connect, say, list(says)
        self.ended = True
        self.log: list[str] = []

    async def __aenter__(self) -> Self:
        self.log.append("started")
        if self._connect is not None:
            raise self._connect
        return self

    async def __aexit__(self, *_: object) -> None:
        self.log.append("gone")

    async def say(self, prompt: str) -> None:
        self.log.append(prompt)
        self.ended = False
        if self._say is not None:
            raise self._say

    async def messages(self) -> AsyncGenerator[Message, None]:
        while self._says:
            said = self._says.pop(0)
            if isinstance(said, Exception):
                raise said
            if said is None:
                await anyio.sleep_forever()
            else:
                self.ended = isinstance(said, ResultMessage)
                yield said

    async def interrupt(self) -> None:
        self.log.append("interrupted")
        self._says = [HELLO, result()]


class Deaf(Puppet):
    """An agent that waits for something in a thread, which ends when it is hastened."""

    async def messages(self) -> AsyncGenerator[Message, None]:
        async with aclosing(super().messages()) as messages:
            async for said in messages:
                try:
                    yield said
                finally:
                    with anyio.move_on_after(WAIT_S / 2, shield=True):
                        await until(lambda: "hastened" in self.log, "it is hastened")


class Held:
    """A turn that was held, and what came of it."""

    def __init__(self, agent: Puppet, *, stop_after: int | None = None, grace_s: float = 5.0) -> None:
        self.taken: list[Message] = []
        self.posted: list[Message] = []
        self.agent = agent
        self._stop_after = stop_after
        self._grace_s = grace_s
        self.stop = Stop(SystemClock(), grace_s)

    def hold(self, backend: str = "asyncio") -> None:
        anyio.run(self.run, backend=backend)

    async def run(self) -> None:

        async def take(message: Message) -> None:
            self.taken.append(message)
            if len(self.taken) == self._stop_after:
                self.stop.request("SIGTERM")
                await anyio.sleep_forever()

        async def post(message: Message) -> None:
            self.posted.append(message)

        agent: Any = self.agent
        turn = Turn(
            agent,
            self.stop,
            Interruption(self.stop),
            grace_s=self._grace_s,
            hasten=lambda: self.agent.log.append("hastened"),
            end_agent=lambda: self.agent.log.append("killed"),
            take=take,
            post=post,
        )
        with anyio.fail_after(WAIT_S):
            await turn.hold("Go.")


def test_a_turn_ends_with_its_result_and_the_agent_is_gone() -> None:
    held = Held(Puppet(HELLO, result()))
    held.hold()
    assert held.taken == [HELLO, result()]
    assert held.agent.log == ["started", "Go.", "gone"]


LOSSES = {
    "as it starts": Puppet(connect=ProcessError(LOST)),
    "as it starts, in an answer to a request": Puppet(connect=Exception(LOST)),
    "in place of hearing": Puppet(result(error=LOST), say=DEAF),
    "by its end, in place of hearing": Puppet(ProcessError(LOST), say=DEAF),
    "in a result": Puppet(HELLO, result(error=LOST)),
    "by its end": Puppet(HELLO, ProcessError(LOST)),
}


@pytest.mark.parametrize("agent", LOSSES.values(), ids=LOSSES.keys())
def test_a_conversation_may_be_lost_at_any_point(agent: Puppet) -> None:
    held = Held(agent)
    with pytest.raises(ConversationLost):
        held.hold()
    assert all(message == HELLO for message in held.taken)
    assert agent.log[-1] == "gone"


def test_an_agent_that_does_not_hear_and_says_why_is_believed() -> None:
    held = Held(Puppet(HELLO, ProcessError("out of memory"), say=DEAF))
    with pytest.raises(ProcessError, match="out of memory"):
        held.hold()
    assert held.taken == [HELLO]


@pytest.mark.parametrize("last_words", [[], [HELLO], [result(error="no credit")]], ids=["none", "hello", "a result"])
def test_an_agent_that_does_not_hear_and_does_not_say_why_is_an_error(last_words: list[Message]) -> None:
    held = Held(Puppet(*last_words, say=DEAF))
    with pytest.raises(CLIConnectionError, match="terminated process"):
        held.hold()
    assert held.taken == last_words


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_agent_that_neither_hears_nor_goes_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setattr(module, "LAST_WORDS_S", 0.05)
    held = Held(Puppet(HELLO, None, say=DEAF))
    with pytest.raises(CLIConnectionError):
        held.hold(backend)
    assert held.agent.log[-1] == "gone"


def test_what_goes_wrong_in_the_agent_is_raised_as_it_is() -> None:
    for error in (ProcessError("out of memory"), ValueError("a hook of the caller's")):
        with pytest.raises(type(error)):
            Held(Puppet(HELLO, error)).hold()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_turn_that_is_stopped_is_interrupted_and_heard_out(backend: str) -> None:
    held = Held(Puppet(HELLO, None), stop_after=1)
    held.hold(backend)
    assert held.taken == [HELLO]
    assert held.posted == [HELLO, result()]
    assert held.agent.log == ["started", "Go.", "hastened", "interrupted", "gone"]


def test_a_turn_that_is_stopped_at_its_result_is_not_interrupted() -> None:
    held = Held(Puppet(result()), stop_after=1)
    held.hold()
    assert held.agent.log == ["started", "Go.", "hastened", "gone"]


def test_how_an_agent_takes_being_ended_is_no_error() -> None:
    held = Held(Puppet(HELLO, ProcessError("killed")), stop_after=1)
    held.hold()
    assert held.posted == [HELLO, result()]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_no_cancellation_reaches_is_hastened_as_soon_as_the_turn_is_to_stop(backend: str) -> None:
    held = Held(Deaf(HELLO), stop_after=1)
    held.hold(backend)
    assert held.agent.log == ["started", "Go.", "hastened", "interrupted", "gone"]


class Clinging(Puppet):
    """An agent that is hard to get rid of."""

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        raise ValueError("it does not let go")


def test_what_goes_wrong_in_letting_go_is_raised_as_it_is_and_hides_nothing() -> None:
    with pytest.raises(ValueError, match="it does not let go"):
        Held(Clinging(HELLO, result())).hold()
    with pytest.raises(ProcessError, match="out of memory"):
        Held(Clinging(HELLO, ProcessError("out of memory"))).hold()


class Slow(Puppet):
    """An agent that goes only when it is killed. Letting go of it may begin again."""

    async def __aexit__(self, *_: object) -> None:
        self.log.append("let go of")
        await until(lambda: "killed" in self.log, "it is killed")
        await super().__aexit__()


def test_an_agent_that_does_not_go_is_killed_also_while_the_event_loop_ends() -> None:
    held = Held(Slow(HELLO, result()), grace_s=0.2)

    async def main() -> None:
        turn = asyncio.ensure_future(held.run())
        tasks.add(turn)
        await until(lambda: "let go of" in held.agent.log, "the agent is let go of")

    tasks: set[asyncio.Future[None]] = set()
    asyncio.run(main())
    assert held.stop.reason == "cancelled"
    assert held.agent.log == ["started", "Go.", "let go of", "let go of", "hastened", "killed", "gone"]
