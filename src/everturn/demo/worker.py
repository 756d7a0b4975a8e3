"""A worker of the demo, as a process of its own: `python -m everturn.demo.worker PLAN`.

It runs one work item and says what happens as JSON, one object a line, on standard output.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from claude_agent_sdk import (
    AssistantMessage,
    ClaudeAgentOptions,
    ContentBlock,
    Message,
    ResultMessage,
    StreamEvent,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)

from everturn.errors import EverturnError
from everturn.model import WorkItem
from everturn.runtime import Runtime
from everturn.testing import ReceiptedStore


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a worker is to do. Everything else it learns from its environment, like any worker.

    Attributes:
        agent: The agent.
        repo: The repository.
        issue: The issue.
        prompt: The full prompt.
        resume_prompt: The delta prompt.
        receipts: Where it notes what was acknowledged.
        model: The model, or `None` for the agent command's own choice.
    """

    agent: str
    repo: str
    issue: str
    prompt: str
    resume_prompt: str
    receipts: str
    model: str | None = None


async def work(plan: Plan) -> int:
    """Run the plan and return the exit code."""
    runtime = Runtime(make_store=partial(ReceiptedStore, receipts=Path(plan.receipts)))
    run = runtime.run(
        WorkItem(plan.agent, plan.repo, plan.issue),
        prompt=plan.prompt,
        resume_prompt=plan.resume_prompt,
        options=ClaudeAgentOptions(
            permission_mode="bypassPermissions",
            setting_sources=[],
            include_partial_messages=True,
            model=plan.model,
        ),
    )
    failed = True
    started = False
    async for message in run:
        if not started:
            started = True
            _say("started", session_id=run.session_id, resumed=run.resumed, epoch=run.epoch, cwd=str(run.cwd))
        _report(message)
        if isinstance(message, ResultMessage):
            failed = message.is_error
    return int(failed)


def _report(message: Message) -> None:
    if isinstance(message, StreamEvent):
        delta = message.event.get("delta", {})
        if delta.get("type") == "text_delta":
            _say("delta", text=delta["text"])
    elif isinstance(message, ResultMessage):
        _say("result", ok=not message.is_error, turns=message.num_turns)
    elif isinstance(message, (AssistantMessage, UserMessage)) and isinstance(message.content, list):
        for block in message.content:
            _report_block(block)


def _report_block(block: ContentBlock) -> None:
    if isinstance(block, ToolUseBlock):
        _say("tool", name=block.name, input=block.input)
    elif isinstance(block, ToolResultBlock):
        _say("tool_result", text=str(block.content))
    elif isinstance(block, TextBlock):
        _say("text", text=block.text)


def _say(event: str, **values: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **values}) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run the plan given as the only argument."""
    try:
        return anyio.run(work, Plan(**json.loads(sys.argv[1])))
    except EverturnError as error:
        _say("error", message=str(error))
        return 2


if __name__ == "__main__":
    sys.exit(main())
