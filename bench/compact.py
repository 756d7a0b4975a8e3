"""Compaction of a whole log, with what it makes superfluous freed at once instead of after the grace period."""

from __future__ import annotations

from everturn.clock import Ids
from everturn.log.compaction import FREE_AFTER_MS, collect, compact
from everturn.log.objects import Objects
from everturn.log.reader import list_parts


async def compact_everything(objects: Objects, folder: str) -> None:
    """Make as few segments as possible of a log that nobody is writing, and delete the parts that they cover."""
    await compact(objects, folder, writer="bench", ids=Ids(), everything=True)
    newest_ms = max(item.modified_ms for item in (await list_parts(objects, folder)).values())
    await collect(objects, folder, now_ms=newest_ms + FREE_AFTER_MS)
