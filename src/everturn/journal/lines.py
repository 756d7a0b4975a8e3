"""Events as lines of JSON, and back (docs/journal.md)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from everturn.errors import Corrupt, Invalid
from everturn.journal.events import FIELDS, TYPES, VERSION, Event
from everturn.journal.values import plain
from everturn.log.entries import decode_lines, encode

_HEAD = ("v", "seq", "at_ms", "type")
_EXACT = b'"exact":true,'
_EXACT_WITHIN = 160  # bytes from a line's beginning: its head is shorter
_SHORT_BYTES = 1000
_SCALARS = {str, int, bool, type(None)}
_CONTAINERS = {dict, list}
_USUAL = _SCALARS | _CONTAINERS
_OPTIONS = (
    orjson.OPT_APPEND_NEWLINE
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event as it stands in a journal.

    Attributes:
        seq: Its number in the run's journal, from 1 and without a hole.
        at_ms: When it was written, in milliseconds since the Unix epoch, by the worker's clock.
        type: Its type, known or not.
        event: The event; `None`: its type, or its version, is of a newer release.
        raw: The line, parsed.
    """

    seq: int
    at_ms: int
    type: str
    event: Event | None
    raw: dict[str, Any]


def line_of(event: Event, seq: int, at_ms: int) -> bytes:
    """Return the line of an event, with its line break.

    What JSON libraries refuse or silently change takes the exact way; such a line says so (`"exact":true`). What JSON
    does not know at all becomes text, or null: no event is lost for what it holds.
    """
    record = event.record(seq, at_ms)
    try:
        line = orjson.dumps(record, option=_OPTIONS)
        if not event.FOREIGN or _is_plain(line, record) or orjson.loads(line) == record:
            return line
    except (TypeError, ValueError, RecursionError):
        pass
    head = {name: record[name] for name in _HEAD}
    try:
        return encode([head | {"exact": True} | record]).lines
    except Invalid:
        return encode([head | {"exact": True} | plain(record)]).lines


def _is_plain(line: bytes, record: dict[str, Any]) -> bool:
    """Tell in a moment whether a line surely says what its record does. An infinite number has become null in it."""
    if len(line) < _SHORT_BYTES:
        return line.count(b"null") == list(record.values()).count(None)
    return _are_plain(record.values())


def _are_plain(values: Iterable[Any]) -> bool:
    """Tell whether JSON surely has these values just as they are; that takes no time for a long text."""
    kinds = set(map(type, values))
    if kinds <= _SCALARS:
        return True
    return kinds <= _USUAL and all(
        _are_plain(value.values() if type(value) is dict else value) for value in values if type(value) in _CONTAINERS
    )


def is_exact(line: bytes) -> bool:
    """Tell whether a line has to be read the exact way."""
    return _EXACT in line[:_EXACT_WITHIN]


def parse(line: bytes) -> Recorded:
    """Read a line.

    Raises:
        Corrupt: It is not one of a journal.
    """
    return recorded(_loads_exactly(line) if is_exact(line) else _loads(line))


def recorded(raw: Any) -> Recorded:
    """Read a line that is parsed already.

    Raises:
        Corrupt: It is not one of a journal.
    """
    try:
        seq, at_ms, kind, version = raw["seq"], raw["at_ms"], raw["type"], raw["v"]
    except (TypeError, LookupError):
        raise _corrupt("it has no head") from None
    if type(seq) is not int or type(at_ms) is not int or type(kind) is not str or type(version) is not int or seq < 1:
        raise _corrupt("its head is wrong")
    return Recorded(seq, at_ms, kind, _event(kind, raw) if version <= VERSION else None, raw)


def _event(kind: str, raw: dict[str, Any]) -> Event | None:
    known = TYPES.get(kind)
    if known is None:
        return None
    try:
        return known(**{name: raw[name] for name in FIELDS[kind] if name in raw})
    except TypeError:  # a field is missing
        return None


def _loads(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except ValueError as error:
        raise _corrupt(f"it is not JSON: {error}") from None


def _loads_exactly(line: bytes) -> Any:
    try:
        return decode_lines(line.rstrip(b"\n") + b"\n", exact=True)[0]
    except Corrupt as error:
        raise _corrupt(error.message) from None


def _corrupt(what: str) -> Corrupt:
    return Corrupt(f"a line of a journal cannot be read: {what}", hint="see docs/journal.md")
