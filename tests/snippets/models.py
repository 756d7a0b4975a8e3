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


def learns(request: ModelRequest) -> Reply:
    """Remember the word heron, count slowly with a tool, and be glad otherwise."""
    told = request.last_user_text()
    if "Which word" in told:
        return Reply(Text("The word was heron." if "heron" in "".join(request.texts()) else "I know of no word."))
    if "Remember" in told:
        return Reply(Text("I shall remember: heron."))
    if "Count" in told and not request.tool_results():
        return Reply(Text("One, two,"), ToolUse("Bash", {"command": "for i in $(seq 60); do echo $i; sleep 1; done"}))
    return Reply(Text("Done."))


MODELS = {"remembers": remembers, "works": works, "learns": learns}
