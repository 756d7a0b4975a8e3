"""What is played: the repository, the work item, and what the scripted model says."""

from __future__ import annotations

from everturn.testing import Reply, ScriptedModel, Text, ToolUse

PROMPT = (
    "The function area() in shapes.py is wrong for circles: issue #7. Find out what is wrong with "
    "`python3 check.py`, mend it, and commit."
)
RESUME_PROMPT = "The worker you ran on has died. Go on with issue #7 where you were, and finish it."
AGENT = "fixer"
ISSUE = "7"

# The moment of death: the answer to the second request is being streamed.
FATAL_REQUEST = 2
FATAL_CHUNKS = 4

FILES = {
    "shapes.py": '"""Areas."""\n\nPI = 3.14159\n\n\ndef area(radius: float) -> float:\n    return 2 * PI * radius\n',
    "check.py": "from shapes import PI, area\n\nprint('area(3) is', area(3), 'and should be', PI * 9)\n",
}
_MEND = (
    "sed -i.old 's/return 2 \\* PI \\* radius/return PI * radius * radius/' shapes.py && rm shapes.py.old"
    " && python3 check.py && git commit -qam 'area: circles are round (#7)' && git log --oneline"
)


def scripted_model() -> ScriptedModel:
    """Return the model that plays the agent's mind. It stalls at the fatal place, so that the kill is well aimed."""
    return ScriptedModel(
        [
            Reply(Text("Let me see what it does."), ToolUse("Bash", {"command": "python3 check.py"})),
            Reply(
                Text("That is the circumference, not the area. I shall square the radius instead, and then commit."),
                chunk_delay_s=0.05,
                stall_after_chunks=FATAL_CHUNKS,
            ),
            Reply(Text("Back at it: squaring the radius."), ToolUse("Bash", {"command": _MEND})),
            Reply(
                Text("area() now squares the radius; the check agrees and the change is committed. Issue #7 is done.")
            ),
        ]
    )
