"""The physical limit: what the same bytes cost with nothing around them. It is not a store, and promises nothing.

- **Append**: one plain PUT of the bytes that Everturn's part would have, compressed beforehand; no condition, no
  checksum, no thread; one connection, one request after the other; obstore.
- **Load**: one GET of all lines as one zstd frame (level 3, as in a compacted transcript), decompressed, each line
  parsed by orjson; no listing, no check of anything, no look at `uuid`s; obstore, on the thread that calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import obstore
import orjson
from obstore.store import S3Store

from everturn.log.format import encode_part
from everturn.log.frames import zstd

LEVEL = 3


class Limit:
    """Raw requests.

    Args:
        bucket: Where.
    """

    def __init__(self, bucket: str) -> None:
        self._store = S3Store(bucket, client_options={"allow_http": True})

    def append(self, key: str, data: bytes) -> None:
        """Write an object."""
        obstore.put(self._store, key, data, use_multipart=False)

    def load(self, key: str) -> list[Any]:
        """Fetch an object, decompress and parse it."""
        lines = zstd.decompress(obstore.get(self._store, key).bytes())
        return [orjson.loads(line) for line in lines.splitlines()]


def payloads(frames: Sequence[list[Any]]) -> list[bytes]:
    """Return the bytes of the parts that Everturn would write."""
    return [
        encode_part(seq, entries, epoch=0, writer="bench", write_id=f"{seq:016x}")[1]
        for seq, entries in enumerate(frames, 1)
    ]


def whole(frames: Sequence[list[Any]]) -> bytes:
    """Return all entries as one object."""
    lines = b"".join(orjson.dumps(entry) + b"\n" for entries in frames for entry in entries)
    return zstd.compress(lines, level=LEVEL)
