"""Compaction of a whole log into one segment, for the benchmark."""

from __future__ import annotations

from everturn.log.format import encode_segment
from everturn.log.names import Span
from everturn.log.objects import Objects
from everturn.log.reader import list_spans, read


async def compact_everything(objects: Objects, folder: str) -> None:
    """Make one segment of a log that nobody is writing, and delete the parts that it covers."""
    log = await read(objects, folder)
    segment = Span(1, log.tail, segment=True)
    data = encode_segment(log.parts, writer="bench", write_id="0" * 15 + "1")
    if not await objects.create(f"{folder}/{segment.file_name}", data):
        raise RuntimeError(f"{folder} is compacted already")
    covered = [span for span in await list_spans(objects, folder) if span != segment]
    await objects.delete([f"{folder}/{span.file_name}" for span in covered])
