"""A worker for tests that drives the real agent command through the SDK, under a guard: `python sdk_worker.py PLAN`.

It says on standard output what happens, one JSON object a line.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import anyio
from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, ResultMessage

from everturn import TranscriptStore
from everturn.clock import SystemClock
from everturn.host.agents import find_cli
from everturn.host.folders import RunFolders
from host.stage import LEASE_S, say


async def main() -> None:
    plan = json.loads(sys.argv[1])
    if plan["deaf_to_ctrl_c"]:
        signal.signal(signal.SIGINT, lambda *_: say(event="interrupted"))
    clock = SystemClock()
    folder = RunFolders(Path(plan["runs"]), clock=clock).open(plan["run_id"])
    folder.extend_lease(clock.elapsed() + LEASE_S)
    session_id = plan["session_id"]
    launcher = folder.launcher(find_cli(None), session_id=session_id, epoch=plan["epoch"])
    async with TranscriptStore.open(plan["store"], scope="task") as store:
        options = ClaudeAgentOptions(
            cli_path=launcher,
            cwd=plan["cwd"],
            session_store=store,
            session_store_flush="eager",
            permission_mode="bypassPermissions",
            setting_sources=[],
            resume=session_id if plan["resume"] else None,
            session_id=None if plan["resume"] else session_id,
        )
        begin_s = clock.elapsed()
        async with ClaudeSDKClient(options) as client:
            say(event="connected", seconds=clock.elapsed() - begin_s)
            await client.query(plan["prompt"])
            async for message in client.receive_response():
                say(event="message", type=type(message).__name__)
                if isinstance(message, ResultMessage):
                    say(event="result", text=message.result)
            begin_s = clock.elapsed()
        say(event="disconnected", seconds=clock.elapsed() - begin_s)
        agent = folder.agent
        assert agent is not None
        say(event="agent", alive=agent.is_alive, ended=agent.ended, code=agent.code, kept=agent.kept)
        folder.end_agent(timeout_s=5)
    say(event="ended")
    folder.close(keep=True)


if __name__ == "__main__":
    anyio.run(main)
