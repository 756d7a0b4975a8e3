"""Deleting a log so that nobody can bring it back by accident (docs/format.md, section 10)."""

from __future__ import annotations

from everturn.errors import Corrupt
from everturn.log.names import part
from everturn.log.objects import Objects
from everturn.log.reader import list_spans, read_part
from everturn.log.writer import LogWriter


async def delete_log(guest: LogWriter, objects: Objects, folder: str) -> None:
    """Append a truncation and delete everything before it. A log that was never written is left alone.

    Readers find nothing from the moment the truncation stands; a crash before the rest is done leaves only objects
    that nobody reads and that the next deletion removes.

    Args:
        guest: A writer of epoch 0 for this log.
        objects: Where it is.
        folder: Its folder.
    """
    spans = await list_spans(objects, folder)
    if not spans:
        return
    last = spans[-1].last
    if not await _is_truncation(objects, folder, last):
        last = await guest.truncate()
        spans = await list_spans(objects, folder)
    await objects.delete([f"{folder}/{span.file_name}" for span in spans if span.last < last])


async def _is_truncation(objects: Objects, folder: str, seq: int) -> bool:
    try:
        found = await read_part(objects, folder, part(seq))
    except Corrupt:
        return False
    return found is not None and found.header.kind == "truncate"
