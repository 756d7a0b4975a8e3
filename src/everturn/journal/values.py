"""Values that events hold: which are meant, and how others become JSON."""

from __future__ import annotations

import dataclasses
import math
import re
import types
from typing import Any, Union, get_args, get_origin, get_type_hints

from everturn.journal.events import TYPES, Event

_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def kinds_of(known: type[Event]) -> dict[str, tuple[type, ...]]:
    """Return which types of values each field of an event may hold; none: any."""
    return {name: _kinds(hint) for name, hint in get_type_hints(known).items() if name not in ("TYPE", "FOREIGN")}


def _kinds(hint: Any) -> tuple[type, ...]:
    if hint is Any:
        return ()
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(kind for each in get_args(hint) for kind in _kinds(each))
    return (float, int) if hint is float else (get_origin(hint) or hint,)


_MEANT = {
    known: tuple((name, frozenset(kinds)) for name, kinds in kinds_of(known).items() if kinds)
    for known in TYPES.values()
}


def fits(event: Event) -> bool:
    """Tell whether all fields hold what they are meant to."""
    return all(type(getattr(event, name)) in kinds for name, kinds in _MEANT[type(event)])


def plain(value: Any) -> Any:
    """Return a value as JSON has it, however deep it is; what JSON does not know as text, and no number as null."""
    outermost = [None]
    waiting: list[tuple[Any, Any, Any]] = [(outermost, 0, value)]
    around: set[int] = set()  # the containers that we are inside of
    while waiting:
        place, name, item = waiting.pop()
        if place is None:
            around.discard(id(item))
            continue
        opened = _opened(item)
        if opened is None:
            place[name] = _scalar(item)
        elif id(item) not in around:  # else it holds itself, and there null
            around.add(id(item))
            place[name], members = opened
            waiting.append((None, None, item))
            waiting += [(place[name], each, member) for each, member in members]
    return outermost[0]


def _opened(item: Any) -> tuple[Any, list[tuple[Any, Any]]] | None:
    """Return an empty container for what is in a container, and its members."""
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        item = {each.name: getattr(item, each.name, None) for each in dataclasses.fields(item)}
    if isinstance(item, dict):
        members = [(_text(key if isinstance(key, str) else str(key)), member) for key, member in item.items()]
        return dict.fromkeys(key for key, _ in members), members
    if isinstance(item, list | tuple | set | frozenset):
        return [None] * len(item), list(enumerate(item))
    return None


def _scalar(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _number(int(value))
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    return _text(value if isinstance(value, str) else str(value))


def _number(value: int) -> int | str:
    try:
        str(value)
    except ValueError:  # it has more digits than the interpreter converts
        return hex(value)
    return value


def _text(value: str) -> str:
    """Return text as it comes back from JSON: two surrogates in a row are one character there."""
    if _PAIR.search(value):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return str.__str__(value)
