"""What the models of snippets say. A page names one: `model=NAME`."""

from __future__ import annotations

from everturn.testing import ModelRequest, Reply, Text, ToolUse


def remembers(request: ModelRequest) -> Reply:
    """Say how much of the conversation is known."""
    asked = sum(message["role"] == "user" for message in request.messages)
    return Reply(Text(f"You have spoken {asked} times."))


def works(request: ModelRequest) -> Reply:
    """Write a file with a tool, and then say that it is there."""
    if request.tool_results():
        return Reply(Text("I have written down what I found in NOTES.md."))
    return Reply(Text("Let me look."), ToolUse("Bash", {"command": "ls > NOTES.md"}))


MODELS = {"remembers": remembers, "works": works}
