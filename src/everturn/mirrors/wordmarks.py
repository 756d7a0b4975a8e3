"""Where the words of a query stand in a text: how often, for its rank, and around which of them to cut an excerpt.

SQLite's own functions for both read more than an answer may take: `bm25()` goes through all texts that have a word, and
`snippet()` cuts each text into words anew.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

from everturn.mirrors.hits import Piece
from everturn.mirrors.query import Query, Term

EXCERPT_LENGTH = 240  # characters
_LEAD = 60  # characters before the first match
_LONGEST = 1 << 20  # characters of a text that is not plain ASCII in which a match is looked for
_LETTER = r"[^\W_]"
_BETWEEN = r"[\W_]+"
_WORDS = re.compile(f"{_LETTER}+")
_SPACE = re.compile(r"\s+")


class _Folded(dict[int, str]):
    """Each character in small letters and without what stands above or below it; still one character each."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        base = unicodedata.normalize("NFD", char)[0].lower()
        self[code] = folded = base if len(base) == 1 else char
        return folded


_FOLDED = _Folded()


def fold(text: str) -> str:
    """Return text as it is compared: small letters, no accents. Each character keeps its place."""
    return text.lower() if text.isascii() else text.translate(_FOLDED)


class Finder:
    """Finds the wanted words of a query in texts.

    Args:
        query: What is looked for.
    """

    def __init__(self, query: Query) -> None:
        self._patterns = [pattern for term in query.wanted if (pattern := _pattern(term)) is not None]

    def counts(self, text: str) -> list[int]:
        """Return how often each of the words stands in a text, as far as capitals alone make a difference."""
        lowered = text.lower()
        return [len(pattern.findall(lowered)) for pattern in self._patterns]

    def excerpt(self, text: str, length: int = EXCERPT_LENGTH) -> tuple[Piece, ...]:
        """Return the part of a text that has the most of the words, marked.

        Args:
            text: The text.
            length: How many characters, roughly.
        """
        looked_at = text if text.isascii() else text[:_LONGEST]
        marks = _joined(sorted(self._marks(fold(looked_at))))
        first = _best(marks, length)
        begin, end = _bounds(text, marks[first][0] if marks else 0, length)
        return tuple(_pieces(text, begin, end, [mark[:2] for mark in marks[first:]]))

    def _marks(self, folded: str) -> Iterator[tuple[int, int, int]]:
        for number, pattern in enumerate(self._patterns):
            for match in pattern.finditer(folded):
                yield match.start(), match.end(), number
