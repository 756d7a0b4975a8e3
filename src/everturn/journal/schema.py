"""The JSON Schema of a journal's lines, made from the events. `docs/journal.schema.json` is what comes out."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, fields
from typing import Any

from everturn.journal import events
from everturn.journal.events import TYPES, VERSION, Event
from everturn.journal.values import kinds_of

_NAMES = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "array",
    dict: "object",
    type(None): "null",
}
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
    own = {name: _described(_values(kinds), _about(known, name)) for name, kinds in kinds_of(known).items()}
    needed = [each.name for each in fields(known) if each.default is MISSING and each.default_factory is MISSING]
    properties = {"v": _V, "type": {"const": known.TYPE}, **own}
    line = {"properties": properties, "required": needed}
    return _described(line, _one_line(inspect.cleandoc(known.__doc__ or "").split("\n\n")[0]))


def _values(kinds: tuple[type, ...]) -> dict[str, Any]:
    """Return what a field may hold."""
    names = [*dict.fromkeys(_NAMES[each] for each in kinds if not (each is int and float in kinds))]
    return {"type": names if len(names) > 1 else names[0]} if names else {}


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
