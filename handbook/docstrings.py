"""Docstrings in the house's style, taken apart: a summary, paragraphs, and sections of named lines."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass

SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")
_NAMED = re.compile(r"^(\*{0,2}[\w.]+): (.*)")


@dataclass(frozen=True)
class Docstring:
    """What a docstring says.

    Attributes:
        text: Everything before the first section; paragraphs are kept.
        sections: For each section its lines: a name (empty if there is none) and what is said of it.
    """

    text: str
    sections: Mapping[str, list[tuple[str, str]]]

    @property
    def summary(self) -> str:
        """The first paragraph, on one line."""
        return " ".join(self.text.split("\n\n")[0].split())


def docstring_of(thing: object) -> Docstring:
    """Take the docstring of something apart; of something without one, an empty one."""
    return parse(inspect.getdoc(thing) or "")


def parse(text: str) -> Docstring:
    """Take a docstring apart, of which the indentation has been taken off."""
    head, sections = list[str](), dict[str, list[str]]()
    into = head
    for line in text.splitlines():
        if line.rstrip(":") in SECTIONS and line.endswith(":"):
            into = sections.setdefault(line.rstrip(":"), [])
        else:
            into.append(line)
    return Docstring("\n".join(head).strip(), {name: _named(lines) for name, lines in sections.items()})


def _named(lines: list[str]) -> list[tuple[str, str]]:
    """Join the lines of each name."""
    said: list[tuple[str, str]] = []
    for line in inspect.cleandoc("\n" + "\n".join(lines)).splitlines():
        found = _NAMED.match(line)
        if found:
            said.append((found[1], found[2]))
        elif said:
            name, before = said[-1]
            said[-1] = (name, f"{before} {line.strip()}".strip())
        elif line.strip():
            said.append(("", line.strip()))
    return said
