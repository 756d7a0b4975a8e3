"""Deleting a log so that nobody can bring it back by accident (docs/format.md, section 10).

Readers find nothing from the moment the truncation stands. A crash before the rest is done leaves only objects that
nobody reads and that the next deletion removes.

Numbers are not freed while a writer may still believe that they are next: what is younger than that is written over
with a truncation, which takes the entries away and leaves the number taken. Everything else is deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from everturn.errors import Corrupt, Fenced
from everturn.log.format import Header, decode, encode_part
from everturn.log.grace import FREE_AFTER_MS
from everturn.log.names import Span
from everturn.log.objects import Item, Objects, Stored, get_each
from everturn.log.reader import ERASED, RELIST_PAUSE_S, adjoining, list_parts, uncovered, was_replaced
from everturn.log.writer import LogWriter

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
    for attempt in range(ATTEMPTS):
        parts = await list_parts(objects, folder)
        if not parts:
            return
        end = await _end_of(objects, folder, parts)
        if not end.certain and attempt < ATTEMPTS - 1:
            await objects.wait(RELIST_PAUSE_S * 2**attempt)
            continue
        last = max(span.last for span in parts)
        try:
            if not end.truncated:
                last = await make_writer(end.epoch).truncate(after=last)
        except Fenced as error:  # a newer claim came in between; the deletion goes before it all the same
            overtaken = error
            continue
        await _clear(objects, folder, last, end.epoch)
        return
    raise overtaken


@dataclass(frozen=True, slots=True)
class _End:
    """How a log ends: its highest epoch, whether with a truncation, and whether we know or something was missing."""

    epoch: int
    truncated: bool
    certain: bool


async def _end_of(objects: Objects, folder: str, parts: Mapping[Span, Item]) -> _End:
    """Find the highest epoch in a log, newest parts first.

    Before a claim's entries no higher epoch can stand, as nobody writes past a newer fence. A fence alone tells
    nothing: a late claim writes one before it learns that it was overtaken.
    """
    newest_first = uncovered(parts)[::-1]
    certain = len(adjoining(newest_first[::-1])) == 1
    epoch = 0
    for block in (newest_first[at : at + BLOCK] for at in range(0, len(newest_first), BLOCK)):
        found = await get_each(objects, [f"{folder}/{span.file_name}" for span in block], Corrupt)
        for span, object_ in zip(block, found, strict=True):
            stored = object_ if isinstance(object_, Stored) else None
            header = _header(stored, span)
            is_other = stored is not None and was_replaced(stored, parts[span])
            if object_ is None or is_other or (header and header.write_id == ERASED):
                certain = False
            elif header is not None:
                epoch = max(epoch, header.epoch)
                if any(kind == "truncate" or (claim and kind == "data") for claim, _, _, kind in header.notes):
                    return _End(epoch, span == newest_first[0] and header.kind == "truncate", certain)
    return _End(epoch, False, certain and newest_first[-1].first == 1)


def _header(stored: Stored | None, span: Span) -> Header | None:
    try:
        return decode(stored.data, span).header if stored else None
    except Corrupt:
        return None  # a damaged log can be deleted too


async def _clear(objects: Objects, folder: str, last: int, epoch: int) -> None:
    parts = await list_parts(objects, folder)
    now_ms = max(item.modified_ms for item in parts.values())
    before = {span: item for span, item in parts.items() if span.last < last}
    young = [span for span, item in before.items() if not span.segment and now_ms - item.modified_ms < FREE_AFTER_MS]
    for span in young:
        _, data = encode_part(span.first, (), epoch=epoch, writer="", write_id=ERASED, kind="truncate")
        await objects.put(f"{folder}/{span.file_name}", data)
    await objects.delete([f"{folder}/{span.file_name}" for span in before if span not in young])
