"""The agent: the only place that drives the SDK's client."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    Message,
    ResultMessage,
    SystemMessage,
)

from everturn.errors import EverturnError, Invalid
from everturn.transcripts.store import TranscriptStore

# What a durable run decides itself, with the value that means "not given".
_OURS: dict[str, Any] = {
    "resume": None,
    "session_id": None,
    "session_store": None,
    "continue_conversation": False,
    "fork_session": False,
    "resume_session_at": None,
    "enable_file_checkpointing": False,
    "user": None,  # another user could not reach the run's folder
}
_OUR_ARGUMENTS = {"resume", "session-id", "continue", "fork-session", "no-session-persistence"}
_NOT_FOUND = "No conversation found"


def refuse_options(options: ClaudeAgentOptions) -> None:
    """Refuse options that a durable run decides itself.

    Raises:
        Invalid: One of them is set.
    """
    given = [name for name, unset in _OURS.items() if getattr(options, name) != unset]
    given += sorted(_OUR_ARGUMENTS & set(options.extra_args))
    if given:
        raise Invalid(
            f"the option {given[0]} cannot be set for a durable run",
            hint="leave it out: the work item decides which conversation goes on, and where it is stored",
        )


class Agent:
    """An agent that holds one turn of a conversation. Entering the block starts it, leaving it lets go of it.

    Entries are mirrored eagerly. A message is handed out only when every frame that came before it is stored, or has
    failed to be. The agent sends frames about every 100 ms, so a message can come a little before its own frame; the
    `ResultMessage` comes after all of them.

    Args:
        options: What the caller wants of the agent.
        store: Where the transcript goes.
        session_id: The conversation.
        resume: Whether it has begun before.
        cwd: The working directory.
        cli: What to start.
    """

    def __init__(  # one for each thing a run decides
        self,
        options: ClaudeAgentOptions,
        *,
        store: TranscriptStore,
        session_id: str,
        resume: bool,
        cwd: Path,
        cli: Path,
    ) -> None:
        self._store = store
        self._client = ClaudeSDKClient(
            replace(
                options,
                env=_environment(options),
                session_store=store,
                session_store_flush="eager",
                cwd=cwd,
                cli_path=cli,
                resume=session_id if resume else None,
                session_id=None if resume else session_id,
            )
        )
        self.ended = True

    async def __aenter__(self) -> Self:
        try:
            await self._client.connect()
        except RuntimeError as error:
            if isinstance(error.__cause__, EverturnError):  # of our store, which the SDK asks for a transcript
                raise error.__cause__ from None
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.disconnect()

    async def say(self, prompt: str) -> None:
        """Begin the turn."""
        self.ended = False
        await self._client.query(prompt)

    async def messages(self) -> AsyncGenerator[Message, None]:
        """Yield the turn's messages, the `ResultMessage` last. May be left, and called again for the rest."""
        async with aclosing(self._client.receive_response()) as messages:  # type: ignore[type-var]  # it is a generator
            async for message in messages:
                await self._store.settled()
                if isinstance(message, ResultMessage):
                    self.ended = True
                    with suppress(EverturnError):  # the run tells at its end how much is not stored
                        await self._store.drain()
                yield message

    async def interrupt(self) -> None:
        """Ask the agent to end its turn. Its last frames, which hold what was shown, still come.

        If it does not listen, or refuses, it is ended all the same; the SDK says so in errors of no class of its own.
        """
        with suppress(Exception):
            await self._client.interrupt()


def _environment(options: ClaudeAgentOptions) -> dict[str, str]:
    env = options.env
    if "HOME" in env and "CLAUDE_CONFIG_DIR" not in env:
        # The agent would write its transcript below that home; the SDK looks for it below ours, and stores nothing.
        return {**env, "CLAUDE_CONFIG_DIR": str(Path(env["HOME"], ".claude"))}
    return env


def session_of(message: Message) -> str | None:
    """Return the session id that a message states, or `None`. The first to state it is the `init` system message."""
    if isinstance(message, SystemMessage) and message.subtype == "init":
        found = message.data.get("session_id")
        return found if isinstance(found, str) else None
    return message.session_id if isinstance(message, ResultMessage) else None


def says_that_it_asks(message: Message) -> bool:
    """Tell whether a message says that the model is being asked; it comes only to who wants pieces of answers."""
    return (
        isinstance(message, SystemMessage)
        and message.subtype == "status"
        and message.data.get("status") == "requesting"
    )


def says_not_found(said: Message | Exception) -> bool:
    """Tell whether the agent command says that it does not have the conversation it was to resume.

    It says so in an error result and then exits; the SDK makes an error of that, at whatever it was just doing.
    """
    if isinstance(said, Exception):
        return _NOT_FOUND in str(said)
    if not isinstance(said, ResultMessage) or not said.is_error:
        return False
    return any(_NOT_FOUND in text for text in [said.result or "", *(said.errors or [])])
