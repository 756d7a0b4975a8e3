"""The agent: the only place that drives the SDK's client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, Message, ResultMessage, SystemMessage

from everturn.errors import Invalid
from everturn.transcripts import TranscriptStore

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


def refuse_options(options: ClaudeAgentOptions) -> None:
    """Refuse options that a durable run decides itself.

    Raises:
        Invalid: One of them is set.
    """
    for name, unset in _OURS.items():
        if getattr(options, name) != unset:
            raise Invalid(
                f"the option {name} cannot be set for a durable run",
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
) -> AsyncIterator[Message]:
    """Hold one turn of a conversation and yield its messages, the `ResultMessage` last.

    Entries are mirrored eagerly: each frame is in the store before the next one is taken from the agent's output, and
    the whole turn before its `ResultMessage` is yielded.

    Args:
        options: What the caller wants of the agent.
        store: Where the transcript goes.
        session_id: The conversation.
        resume: Whether it has begun before.
        cwd: The working directory.
        prompt: What to say.
    """
    options = replace(
        options,
        session_store=store,
        session_store_flush="eager",
        cwd=cwd,
        resume=session_id if resume else None,
        session_id=None if resume else session_id,
    )
    async with ClaudeSDKClient(options) as client:
        await client.query(prompt)
        async for message in client.receive_response():
            yield message


def session_of(message: Message) -> str | None:
    """Return the session id that a message states, or `None`. The first to state it is the `init` system message."""
    if isinstance(message, SystemMessage) and message.subtype == "init":
        found = message.data.get("session_id")
        return found if isinstance(found, str) else None
    return message.session_id if isinstance(message, ResultMessage) else None
