"""Markdown that is written by programs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)


def one_line(text: str) -> str:
    """Return a text without line breaks."""
    return " ".join(text.split())


def code(text: object) -> str:
    """Return a text as code, whatever is in it; nothing for nothing."""
    words = one_line(str(text))
    if not words:
        return ""
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", words)), default=0))
    return f"{ticks} {words} {ticks}" if len(ticks) > 1 else f"`{words}`"


def prose(text: str) -> str:
    """Return a plain sentence so that Markdown shows what stands there; what is in backticks is code already."""
    pieces, end = [], 0
    for found in _CODE.finditer(text):
        pieces += [_escaped(text[end : found.start()]), found[0]]
        end = found.end()
    return "".join([*pieces, _escaped(text[end:])])


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table. A column in which all rows are empty is left out; a table without rows is nothing."""
    kept = [list(row) for row in rows]
    if not kept:
        return ""
    columns = [at for at in range(len(heads)) if any(row[at] for row in kept)]

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(one_line(cells[at]).replace('|', chr(92) + '|') for at in columns)} |"

    return "\n".join([line(heads), f"|{'---|' * len(columns)}", *(line(row) for row in kept)])


def page(*pieces: str) -> str:
    """Return paragraphs, tables and headings as a page."""
    return "\n\n".join(piece.strip("\n") for piece in pieces if piece.strip()) + "\n"


def _escaped(text: str) -> str:
    return re.sub(r"([*_<>\[\]\\])", r"\\\1", text)
