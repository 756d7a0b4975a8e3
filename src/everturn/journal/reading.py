"""Journals as they are stored: which there are, and what stands in them (docs/journal.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from everturn.errors import Corrupt
from everturn.journal.lines import Recorded, recorded
from everturn.log.format import MAX_NUMBER
from everturn.log.names import escape, names_in, parse_file_name, unescape
from everturn.log.objects import Objects
from everturn.log.reader import Log, read

JOURNALS = "journal"


@dataclass(frozen=True, slots=True, order=True)
class RunRef:
    """Whose journal it is.

    Attributes:
        scope: The work item's key.
        run_id: The run.
    """

    scope: str
    run_id: str

    @property
    def folder(self) -> str:
        """The folder of its log.

        Raises:
            Invalid: The scope or the run id is not a usable name.
        """
        return f"{JOURNALS}/{escape(self.scope, 'scope')}/{escape(self.run_id, 'run id')}"


@dataclass(frozen=True, slots=True)
class RunJournal:
    """What stands in a run's journal, or in the end of it.

    Attributes:
        ref: Whose it is.
        events: In order; each number once.
        tail: The number of the last part that was read; 0: there is none.
        missing: The numbers of events that should be there and are not: the first and the last of each gap.
        unreadable: How many lines are no events.
        deleted: Whether it was deleted, and only the mark of that is left.
    """

    ref: RunRef
    events: tuple[Recorded, ...]
    tail: int
    missing: tuple[tuple[int, int], ...] = ()
    unreadable: int = 0
    deleted: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing, not even the mark of a deletion: a folder may outlive what was in it."""
        return not (self.tail or self.events or self.unreadable)


@dataclass(frozen=True, slots=True)
class Lines:
    """Some lines of a journal, parsed, and no events yet: for whoever has to read many.

    Attributes:
        lines: Those whose heads are right, in order, each number once.
        part: The number of the last part that they come from.
        more: Whether others follow.
        unreadable: How many lines are no events.
    """

    lines: list[dict[str, Any]]
    part: int
    more: bool
    unreadable: int = 0


class Journals:
    """The journals of a store. Its coroutines are meant for `everturn.log.objects.run`.

    Args:
        objects: The store's objects.
        label: The store's URL, for messages.
    """

    def __init__(self, objects: Objects, label: str) -> None:
        self.objects = objects
        self.label = label

    async def scopes(self) -> list[str]:
        """Return the names of all scopes that have journals."""
        return names_in(await self.objects.list_folders(JOURNALS))

    async def runs(self, scope: str) -> list[RunRef]:
        """Return the runs of a scope that have journals, in no particular order."""
        folders = await self.objects.list_folders(f"{JOURNALS}/{escape(scope, 'scope')}")
        return [RunRef(scope, run_id) for run_id in names_in(folders)]

    async def tails(self) -> dict[RunRef, int]:
        """Return all journals with the numbers of their last parts. One request for a thousand parts."""
        found: dict[RunRef, int] = {}
        for item in await self.objects.listing(JOURNALS):
            pieces = item.key.split("/")
            span = parse_file_name(pieces[-1])
            names = [unescape(each) for each in pieces[1:-1]]
            if span is not None and len(names) == 2 and None not in names:
                ref = RunRef(str(names[0]), str(names[1]))
                found[ref] = max(found.get(ref, 0), span.last)
        return found

    async def read(self, ref: RunRef, *, after: int = 0) -> RunJournal:
        """Read a journal.

        Args:
            ref: Whose.
            after: Only what stands in parts with a higher number than this; the rest is not fetched.

        Returns:
            What stands in it. Nothing: there is none, or nothing new.

        Raises:
            Corrupt: A part is damaged or missing. Names the object.
            Unavailable: The store did not answer in time.
        """
        log = await self.fetch(ref, after=after)
        found = put_in_order(ref, log.entries(after=after), log.tail, is_whole=not after)
        return replace(found, deleted=log.start > after + 1 and not found.events)

    async def fetch(self, ref: RunRef, *, after: int = 0) -> Log:
        """Fetch a journal's parts, for `lines_of`. As `read`, but nothing is decompressed yet."""
        return await read(self.objects, ref.folder, after=after)


def lines_of(log: Log, *, after: int = 0, first: int = 1) -> Iterator[Lines]:
    """Yield the lines of a journal part by part. Nothing is held back as long as the parts are in order.

    From the first disorder on, all is held back to be put in order: then a number may come that has come before.

    Args:
        log: What `Journals.fetch` returned.
        after: What it was told.
        first: The number of the event that should come first.

    Raises:
        Corrupt: A part is damaged. Names it.
    """
    expected = first
    held: dict[int, dict[str, Any]] | None = None
    for part, entries in log.by_part(after):
        more = part < log.tail
        if held is None and _is_run(entries, expected):
            expected += len(entries)
            yield Lines(entries, part, more)
            continue
        held = {} if held is None else held
        lines, unreadable = usable(entries)
        for line in lines:
            held.setdefault(line["seq"], line)
        yield Lines([held[seq] for seq in sorted(held)] if not more else [], part, more, unreadable)


def usable(entries: Iterable[Any]) -> tuple[list[dict[str, Any]], int]:
    """Return the lines whose heads are right, and how many have no such head."""
    all_entries = list(entries)
    found = [entry for entry in all_entries if type(entry) is dict and _has_head(entry)]
    return found, len(all_entries) - len(found)


def _has_head(line: dict[str, Any]) -> bool:
    seq, at_ms = line.get("seq"), line.get("at_ms")
    return (
        type(seq) is int
        and type(at_ms) is int
        and type(line.get("type")) is str
        and type(line.get("v")) is int
        and 1 <= seq <= MAX_NUMBER
        and abs(at_ms) <= MAX_NUMBER
    )


def _is_run(entries: list[Any], first: int) -> bool:
    """Tell whether entries are lines with usable heads, in order and without a hole. Nearly all journals are."""
    try:
        seqs = [entry["seq"] for entry in entries]
        times = [entry["at_ms"] for entry in entries]
        numbers = {*map(type, seqs), *map(type, times), *(type(entry["v"]) for entry in entries)}
        kinds = {type(entry["type"]) for entry in entries}
    except (TypeError, LookupError):
        return False
    return (
        seqs == list(range(first, first + len(entries)))
        and numbers <= {int}
        and kinds <= {str}
        and (not times or (min(times) >= -MAX_NUMBER and max(times) <= MAX_NUMBER))
    )


def put_in_order(ref: RunRef, lines: Iterable[object], tail: int, *, is_whole: bool = True) -> RunJournal:
    """Return what lines say that come in any order, some perhaps twice.

    A part can be stored twice, under two numbers, when the worker that stored it first died before it knew.

    Args:
        ref: Whose they are.
        lines: Parsed lines.
        tail: The number of the last part.
        is_whole: Whether they should begin with the first event.
    """
    found: dict[int, Recorded] = {}
    unreadable = 0
    for line in lines:
        try:
            event = recorded(line)
        except Corrupt:
            unreadable += 1
        else:
            found.setdefault(event.seq, event)
    events = tuple(found[seq] for seq in sorted(found))
    return RunJournal(ref, events, tail, tuple(_gaps(events, is_whole=is_whole)), unreadable)


def _gaps(events: tuple[Recorded, ...], *, is_whole: bool) -> Iterable[tuple[int, int]]:
    expected = 1 if is_whole or not events else events[0].seq
    for event in events:
        if event.seq > expected:
            yield expected, event.seq - 1
        expected = event.seq + 1
