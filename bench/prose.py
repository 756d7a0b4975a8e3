"""What the scripted model says while it is recorded: sentences about a repository.

They come from the repository's own documentation and from what its functions look like, so that they have the words,
the identifiers and the repetition that an agent's remarks on code have. None comes again before all others have come.
"""

from __future__ import annotations

import ast
import re
from base64 import b64encode
from pathlib import Path
from random import Random

_SENTENCE = re.compile(r"[A-Z`][^.!?|\n]{30,400}[.!?](?=\s)")


class Prose:
    """An endless supply of sentences.

    Args:
        repository: The folder they are about.
        random: Decides the order.
    """

    def __init__(self, repository: Path, random: Random) -> None:
        self._random = random
        self._facts = [fact for file in sorted(repository.rglob("*.py")) for fact in _facts(file, repository)]
        pages = sorted(repository.rglob("*.md"))
        self._sentences = [text for page in pages for text in _SENTENCE.findall(page.read_text(encoding="utf-8"))]
        self._left: list[str] = []

    def sentences(self, count: int) -> str:
        """Return this many sentences."""
        return " ".join(self._next() for _ in range(count))

    def answer(self, paragraphs: int) -> str:
        """Return a longer answer, in Markdown."""
        pieces = [self.sentences(self._random.randint(2, 4)) for _ in range(paragraphs)]
        points = "\n".join(f"- {self._next()}" for _ in range(self._random.randint(2, 5)))
        return "\n\n".join([*pieces, f"## What follows from it\n\n{points}", self._next()])

    def signature(self, thought: str) -> str:
        """Return what the API would sign a thought with: noise, longer for a longer thought."""
        return b64encode(self._random.randbytes(200 + len(thought) // 2)).decode()

    def _next(self) -> str:
        if not self._left:
            self._left = self._sentences + self._facts
            self._random.shuffle(self._left)
        return self._left.pop()


def _facts(file: Path, repository: Path) -> list[str]:
    """Describe a file's functions by what can be seen of them."""
    name = str(file.relative_to(repository))
    found: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            takes = ", ".join(f"`{argument.arg}`" for argument in node.args.args) or "nothing"
            calls = sorted({ast.unparse(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)})
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            found.append(f"`{node.name}` at {name}:{node.lineno} takes {takes} and is {lines} lines long.")
            if calls:
                found.append(
                    f"In {name} the way from `{node.name}` leads to {', '.join(f'`{c}`' for c in calls[:5])}."
                )
    return found
