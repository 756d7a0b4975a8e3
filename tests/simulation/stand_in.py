"""A compaction that is as simple as can be, so that numbers are freed.

It has the interface of the real one, and keeps its promises: it reads the log, writes the parts that no segment holds yet as one
segment, and frees what a segment covers when that segment is old enough and whole.
"""

from __future__ import annotations

from everturn.clock import Ids
from everturn.errors import Unavailable
from everturn.log.format import encode_segment
from everturn.log.names import Span
from everturn.log.objects import Objects
from everturn.log.reader import list_parts, read, read_part

OLD_MS = 120_000
ENOUGH = 4


async def compact(objects: Objects, folder: str, *, writer: str, ids: Ids, everything: bool = False) -> bool:
    """Write a segment of the parts at the end of the log, if there are enough of them. Tells whether it did."""
    log = await read(objects, folder)
    parts = list(log.parts)
    while any(part.header.span.segment for part in parts):
        parts.pop(0)
    if len(parts) < (1 if everything else ENOUGH):
        return False
    data = encode_segment(parts, writer=writer, write_id=ids.token())
    span = Span(parts[0].header.span.first, parts[-1].header.span.last, segment=True)
    await objects.create(f"{folder}/{span.file_name}", data)
    if await read_part(objects, folder, span) is None:
        raise Unavailable("the store does not show the segment", hint="it is safe to try again")
    return True


async def collect(objects: Objects, folder: str, *, now_ms: int | None = None) -> int:
    """Free what is covered by a segment that is old enough, and return how many objects that were."""
    items = await list_parts(objects, folder)
    now_ms = now_ms or max((item.modified_ms for item in items.values()), default=0)
    covered: set[Span] = set()
    for span, item in items.items():
        if span.segment and now_ms - item.modified_ms > OLD_MS and await read_part(objects, folder, span):
            covered |= {other for other in items if span.first <= other.first and other.last <= span.last} - {span}
    if covered:
        await objects.delete([f"{folder}/{span.file_name}" for span in sorted(covered)])
    return len(covered)
