"""Everything that lies in a log's folder, looked at one by one: for those who check a log or mend it.

A reader takes the fewest objects that make up the log and trusts nothing else. Here the others are looked at too, and
what cannot be read is set down instead of ending the look.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from everturn.errors import Corrupt, Denied
from everturn.log.format import Part, PartNote, decode
from everturn.log.names import Span, parse_file_name
from everturn.log.objects import Item, Objects, get_each
from everturn.log.reader import ERASED, LISTINGS, RELIST_PAUSE_S, uncovered

BLOCK = 256
HEADER_AT = 8  # after the magic number and length of the frame
NOTHING: frozenset[Span] = frozenset()


@dataclass(frozen=True, slots=True)
class Held:
    """An object that is whole, and what it holds.

    Attributes:
        part: It.
        entries: Its entries.
        modified_ms: When it was written, by the store's clock.
        begins: Where the entries of each of its numbers begin; `None` if a truncation in it took them away.
    """

    part: Part
    entries: list[Any]
    modified_ms: int
    begins: tuple[int | None, ...]

    @property
    def span(self) -> Span:
        """The numbers it covers."""
        return self.part.header.span

    def note(self, seq: int) -> PartNote:
        """Return what it says of one of its numbers."""
        header = self.part.header
        if self.span.segment:
            return header.parts[seq - self.span.first]
        return (header.epoch, header.write_id, header.count, header.kind)

    def of_number(self, seq: int) -> list[Any] | None:
        """Return the entries of one of its numbers, or `None` if a truncation in the same segment took them away."""
        begin = self.begins[seq - self.span.first]
        return None if begin is None else self.entries[begin : begin + self.note(seq)[2]]


@dataclass(frozen=True, slots=True)
class Row:
    """One number of a log as readers see it: where it was found, what is said of it, and its entries."""

    seq: int
    span: Span
    note: PartNote
    entries: list[Any]


@dataclass
class Stock:
    """What lies in a log's folder.

    Attributes:
        folder: The folder.
        items: All objects whose names are ours.
        foreign: The keys of all others.
        held: Those that are whole.
        damaged: Those that are not, each with what is wrong with it.
        gone: Those that were listed, but could not be fetched.
        locked: Those that are encrypted with a key that is not at hand, or may not be read.
        claimed: How many entries damaged objects say they hold, where their headers can be made out.
        start: The first number that counts: 1, or the one after the last truncation.
        start_epoch: The epoch of that truncation; 0 if there is none.
    """

    folder: str
    items: dict[Span, Item] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    held: dict[Span, Held] = field(default_factory=dict)
    damaged: dict[Span, str] = field(default_factory=dict)
    gone: list[Span] = field(default_factory=list)
    locked: dict[Span, Denied] = field(default_factory=dict)
    claimed: dict[Span, int] = field(default_factory=dict)
    start: int = 1
    start_epoch: int = 0

    def key(self, span: Span) -> str:
        """Return an object's key."""
        return f"{self.folder}/{span.file_name}"

    @property
    def tail(self) -> int:
        """The last number that is taken; 0 if none is."""
        return max((span.last for span in self.items), default=0)

    @property
    def unlisted(self) -> list[Span]:
        """The numbers that count and that no object stands for, damaged or not."""
        return gaps(self.items, self.start, self.tail)

    def missing(self, without: Collection[Span] = NOTHING) -> list[Span]:
        """Return the numbers that count and that no whole object holds, leaving out some objects."""
        return gaps((span for span in self.held if span not in without), self.start, self.tail)

    def rows(self, without: Collection[Span] = NOTHING) -> Iterator[Row]:
        """Go through the numbers that count and that can be read, in order."""
        done = self.start - 1
        for span in uncovered(span for span in self.held if span not in without):
            held = self.held[span]
            if span.last <= done:
                continue
            first = max(done + 1, span.first)
            at = len(held.entries) - held.part.count_after(first - 1) if first > span.first else 0
            for seq in range(first, span.last + 1):
                note = held.note(seq)
                yield Row(seq, span, note, held.entries[at : at + note[2]])
                at += note[2]
            done = span.last


async def take_stock(objects: Objects, folder: str) -> Stock:
    """Look at everything in a log's folder. A number that seems to be missing is looked for again before it counts.

    Raises:
        Unavailable: The store did not answer.
    """
    for attempt in range(LISTINGS):
        if attempt:
            await objects.wait(RELIST_PAUSE_S * 2**attempt)
        stock = await _look(objects, folder)
        if not stock.gone and not stock.unlisted:
            break
    return stock


async def _look(objects: Objects, folder: str) -> Stock:
    stock = Stock(folder)
    for item in await objects.listing(folder):
        span = parse_file_name(item.key.removeprefix(f"{folder}/"))
        if span is None:
            stock.foreign.append(item.key)
        else:
            stock.items[span] = item
    spans = sorted(stock.items)
    for block in (spans[at : at + BLOCK] for at in range(0, len(spans), BLOCK)):
        found = await get_each(objects, [stock.key(span) for span in block], Corrupt, Denied)
        for span, stored in zip(block, found, strict=True):
            if isinstance(stored, Corrupt):
                stock.damaged[span] = stored.message
            elif isinstance(stored, Denied):
                stock.locked[span] = stored
            elif stored is None:
                stock.gone.append(span)
                del stock.items[span]
            else:
                _file(stock, span, stored.data)
    _find_start(stock)
    for span in [span for span, held in stock.held.items() if _is_erased(held) and span.first >= stock.start]:
        del stock.held[span]
        stock.damaged[span] = "a deletion has written over it, but the deletion's own mark is not there"
    return stock


def _find_start(stock: Stock) -> None:
    truncated = max((_truncation_in(held) for held in stock.held.values()), default=0)
    around = [held for held in stock.held.values() if held.span.first <= truncated <= held.span.last]
    stock.start = truncated + 1
    stock.start_epoch = max((held.note(truncated)[0] for held in around), default=0)


def _file(stock: Stock, span: Span, data: bytes) -> None:
    try:
        part = decode(data, span)
        stock.held[span] = Held(part, part.entries(), stock.items[span].modified_ms, _begins(part))
    except Corrupt as error:
        stock.damaged[span] = error.message
        count = _claimed_count(data)
        if count is not None:
            stock.claimed[span] = count


def _begins(part: Part) -> tuple[int | None, ...]:
    notes, truncated = part.header.parts, part.truncated_parts
    ends = accumulate((note[2] for note in notes[truncated:]), initial=0)
    return (*(None for _ in range(truncated)), *ends)


def _claimed_count(data: bytes) -> int | None:
    """Return the count in the first line of the header frame, which nothing vouches for."""
    try:
        count = json.loads(data[HEADER_AT:].partition(b"\n")[0])["count"]
        return count if type(count) is int else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def gaps(spans: Iterable[Span], first: int, last: int) -> list[Span]:
    """Return the runs of numbers from `first` to `last` that no span covers."""
    found: list[Span] = []
    done = first - 1
    for span in sorted(spans):
        if span.first > done + 1 and done < last:
            found.append(_run(done + 1, min(span.first - 1, last)))
        done = max(done, span.last)
    return [*found, _run(done + 1, last)] if done < last else found


def _run(first: int, last: int) -> Span:
    return Span(first, last, segment=True)


def _is_erased(held: Held) -> bool:
    return held.part.header.write_id == ERASED


def _truncation_in(held: Held) -> int:
    """Return the number of the last truncation in an object, or 0 if there is none."""
    if _is_erased(held):
        return 0
    if held.part.header.kind == "truncate":
        return held.span.last
    truncated = held.part.truncated_parts
    return held.span.first + truncated - 1 if truncated else 0
