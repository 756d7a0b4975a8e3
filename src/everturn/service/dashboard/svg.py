"""Elements of SVG and HTML as text. What is put into them is escaped; nothing has a style of its own but classes."""

from __future__ import annotations

import math
from collections.abc import Iterable

from markupsafe import Markup, escape

from everturn.conversations.wording import clean

Value = str | float | int


def element(name: str, *inside: str, **attributes: Value | None) -> Markup:
    """Return an element.

    Args:
        name: Its name.
        inside: What is in it: markup as it is, other text escaped.
        attributes: Its attributes; `_` stands for `-`, one at the end is left out, and `None` is no attribute.
    """
    told = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _shown(value))
        for key, value in attributes.items()
        if value is not None
    )
    return Markup("<{}{}>{}</{}>").format(Markup(name), told, join(inside), Markup(name))  # noqa: S704  # ours


def join(pieces: Iterable[str]) -> Markup:
    """Return pieces one after the other, escaped where they are not markup."""
    return Markup("").join(piece if isinstance(piece, Markup) else escape(clean(piece)) for piece in pieces)


def percent(share: float) -> str:
    """Return a share of a chart's width, from 0 to 1, as SVG has it."""
    return f"{number(min(max(share, 0.0), 1.0) * 100)}%"


def number(value: float) -> str:
    """Return a number with as many digits as a screen can show; what is none is 0."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if math.isfinite(value) else "0"


def _shown(value: Value) -> str:
    return clean(value) if isinstance(value, str) else number(value)
