"""One turn with an agent: it is started, told, heard, and let go of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing, closing
from dataclasses import dataclass

import anyio
from claude_agent_sdk import ClaudeSDKError, Message

from everturn.agent import Agent, says_not_found
from everturn.errors import EverturnError
from everturn.runner.dispatch import in_thread
from everturn.runner.interruption import Interruption
from everturn.runner.stopping import CANCELLED, Stop

LAST_WORDS_S = 5.0  # to hear why an agent does not listen
INTERRUPT_S = 5.0  # for the agent to end its turn
INTERRUPT_SHARE = 0.3  # and the most of the grace period it may take
KILL_SHARE = 0.4  # of the grace period: what is kept for flushing and comparing after the agent is gone
LOOK_S = 0.1


class ConversationLost(Exception):
    """The agent command does not have the conversation that it was to resume."""


@dataclass(frozen=True)
class Turn:
    """One turn.

    Attributes:
        agent: The agent; not started yet.
        stop: The wish that the run ends.
        interruption: Breaks work off when it comes.
        grace_s: How long letting go may take.
        hasten: Called as soon as the run is to stop, and when it is to hurry: the agent's last words, which we wait
            for, may be on their way to a store that does not answer.
        end_agent: Ends the agent at once, with all it has started. Blocks.
        take: Is given each message, and may wait.
        post: Is given what the agent says after it was interrupted.
    """

    agent: Agent
    stop: Stop
    interruption: Interruption
    grace_s: float
    hasten: Callable[[], None]
    end_agent: Callable[[], None]
    take: Callable[[Message], Awaitable[None]]
    post: Callable[[Message], Awaitable[None]]

    async def hold(self, prompt: str) -> None:
        """Hold the turn, to its end or until the run is to stop. On return the agent is gone.

        Raises:
            ConversationLost: See there.
            ClaudeSDKError: The agent failed.
        """
        with self.interruption.telling(self.hasten):
            await self._hold(prompt)

    async def _hold(self, prompt: str) -> None:
        try:
            with self.interruption.unless_stopped():
                await self._talk(prompt)
            if self.stop.reason is not None and not self.agent.ended:
                await self._hear_out()
        except Exception as error:
            if says_not_found(error):
                raise ConversationLost from error
            if self.stop.reason is None or not isinstance(error, ClaudeSDKError):
                raise  # otherwise it is how the agent took being ended
        finally:
            with anyio.CancelScope(shield=True):
                unwell = await self._let_go()
        if unwell is not None:  # what went wrong before goes first
            raise unwell

    async def _talk(self, prompt: str) -> None:
        await self.agent.__aenter__()
        unheard = await self._say(prompt)
        with anyio.move_on_after(None if unheard is None else LAST_WORDS_S):
            async with aclosing(self.agent.messages()) as messages:
                async for message in messages:
                    if says_not_found(message):
                        raise ConversationLost
                    await self.take(message)
        if unheard is not None:
            raise unheard

    async def _say(self, prompt: str) -> ClaudeSDKError | None:
        """Say the prompt. An agent that has gone by then may have left word why, which is heard first."""
        try:
            await self.agent.say(prompt)
        except ClaudeSDKError as error:
            return error
        return None

    async def _hear_out(self) -> None:
        """Interrupt the agent, and hear what it still says: its last frames precede its result."""
        with self.interruption.unless_hurried(min(INTERRUPT_S, INTERRUPT_SHARE * self.grace_s)):
            await self.agent.interrupt()
            async with aclosing(self.agent.messages()) as messages:
                async for message in messages:
                    await self.post(message)

    async def _let_go(self) -> Exception | None:
        """Let go of the agent, and return what went wrong: a group of tasks would wrap it.

        An event loop that comes to its end, as that of `asyncio.run`, cancels each of its tasks once, shielded or
        not. It waits for us, so that is no reason to leave the agent as it is: letting go begins again, which the
        SDK allows at any point.
        """
        failed: list[Exception] = []
        begun = anyio.current_time()
        while True:
            try:
                await self._leave(begun, failed)
                return failed[0] if failed else None
            except anyio.get_cancelled_exc_class():
                self.stop.request(CANCELLED, again=False)

    async def _leave(self, begun: float, failed: list[Exception]) -> None:
        # Closed, as Python warns of a coroutine whose task was cancelled before its first step.
        with closing(self._end_agent_in_time(begun, failed)) as watch:
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: watch)
                try:
                    await self.agent.__aexit__()
                except Exception as error:  # noqa: BLE001  # it is raised where it does not hide another one
                    failed.append(error)
                group.cancel_scope.cancel()

    async def _end_agent_in_time(self, begun: float, failed: list[Exception]) -> None:
        """End the agent by force if it takes too long to go by itself."""
        patience_s = (1 - KILL_SHARE) * self.grace_s
        while not self.stop.hurry:
            left_s = min(self.stop.left_s - KILL_SHARE * self.grace_s, begun + patience_s - anyio.current_time())
            if left_s <= 0:
                break
            await anyio.sleep(min(LOOK_S, left_s))
        try:
            await in_thread(self.end_agent)
        except EverturnError as error:
            failed.append(error)
