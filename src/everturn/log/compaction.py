"""Compaction: many parts become few segments, and what they cover is freed (docs/format.md, section 7).

Anybody may compact a log at any time, and several may at once: a segment says nothing but what the parts it is made
of say, so overlapping segments agree. Nothing is locked and a crash at any step leaves a whole log.

Segments are merged in tiers. A run of parts at the end of the log becomes a segment, together with the segments
before it that are not much larger than what follows them. So each remaining segment is larger than all that comes
after it: there are few of them, a logarithm of the log's size, and an entry is rewritten a logarithm of times.

A number that is freed can be taken again by a writer that is late. That is why nothing is freed before its segment is
older than twice the grace period: by then every writer and reader that may still believe in the number looks again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from everturn.clock import Ids
from everturn.errors import Corrupt, Unavailable
from everturn.log.format import MAX_SIZE_BYTES, Part, encode_segment
from everturn.log.grace import FREE_AFTER_MS
from everturn.log.names import Span
from everturn.log.objects import Item, Objects, Stored
from everturn.log.reader import (
    ERASED,
    adjoining,
    decode_object,
    list_parts,
    naming,
    read,
    read_part,
    uncovered,
    was_replaced,
)

GROWTH = 2  # a segment is merged with what follows it unless it is more than this many times larger
STRANDED = 32  # so many objects before a large segment are worth rewriting it
MAX_PARTS = 200_000  # in one segment: its header names them all
BATCH = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a compaction did.

    Attributes:
        merged: How many objects it read.
        segments: The segments it wrote.
        size_bytes: How large those are together, as stored.
    """

    merged: int = 0
    segments: tuple[Span, ...] = ()
    size_bytes: int = 0


async def compact(
    objects: Objects,
    folder: str,
    *,
    writer: str,
    ids: Ids,
    everything: bool = False,
    at_least: int = 2,
    known: Mapping[int, bytes] = MappingProxyType({}),
) -> Outcome:
    """Merge the parts at the end of a log into a segment. What they hold stays as it is; nothing is freed.

    Args:
        objects: Where the log is.
        folder: Its folder.
        writer: A name for people.
        ids: For write ids.
        everything: Merge the whole log, whatever the size of its segments.
        at_least: Do nothing if there is less than this many objects to merge.
        known: Parts that need not be fetched, by number: those that this process has appended itself.

    Returns:
        What was done. On return it is durable. It is nothing if the log changed under our hands: try again later.

    Raises:
        Corrupt: Something to be merged is damaged. Names the object.
        Unavailable: The store did not answer. It is safe to call again.
    """
    listed = await list_parts(objects, folder)
    runs = adjoining(uncovered(listed))
    if not runs:
        return Outcome()
    pieces = plan([(span, listed[span].size_bytes) for span in runs[-1]], everything=everything)
    if len(pieces) < max(at_least, 2):
        return Outcome()
    parts = await _fetch(objects, folder, pieces, listed, known)
    written: list[Span] = []
    size_bytes = 0
    for group in _groups(parts):
        span = Span(group[0].header.span.first, group[-1].header.span.last, segment=True)
        newest_ms = max(part.header.newest_ms or listed[part.header.span].modified_ms for part in group)
        try:
            data = encode_segment(group, writer=writer, write_id=ids.token(), newest_ms=newest_ms)
        except Corrupt:
            for part in group:  # to say which one
                _verify_lines(part, folder)
            raise
        try:
            created = await objects.create(f"{folder}/{span.file_name}", data)
        except Unavailable:  # it may be there all the same
            await _withdraw_if_deleted(objects, folder, [*written, span], known=listed)
            raise
        if created:
            written.append(span)
            size_bytes += len(data)
    await _withdraw_if_deleted(objects, folder, written, known=listed)
    return Outcome(len(parts), tuple(written), size_bytes)


async def collect(objects: Objects, folder: str, *, now_ms: int | None = None) -> int:
    """Free what segments cover, if those have been there long enough and are whole.

    Args:
        objects: Where the log is.
        folder: Its folder.
        now_ms: A time that the store's clock has reached, in milliseconds since the Unix epoch. By default that of
            the newest object in the log, so that nothing is freed in a log that rests.

    Returns:
        How many objects were deleted.

    Raises:
        Corrupt: A segment is damaged. Nothing that it covers was deleted.
        Unavailable: The store did not answer. It is safe to call again.
    """
    listed = await list_parts(objects, folder)
    now_ms = max([item.modified_ms for item in listed.values()], default=0) if now_ms is None else now_ms
    spare, freed = covered(listed), 0
    for segment in uncovered(listed):
        inside = [span for span in spare if segment.first <= span.first and span.last <= segment.last]
        if not segment.segment or not inside or now_ms - listed[segment].modified_ms < FREE_AFTER_MS:
            continue
        if await _is_whole(objects, folder, segment):
            await objects.delete([f"{folder}/{span.file_name}" for span in inside])
            freed += len(inside)
    return freed


async def clear_deleted(objects: Objects, folder: str, *, now_ms: int) -> int:
    """Delete what a deletion has left before its truncation, once no writer can believe in those numbers any more.

    Reads the log if there is something that can be old enough, so it is for one that is compacted or short.

    Args:
        objects: Where the log is.
        folder: Its folder.
        now_ms: A time that the store's clock has reached, in milliseconds since the Unix epoch.

    Returns:
        How many objects were deleted. The truncation itself stays.
    """
    listed = await list_parts(objects, folder)
    old = [span for span, item in listed.items() if now_ms - item.modified_ms >= FREE_AFTER_MS]
    if len(old) < 2 or all(span.segment for span in old):  # a truncation is a part, and has something before it
        return 0
    log = await read(objects, folder)
    remains = [
        span
        for span, item in listed.items()
        if span.last < log.start - 1 and now_ms - item.modified_ms >= FREE_AFTER_MS
    ]
    truncation = listed.get(Span(log.start - 1, log.start - 1))
    if not remains or truncation is None or now_ms - truncation.modified_ms < FREE_AFTER_MS:
        return 0
    await objects.delete([f"{folder}/{span.file_name}" for span in remains])
    return len(remains)


def covered(listed: Iterable[Span]) -> list[Span]:
    """Return the objects that a segment stands for."""
    spans = list(listed)
    chosen = set(uncovered(spans))
    return [span for span in spans if span not in chosen]


def plan(pieces: Sequence[tuple[Span, int]], *, everything: bool = False) -> list[Span]:
    """Choose what to merge: a run of objects up to the end of the log.

    Args:
        pieces: The objects that make up the log, each with its size, in order and without a hole.
        everything: Choose them all.
    """
    begin, size = len(pieces), 0
    for index in range(len(pieces) - 1, -1, -1):
        span, size_bytes = pieces[index]
        if span.segment and size_bytes > GROWTH * size:
            break
        begin, size = index, size + size_bytes
    if everything or begin > STRANDED:
        begin = 0
    return [span for span, _ in pieces[begin:]]


async def _fetch(
    objects: Objects, folder: str, spans: Sequence[Span], listed: Mapping[Span, Item], known: Mapping[int, bytes]
) -> list[Part]:
    """Fetch what is to be merged, from the end back to the last truncation. Fewer if the log is changing."""
    found: list[Part] = []
    for end in range(len(spans), 0, -BATCH):
        block = spans[max(end - BATCH, 0) : end]
        ours = {
            span: Stored(known[span.first], listed[span].modified_ms)
            for span in block
            if not span.segment and span.first in known
        }
        wanted = [span for span in block if span not in ours]
        fetched = await objects.get_many([f"{folder}/{span.file_name}" for span in wanted])
        at_hand = ours | dict(zip(wanted, fetched, strict=True))
        stored = [at_hand[span] for span in block]
        for span, object_ in zip(reversed(block), reversed(stored), strict=True):
            if object_ is None or was_replaced(object_, listed[span]):
                return found[::-1]
            part = decode_object(object_.data, folder, span)
            if part.header.kind == "truncate":
                return [] if part.header.write_id == ERASED else found[::-1]
            found.append(part)
            if part.truncated_parts:
                return found[::-1]
    return found[::-1]


def _groups(parts: Sequence[Part]) -> list[list[Part]]:
    """Split what is to be merged where a segment would become too large, and leave alone what stands by itself."""
    groups: list[list[Part]] = []
    size = count = 0
    for part in parts:
        size += part.header.size
        count += len(part.header.notes)
        if not groups or size > MAX_SIZE_BYTES or count > MAX_PARTS:
            groups.append([])
            size, count = part.header.size, len(part.header.notes)
        groups[-1].append(part)
    return [group for group in groups if len(group) > 1]


async def _withdraw_if_deleted(
    objects: Objects, folder: str, written: Sequence[Span], *, known: Mapping[Span, Item]
) -> None:
    """Take segments away again if the log was deleted while they were made: its entries must not stay.

    Whoever deletes appends a truncation first and then lists what to take away. So either they see the segments, or
    we, looking after having written them, see the truncation.
    """
    if not written:
        return
    last_known = max(old.last for old in known)
    fresh = [span for span in await list_parts(objects, folder) if span.last > last_known]
    for span in fresh:
        part = await read_part(objects, folder, span)
        if part is not None and any(note[3] == "truncate" for note in part.header.notes):
            await objects.delete([f"{folder}/{span.file_name}" for span in written])
            return


async def _is_whole(objects: Objects, folder: str, segment: Span) -> bool:
    """Read a segment back, to its last line."""
    part = await read_part(objects, folder, segment)
    if part is None:
        return False
    _verify_lines(part, folder)
    return True


def _verify_lines(part: Part, folder: str) -> None:
    """Raise `Corrupt`, with the object's name, if the lines are not those that the header promises."""
    with naming(folder, part.header.span):
        for _ in part.pieces_after(0):
            pass
