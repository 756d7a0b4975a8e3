"""A worker with somebody who looks on: `python viewer.py SEEN`.

Each piece of an answer that the run yields is noted in a file as it is seen, before the next one is asked for.
"""

from __future__ import annotations

import json
import os
import sys

import anyio
from claude_agent_sdk import ClaudeAgentOptions, StreamEvent

from everturn import Runtime, WorkItem

TASK = "sheep"


async def main(seen: str) -> None:
    file = os.open(seen, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    options = ClaudeAgentOptions(
        permission_mode="bypassPermissions", setting_sources=[], include_partial_messages=True
    )
    work = WorkItem.task(TASK)
    async with Runtime().run(work, prompt="Count.", resume_prompt="Go on counting.", options=options) as run:
        async for message in run:
            delta = message.event.get("delta", {}) if isinstance(message, StreamEvent) else {}
            if delta.get("type") == "text_delta":
                os.write(file, json.dumps([run.run_id, delta["text"]]).encode() + b"\n")


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
