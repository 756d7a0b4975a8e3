"""Test an agent of your own without a key: the real agent command, with its real tools, against a script.

python scripted_agent.py
"""

import os
import tempfile

import anyio
from claude_agent_sdk import ClaudeAgentOptions, ResultMessage, query

from everturn.testing import Reply, ScriptedModel, Text, ToolUse, cli_environment


async def my_agent() -> str:
    options = ClaudeAgentOptions(permission_mode="bypassPermissions", setting_sources=[])
    answer = ""
    async for message in query(prompt="How many legs has a spider?", options=options):
        if isinstance(message, ResultMessage):
            answer = message.result or ""  # read on: whoever leaves here leaves the agent command running
    return answer


def test_my_agent_uses_its_tool() -> None:
    model = ScriptedModel(
        [
            Reply(Text("I shall count."), ToolUse("Bash", {"command": "echo $((2 * 4)) legs"})),
            Reply(Text("Eight.")),
        ]
    )
    with tempfile.TemporaryDirectory() as home, model.serve() as url:
        # The agent command inherits this process's environment, so give the process a clean one.
        os.environ.clear()
        os.environ.update(cli_environment(url, home, tmpdir=home))
        assert anyio.run(my_agent) == "Eight."
    assert model.requests[1].tool_results()[0][1] == "8 legs"


if __name__ == "__main__":
    test_my_agent_uses_its_tool()
    print("passed")
