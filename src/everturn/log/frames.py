"""The bytes of parts and segments: a header that decoders pass over, compressed lines (docs/format.md, section 4).

Lines are compressed and decompressed piece by piece, so that a transcript is never in memory twice.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from everturn.errors import Corrupt

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = 0x184D2A5E
MAX_HEADER_BYTES = 16 << 20  # a segment names all its parts in its header
CHUNK_BYTES = 1 << 20

_FRAME_START = struct.Struct("<II")
_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 3,
    zstd.CompressionParameter.checksum_flag: 1,
}


def corrupt(what: str) -> Corrupt:
    """Return the error for bytes that are not as the format says."""
    return Corrupt(what, hint="everturn sessions verify tells what is damaged, and docs/repair.md what to do")


def assemble(header: dict[str, Any], frame: bytes) -> bytes:
    """Return an object: its header, the digest of everything, its data frame."""
    line = json.dumps(header, separators=(",", ":")).encode() + b"\n"  # ASCII, whatever the writer is called
    digest = hashlib.sha256(line)
    digest.update(frame)
    content = line + b"sha256:" + digest.hexdigest().encode() + b"\n"
    return _FRAME_START.pack(MAGIC, len(content)) + content + frame


def take_apart(data: bytes) -> tuple[bytes, memoryview]:
    """Return an object's header line and its data frames. What it returns is what was written: the digest fits.

    Raises:
        Corrupt: It does not.
    """
    if len(data) < _FRAME_START.size:
        raise corrupt("it is too short")
    magic, length = _FRAME_START.unpack_from(data)
    end = _FRAME_START.size + length
    if magic != MAGIC or length > MAX_HEADER_BYTES or end > len(data):
        raise corrupt("it does not begin with a header frame")
    line, newline, digest = data[_FRAME_START.size : end].partition(b"\n")
    frames = memoryview(data)[end:]
    expected = hashlib.sha256(line + newline)
    expected.update(frames)
    if digest != b"sha256:" + expected.hexdigest().encode() + b"\n":
        raise corrupt("its SHA-256 does not match")
    return line, frames


def compress(lines: bytes) -> bytes:
    """Return a data frame that holds these lines."""
    return zstd.compress(lines, options=_OPTIONS)


def compress_pieces(pieces: Iterable[bytes], size: int) -> bytes:
    """Return a data frame that holds these pieces one after the other, `size` bytes in all."""
    compressor = zstd.ZstdCompressor(options=_OPTIONS)
    compressor.set_pledged_input_size(size)
    done = [compressor.compress(piece) for piece in pieces]
    done.append(compressor.flush())
    return b"".join(done)


def decompress(frames: memoryview, size: int, *, single: bool) -> Iterator[bytes]:
    """Decompress data frames piece by piece: `size` bytes in all, and never more, whatever the frames hold.

    Args:
        frames: One data frame after the other.
        size: How many bytes they have to hold.
        single: There has to be just one frame.

    Raises:
        Corrupt: They hold more or less, or are no frames. What came before it is not to be used.
    """
    left, rest = size, bytes(frames)
    try:
        while True:
            decompressor = zstd.ZstdDecompressor()
            while not decompressor.eof:
                piece = decompressor.decompress(rest, max_length=min(CHUNK_BYTES, left + 1))
                rest = b""
                left -= len(piece)
                if left < 0 or (not piece and decompressor.needs_input):
                    raise corrupt("its data is cut off or larger than its header says")
                yield piece
            rest = decompressor.unused_data
            if not rest:
                break
            if single:
                raise corrupt("something follows its data frame")
    except zstd.ZstdError as error:
        raise corrupt(f"its data does not decompress: {error}") from None
    if left:
        raise corrupt("its data is smaller than its header says")
