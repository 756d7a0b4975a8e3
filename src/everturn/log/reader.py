"""Reading a log: everything or an error, never some of it (docs/format.md, section 6)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from everturn.errors import Corrupt, Unavailable
from everturn.log.format import Part, decode
from everturn.log.names import Span, parse_file_name
from everturn.log.objects import Item, Objects, Stored

ERASED = "0" * 16  # the write id of a part that a deletion has written over: the real truncation stands behind it
LISTINGS = 4
RELIST_PAUSE_S = 0.05
REPLACED_MS = 30_000  # the two times that a store tells of one object differ by less
SMALL_PART_BYTES = 1024  # a fence or truncation is smaller, so a last part that is larger holds entries
NOTE_BYTES = 64  # what a segment says of each of its parts is shorter, so a segment that is larger holds entries


@dataclass(frozen=True, slots=True)
class Log:
    """What a read found.

    Attributes:
        folder: Where it was read.
        parts: The parts and segments that make up the log, in order, from its start or its last truncation on.
        start: The first number that counts: 1, or the one after the last truncation. Of a log of which only the end
            was read, the first number of that.
        tail: The last number that is taken; 0 if none is.
        epoch: The highest epoch that stands in what was read, that of the last truncation included.
    """

    folder: str
    parts: tuple[Part, ...]
    start: int
    tail: int
    epoch: int

    @property
    def exists(self) -> bool:
        """Whether anything was written since the log was last deleted. A fence alone does not count."""
        return any(part.header.count for part in self.parts)

    def has(self, write_id: str) -> bool:
        """Tell whether a part with this write id is in the log, by itself or inside a segment."""
        return any(
            write_id == part.header.write_id or any(write_id == note[1] for note in part.header.parts)
            for part in self.parts
        )

    def entries(self, after: int = 0) -> list[Any]:
        """Return the entries in order, without those whose `uuid` came before.

        Args:
            after: Leave out the parts up to this number.

        Raises:
            Corrupt: A part's lines are not the JSON that its header promises. Names the part.
        """
        return [entry for _, entries in self.by_part(after) for entry in entries]

    def by_part(self, after: int = 0) -> Iterator[tuple[int, list[Any]]]:
        """Yield the same entries, those of one object at a time, with the last number that it covers.

        Args:
            after: Leave out the parts up to this number.

        Raises:
            Corrupt: As `entries`.
        """
        seen: set[str] = set()
        done = 0
        for part in self.parts:
            entries = self.entries_of(part)
            fresh = len(entries) - part.count_after(done)  # segments may overlap
            wanted = len(entries) - part.count_after(after)
            again: set[int] = set()
            for index in [at for at, entry in enumerate(entries) if type(entry) is dict and "uuid" in entry]:
                uuid = entries[index]["uuid"]
                if index >= fresh and type(uuid) is str:
                    if uuid in seen:
                        again.add(index)
                    seen.add(uuid)
            first = max(fresh, wanted)
            done = part.header.span.last
            yield done, [entry for at, entry in enumerate(entries[first:], first) if at not in again]

    def entries_of(self, part: Part) -> list[Any]:
        """Return all entries of one of the log's parts or segments. Raises as `entries`."""
        with naming(self.folder, part.header.span):
            return part.entries()

    def line_sizes(self) -> Iterator[int]:
        """Yield how many bytes each entry takes as a line, in order. Raises as `entries`."""
        for part in self.parts:
            with naming(self.folder, part.header.span):
                yield from part.line_sizes()


async def read(objects: Objects, folder: str, *, at_least: int = 0, after: int = 0) -> Log:
    """Read a log, whole or its end. Reading writes nothing and disturbs no writer.

    Args:
        objects: Where the log is.
        folder: The log's folder.
        at_least: A number that is known to be taken: a listing that does not show it is too old.
        after: Fetch only what holds numbers behind this one; `Log.entries` has to be told as well.

    Raises:
        Corrupt: A part is damaged, or a number is missing and stays missing. Names the object.
        Unavailable: The store did not answer, or the log changes faster than it can be listed.
    """
    before = problem = ""
    for attempt in range(LISTINGS):
        before = problem
        if attempt:  # a listing can be older at its end than at its start: look again before judging
            await objects.wait(RELIST_PAUSE_S * 2**attempt)
        listed = await list_parts(objects, folder)
        runs = adjoining(uncovered(listed))
        if (runs[-1][-1].last if runs else 0) < at_least:
            problem = f"{folder} has no part {at_least}"
        elif not runs:
            return Log(folder, (), 1, 0, 0)
        else:
            found = await _read_run(objects, folder, runs[-1], listed, after)
            if isinstance(found, Log):
                return found
            problem = found
    if problem != before:  # a number that was missing once has to be shown by the next listing if it is there
        raise Unavailable(f"the log changed while it was listed: {problem}", hint="read it again")
    raise Corrupt(
        f"the log has a hole: {problem}",
        hint="everturn sessions verify tells more, and everturn sessions repair mends it; see docs/repair.md",
    )


async def log_exists(objects: Objects, folder: str, listed: Mapping[Span, Item] | None = None) -> bool:
    """Tell whether a log holds entries, without reading more of it than its last object, unless that is a fence.

    Args:
        objects: Where the log is.
        folder: Its folder.
        listed: A listing of it, if there is one.
    """
    items = await list_parts(objects, folder) if listed is None else listed
    if not items:
        return False
    last = max(items, key=lambda span: (span.last, span.segment))
    if items[last].size_bytes > SMALL_PART_BYTES + (last.segment and NOTE_BYTES * (last.last - last.first + 1)):
        return True
    part = await read_part(objects, folder, last)
    if part is not None and part.header.count:
        return True
    if part is not None and part.header.kind == "truncate" and part.header.write_id != ERASED:
        return False
    return (await read(objects, folder)).exists


async def list_parts(objects: Objects, folder: str) -> dict[Span, Item]:
    """Return the objects of a log, by what they cover."""
    found: dict[Span, Item] = {}
    for item in await objects.listing(folder):
        span = parse_file_name(item.key.removeprefix(f"{folder}/"))
        if span is not None:
            found[span] = item
    return found


async def list_spans(objects: Objects, folder: str) -> list[Span]:
    """Return what the objects of a log cover, in order."""
    return sorted(await list_parts(objects, folder))


async def read_part(objects: Objects, folder: str, span: Span) -> Part | None:
    """Fetch and verify one part or segment, or return `None` if it is not there."""
    stored = await objects.get(f"{folder}/{span.file_name}")
    return None if stored is None else decode_object(stored.data, folder, span)


def decode_object(data: bytes, folder: str, span: Span) -> Part:
    """Verify an object of a log. See `decode`; the error names the object."""
    with naming(folder, span):
        return decode(data, span)


@contextmanager
def naming(folder: str, span: Span) -> Iterator[None]:
    """Let damage that is found in the block say in which object of a log it is."""
    try:
        yield
    except Corrupt as error:
        raise Corrupt(f"{folder}/{span.file_name} is damaged: {error.message}", hint=error.hint) from None


async def _read_run(
    objects: Objects, folder: str, run: Sequence[Span], listed: Mapping[Span, Item], after: int
) -> Log | str:
    """Fetch the parts of a run, or say what is missing. What stands before a truncation need not even be whole."""
    tail = run[-1].last
    run = [span for span in run if span.last > after]
    stored = await _fetch(objects, folder, run, listed) if run else []
    parts: list[Part] = []
    start, epoch = after + 1, 0
    for span, object_ in zip(reversed(run), reversed(stored), strict=False):
        if object_ is None:
            return f"{folder}/{span.file_name} was listed, but it is gone"
        if was_replaced(object_, listed[span]):
            return f"{folder}/{span.file_name} was freed and taken again while it was read"
        part = decode_object(object_.data, folder, span)
        epoch = max(epoch, part.header.epoch)
        if part.header.kind == "truncate":
            if part.header.write_id == ERASED:
                return f"{folder}/{span.file_name} was deleted while it was read"
            start = span.last + 1
            break
        parts.append(part)
        if part.truncated_parts:
            start = span.first + part.truncated_parts
            break
    else:
        if run and run[0].first > after + 1:
            return f"{folder} has no part {run[0].first - 1}"
    return Log(folder, tuple(reversed(parts)), start, tail, epoch)


async def _fetch(
    objects: Objects, folder: str, run: Sequence[Span], listed: Mapping[Span, Item]
) -> list[Stored | None]:
    """Fetch a run, or only the end of it if that is a truncation: a deleted log must not cost what it held."""
    keys = [f"{folder}/{span.file_name}" for span in run]
    if len(run) == 1 or run[-1].segment or listed[run[-1]].size_bytes > SMALL_PART_BYTES:
        return await objects.get_many(keys)
    last = await objects.get(keys[-1])
    if last is not None and decode_object(last.data, folder, run[-1]).header.kind == "truncate":
        return [last]
    return [*await objects.get_many(keys[:-1]), last]


def was_replaced(stored: Stored, item: Item) -> bool:
    """Tell whether what was fetched is another object than the one that was listed.

    A number that is freed after the listing can be taken once more, by a writer that is late, before the fetch. That
    takes the grace period at least, so the times are far apart.
    """
    return abs(stored.modified_ms - item.modified_ms) > REPLACED_MS


def uncovered(spans: Iterable[Span]) -> list[Span]:
    """Choose the fewest spans: the longest at each place, and nothing that one of them covers."""
    chosen: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.first, -span.last, not span.segment)):
        if chosen and span.last <= chosen[-1].last:
            continue
        chosen.append(span)
    return chosen


def adjoining(spans: Sequence[Span]) -> list[list[Span]]:
    """Split spans where a number is missing between them."""
    runs: list[list[Span]] = []
    for span in spans:
        if runs and span.first <= runs[-1][-1].last + 1:
            runs[-1].append(span)
        else:
            runs.append([span])
    return runs
