"""The story of the demo's fleet: its repositories, the parts that are played in it, and what the model says in each.

The model knows no more than what it is sent: the prompt says which part it plays, the answers of its tools how far it
has come. So it goes on after a death as a model does.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

from everturn.testing import ModelRequest, Reply, Text, ToolUse

FORGE = "https://git.example"
CHUNK_PAUSE_S = 0.07  # so that people can see it speak
SLOW_TOOL_S = 12.0

Kind = Literal["plain", "killed", "merged", "slow", "resumed", "delegating", "abandoned"]

CAST: tuple[Kind, ...] = (
    "killed",
    "merged",
    "slow",
    "resumed",
    "delegating",
    "killed",
    "plain",
    "abandoned",
    "slow",
    "merged",
    "resumed",
    "plain",
)
AGENTS = ("fixer", "tester", "writer")

_SLOW_CHECK = """import time

for step in range({steps}):
    print("case", step + 1, "is right", flush=True)
    time.sleep(1)
"""
_AGAIN = "Somebody has asked for one thing more"
_INTERRUPTED = "The worker you ran on has died"
_REVIEW = "Review the change to"


@dataclass(frozen=True, slots=True)
class Project:
    """A repository with a fault in it.

    Attributes:
        name: Its name at the forge.
        module: The file that the fault is in.
        before: The faulty line.
        after: The line as it should be.
        check: A program that shows the fault.
        title: The issue's title.
        ignored: What git ignores in it. Where that is nothing, what the check leaves behind is unsaved work.
    """

    name: str
    module: str
    before: str
    after: str
    check: str
    title: str
    ignored: str = "__pycache__/\n"

    @property
    def url(self) -> str:
        """Where the forge has it."""
        return f"{FORGE}/{self.name}"

    @property
    def files(self) -> dict[str, str]:
        """What is in it."""
        text = f'"""Part of {self.name}."""\n\n{self.before}\n'
        slow = _SLOW_CHECK.format(steps=int(SLOW_TOOL_S))
        notes = {"README.md": f"# {self.name}\n", ".gitignore": self.ignored}
        return {self.module: text, "check.py": self.check, "slow_check.py": slow, **notes}


PROJECTS = (
    Project(
        "acme/shapes",
        "shapes.py",
        "def area(radius):\n    return 2 * 3.14159 * radius",
        "def area(radius):\n    return 3.14159 * radius**2",
        "from shapes import area\n\nprint('area(3) is', area(3), 'and should be', 3.14159 * 9)\n",
        "area() is wrong for circles",
    ),
    Project(
        "acme/weather",
        "weather.py",
        "def fahrenheit(celsius):\n    return celsius * 9 / 5 - 32",
        "def fahrenheit(celsius):\n    return celsius * 9 / 5 + 32",
        "from weather import fahrenheit\n\nprint('100 degrees are', fahrenheit(100), 'and should be 212.0')\n",
        "water boils at 148 degrees",
    ),
    Project(
        "acme/ledger",
        "ledger.py",
        "def total(entries):\n    return sum(entries[1:])",
        "def total(entries):\n    return sum(entries)",
        "from ledger import total\n\nprint('1 + 2 + 3 is', total([1, 2, 3]), 'and should be 6')\n",
        "total() forgets the first entry",
        ignored="",
    ),
)


@dataclass(frozen=True, slots=True)
class Part:
    """A work item of the fleet, and what happens to it.

    Attributes:
        number: The issue's number, from 1.
    """

    number: int

    @property
    def kind(self) -> Kind:
        """What happens to it."""
        return CAST[(self.number - 1) % len(CAST)]

    @property
    def agent(self) -> str:
        """Who works on it."""
        return AGENTS[self.number % len(AGENTS)]

    @property
    def project(self) -> Project:
        """Where it is."""
        return PROJECTS[(self.number - 1) % len(PROJECTS)]

    @property
    def prompt(self) -> str:
        """What the agent is told first."""
        project = self.project
        return (
            f"Issue #{self.number} of {project.name}: {project.title}. Find out why with `python3 check.py`, mend "
            f"{project.module}, check it, commit, and push it as `fix-{self.number}`."
        )

    @property
    def branch(self) -> str:
        """What the agent pushes its work as."""
        return f"fix-{self.number}"

    @property
    def resume_prompt(self) -> str:
        """What it is told when it goes on."""
        if self.kind == "resumed":
            return f"{_AGAIN}: say in README.md what was wrong."
        return f"{_INTERRUPTED}. Go on with issue #{self.number} where you were."


def reply(request: ModelRequest) -> Reply:
    """Return what the model says next."""
    told = "\n".join(request.texts())
    found = re.search(r"Issue #(\d+) of acme/", told)
    if found is None:
        return _spoken("It does what its name says, and the check agrees. I would merge it.")
    part = Part(int(found[1]))
    calls = _calls(part, _folder_of(request), again=_AGAIN in told)
    done = len(request.tool_results())
    if done < len(calls):
        text, call = calls[done]
        return _spoken(text, call)
    return _spoken(_farewell(part, again=_AGAIN in told))


def _spoken(text: str, *calls: ToolUse) -> Reply:
    return Reply(Text(text), *calls, chunk_delay_s=CHUNK_PAUSE_S)


def _calls(part: Part, folder: str, *, again: bool) -> list[tuple[str, ToolUse]]:
    project = part.project
    module = f"{folder}/{project.module}"
    check = "python3 slow_check.py && python3 check.py" if part.kind == "slow" else "python3 check.py"
    calls = [
        (f"Let me see what {project.module} does.", ToolUse("Read", {"file_path": module})),
        ("And what the check says about it.", ToolUse("Bash", {"command": "python3 check.py"})),
        (
            f"There it is: **{project.title}**, as the issue says. One line has to change, and no more.",
            ToolUse("Edit", {"file_path": module, "old_string": project.before, "new_string": project.after}),
        ),
        ("Now the check again, with all its cases.", ToolUse("Bash", {"command": check})),
    ]
    if part.kind == "delegating":
        calls.append(("Somebody else should look at it, too.", _review(project)))
    calls.append(("It is right now. I commit it and push it.", ToolUse("Bash", {"command": _commit(part)})))
    if again:
        command = f"echo '{project.title}: mended.' >> README.md && {_commit(part)}"
        calls.append(("One thing more, then: a line in the README.", ToolUse("Bash", {"command": command})))
    return calls


def _review(project: Project) -> ToolUse:
    order = f"{_REVIEW} {project.module}, and say whether it can be merged."
    return ToolUse("Agent", {"description": "Review it", "prompt": order, "run_in_background": False})


def _commit(part: Part) -> str:
    message = f"{part.project.title.capitalize()}: mended (#{part.number})"
    return f"git commit -qam '{message}' && git push -q origin HEAD:refs/heads/{part.branch} && git log --oneline -3"


def _farewell(part: Part, *, again: bool) -> str:
    if again:
        return "The README says it now. I pushed that, too."
    return (
        f"Issue #{part.number} is done.\n\n- The fault was one line in `{part.project.module}`.\n"
        f"- The check agrees now.\n- It is on the branch `{part.branch}`."
    )


def _folder_of(request: ModelRequest) -> str:
    """Return the agent's working directory, which its command tells the model."""
    found = re.search(r"orking directory: (/[^\s\"\\]+)", json.dumps(request.body))
    return found[1] if found else "."
