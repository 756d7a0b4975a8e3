"""Parts and segments as bytes (docs/format.md, sections 4 and 7). Pure: no store, no time, no randomness."""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from everturn.errors import Corrupt
from everturn.log import entries as codec
from everturn.log.names import Span

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

VERSION = 1
MAGIC = 0x184D2A5E
MAX_NUMBER = 1 << 53
MAX_HEADER_BYTES = 64 << 20  # a segment names all its parts in its header

Kind = Literal["data", "fence", "truncate", "segment"]
PartNote = tuple[int, str, int, str]  # epoch, write id, count, kind of a part inside a segment

_FRAME_START = struct.Struct("<II")
_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 3,
    zstd.CompressionParameter.checksum_flag: 1,
}


@dataclass(frozen=True, slots=True)
class Header:
    """What a part or segment says of itself."""

    span: Span
    kind: Kind
    epoch: int
    writer: str
    write_id: str
    count: int
    size: int
    exact: bool = False
    parts: tuple[PartNote, ...] = ()
    repaired: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A decoded part or segment. Its lines are verified; `entries()` parses them."""

    header: Header
    lines: bytes

    def entries(self) -> list[Any]:
        """Parse the lines.

        Raises:
            Corrupt: They are not JSON, or not as many as the header says.
        """
        found = codec.decode_lines(self.lines, exact=self.header.exact)
        if len(found) != self.header.count:
            raise _corrupt(f"it holds {len(found)} entries, its header says {self.header.count}")
        return found

    def count_after(self, seq: int) -> int:
        """Return how many entries stand in parts with a higher number than this one."""
        span, notes = self.header.span, self.header.parts
        if seq < span.first or not notes:
            return self.header.count if seq < span.last else 0
        passed_over = max(seq - span.first + 1, self.truncated_parts)
        return sum(count for _, _, count, _ in notes[passed_over:])

    @property
    def truncated_parts(self) -> int:
        """How many parts of a segment stand before the end of its last truncation: it holds none of their entries."""
        return _truncated(self.header.parts)


def _truncated(notes: Sequence[PartNote]) -> int:
    return max((index for index, note in enumerate(notes, 1) if note[3] == "truncate"), default=0)


def encode_part(
    seq: int, entries: Sequence[Any], *, epoch: int, writer: str, write_id: str, kind: Kind = "data"
) -> tuple[Header, bytes]:
    """Return the header and the bytes of one part.

    Raises:
        Invalid: An entry is not a JSON value.
    """
    return encode_batch(seq, codec.encode(entries), epoch=epoch, writer=writer, write_id=write_id, kind=kind)


def encode_batch(
    seq: int, batch: codec.Batch, *, epoch: int, writer: str, write_id: str, kind: Kind = "data"
) -> tuple[Header, bytes]:
    """Return the header and the bytes of one part, of entries that are encoded already."""
    header = Header(Span(seq, seq), kind, epoch, writer, write_id, batch.count, len(batch.lines), batch.exact)
    fields = {
        "v": VERSION,
        "kind": kind,
        "seq": seq,
        "epoch": epoch,
        "writer": writer,
        "write_id": write_id,
        "count": batch.count,
        "size": len(batch.lines),
        **({"exact": True} if batch.exact else {}),
    }
    return header, _assemble(fields, zstd.compress(batch.lines, options=_OPTIONS))


def encode_segment(parts: Sequence[Part], *, writer: str, write_id: str, repaired: str = "") -> bytes:
    """Return the bytes of a segment that holds these parts, which follow each other without a hole.

    Args:
        parts: The parts.
        writer: Who writes it, for people.
        write_id: Fresh for each segment.
        repaired: What a repair put here in place of what is gone: `lost` or `restored`; empty for a compaction.
    """
    truncated = max((index for index, part in enumerate(parts, 1) if part.header.kind == "truncate"), default=0)
    kept = parts[truncated:]
    lines = b"".join(part.lines for part in kept)
    return _assemble(
        {
            "v": VERSION,
            "kind": "segment",
            "first": parts[0].header.span.first,
            "last": parts[-1].header.span.last,
            "epoch": max(part.header.epoch for part in parts),
            "writer": writer,
            "write_id": write_id,
            "count": sum(part.header.count for part in kept),
            "size": len(lines),
            **({"exact": True} if any(part.header.exact for part in kept) else {}),
            **({"repaired": repaired} if repaired else {}),
            "parts": [_note(part.header) for part in parts],
        },
        zstd.compress(lines, options=_OPTIONS),
    )


def decode(data: bytes, span: Span) -> Part:
    """Verify the bytes of a part or segment and decompress them.

    Args:
        data: The whole object.
        span: What its name says it covers.

    Raises:
        Corrupt: Anything at all is not as the format says. The message names what, not the object.
    """
    header_line, frames = _verify_digest(data)
    header = _read_header(header_line)
    if header.span != span:
        raise _corrupt("its header has another number than its name")
    return Part(header, _decompress(frames, header.size, single=not span.segment))


def _note(header: Header) -> PartNote:
    return (header.epoch, header.write_id, header.count, header.kind)


def _assemble(header: dict[str, Any], frame: bytes) -> bytes:
    line = json.dumps(header, separators=(",", ":")).encode() + b"\n"  # ASCII, whatever the writer is called
    digest = hashlib.sha256(line)
    digest.update(frame)
    content = line + b"sha256:" + digest.hexdigest().encode() + b"\n"
    return _FRAME_START.pack(MAGIC, len(content)) + content + frame


def _corrupt(what: str) -> Corrupt:
    return Corrupt(what, hint="restore the object from a copy")


def _verify_digest(data: bytes) -> tuple[bytes, bytes]:
    if len(data) < _FRAME_START.size:
        raise _corrupt("it is too short")
    magic, length = _FRAME_START.unpack_from(data)
    end = _FRAME_START.size + length
    if magic != MAGIC or length > MAX_HEADER_BYTES or end > len(data):
        raise _corrupt("it does not begin with a header frame")
    line, newline, digest = data[_FRAME_START.size : end].partition(b"\n")
    frames = data[end:]
    expected = hashlib.sha256(line + newline)
    expected.update(frames)
    if digest != b"sha256:" + expected.hexdigest().encode() + b"\n":
        raise _corrupt("its SHA-256 does not match")
    return line, frames


def _read_header(line: bytes) -> Header:
    try:
        raw = json.loads(line)
        if raw["v"] != VERSION:
            raise _corrupt(f"it has version {raw['v']!r} in a store of version {VERSION}")
        return _header_of(raw)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _corrupt(f"its header is not as the format says: {error!r}") from None


def _header_of(raw: dict[str, Any]) -> Header:
    segment = raw["kind"] == "segment"
    span = Span(raw["first"], raw["last"], segment=True) if segment else Span(raw["seq"], raw["seq"])
    if raw["kind"] not in ("data", "fence", "truncate", "segment"):
        raise ValueError(f"unknown kind {raw['kind']!r}")
    numbers = (span.first, span.last, raw["epoch"], raw["count"], raw["size"])
    if not all(type(number) is int and 0 <= number < MAX_NUMBER for number in numbers):
        raise ValueError("a number is missing, negative or too large")
    notes = tuple((note[0], note[1], note[2], note[3]) for note in raw.get("parts", ()))
    if segment:
        _check_notes(notes, span, raw["count"])
    return Header(
        span,
        cast("Kind", raw["kind"]),
        raw["epoch"],
        str(raw["writer"]),
        str(raw["write_id"]),
        raw["count"],
        raw["size"],
        raw.get("exact") is True,
        notes,
        str(raw.get("repaired", "")),
    )


def _check_notes(notes: Sequence[PartNote], span: Span, count: int) -> None:
    truncated = _truncated(notes)
    if len(notes) != span.last - span.first + 1 or sum(note[2] for note in notes[truncated:]) != count:
        raise ValueError("its list of parts does not fit")


def _decompress(frames: bytes, size: int, *, single: bool) -> bytes:
    """Decompress at most `size` bytes, so that a small object cannot fill the memory."""
    pieces: list[bytes] = []
    left = size
    rest = frames
    try:
        while rest:
            decompressor = zstd.ZstdDecompressor()
            piece = decompressor.decompress(rest, max_length=left + 1)
            left -= len(piece)
            if left < 0 or not decompressor.eof:
                raise _corrupt("its data is cut off or larger than its header says")
            pieces.append(piece)
            rest = decompressor.unused_data
            if single and rest:
                raise _corrupt("something follows its data frame")
    except zstd.ZstdError as error:
        raise _corrupt(f"its data does not decompress: {error}") from None
    if left or not pieces:
        raise _corrupt("its data is smaller than its header says")
    return b"".join(pieces)
