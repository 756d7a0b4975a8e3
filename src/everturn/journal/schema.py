"""The JSON Schema of a journal's lines, made from the events. `docs/journal.schema.json` is what comes out."""

from __future__ import annotations

import inspect
import re
import types
from dataclasses import MISSING, fields
from typing import Any, Union, get_args, get_origin, get_type_hints

from everturn.journal import events
from everturn.journal.events import TYPES, VERSION, Event

_KINDS = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}
_ATTRIBUTE = re.compile(r"^    (\w+): (.+(?:\n {5,}.+)*)", re.MULTILINE)
_SEE = re.compile(r"See `(\w+)`\.")
_WHOLE = {"type": "integer", "minimum": 1}
_V = {"const": VERSION}


def schema() -> dict[str, Any]:
    """Return the schema: each type of line, and what holds for those of newer releases."""
    newer = {"anyOf": [{"properties": {"type": {"not": {"enum": [*TYPES]}}}}, {"properties": {"v": {"not": _V}}}]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of a journal",
        "type": "object",
        "properties": {
            "v": _WHOLE | {"description": "The version of the line."},
            "seq": _WHOLE | {"description": "The number of the event in its run, from 1 and without a hole."},
            "at_ms": {
                "type": "integer",
                "description": "When it was written, in milliseconds since the Unix epoch, by the worker's clock.",
            },
            "type": {"type": "string", "description": "What happened; the other fields depend on it."},
            "exact": {
                "const": True,
                "description": "The line holds what fast JSON libraries refuse or change.",
            },
        },
        "required": ["v", "seq", "at_ms", "type"],
        "oneOf": [
            *({"$ref": f"#/$defs/{kind}"} for kind in TYPES),
            {"title": "A type, or a version, of a newer release", **newer},
        ],
        "$defs": {kind: _line(known) for kind, known in TYPES.items()},
    }


def _line(known: type[Event]) -> dict[str, Any]:
    hints = get_type_hints(known)
    own = {each.name: _described(_values(hints[each.name]), _about(known, each.name)) for each in fields(known)}
    needed = [each.name for each in fields(known) if each.default is MISSING and each.default_factory is MISSING]
    properties = {"v": _V, "type": {"const": known.TYPE}, **own}
    line = {"properties": properties, "required": needed}
    return _described(line, _one_line(inspect.cleandoc(known.__doc__ or "").split("\n\n")[0]))


def _values(hint: Any) -> dict[str, Any]:
    """Return what a field may hold."""
    if hint is Any:
        return {}
    if get_origin(hint) in (Union, types.UnionType):
        return {"type": [_kind(each) for each in get_args(hint)]}
    return {"type": _kind(hint)}


def _kind(hint: Any) -> str:
    return "null" if hint is type(None) else _KINDS[get_origin(hint) or hint]


def _about(known: type, name: str) -> str:
    """Return what is said of a field, where it is said."""
    for each in known.__mro__:
        for found, text in _ATTRIBUTE.findall(inspect.cleandoc(each.__doc__ or "")):
            if found == name:
                elsewhere = _SEE.fullmatch(text)
                return _about(getattr(events, elsewhere[1]), name) if elsewhere else _one_line(text)
    return ""


def _described(values: dict[str, Any], text: str) -> dict[str, Any]:
    return {"description": text, **values} if text else values


def _one_line(text: str) -> str:
    return " ".join(text.split())
