"""Values of events as columns take them. What has the wrong type is said to be, and never guessed at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from zlib import crc32

LARGEST = 1 << 40  # so that sums of millions of them still are integers to a database
PIECE_CHARS = 32_768
_EPOCH_MS = 1_577_836_800_000  # the beginning of 2020
_LAST_MS = (1 << 42) - 1
_SEARCHED_CHARS = 1024  # how far from its end a piece may be cut for the sake of a whole word


class Unreadable(Exception):
    """A field of an event has another type than it should."""


def clean(text: str) -> str:
    """Return a text without unpaired surrogates, which databases refuse."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def words(line: dict[str, Any], name: str) -> str | None:
    """Return a text, or `None` if there is none.

    Raises:
        Unreadable: It is something else.
    """
    value = line.get(name)
    if value is None:
        return None
    if type(value) is not str:
        raise Unreadable
    return clean(value)


def needed(line: dict[str, Any], name: str) -> str:
    """Return a text that has to be there.

    Raises:
        Unreadable: It is not, or it is something else.
    """
    value = words(line, name)
    if value is None:
        raise Unreadable
    return value


def number(line: dict[str, Any], name: str) -> int | None:
    """Return a whole number, or `None` if there is none.

    Raises:
        Unreadable: It is something else, or larger than any that counts something.
    """
    value = line.get(name)
    if value is None:
        return None
    if type(value) is not int or abs(value) > LARGEST:
        raise Unreadable
    return value


def flag(line: dict[str, Any], name: str) -> int:
    """Return 1 or 0; 0 if there is nothing.

    Raises:
        Unreadable: It is something else.
    """
    value = line.get(name)
    if value is not None and type(value) is not bool:
        raise Unreadable
    return int(bool(value))


def members(line: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an object; an empty one if there is none.

    Raises:
        Unreadable: It is something else.
    """
    value = line.get(name)
    if value is None:
        return {}
    if type(value) is not dict:
        raise Unreadable
    return value


def amount(value: Any) -> float | None:
    """Return a sum of money, or `None` if it is none."""
    if type(value) not in (int, float) or abs(value) > LARGEST or math.isnan(value):
        return None
    return float(value)


def count_of(value: Any) -> int:
    """Return how many, or 0 if it is no such number."""
    return value if type(value) is int and 0 <= value <= LARGEST else 0


def moment(at_ms: int) -> str | None:
    """Return a time as ISO 8601 has it, or `None` if no calendar has it."""
    seconds, milliseconds = divmod(at_ms, 1000)
    second = _second(seconds)
    return None if second is None else f"{second}.{milliseconds:03}Z"


def text_id(at_ms: int, run_id: str, seq: int, piece: int) -> int:
    """Return the id of a text: later texts have higher ones, and the same text has the same in every mirror.

    The lower twenty bits tell apart what was said in the same millisecond.
    """
    since_ms = min(max(at_ms - _EPOCH_MS, 0), _LAST_MS)
    return since_ms << 20 | (crc32(f"{run_id}/{seq}/{piece}".encode(errors="surrogatepass")) & 0xFFFFF)


@lru_cache(maxsize=64)
def _second(seconds: int) -> str | None:
    try:
        return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return None


def pieces(text: str) -> Iterator[str]:
    """Cut a long text into pieces, between words where that is possible."""
    start = 0
    while len(text) - start > PIECE_CHARS:
        end = start + PIECE_CHARS
        for space in ("\n", " "):
            found = text.rfind(space, end - _SEARCHED_CHARS, end)
            if found >= 0:
                end = found + 1
                break
        yield text[start:end]
        start = end
    yield text[start:]


def told(content: Any) -> str:
    """Return the words of what a tool answered: a text, blocks as the model's interface has them, or any JSON."""
    if type(content) is str:
        return clean(content)
    if type(content) is list and all(type(block) is dict for block in content):
        texts = [block["text"] for block in content if type(block.get("text")) is str]
        if texts or any("type" in block for block in content):
            return clean("\n".join(texts))
    return asked(content)


def asked(value: Any) -> str:
    """Return the words in any JSON, a line for each text or number, with the names of an object's members."""
    found: list[str] = []
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        name, item = waiting.pop()
        if type(item) is dict:
            waiting += reversed([(str(key), member) for key, member in item.items()])
        elif type(item) is list:
            waiting += reversed([(name, member) for member in item])
        elif item is not None:
            found.append(f"{name}: {item}" if name else str(item))
    return clean("\n".join(found))
