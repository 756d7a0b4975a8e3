"""Entries to lines and back, so that what is read equals what was appended, whatever it holds.

Nearly every entry takes the fast way. What fast JSON libraries refuse or silently change (integers beyond 64 bits,
unpaired surrogates, deep nesting, infinities) takes the exact way, which walks the value without recursion. Each
line is read back when it is written: an entry that would not come back equal is refused there and then.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from json import decoder as json_decoder
from json.encoder import encode_basestring_ascii
from typing import Any, cast

import orjson

from everturn.errors import Invalid
from everturn.log.frames import corrupt

_FAST_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None}
_HINT = "entries are JSON values: text, numbers, true, false, null, lists, and objects with text keys"


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries as lines: what is appended together.

    Attributes:
        lines: One JSON value a line.
        count: How many.
        exact: Whether reading them takes the exact way.
    """

    lines: bytes
    count: int
    exact: bool


def encode(entries: Sequence[Any]) -> Batch:
    """Encode entries, one a line.

    Raises:
        Invalid: An entry holds something that JSON cannot.
    """
    lines: list[bytes] = []
    exact = False
    for entry in entries:
        line = _encode_fast(entry)
        if line is None:
            line, exact = _encode_exact(entry), True
        lines.append(line)
    return Batch(b"".join(line + b"\n" for line in lines), len(lines), exact)


def as_json(value: Any) -> str:
    """Return a JSON value as one line, however deep it is."""
    return encode([value]).lines.decode().rstrip("\n")


def decode_lines(lines: bytes, *, exact: bool) -> list[Any]:
    """Decode the lines of a batch.

    Raises:
        Corrupt: The bytes are not lines of JSON.
    """
    return decode_pieces([lines], exact=exact)


def decode_pieces(pieces: Iterable[bytes], *, exact: bool) -> list[Any]:
    """Decode lines that come in pieces, cut anywhere.

    Raises:
        Corrupt: The bytes are not lines of JSON.
    """
    parse = _parse_exact if exact else orjson.loads
    found: list[Any] = []
    begun: list[bytes] = []  # a line whose end has not come yet
    try:
        for piece in pieces:
            rows = piece.split(b"\n")
            if len(rows) > 1:
                found.append(parse(b"".join([*begun, rows[0]])))
                found += map(parse, rows[1:-1])
                begun.clear()
            if rows[-1]:
                begun.append(rows[-1])
    except ValueError as error:
        raise corrupt(f"a line is not JSON: {error}") from None
    if begun:
        raise corrupt("the last line is cut off")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _parse_exact(row: bytes) -> Any:
    """Parse a line that holds what fast parsers get wrong. The standard library gets all of it right but depth."""
    text = row.decode()
    try:
        return _DECODER.decode(text)
    except RecursionError:
        return _parse(text)


def _encode_fast(entry: Any) -> bytes | None:
    try:
        line = orjson.dumps(entry, option=_FAST_OPTIONS)
        return line if orjson.loads(line) == entry else None
    except (TypeError, ValueError, RecursionError):
        return None


def _encode_exact(entry: Any) -> bytes:
    try:
        text = "".join(_pieces(entry))
    except ValueError as error:  # an integer of more digits than the interpreter converts
        raise Invalid(f"an entry cannot be written as JSON: {error}", hint=_HINT) from None
    if not _same(_parse(text), entry):
        raise Invalid("an entry would not come back equal", hint=_HINT)
    return text.encode()


class _Text(str):
    """Output that stands for itself, to tell it from text that is still to be encoded."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class _End:
    """Where a container ends."""

    text: str
    container: int


def _pieces(value: Any) -> Iterator[str]:
    waiting: list[Any] = [value]
    around: set[int] = set()  # the containers that we are inside of
    while waiting:
        item = waiting.pop()
        if type(item) is _Text:
            yield item
        elif type(item) is _End:
            around.discard(item.container)
            yield item.text
        elif type(item) in (dict, list):
            if id(item) in around:
                raise Invalid("an entry holds itself", hint=_HINT)
            around.add(id(item))
            waiting += _opened_up(item)
        else:
            yield _scalar(item)


def _opened_up(container: Any) -> list[Any]:
    """Return what is to be written for a container, last things first."""
    is_dict = type(container) is dict
    last = len(container) - 1
    rest: list[Any] = [_End("}" if is_dict else "]", id(container))]
    members = container.items() if is_dict else ((None, member) for member in container)
    for index, (key, member) in reversed(list(enumerate(members))):
        rest += [_Text("," if index < last else ""), member]
        if is_dict:
            rest.append(_key(key))
    rest.append(_Text("{" if is_dict else "["))
    return rest


def _key(key: Any) -> _Text:
    if type(key) is not str:
        raise Invalid(f"an entry has a key of type {type(key).__name__}, and not text", hint=_HINT)
    return _Text(f"{encode_basestring_ascii(key)}:")


def _scalar(value: Any) -> str:
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if type(value) is int:
        return str(value)
    if type(value) is float and not math.isnan(value):
        return repr(value) if math.isfinite(value) else ("1e999" if value > 0 else "-1e999")
    # Its kind, not itself: what a transcript holds does not belong into messages.
    what = repr(value) if type(value) is float else f"a value of type {type(value).__name__}"
    raise Invalid(f"an entry holds {what}, which is not a JSON value", hint=_HINT)


def _parse(text: str) -> Any:
    """Parse JSON without recursion and without rounding integers. Takes no white space: we write none."""
    outermost: list[Any] = []
    containers: list[Any] = [outermost]
    keys: list[str | None] = [None]
    position = 0
    while True:
        value, position = _value_at(text, position)
        opened = type(value) in (list, dict)
        _put(containers[-1], keys[-1], value)
        if opened:
            closing = "]" if type(value) is list else "}"
            if text[position : position + 1] == closing:
                position, opened = position + 1, False
            else:
                containers.append(value)
                keys.append(None)
        if not opened:
            position = _close(text, position, containers, keys)
            if len(containers) == 1:
                break
        if type(containers[-1]) is dict:
            keys[-1], position = _key_at(text, position)
    if position != len(text):
        raise ValueError(f"something follows the value at {position}")
    return outermost[0]


def _put(container: Any, key: str | None, value: Any) -> None:
    if type(container) is dict:
        container[key] = value
    else:
        container.append(value)


def _close(text: str, position: int, containers: list[Any], keys: list[str | None]) -> int:
    """Step over what ends a value: a comma, or the ends of containers up to the next comma."""
    while len(containers) > 1:
        char = text[position : position + 1]
        position += 1
        if char == ",":
            return position
        if char != ("]" if type(containers[-1]) is list else "}"):
            raise ValueError(f"unexpected {char!r} at {position - 1}")
        containers.pop()
        keys.pop()
    return position


def _key_at(text: str, position: int) -> tuple[str, int]:
    if text[position : position + 1] != '"':
        raise ValueError(f"no key at {position}")
    key, position = _text_at(text, position)
    if text[position : position + 1] != ":":
        raise ValueError(f"no colon at {position}")
    return key, position + 1


def _text_at(text: str, position: int) -> tuple[str, int]:
    scan = json_decoder.scanstring  # type: ignore[attr-defined]  # documented nowhere, there since Python 2.6
    return cast("tuple[str, int]", scan(text, position + 1))


def _value_at(text: str, position: int) -> tuple[Any, int]:
    char = text[position : position + 1]
    if char == '"':
        return _text_at(text, position)
    if char == "[":
        return [], position + 1
    if char == "{":
        return {}, position + 1
    for word, value in _WORDS.items():
        if text.startswith(word, position):
            return value, position + len(word)
    match = _NUMBER.match(text, position)
    if match is None:
        raise ValueError(f"no value at {position}")
    number = int(match[0]) if match[1] is None and match[2] is None else float(match[0])
    return number, match.end()


def _same(left: Any, right: Any) -> bool:
    waiting = [(left, right)]
    while waiting:
        one, other = waiting.pop()
        if type(one) is dict and type(other) is dict:
            if one.keys() != other.keys():
                return False
            waiting += [(one[key], other[key]) for key in one]
        elif type(one) is list and type(other) is list:
            if len(one) != len(other):
                return False
            waiting += zip(one, other, strict=True)
        elif one != other:
            return False
    return True
