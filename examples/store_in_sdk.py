"""Use the transcript store in a program of your own that talks to the Claude Agent SDK.

Run it twice with the same arguments: the second time the agent knows what was said the first time, on any machine
that reaches the store.

    python store_in_sdk.py s3://my-bucket/agents task-42 "What did I ask you before?"
"""

import sys
import uuid

import anyio
from claude_agent_sdk import AssistantMessage, ClaudeAgentOptions, TextBlock, list_sessions_from_store, query

from everturn import EverturnError, TranscriptStore


async def main(url: str, task: str, prompt: str) -> None:
    async with TranscriptStore.open(url, scope=task, any_cwd=True) as store:
        sessions = await list_sessions_from_store(store)
        options = ClaudeAgentOptions(
            session_store=store,
            session_store_flush="eager",  # each frame is stored as it comes, not at the end of the turn
            resume=sessions[0].session_id if sessions else None,
            session_id=None if sessions else str(uuid.uuid4()),
        )
        async for message in query(prompt=prompt, options=options):
            if isinstance(message, AssistantMessage):
                print("".join(block.text for block in message.content if isinstance(block, TextBlock)))


if __name__ == "__main__":
    try:
        anyio.run(main, *sys.argv[1:4])
    except EverturnError as error:
        sys.exit(f"error: {error}")
