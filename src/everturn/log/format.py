"""Parts and segments (docs/format.md, sections 4 and 7). Pure: no store, no time, no randomness."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, cast

from everturn.errors import Invalid
from everturn.log import entries as codec
from everturn.log.frames import assemble, compress, compress_pieces, corrupt, decompress, take_apart
from everturn.log.names import Span

VERSION = 1
MAX_NUMBER = 1 << 53
MAX_SIZE_BYTES = 256 << 20  # of the lines of one object, so that a small object cannot fill the memory

Kind = Literal["data", "fence", "truncate", "segment"]
PartNote = tuple[int, str, int, str]  # epoch, write id, count, kind of a part inside a segment


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
    newest_ms: int = 0

    @property
    def notes(self) -> tuple[PartNote, ...]:
        """One note for each part that this object stands for."""
        return self.parts or ((self.epoch, self.write_id, self.count, self.kind),)


@dataclass(frozen=True, slots=True)
class Part:
    """A part or segment whose bytes are verified. Its lines are decompressed when they are asked for."""

    header: Header
    frames: memoryview

    def pieces(self) -> Iterator[bytes]:
        """Decompress the lines piece by piece.

        Raises:
            Corrupt: There are fewer or more bytes than the header says. What came before is not to be used.
        """
        return decompress(self.frames, self.header.size, single=not self.header.span.segment)

    def entries(self) -> list[Any]:
        """Parse the lines.

        Raises:
            Corrupt: They are not JSON, or not as many as the header says.
        """
        found = codec.decode_pieces(self.pieces(), exact=self.header.exact)
        if len(found) != self.header.count:
            raise corrupt(f"it holds {len(found)} entries, its header says {self.header.count}")
        return found

    def line_sizes(self) -> Iterator[int]:
        """Yield how many bytes each line has.

        Raises:
            Corrupt: As `pieces`.
        """
        begun = 0
        for piece in self.pieces():
            rows = piece.split(b"\n")
            for row in rows[:-1]:
                yield begun + len(row) + 1
                begun = 0
            begun += len(rows[-1])

    def pieces_after(self, seq: int) -> Iterator[bytes]:
        """Decompress the lines of the parts with a higher number than this one, and count all lines on the way.

        Raises:
            Corrupt: They are not as the header says. What came before is not to be used.
        """
        unwanted = self.header.count - self.count_after(seq)
        lines = 0
        for piece in self.pieces():
            skip = 0
            while lines < unwanted and skip < len(piece):
                end = piece.find(b"\n", skip)
                lines, skip = (lines + 1, end + 1) if end >= 0 else (lines, len(piece))
            lines += piece.count(b"\n", skip)
            if skip < len(piece):
                yield piece[skip:]
        if lines != self.header.count:
            raise corrupt(f"it holds {lines} entries, its header says {self.header.count}")

    def size_after(self, seq: int) -> int:
        """Return how many bytes `pieces_after` returns. Costs nothing for a part that is wanted or unwanted whole.

        Raises:
            Corrupt: As `pieces_after`.
        """
        wanted = self.count_after(seq)
        if wanted in (0, self.header.count):
            return self.header.size if wanted else 0
        return sum(len(piece) for piece in self.pieces_after(seq))

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


def encode_part(
    seq: int, entries: Sequence[Any], *, epoch: int, writer: str, write_id: str, kind: Kind = "data"
) -> tuple[Header, bytes]:
    """Return the header and the bytes of one part.

    Raises:
        Invalid: An entry is not a JSON value, or they are too large together.
    """
    return encode_batch(seq, codec.encode(entries), epoch=epoch, writer=writer, write_id=write_id, kind=kind)


def encode_batch(
    seq: int, batch: codec.Batch, *, epoch: int, writer: str, write_id: str, kind: Kind = "data"
) -> tuple[Header, bytes]:
    """Return the header and the bytes of one part, of entries that are encoded already.

    Raises:
        Invalid: They are too large together.
    """
    if len(batch.lines) > MAX_SIZE_BYTES:
        raise Invalid(
            f"{batch.count} entries of {len(batch.lines) >> 20} MiB are too large for one append",
            hint=f"append at most {MAX_SIZE_BYTES >> 20} MiB at once",
        )
    header = Header(Span(seq, seq), kind, epoch, writer, write_id, batch.count, len(batch.lines), batch.exact)
    return header, assemble({**_fields(header), "seq": seq}, compress(batch.lines))


def encode_segment(
    parts: Sequence[Part], *, writer: str, write_id: str, repaired: str = "", newest_ms: int = 0
) -> bytes:
    """Return the bytes of a segment that holds these parts and segments.

    Args:
        parts: In order and without a hole; where two overlap, the first one counts.
        writer: A name for people.
        write_id: Fresh.
        repaired: What a repair puts here in place of what is gone: `lost` or `restored`; empty for a compaction.
        newest_ms: When the last of these parts was written, in milliseconds since the Unix epoch; 0: not known.

    Raises:
        Corrupt: The lines of one are not as its header says.
        Invalid: They are too large together.
    """
    notes: list[PartNote] = []
    first = parts[0].header.span.first
    for part in parts:
        notes += part.header.notes[first + len(notes) - part.header.span.first :]
    ends = (part.header.span.last for part in parts[:-1])
    kept = list(zip(parts, accumulate(ends, max, initial=first + _truncated(notes) - 1), strict=True))
    size = sum(part.size_after(after) for part, after in kept)
    if size > MAX_SIZE_BYTES:
        raise Invalid(f"{size >> 20} MiB are too large for one segment", hint="make several")
    span = Span(first, first + len(notes) - 1, segment=True)
    count = sum(note[2] for note in notes[_truncated(notes) :])
    exact = any(part.header.exact for part, after in kept if part.count_after(after))
    header = Header(span, "segment", max(note[0] for note in notes), writer, write_id, count, size, exact)
    lines = (piece for part, after in kept if part.header.count for piece in part.pieces_after(after))
    more = {name: value for name, value in (("repaired", repaired), ("newest_ms", newest_ms)) if value}
    return assemble(
        {**_fields(header), "first": span.first, "last": span.last, **more, "parts": notes},
        compress_pieces(lines, size),
    )


def decode(data: bytes, span: Span) -> Part:
    """Verify the bytes of a part or segment. Its lines are left compressed.

    Args:
        data: The whole object.
        span: What its name says it covers.

    Raises:
        Corrupt: Anything at all is not as the format says. The message names what, not the object.
    """
    line, frames = take_apart(data)
    header = _read_header(line)
    if header.span != span:
        raise corrupt("its header has another number than its name")
    return Part(header, frames)


def _truncated(notes: Sequence[PartNote]) -> int:
    return max((index for index, note in enumerate(notes, 1) if note[3] == "truncate"), default=0)


def _fields(header: Header) -> dict[str, Any]:
    fields = {
        "v": VERSION,
        "kind": header.kind,
        "epoch": header.epoch,
        "writer": header.writer,
        "write_id": header.write_id,
        "count": header.count,
        "size": header.size,
    }
    return {**fields, "exact": True} if header.exact else fields


def _read_header(line: bytes) -> Header:
    try:
        raw = json.loads(line)
        if raw["v"] != VERSION:
            raise corrupt(f"it has version {raw['v']!r} in a store of version {VERSION}")
        return _header_of(raw)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise corrupt(f"its header is not as the format says: {error!r}") from None


def _header_of(raw: dict[str, Any]) -> Header:
    segment = raw["kind"] == "segment"
    span = Span(raw["first"], raw["last"], segment=True) if segment else Span(raw["seq"], raw["seq"])
    if raw["kind"] not in ("data", "fence", "truncate", "segment"):
        raise ValueError(f"unknown kind {raw['kind']!r}")
    numbers = (span.first, span.last, raw["epoch"], raw["count"], raw["size"], raw.get("newest_ms", 0))
    if not all(type(number) is int and 0 <= number < MAX_NUMBER for number in numbers):
        raise ValueError("a number is missing, negative or too large")
    if raw["size"] > MAX_SIZE_BYTES:
        raise ValueError(f"it says it holds {raw['size']} bytes, which is too large")
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
        raw.get("newest_ms", 0),
    )


def _check_notes(notes: Sequence[PartNote], span: Span, count: int) -> None:
    truncated = _truncated(notes)
    if len(notes) != span.last - span.first + 1 or sum(note[2] for note in notes[truncated:]) != count:
        raise ValueError("its list of parts does not fit")
