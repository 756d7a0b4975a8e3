"""The agent: the only place that drives the SDK's client."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ClaudeSDKError,
    Message,
    ResultMessage,
    SystemMessage,
)

from everturn.errors import EverturnError, Invalid
from everturn.transcripts import TranscriptStore

INTERRUPT_TIMEOUT_S = 5.0

# What a durable run decides itself, with the value that means "not given".
_OURS: dict[str, Any] = {
    "resume": None,
    "session_id": None,
    "session_store": None,
    "continue_conversation": False,
    "fork_session": False,
    "resume_session_at": None,
    "enable_file_checkpointing": False,
}
_OUR_ARGUMENTS = {"resume", "session-id", "continue", "fork-session", "no-session-persistence"}


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


async def converse(
    options: ClaudeAgentOptions,
    *,
    store: TranscriptStore,
    session_id: str,
    resume: bool,
    cwd: Path,
    prompt: str,
) -> AsyncGenerator[Message, None]:
    """Hold one turn of a conversation and yield its messages, the `ResultMessage` last.

    Entries are mirrored eagerly. A message is yielded only when every frame that came before it is stored, or has
    failed to be. The agent sends frames about every 100 ms, so a message can come a little before its own frame; the
    `ResultMessage` comes after all of them. Closing the iterator early interrupts the agent and stores what it said.

    Args:
        options: What the caller wants of the agent.
        store: Where the transcript goes.
        session_id: The conversation.
        resume: Whether it has begun before.
        cwd: The working directory.
        prompt: What to say.
    """
    env = options.env
    if "HOME" in env and "CLAUDE_CONFIG_DIR" not in env:
        # The agent would write its transcript below that home; the SDK looks for it below ours, and stores nothing.
        env = {**env, "CLAUDE_CONFIG_DIR": str(Path(env["HOME"], ".claude"))}
    options = replace(
        options,
        env=env,
        session_store=store,
        session_store_flush="eager",
        cwd=cwd,
        resume=session_id if resume else None,
        session_id=None if resume else session_id,
    )
    async with ClaudeSDKClient(options) as client:
        await client.query(prompt)
        ended = False
        try:
            async for message in client.receive_response():
                await store.settled()
                ended = isinstance(message, ResultMessage)
                if ended:
                    await _drain(store)
                yield message
        finally:
            if not ended:
                await _interrupt(client, store)


async def _interrupt(client: ClaudeSDKClient, store: TranscriptStore) -> None:
    """Have the agent end its turn, and hear it out: its last frames hold what was shown; they precede the result."""
    with anyio.move_on_after(INTERRUPT_TIMEOUT_S, shield=True), suppress(ClaudeSDKError):
        await client.interrupt()
        async for _ in client.receive_response():
            pass
        await store.settled()
        await _drain(store)


async def _drain(store: TranscriptStore) -> None:
    """Store what lingers. If that fails, the run tells at its end how much is not stored."""
    with suppress(EverturnError):
        await store.drain()


def session_of(message: Message) -> str | None:
    """Return the session id that a message states, or `None`. The first to state it is the `init` system message."""
    if isinstance(message, SystemMessage) and message.subtype == "init":
        found = message.data.get("session_id")
        return found if isinstance(found, str) else None
    return message.session_id if isinstance(message, ResultMessage) else None
