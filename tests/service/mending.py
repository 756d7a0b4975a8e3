"""A session as it really comes: the real agent command, a worker that is killed, another that goes on.

The model is scripted: it thinks, looks at a picture, calls a subagent, edits a file, reads what is long and what is
hostile. Everything else is real.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from everturn import Settings, WorkItem
from everturn.demo.machine import Machine
from everturn.demo.worker import Plan
from everturn.log.objects import run
from everturn.opening import open_journals
from everturn.testing import (
    ModelRequest,
    Reply,
    ScriptedModel,
    Text,
    Thinking,
    ToolUse,
    cli_environment,
    make_repository,
)
from polling import wait_until

TIMEOUT_S = 60.0
PROMPT = (
    "The area of a circle is wrong: issue #7. Find out why, mend it, and say what you did. <script>alert(1)</script>"
)
RESUME_PROMPT = "The worker you ran on has died. Go on where you were."
HOSTILE = "</pre><script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">"
_SHAPES = '"""Areas."""\n\nPI = 3.14159\n\n\ndef area(radius: float) -> float:\n    return 2 * PI * radius\n'
_PICTURE = (
    "import struct,zlib\n"
    "w,h=240,120\n"
    "inside=lambda x,y: (x-120)**2/4+(y-60)**2<2500\n"
    "colour=lambda x,y: bytes((40+x//2,120+y//2,180)) if inside(x,y) else b'\\xf4\\xf4\\xf0'\n"
    "row=lambda y: b'\\0'+b''.join(colour(x,y) for x in range(w))\n"
    "chunk=lambda k,d: struct.pack('>I',len(d))+k+d+struct.pack('>I',zlib.crc32(k+d))\n"
    "open('circle.png','wb').write(b'\\x89PNG\\r\\n\\x1a\\n'+chunk(b'IHDR',struct.pack('>IIBBBBB',w,h,8,2,0,0,0))"
    "+chunk(b'IDAT',zlib.compress(b''.join(map(row,range(h)))))+chunk(b'IEND',b''))\n"
)
_ANSI = (
    "printf '\\033[1;31mFAILED\\033[0m tests/test_shapes.py::test_area - \\033[33massert 18.8 == 28.3\\033[0m\\n"
    '\\033]0;owned\\007\\033[32m3 passed\\033[0m, \\033[31m1 failed\\033[0m\\n\'; echo "$HOSTILE"; exit 1'
)
_DELEGATE = {
    "description": "Count who calls area()",
    "prompt": "Count the callers of area().",
    "subagent_type": "general-purpose",
    "run_in_background": False,
}
_FINDING = """I found it. **`area()` returns the circumference**, not the area:

| radius | returned | should be |
|-------:|---------:|----------:|
| 1 | 6.28 | 3.14 |
| 3 | 18.85 | 28.27 |

```python
def area(radius: float) -> float:
    return PI * radius**2
```

So I shall

1. square the radius,
2. run the tests again, and
3. say so in the issue.

> המעגל עגול, והשטח שלו הוא פאי כפול הרדיוס בריבוע.

See [the formula](https://en.wikipedia.org/wiki/Area_of_a_circle), not [this](javascript:alert(1)).
"""


class Mending:
    """A work item, a model, and machines that work on it.

    Args:
        folder: Where everything is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repo = make_repository(folder / "acme" / "shapes", {"shapes.py": _SHAPES, "make_picture.py": _PICTURE})
        self.settings = Settings.load(
            store=(folder / "store").as_uri(), registry=f"sqlite://{folder / 'registry.db'}", state=folder / "service"
        )
        self.model = ScriptedModel(self.answer)
        self.work = WorkItem("fixer", str(self.repo), "7")
        self._url = ""

    def answer(self, request: ModelRequest) -> Reply:
        """What the model says: it depends on how far the conversation has come, whoever asks."""
        if "Count the callers" in str(request.messages[0]):
            if not request.tool_results():
                return Reply(Text("I grep for it."), ToolUse("Bash", {"command": "grep -rn 'area(' . | head"}))
            return Reply(Text("There is **one** definition and no caller."))
        shapes = str(self._checkout() / "shapes.py")
        done = len(request.tool_results())
        if any(RESUME_PROMPT in text for text in request.texts()):
            done = 8 if any("Back at it" in text for text in request.texts()) else 7
        return [
            lambda: Reply(
                Thinking("The formula may be that of the circumference. Let me look at it and at the tests first."),
                Text("Let me see what is wrong."),
                ToolUse("Bash", {"command": _ANSI, "description": "Run the tests"}),
            ),
            lambda: Reply(Text("Two things to look at."), ToolUse("Read", {"file_path": shapes})),
            lambda: Reply(
                Text("And a picture of a circle."),
                ToolUse("Bash", {"command": "python3 make_picture.py && seq 1 4000 | sed 's/^/line /'"}),
            ),
            lambda: Reply(ToolUse("Read", {"file_path": str(self._checkout() / "circle.png")})),
            lambda: Reply(Text("Who calls it?"), ToolUse("Agent", _DELEGATE)),
            lambda: Reply(
                Text(_FINDING),
                ToolUse(
                    "Edit",
                    {
                        "file_path": shapes,
                        "old_string": "    return 2 * PI * radius",
                        "new_string": "    # The circumference is another matter.\n    return PI * radius**2",
                    },
                ),
            ),
            lambda: Reply(
                Text("The tests agree now, and so I shall write down what was wrong, for whoever reads this next."),
                chunk_delay_s=0.02,
                stall_after_chunks=9,
            ),
            lambda: Reply(
                Text("Back at it: one last look at the change."),
                ToolUse("Bash", {"command": "git diff --stat; python3 -c 'import shapes; print(shapes.area(3))'"}),
            ),
            lambda: Reply(Text("`area()` squares the radius now. Issue #7 is **done**.")),
        ][min(done, 8)]()

    def _checkout(self) -> Path:
        machines = sorted(self.folder.glob("worker-*"), key=lambda path: path.stat().st_mtime_ns)
        return next(path for path in (machines[-1] / "workdirs" / "trees").iterdir() if path.is_dir())

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Have the model answer while the block runs."""
        with self.model.serve() as self._url:
            yield

    def machine(self, name: str) -> Machine:
        """Start a worker on a machine of its own; leaving its block kills it."""
        environment = {
            **cli_environment(self._url, "", path=os.environ["PATH"]),
            "EVERTURN_STORE": self.settings.store_url(),
            "EVERTURN_REGISTRY": self.settings.registry_url(),
            "EVERTURN_CLAIM_TTL_S": "2",
            "EVERTURN_JOURNAL_SHIP_S": "0.05",
            "EVERTURN_CLAIM_WAIT_S": "60",
            "HOSTILE": HOSTILE,
            **{
                f"GIT_{who}_{what}": "t@example.invalid"
                for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")
            },
        }
        plan = Plan("fixer", str(self.repo), "7", PROMPT, RESUME_PROMPT, str(self.folder / f"receipts-{name}.jsonl"))
        return Machine(self.folder / name, environment, plan, lambda event: None)

    def until_mid_sentence(self, machine: Machine) -> None:
        """Wait until the worker's agent is in the middle of the sentence that it does not end, and that is stored."""
        machine.wait_for(lambda events: any("agree" in str(event.get("text")) for event in events), TIMEOUT_S)
        wait_until(lambda: "The tests agree" in self.told(), "the beginning of the sentence is stored")

    def told(self) -> str:
        """Return all texts that the store holds in journals."""
        journals = open_journals(self.settings)
        found = [run(journals.read(ref)) for ref in run(journals.tails())]
        return "".join(str(event.raw.get("text")) for journal in found for event in journal.events)

    def mend(self) -> None:
        """Have a first worker killed in mid-sentence, and another one finish the work."""
        with self.machine("worker-a") as machine:
            self.until_mid_sentence(machine)
            machine.kill()
        with self.machine("worker-b") as machine:
            machine.wait(TIMEOUT_S)
