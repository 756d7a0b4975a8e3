"""The conversations that are recorded: what the scripted model does, step by step, with the agent's real tools.

The mix of tools, the lengths of thoughts and answers and the number of steps in a turn are ours, set by what coding
agents commonly do; what the tools return is whatever they really return in a copy of this project.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bench.prose import Prose
from everturn.testing import ModelRequest, Reply, Text, Thinking, ToolUse
from everturn.testing.messages_api import Block

FIRST_TOKEN_S = 1.2
CHUNK_S = 0.015  # a word, or 16 characters of a tool's input
SUBAGENT_MARK = "Report in five sentences on"

_WEIGHTS = {"Read": 28, "Bash": 30, "grep": 16, "Edit": 16, "Write": 7, "Agent": 3}
_COMMANDS = (
    "git status --short && git log --oneline | head -20",
    "git diff",
    "git diff --stat",
    "git show --stat HEAD",
    "ls -la src/everturn {folder}",
    "find . -name '*.py' -newer pyproject.toml | sort | head -60",
    "wc -l $(git ls-files '*.py') | sort -n | tail -25",
    "python3 -m compileall -q {file} && python3 -m dis {file} | head -{count}",
    "python -m pytest -q -p no:cacheprovider tests/log/test_names.py tests/test_clock.py 2>&1 | tail -{count}",
    "python -m pytest -v -p no:cacheprovider tests/log/test_entries.py 2>&1 | tail -{count}",
    "grep -n 'def ' {file}",
    "sed -n '1,{count}p' {file}",
    "sha256sum $(git ls-files | head -{count})",
    "python3 -m tokenize {file} | head -{count}",
    "du -ak {folder} | sort -n | tail -{count}",
    "git ls-files -s | head -{count}",
    "cat {file} | tail -{count}",
    "python3 -c \"import ast,sys; print(ast.dump(ast.parse(open('{file}').read()), indent=1)[:{count}00])\"",
    "cd /nowhere",
    "awk 'length > 100' {file} | head -{count}",
)
_WORDS = ("def ", "class ", "raise ", "await ", "return None", "seconds", "_s:", "folder", "epoch", "Unavailable")


@dataclass
class Conversation:
    """One conversation: its prompts, and the model's side of it.

    Args:
        seed: Decides everything but what the tools return.
        repository: Where the agent works.
        turns: How many prompts.
    """

    seed: int
    repository: Path
    turns: int

    def __post_init__(self) -> None:
        self._random = Random(self.seed)
        self._prose = Prose(self.repository, self._random)
        self._files = sorted(
            str(file.relative_to(self.repository))
            for file in self.repository.rglob("*.py")
            if 800 < file.stat().st_size < 24_000
        )
        self._steps: Iterator[Reply] = iter(())
        self._subagent: Iterator[Reply] = iter(())
        self._ids = 0

    def prompts(self) -> Iterator[str]:
        """Yield what the user says, and get the model ready for it."""
        for _ in range(self.turns):
            self._steps = self._turn()
            yield f"{self._prose.sentences(self._random.randint(1, 3))} Look into {self._file()} and put it right."

    def reply(self, request: ModelRequest) -> Reply:
        """Return the model's next step, for the conversation or for the subagent it has started."""
        if any(SUBAGENT_MARK in text for text in request.texts()):
            return next(self._subagent)
        return next(self._steps)

    def _turn(self) -> Iterator[Reply]:
        for _ in range(self._random.randint(6, 16)):
            yield from self._step()
        yield self._say(self._prose.answer(self._random.randint(2, 6)))

    def _step(self) -> Iterator[Reply]:
        tool = self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        file = self._file()
        if tool == "Edit":  # the agent has to read what it edits
            yield self._do(self._use("Read", file_path=str(self.repository / file)))
            yield self._do(self._edit(file))
        elif tool == "Agent":
            self._subagent = self._subagent_steps()
            prompt = f"{SUBAGENT_MARK} {file}. {self._prose.sentences(2)}"
            use = {"description": "Read a file", "prompt": prompt, "subagent_type": "general-purpose"}
            yield self._do(self._use("Agent", **use, run_in_background=False))
        else:
            yield self._do(
                *(self._simple(tool, self._file()) for _ in range(self._random.choice((1, 1, 1, 1, 2, 3))))
            )

    def _simple(self, tool: str, file: str) -> ToolUse:
        path, pick = str(self.repository / file), self._random
        if tool == "Read":
            window = {"offset": pick.randint(1, 60), "limit": pick.randint(30, 120)} if pick.random() < 0.4 else {}
            return self._use("Read", file_path=path, **window)
        if tool == "grep":
            flags = pick.choice(("-rn", "-rn", "-rnC1", "-rnC3", "-rl", "-rc"))
            search = f"grep {flags} --include='*.py' '{pick.choice(_WORDS)}' {self._folder()}"
            return self._use(
                "Bash", command=f"{search} | head -{pick.randint(10, 120)}", description="Search the code"
            )
        if tool == "Write":
            name = f"notes/{pick.randbytes(3).hex()}.md"
            return self._use(
                "Write", file_path=str(self.repository / name), content=self._prose.answer(pick.randint(2, 8))
            )
        command = pick.choice(_COMMANDS).format(file=file, folder=self._folder(), count=pick.randint(10, 90))
        return self._use("Bash", command=command, description=self._prose.sentences(1)[:60])

    def _edit(self, file: str) -> ToolUse:
        text = (self.repository / file).read_text(encoding="utf-8")
        lines = [line for line in text.split("\n") if len(line) > 20 and text.count(line) == 1]
        places = self._random.sample(range(len(lines)), min(len(lines), 1))
        old = lines[places[0]] if places else "no such line"
        added = "\n".join(f"# {line}" for line in self._prose.sentences(self._random.randint(1, 3)).split(". "))
        return self._use("Edit", file_path=str(self.repository / file), old_string=old, new_string=f"{added}\n{old}")

    def _subagent_steps(self) -> Iterator[Reply]:
        for _ in range(self._random.randint(2, 5)):
            yield self._do(self._simple(self._random.choice(("Read", "grep", "Bash")), self._file()))
        yield self._say(self._prose.sentences(5))

    def _do(self, *uses: ToolUse) -> Reply:
        blocks: list[Block] = [
            *self._thought(),
            *([Text(self._prose.sentences(1))] if self._chance(0.6) else []),
            *uses,
        ]
        return Reply(*blocks, delay_s=FIRST_TOKEN_S, chunk_delay_s=CHUNK_S)

    def _say(self, text: str) -> Reply:
        return Reply(*self._thought(), Text(text), delay_s=FIRST_TOKEN_S, chunk_delay_s=CHUNK_S)

    def _thought(self) -> list[Thinking]:
        if not self._chance(0.4):
            return []
        thought = self._prose.sentences(self._random.randint(1, 6))
        return [Thinking(thought, self._prose.signature(thought))]

    def _use(self, name: str, **given: object) -> ToolUse:
        self._ids += 1
        return ToolUse(name, given, id=f"toolu_{self.seed:02}x{self._ids:05}")

    def _file(self) -> str:
        return self._random.choice(self._files)

    def _folder(self) -> str:
        return self._random.choice(("src", "src/everturn/log", "tests/log", "src/everturn/transcripts", "tests"))

    def _chance(self, share: float) -> bool:
        return self._random.random() < share
