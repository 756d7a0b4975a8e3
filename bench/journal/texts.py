"""Real text for journals: Python sources and what is written in them, of the standard library and installed packages.

Which text comes next, whoever asks decides by a seed; what there is depends on what is installed.
"""

from __future__ import annotations

import re
import sysconfig
from importlib.metadata import distributions
from pathlib import Path
from random import Random

SMALLEST_BYTES, LARGEST_BYTES = 2_000, 400_000
_DOCSTRING = re.compile(r'"""(.{80,4000}?)"""', re.DOTALL)
_SENTENCE = re.compile(r"[A-Z`][^.!?]{30,300}[.!?](?=\s|$)")


class Texts:
    """An endless supply of real text.

    Args:
        files: From how many files it comes.
    """

    def __init__(self, files: int) -> None:
        chosen = _choose(files)
        self._sources = [(str(path), path.read_text("utf-8", "replace").splitlines(keepends=True)) for path in chosen]
        self._sentences = [
            sentence
            for _, lines in self._sources
            for docstring in _DOCSTRING.findall("".join(lines))
            for sentence in _SENTENCE.findall(" ".join(docstring.split()))
        ]

    def path(self, random: Random) -> str:
        """Return the path of a file."""
        return random.choice(self._sources)[0]

    def code(self, random: Random, chars: int) -> str:
        """Return lines of files that stand one after the other, about so many characters of them."""
        found: list[str] = []
        while chars > 0:
            _, lines = random.choice(self._sources)
            begin = random.randrange(len(lines))
            for line in lines[begin:]:
                found.append(line)
                chars -= len(line)
                if chars <= 0:
                    break
        return "".join(found)

    def prose(self, random: Random, chars: int) -> str:
        """Return sentences, about so many characters of them."""
        found: list[str] = []
        while chars > 0:
            found.append(random.choice(self._sentences))
            chars -= len(found[-1]) + 1
        return " ".join(found)


def _choose(count: int) -> list[Path]:
    """Return so many files, always the same ones as long as the same are there."""
    roots = {Path(sysconfig.get_path("stdlib")), *(Path(str(each.locate_file(""))) for each in distributions())}
    sizes = {path: path.stat().st_size for root in {root.resolve() for root in roots} for path in root.rglob("*.py")}
    usable = [path for path, size_bytes in sizes.items() if SMALLEST_BYTES < size_bytes < LARGEST_BYTES]
    known = sorted(usable, key=lambda path: (path.name, sizes[path], str(path)))
    return Random(0).sample(known, min(count, len(known)))
