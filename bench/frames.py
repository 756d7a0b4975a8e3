"""Recorded frames, and as many more of their kind as a measurement needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import count, islice
from pathlib import Path
from random import Random
from typing import Any

import orjson

from everturn.log.frames import zstd

RECORDINGS = Path(__file__).parent / "recordings"

_UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Frame:
    """One append of the SDK, as JSON text of a list of entries.

    Attributes:
        at_s: Seconds since its conversation began.
        subpath: `None` for the main transcript.
        text: The entries.
    """

    at_s: float
    subpath: str | None
    text: bytes

    def entries(self) -> list[Any]:
        """Parse the entries."""
        found: list[Any] = orjson.loads(self.text)
        return found


def write_frames(file: Path, frames: list[dict[str, Any]]) -> None:
    """Write recorded frames, one a line."""
    lines = b"".join(orjson.dumps(frame) + b"\n" for frame in frames)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(zstd.compress(lines, level=19))


@cache
def recordings() -> list[list[Frame]]:
    """Return the recorded conversations, each with its frames in order."""
    files = sorted(RECORDINGS.glob("*.jsonl.zst"))
    return [list(_read(file)) for file in files]


def _read(file: Path) -> Iterator[Frame]:
    for line in zstd.decompress(file.read_bytes()).splitlines():
        row = orjson.loads(line)
        yield Frame(row["at_s"], row["subpath"], orjson.dumps(row["entries"]))


def frames(wanted: int, below_bytes: int | None = None) -> Iterator[Frame]:
    """Yield this many frames in recorded order: all conversations one after the other, and again from the start.

    Args:
        wanted: How many.
        below_bytes: Take only those that are smaller.
    """
    found = (
        frame for conversations in rounds(below_bytes) for conversation in conversations for frame in conversation
    )
    return islice(found, wanted)


def rounds(below_bytes: int | None = None) -> Iterator[list[list[Frame]]]:
    """Yield the recorded conversations, again and again.

    Every round has fresh ids, as a longer conversation would: what is recorded a second time has other UUIDs.
    """
    recorded = [
        [frame for frame in conversation if below_bytes is None or len(frame.text) < below_bytes]
        for conversation in recordings()
    ]
    yield recorded
    for round_number in count(1):
        random = Random(round_number)
        ids: dict[bytes, bytes] = {}
        yield [
            [replace(frame, text=_renewed(frame.text, ids, random)) for frame in conversation]
            for conversation in recorded
        ]


def _renewed(text: bytes, ids: dict[bytes, bytes], random: Random) -> bytes:
    def fresh(match: re.Match[bytes]) -> bytes:
        if match[0] not in ids:
            digits = f"{random.getrandbits(128):032x}"
            pieces = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
            ids[match[0]] = "-".join(pieces).encode()
        return ids[match[0]]

    return _UUID.sub(fresh, text)
