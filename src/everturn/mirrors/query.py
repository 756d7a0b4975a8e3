"""What a person types to search, as an expression of SQLite's full-text search.

Every word is handed over in quotes, so that nothing in it is an operator by accident: FTS5 has `AND`, `NEAR`,
`^`, `:`, `-`, brackets and more, and a word such as `foo.bar` alone would be a mistake to it.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from everturn.errors import Invalid

MAX_TERMS = 32
MAX_WORDS = 64  # those in phrases, too: each is looked up in the index, and common ones take milliseconds
MAX_LENGTH = 1000  # characters
MIN_BEGINNING = 3  # letters before a `*`: all words that begin with fewer of them take too long to bring together

_QUOTES = dict.fromkeys(map(ord, "“”„‟«»"), '"')
_PIECE = re.compile(r'(?P<minus>-(?!-))?(?:"(?P<phrase>[^"]*)(?:"(?P<star>\*)?|$)|(?P<word>[^\s"]+))')
_UNUSABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_HINT = 'plain words are all to be found, "…" is a phrase, word* a beginning, -word is not to be found'


@dataclass(frozen=True, slots=True)
class Term:
    """Something that is to be found, or not to be found: a word, or several in a row.

    Attributes:
        text: As it was typed, without the marks around it.
        is_prefix: Whether its last word is the beginning of one.
    """

    text: str
    is_prefix: bool = False

    @property
    def expression(self) -> str:
        """The term in FTS5's language."""
        return f'"{self.text}"' + ("*" if self.is_prefix else "")


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for.

    Attributes:
        wanted: What has to be in a text; one at least.
        unwanted: What must not be in it.
    """

    wanted: tuple[Term, ...]
    unwanted: tuple[Term, ...] = ()

    @property
    def expression(self) -> str:
        """The query in FTS5's language."""
        wanted = " ".join(term.expression for term in self.wanted)
        if not self.unwanted:
            return wanted
        return f"({wanted}) NOT ({' OR '.join(term.expression for term in self.unwanted)})"


def parse_query(text: str) -> Query:
    """Return what somebody looks for.

    Args:
        text: As it was typed. Plain words are all to be found, `"…"` is a phrase, `word*` the beginning of a word,
            and `-word` or `-"…"` is not to be found. Whatever else it holds only separates words.

    Raises:
        Invalid: There is no word in it, or none but those that are not to be found, or it is too long.
    """
    if len(text) > MAX_LENGTH:
        raise Invalid(f"the search is longer than {MAX_LENGTH:,} characters", hint="a few telling words find more")
    wanted: dict[Term, None] = {}
    unwanted: dict[Term, None] = {}
    for piece in _PIECE.finditer(_UNUSABLE.sub(" ", text).translate(_QUOTES)):
        term = _term(piece)
        if any(map(_is_of_a_word, term.text)):
            (unwanted if piece["minus"] else wanted)[term] = None
    if not wanted:
        what = "only says what is not to be found" if unwanted else "has no word in it"
        raise Invalid(f"the search {what}", hint=_HINT)
    for term in (*wanted, *unwanted):
        _check_beginning(term)
    if len(wanted) + len(unwanted) > MAX_TERMS:
        raise Invalid(f"the search has more than {MAX_TERMS} words", hint="put words that stand together in quotes")
    if sum(len(_words(term)) for term in (*wanted, *unwanted)) > MAX_WORDS:
        raise Invalid(f"the search has more than {MAX_WORDS} words", hint="a few telling words find more")
    return Query(tuple(wanted), tuple(unwanted))


def _term(piece: re.Match[str]) -> Term:
    if piece["phrase"] is not None:
        return Term(" ".join(piece["phrase"].split()), piece["star"] is not None)
    return Term(piece["word"].rstrip("*"), piece["word"].endswith("*"))


def _check_beginning(term: Term) -> None:
    last = _words(term)[-1]
    if term.is_prefix and len(last) < MIN_BEGINNING:
        raise Invalid(
            f"{last}* stands for too many words", hint=f"give {MIN_BEGINNING} letters before the * at least"
        )


def _words(term: Term) -> list[str]:
    return "".join(char if _is_of_a_word(char) else " " for char in term.text).split()


def _is_of_a_word(char: str) -> bool:
    """Tell whether FTS5's `unicode61` takes a character for a part of a word."""
    return unicodedata.category(char)[0] in "LN" or unicodedata.category(char) == "Co"
