"""The fenced blocks of the docs, and what their comments say about them (CONTRIBUTING.md, "Snippets")."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(
    r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>\w*)\n(?P<text>.*?)^ *(?P=ticks)[ ]*$", re.DOTALL | re.MULTILINE
)
COMMENT = re.compile(r"^ *<!-- snippet(?P<page>s?):(?P<text>.*?)-->", re.DOTALL | re.MULTILINE)
NOT_RUN = "not run:"
THEN = "---"
FLAGS = {"run", "output", "like", "continues", "background", "figure"}
KEYS = {"session", "needs", "file", "exits", "says", "ready", "model", "as", "timeout"}
RUN = {"sh", "bash", "console", "python"}
CHECKED = {"toml", "json", "yaml", "nginx", "sql"}


class Unclear(AssertionError):
    """A block, or its comment, that the convention does not know."""


@dataclass(frozen=True)
class Words:
    """What a comment says.

    Attributes:
        flags: Words that stand alone.
        values: Words with a value; `says` may come several times, the others once.
        before: Code that runs before the block, in its language.
        after: Code that runs after it.
        not_run: Why the block is not run.
    """

    flags: frozenset[str] = frozenset()
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    before: str = ""
    after: str = ""
    not_run: str | None = None

    @classmethod
    def parse(cls, text: str) -> Words:
        first, _, code = textwrap.dedent(text).strip(" ").partition("\n")
        before, _, after = f"\n{code.rstrip()}\n".partition(f"\n{THEN}\n")
        hidden = (textwrap.dedent(before).strip("\n"), textwrap.dedent(after).strip("\n"))
        if first.strip().startswith(NOT_RUN):
            return cls(not_run=" ".join(text.split()).removeprefix(NOT_RUN).strip())
        flags, values = set(), dict[str, tuple[str, ...]]()
        for word in shlex.split(first):
            name, equals, value = word.partition("=")
            if name not in (KEYS if equals else FLAGS):
                raise Unclear(f"a snippet's comment says {word!r}, which CONTRIBUTING.md does not know")
            if equals:
                values[name] = (*values.get(name, ()), value)
            else:
                flags.add(name)
        return cls(frozenset(flags), values, *hidden)

    def over(self, page: Words) -> Words:
        """Return these words on top of those of the page."""
        return Words(self.flags | page.flags, {**page.values, **self.values}, self.before, self.after, self.not_run)

    def one(self, name: str, default: str = "") -> str:
        return self.values.get(name, (default,))[-1]

    def many(self, name: str) -> tuple[str, ...]:
        return tuple(each for value in self.values.get(name, ()) for each in value.split(",") if each)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: The file, from the root of the repository.
        line: Of its first fence.
        language: What stands behind the fence; may be empty.
        text: What is in it, without the indentation that a list gives it.
        words: What the comments say.
    """

    page: str
    line: int
    language: str
    text: str
    words: Words

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def session(self) -> str:
        """The blocks of one session share a sandbox: those that name one, and else each one has its own."""
        return self.words.one("session") or f"line {self.line}"

    @property
    def kind(self) -> str:
        """What happens with the block: `not run`, `file`, `output`, `figure`, `run` or `check`.

        Raises:
            Unclear: Nothing says it.
        """
        flags = self.words.flags
        if self.words.not_run is not None:
            return "not run"
        if self.words.one("file"):
            return "file"
        for kind in ("output", "figure"):
            if kind in flags:
                return kind
        if self.words.one("as") or self.language in CHECKED:
            return "check"
        if self.language in RUN:
            return "run"
        raise Unclear(f"{self.place}: a block in {self.language or 'no language'}: a comment has to say what it is")


def blocks_of(path: Path, root: Path) -> list[Block]:
    """Return the blocks of a page, from top to bottom."""
    return list(_blocks(path.read_text(encoding="utf-8"), str(path.relative_to(root))))


def _blocks(text: str, page: str) -> Iterator[Block]:
    defaults = Words()
    comments = list(COMMENT.finditer(text))
    fences = list(FENCE.finditer(text))
    outside = [each for each in comments if not any(f.start() < each.start() < f.end() for f in fences)]
    used = set[int]()
    for each in outside:
        if each["page"]:
            defaults = Words.parse(each["text"])
            used.add(each.start())
    for fence in fences:
        own = [each for each in outside if not each["page"] and not text[each.end() : fence.start()].strip()]
        own = [each for each in own if each.end() <= fence.start()]
        words = Words.parse(own[0]["text"]) if own else Words()
        used |= {each.start() for each in own}
        line = text.count("\n", 0, fence.start()) + 1
        body = textwrap.dedent(fence["text"]) if fence["indent"] else fence["text"]
        yield Block(page, line, fence["language"], body, words.over(defaults))
    lost = [each for each in outside if each.start() not in used]
    if lost:
        raise Unclear(f"{page}: a snippet's comment stands before no block: {lost[0][0]!r}")
