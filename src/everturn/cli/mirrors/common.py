"""What the commands of this group share: which mirrors there are."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated

import typer

from everturn.errors import Invalid
from everturn.mirrors.base import Mirror
from everturn.mirrors.chroma import ChromaMirror
from everturn.mirrors.embedding import open_embedder
from everturn.mirrors.sqlite import SqliteMirror, folder_of
from everturn.settings import Settings

OnlyOption = Annotated[str | None, typer.Option("--only", help="The only mirror to rebuild: sqlite or chroma.")]


def _sqlite(settings: Settings) -> Mirror:
    return SqliteMirror(folder_of(settings), settings.store_url())


def _chroma(settings: Settings) -> Mirror:
    return ChromaMirror(folder_of(settings), settings.store_url(), open_embedder(settings))


_MIRRORS: dict[str, Callable[[Settings], Mirror]] = {"sqlite": _sqlite, "chroma": _chroma}
_OPTIONAL = "chroma"


def mirrors_of(settings: Settings, only: str | None = None) -> list[Mirror]:
    """Return the mirrors of a store, or one of them. Nothing is opened yet.

    That for search by meaning is among them if there is one, or if it is asked for.

    Raises:
        Invalid: There is none of this name.
    """
    if only is not None and only not in _MIRRORS:
        raise Invalid(f"there is no mirror called {only}", hint=f"there are: {', '.join(_MIRRORS)}")
    wanted = [only] if only is not None else [name for name in _MIRRORS if _is_used(settings, name)]
    return [_MIRRORS[name](settings) for name in wanted]


def _is_used(settings: Settings, name: str) -> bool:
    return name != _OPTIONAL or os.path.lexists(folder_of(settings) / name)
