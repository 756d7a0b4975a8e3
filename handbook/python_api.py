"""The reference of the Python API: signatures and docstrings of what is public."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from pydantic import BaseModel

import everturn
import everturn.testing
from everturn.errors import EverturnError
from handbook.docstrings import Docstring, docstring_of
from handbook.markdown import code, page, prose, table

_STARS = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}
_HEADS = {"Args": "argument", "Attributes": "attribute", "Returns": "returns", "Yields": "yields", "Raises": "raises"}


def python_api() -> str:
    """Return the page."""
    pieces = [
        "# Python API",
        "What `everturn` and `everturn.testing` export. Whatever is not here may change with any release.",
    ]
    for module in (everturn, everturn.testing):
        pieces += [f"## {code(module.__name__)}", prose(docstring_of(module).summary), *_module(module)]
    return page(*pieces)


def _module(module: ModuleType) -> Iterator[str]:
    for name in sorted(module.__all__):
        thing = getattr(module, name)
        yield f"### {code(name)}"
        if inspect.isclass(thing) and issubclass(thing, EverturnError):
            yield f"{prose(docstring_of(thing).summary)} See [errors](errors.md)."
        elif inspect.isclass(thing):
            yield from _class(name, thing)
        else:
            yield from _said(docstring_of(thing), signature(name, thing))


def _class(name: str, thing: type) -> Iterator[str]:
    if issubclass(thing, BaseModel):
        yield f"{prose(docstring_of(thing).text)} Its fields are the [settings](settings.md)."
    else:
        yield from _said(docstring_of(thing), signature(name, thing))
    described = {named for named, _ in docstring_of(thing).sections.get("Attributes", [])}
    for member, value in _members(thing):
        if member in described:
            continue
        yield f"#### {code(f'{name}.{member}')}"
        if isinstance(value, property):
            yield f"A property. {prose(docstring_of(value).text)}"
        else:
            yield from _said(docstring_of(value), signature(member, value))


def _members(thing: type) -> Iterator[tuple[str, Any]]:
    """Yield what is public in a class and ours, in the order of the source."""
    fields = {each.name for each in dataclasses.fields(thing)} if dataclasses.is_dataclass(thing) else set()
    seen = set[str]()
    for owner in thing.__mro__:
        if not owner.__module__.startswith("everturn"):
            continue
        for name, raw in vars(owner).items():
            value = getattr(thing, name, raw) if isinstance(raw, classmethod | staticmethod) else raw
            known = isinstance(raw, property | classmethod | staticmethod) or inspect.isfunction(raw)
            if known and not name.startswith("_") and name not in fields | seen and inspect.getdoc(value):
                seen.add(name)
                yield name, value


def signature(name: str, thing: Any) -> str:
    """Return how something is called, with the names of its types as the source spells them."""
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    parameters = [each for each in found.parameters.values() if each.name not in ("self", "cls")]
    spelled = [_parameter(each) for each in parameters]
    for at, each in enumerate(parameters):
        if each.kind is each.KEYWORD_ONLY:
            if not any(earlier.kind is each.VAR_POSITIONAL for earlier in parameters[:at]):
                spelled.insert(at, "*")
            break
    returned = found.return_annotation
    arrow = "" if inspect.isclass(thing) or returned is found.empty else f" -> {_annotation(returned)}"
    prefix = "async " if inspect.iscoroutinefunction(thing) else ""
    return f"{prefix}{name}({', '.join(spelled)}){arrow}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = _STARS.get(parameter.kind.name, "")
    typed = "" if parameter.annotation is parameter.empty else f": {_annotation(parameter.annotation)}"
    default = "" if parameter.default is parameter.empty else f" = {_default(parameter.default)}"
    return f"{stars}{parameter.name}{typed}{default}"


def _annotation(annotation: object) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _default(value: object) -> str:
    """Return a default as the source would have it: neither addresses nor paths of this machine."""
    text = repr(value)
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return "…"
    return text


def _said(doc: Docstring, called: str) -> Iterator[str]:
    if called:
        yield code(called)
    yield _text(doc.text)
    for section, lines in doc.sections.items():
        if lines and lines[0][0]:
            yield table((_HEADS[section], "meaning"), ((code(name), prose(text)) for name, text in lines))
        elif lines:
            yield f"{section}: {prose(' '.join(text for _, text in lines))}"


def _text(text: str) -> str:
    """Return paragraphs; examples stay as they are, and are checked as programs."""
    pieces = text.split("```python")
    shown = [prose(pieces[0])]
    for piece in pieces[1:]:
        example, _, rest = piece.partition("```")
        shown.append(f"<!-- snippet: as=program -->\n```python\n{example.strip(chr(10))}\n```\n{prose(rest)}")
    return "\n".join(shown)
