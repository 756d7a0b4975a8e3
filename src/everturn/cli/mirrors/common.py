"""What the commands of this group share: which mirrors there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from everturn.errors import Invalid
from everturn.mirrors.base import Mirror
from everturn.mirrors.sqlite import SqliteMirror, folder_of
from everturn.settings import Settings

OnlyOption = Annotated[str | None, typer.Option("--only", help="The only mirror to rebuild: sqlite.")]


def _sqlite(settings: Settings) -> Mirror:
    return SqliteMirror(folder_of(settings), settings.store_url())


_MIRRORS: dict[str, Callable[[Settings], Mirror]] = {"sqlite": _sqlite}


def mirrors_of(settings: Settings, only: str | None = None) -> list[Mirror]:
    """Return the mirrors of a store, or one of them. Nothing is opened yet.

    Raises:
        Invalid: There is none of this name.
    """
    if only is not None and only not in _MIRRORS:
        raise Invalid(f"there is no mirror called {only}", hint=f"there are: {', '.join(_MIRRORS)}")
    return [make(settings) for name, make in _MIRRORS.items() if only in (None, name)]
