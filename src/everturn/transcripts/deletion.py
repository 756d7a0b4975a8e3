"""Deleting a log so that nobody can bring it back by accident (docs/format.md, section 10).

Readers find nothing from the moment the truncation stands. A crash before the rest is done leaves only objects that
nobody reads and that the next deletion removes.

Numbers are not freed while a writer may still believe that they are next: what is younger than that is written over
with a truncation, which takes the entries away and leaves the number taken. Everything else is deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from everturn.errors import Corrupt, Fenced
from everturn.log.format import decode, encode_part
from everturn.log.names import Span
from everturn.log.objects import Item, Objects
from everturn.log.reader import ERASED, list_parts
from everturn.log.writer import GRACE_S, LogWriter

# Twice what writers go by: the store's clock has coarse ticks.
YOUNG_MS = int(2 * GRACE_S * 1000)
ATTEMPTS = 4
BLOCK = 64


async def delete_log(objects: Objects, folder: str, make_writer: Callable[[int], LogWriter]) -> None:
    """Delete all entries of a log. One that was never written is left alone.

    Args:
        objects: Where it is.
        folder: Its folder.
        make_writer: Makes a writer for this log with a given epoch.

    Raises:
        Fenced: Newer claims keep taking the log over while it is being deleted.
    """
    for _ in range(ATTEMPTS):
        parts = await list_parts(objects, folder)
        if not parts:
            return
        epoch, truncated = await _newest_epoch(objects, folder, parts)
        try:
            last = max(span.last for span in parts) if truncated else await make_writer(epoch).truncate()
        except Fenced as error:  # a newer claim came in between; the deletion goes before it all the same
            overtaken = error
            continue
        await _clear(objects, folder, last, epoch)
        return
    raise overtaken


async def _newest_epoch(objects: Objects, folder: str, parts: Mapping[Span, Item]) -> tuple[int, bool]:
    """Return the highest epoch in a log, and whether the log ends in a truncation already.

    Claims come in the order of their epochs, so the last part of a claim has the highest.
    """
    newest_first = sorted(parts, key=lambda span: (span.last, span.first), reverse=True)
    truncated = False
    for block in (newest_first[at : at + BLOCK] for at in range(0, len(newest_first), BLOCK)):
        stored = await objects.get_many([f"{folder}/{span.file_name}" for span in block])
        for span, object_ in zip(block, stored, strict=True):
            try:
                header = decode(object_.data, span).header if object_ else None
            except Corrupt:
                continue  # a damaged log can be deleted too
            if header is None:
                continue
            truncated = truncated or (span.last == newest_first[0].last and header.kind == "truncate")
            if header.epoch or header.kind == "truncate":
                return header.epoch, truncated
    return 0, truncated


async def _clear(objects: Objects, folder: str, last: int, epoch: int) -> None:
    parts = await list_parts(objects, folder)
    now_ms = max(item.modified_ms for item in parts.values())
    before = {span: item for span, item in parts.items() if span.last < last}
    young = [span for span, item in before.items() if not span.segment and now_ms - item.modified_ms < YOUNG_MS]
    for span in young:
        _, data = encode_part(span.first, (), epoch=epoch, writer="", write_id=ERASED, kind="truncate")
        await objects.put(f"{folder}/{span.file_name}", data)
    await objects.delete([f"{folder}/{span.file_name}" for span in before if span not in young])
