"""Where the words of a query stand in a text: how often, for its rank, and around which of them to cut an excerpt.

SQLite's own functions for both do more than there is time for: `bm25()` goes through all texts that have a word, and
`snippet()` cuts each text into words anew.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

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
        self.terms = len(self._patterns)

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


def _pattern(term: Term) -> re.Pattern[str] | None:
    """Return what finds a term in folded text.

    It begins with plain letters, not with a look behind them: that is what makes it quick.
    """
    words = _WORDS.findall(fold(term.text))
    if not words:
        return None
    rest = f"{_LETTER}*" if term.is_prefix else f"(?!{_LETTER})"
    first, *others = map(re.escape, words)
    return re.compile(_BETWEEN.join([f"{first}(?<!{_LETTER}{first})", *others]) + rest)


def _joined(marks: Iterable[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Return marks without those that begin inside the one before."""
    found: list[tuple[int, int, int]] = []
    for mark in marks:
        if not found or mark[0] >= found[-1][1]:
            found.append(mark)
    return found


def _best(marks: Sequence[tuple[int, int, int]], length: int) -> int:
    """Return the mark from which on the most different words, then the most words, stand close together."""
    best, first, last = (0, 0), 0, 0
    for number, (begin, _, _) in enumerate(marks):
        while last < len(marks) and marks[last][1] <= begin + length - _LEAD:
            last += 1
        value = (len({mark[2] for mark in marks[number : min(last, number + 50)]}), last - number)
        if value > best:
            best, first = value, number
    return first


def _bounds(text: str, at: int, length: int) -> tuple[int, int]:
    """Return where to cut a text around a place, between words if there is white space close by."""
    begin = max(0, at - _LEAD)
    if begin:
        space = _SPACE.search(text, begin, at)
        begin = space.end() if space else begin
    end = min(len(text), begin + length)
    if end < len(text):
        space_at = max(text.rfind(each, begin + length * 3 // 4, end) for each in " \n\t")
        end = end if space_at < 0 else space_at
    return begin, end


def _pieces(text: str, begin: int, end: int, marks: Iterable[tuple[int, int]]) -> Iterator[Piece]:
    at = begin
    if begin:
        yield Piece("…")
    for first, last in marks:
        if first >= end:
            break
        yield from _piece(text[at:first])
        yield from _piece(text[first:last], is_match=True)
        at = last
    yield from _piece(text[at:end])
    if max(at, end) < len(text):
        yield Piece("…")


def _piece(text: str, *, is_match: bool = False) -> Iterator[Piece]:
    if text:
        yield Piece(_SPACE.sub(" ", text), is_match)
