"""Names from outside become path segments, and numbers become file names (docs/format.md, sections 1 and 3)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from everturn.errors import Invalid
from everturn.model import check_name

MAX_SEGMENT_BYTES = 240
SUFFIX = ".jsonl.zst"

_LITERAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
_FILE_NAME = re.compile(r"([0-9]{10})(?:-([0-9]{10}))?" + re.escape(SUFFIX))


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """The numbers an object covers: one for a part, a run of them for a segment."""

    first: int
    last: int
    segment: bool = False

    @property
    def file_name(self) -> str:
        """The last path segment of the object's key."""
        numbers = f"{self.first:010}-{self.last:010}" if self.segment else f"{self.first:010}"
        return numbers + SUFFIX


def part(seq: int) -> Span:
    """Return the span of the part with this number."""
    return Span(seq, seq)


def parse_file_name(file_name: str) -> Span | None:
    """Return what an object of this name covers, or `None` if the name is not one of ours."""
    match = _FILE_NAME.fullmatch(file_name)
    if match is None:
        return None
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    return Span(first, last, segment=match[2] is not None) if 1 <= first <= last else None


@lru_cache(maxsize=4096)  # the same few names come with every append
def escape(name: str, what: str) -> str:
    """Turn a name into one path segment that no other name maps to, and that cannot climb out of its folder.

    Args:
        name: Any text: a scope, project key, session id or subpath.
        what: What to call it in an error.

    Raises:
        Invalid: The name is empty, not valid Unicode, too long, has a control character, or has `.` or `..`
            as a component.
    """
    check_name(name, what)
    escaped = "".join(_escape_char(char, at_start=index == 0) for index, char in enumerate(name))
    capitals = sum(1 << bit for bit, letter in enumerate(_letters(name)) if letter.isupper())
    if capitals:
        escaped += f"!.{capitals:x}"
    if len(escaped) > MAX_SEGMENT_BYTES:
        raise Invalid(
            f"the {what} is too long: {len(escaped)} bytes once escaped",
            hint=f"use a name of at most {MAX_SEGMENT_BYTES} bytes; other characters than a-z take three or more",
        )
    return escaped


def unescape(segment: str) -> str | None:
    """Return the name that `escape` made this segment from, or `None` if it is not such a segment."""
    body = segment.partition("!.")[0]
    try:
        name = re.sub(rb"!([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), body.encode()).decode()
        return name if escape(name, "name") == segment else None
    except (Invalid, UnicodeError):
        return None


def names_in(segments: Iterable[str]) -> list[str]:
    """Return the names behind path segments, in order, without segments that are not ours."""
    return sorted(name for segment in segments if (name := unescape(segment)) is not None)


def _escape_char(char: str, *, at_start: bool) -> str:
    if char in _LITERAL and not (at_start and char == "."):
        return char
    return "".join(f"!{byte:02x}" for byte in char.encode())


def _letters(name: str) -> list[str]:
    return [char for char in name if char.isascii() and char.isalpha()]
