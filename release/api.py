"""The public names and signatures, as `release/api.txt` lists them: `make api` writes it anew.

Public is what the three levels of use are made of: what `everturn`, `everturn.errors` and `everturn.testing` export,
and the `everturn` command. Types stand as they are written in the source.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import typer.main
from typer.core import TyperGroup

import everturn
import everturn.errors
import everturn.testing
from everturn.cli.app import app
from release import ROOT

API = ROOT / "release" / "api.txt"


def lines() -> list[str]:
    """Return the whole list, in order."""
    kinds = [name for name, value in vars(everturn.errors).items() if inspect.isclass(value)]
    return [
        *_module(everturn, everturn.__all__),
        *_module(everturn.errors, kinds),
        *_module(everturn.testing, everturn.testing.__all__),
        *_command(typer.main.get_command(app), "everturn"),
    ]


def _module(module: ModuleType, names: list[str]) -> Iterator[str]:
    for name in sorted(names):
        value, path = getattr(module, name), f"{module.__name__}.{name}"
        if inspect.isclass(value):
            yield from _class(value, path)
        elif callable(value):
            yield f"{path}{_signature(value)}"
        else:
            yield f"{path} = {value}"


def _class(kind: type, path: str) -> Iterator[str]:
    if hasattr(kind, "model_fields"):  # of pydantic: its fields are what it takes
        yield f"{path}(…)"
        yield from sorted(f"{path}.{name}: {kind.__annotations__[name]}" for name in kind.model_fields)
    else:
        bases = ", ".join(base.__name__ for base in kind.__bases__ if base is not object)
        yield f"{path}{_signature(kind)}" + (f" < {bases}" if bases else "")
    fields = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    yield from sorted(f"{path}.{line}" for line in _members(kind, fields))


def _members(kind: type, fields: set[str]) -> Iterator[str]:
    """Yield the methods, properties and fields that are written here, not those of foreign parents."""
    ours = [parent for parent in kind.__mro__ if parent.__module__.startswith("everturn")]
    for name in {name for parent in ours for name in vars(parent) if not name.startswith("_")} | fields:
        value = inspect.getattr_static(kind, name, None)
        if name in fields:
            yield f"{name} (field)"
        elif isinstance(value, property):
            yield f"{name} (property)"
        elif isinstance(value, staticmethod | classmethod):
            yield f"{name}{_signature(getattr(kind, name))}"
        elif inspect.isfunction(value):
            yield f"{name}{_signature(value)}"


def _signature(value: Any) -> str:
    signature = inspect.signature(value)
    made = [
        each.replace(
            annotation=each.annotation if isinstance(each.annotation, str) else inspect.Parameter.empty,
            default="…" if each.default is not inspect.Parameter.empty else inspect.Parameter.empty,
        )
        for each in signature.parameters.values()
    ]
    returned = (
        signature.return_annotation if isinstance(signature.return_annotation, str) else inspect.Signature.empty
    )
    # Written by hand: how the standard library quotes annotations differs from version to version.
    told = ", ".join(_parameters(made))
    awaited = " (async)" if inspect.iscoroutinefunction(value) else ""
    return f"({told})" + ("" if returned is inspect.Signature.empty else f" -> {returned}") + awaited


def _parameters(parameters: list[inspect.Parameter]) -> Iterator[str]:
    starred = False
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        starred = starred or each.kind is each.VAR_POSITIONAL
        stars = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
        typed = "" if each.annotation is each.empty else f": {each.annotation}"
        yield f"{stars}{each.name}{typed}{'' if each.default is each.empty else ' = …'}"


def _command(command: Any, path: str) -> Iterator[str]:
    options = sorted("/".join([*each.opts, *each.secondary_opts]) for each in command.params)
    yield " ".join([f"$ {path}", *(f"[{option}]" for option in options if option.startswith("-"))]) + "".join(
        f" {option.upper()}" for option in options if not option.startswith("-")
    )
    if isinstance(command, TyperGroup):
        for name, each in sorted(command.commands.items()):
            yield from _command(each, f"{path} {name}")


if __name__ == "__main__":
    API.write_text("\n".join(lines()) + "\n", encoding="utf-8")
    sys.stdout.write(f"{API.relative_to(ROOT)}: {len(lines())} lines\n")
