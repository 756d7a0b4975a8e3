"""Run an agent on an issue so that it survives its worker.

Kill it at any moment, then run it again, here or on another machine that reaches the store and the registry.

    python durable_run.py https://git.example/acme/web 42
"""

import sys

import anyio
from claude_agent_sdk import AssistantMessage, ClaudeAgentOptions, TextBlock

from everturn import EverturnError, Runtime, WorkItem


async def main(repo: str, issue: str) -> None:
    runtime = Runtime.open()  # EVERTURN_STORE and EVERTURN_REGISTRY say where; see docs/settings.md
    run = runtime.run(
        WorkItem(agent="fixer", repo=repo, issue=issue),
        prompt=f"Work on issue {issue} of this repository.",
        resume_prompt="The worker you ran on has died. Go on where you were.",
        options=ClaudeAgentOptions(permission_mode="acceptEdits"),
    )
    async for message in run:
        if isinstance(message, AssistantMessage):
            print("".join(block.text for block in message.content if isinstance(block, TextBlock)))
    print(f"session {run.session_id} {'went on' if run.resumed else 'began'} in {run.cwd}")


if __name__ == "__main__":
    try:
        anyio.run(main, *sys.argv[1:3])
    except EverturnError as error:
        sys.exit(f"error: {error}")
