"""Groups of commands that are loaded when they are asked for: who lists runs does not wait for what starts them."""

from __future__ import annotations

import gc
from collections import UserDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pkgutil import resolve_name
from typing import Any

import typer.main


def lazy_group(where: Mapping[str, str]) -> type[typer.core.TyperGroup]:
    """Return a group of commands, for `typer.Typer(cls=…)`.

    Args:
        where: Each command's name, and where it is: `package.module:function` or, for a group, `package:app`.
    """

    class LazyGroup(typer.core.TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.commands = _Commands(where)

        def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  # as the library calls it
            return list(where)

    return LazyGroup


class _Commands(UserDict[str, Any]):
    """Commands by name; those that were not asked for yet are still where they are."""

    def __getitem__(self, name: str) -> Any:
        if isinstance(found := self.data[name], str):
            with _nothing_collected():
                found = self.data[name] = _load(name, found)
        return found


def _load(name: str, where: str) -> Any:
    found = resolve_name(where)
    if isinstance(found, typer.Typer):
        return typer.main.get_group(found)
    alone = typer.Typer(add_completion=False)
    alone.command(name)(found)
    return typer.main.get_command(alone)


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Do without the garbage collector: what is imported stays, and looking through it takes a fifth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # nor is it looked through later
        if was_enabled:
            gc.enable()
