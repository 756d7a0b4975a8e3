"""Mending a log: an explicit act that loses nothing (docs/format.md, section 13; docs/repair.md).

The argument, in short. First everything is planned from what can be read. Then, for each thing that is missing or
damaged, its bytes are kept elsewhere, a segment is created that stands for its numbers, and only then the damaged
object is taken away. Readers ignore what lies inside a segment, and nothing is ever created over something else, so
after a crash at any point the log is as damaged as before or mended, and the next repair goes on from there. What
takes numbers is left alone while a writer may still believe that they are free.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import orjson

from everturn.clock import Clock, Ids
from everturn.errors import Conflict, Invalid
from everturn.log.encryption import as_stored
from everturn.log.format import decode, encode_part, encode_segment
from everturn.log.grace import FREE_AFTER_MS
from everturn.log.names import Span, part
from everturn.log.objects import Objects
from everturn.log.reader import read_part
from everturn.log.stock import Stock, gaps
from everturn.log.verification import LogReport, numbers, verify_log
from everturn.log.writer import LogWriter
from everturn.transcripts.archive import SessionRef
from everturn.transcripts.holds import refuse_if_held
from everturn.transcripts.homes import noted_home
from everturn.transcripts.layout import Layout
from everturn.transcripts.observer import StoreObserver
from everturn.upkeep.alignment import HINT, align, between, comparable, same_session
from everturn.upkeep.local import batches
from everturn.upkeep.verification import check_home, contents, summary_record

DAMAGED = "damaged"
LARGEST_GAP = 100_000


@dataclass(frozen=True, slots=True)
class Gap:
    """Numbers that no whole object holds.

    Attributes:
        span: The numbers.
        entries: What a local transcript has for them; `None` without one: they are lost.
        told: What is known of the loss, a sentence each.
    """

    span: Span
    entries: list[Any] | None
    told: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What a repair will do.

    Attributes:
        report: What the check of the log has found.
        gaps: Numbers to put something in place of.
        aside: Objects to take away, once a copy is kept.
        waiting: Objects that are too young to be taken away; they do no harm, and a later repair does it.
        missing: Entries of a local transcript that come after everything in the store.
        passed_over: How many entries of a local transcript have no place: the log is whole there, or has gone on
            with something else.
        home: The key of a note about where the session lives that has to be written anew.
        ends_early: The last number that the session's summary knows of, if the log has lost it.
        has_local: Whether there was a local transcript to take entries from.
    """

    report: LogReport
    gaps: tuple[Gap, ...] = ()
    aside: tuple[Span, ...] = ()
    waiting: tuple[Span, ...] = ()
    missing: tuple[Any, ...] = ()
    passed_over: int = 0
    home: str | None = None
    ends_early: int | None = None
    has_local: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.gaps or self.aside or self.missing or self.home or self.ends_early)

    @property
    def loses(self) -> list[str]:
        """What will be given up, a few words each."""
        lost = [numbers(gap.span) for gap in self.gaps if gap.entries is None]
        if self.ends_early is not None and not self.has_local:
            tail = self.report.stock.tail
            lost.append(f"what came after number {tail}, up to {self.ends_early}")
        return lost


async def plan_repair(
    objects: Objects, ref: SessionRef, subpath: str | None = None, local: Sequence[Any] | None = None
) -> Plan:
    """Find out what has to be done to a log. Writes nothing.

    Args:
        objects: The store.
        ref: The session.
        subpath: A sub-transcript; `None` for the main one.
        local: A local transcript of it.

    Raises:
        Invalid: The local transcript does not fit, or a segment is wrong and nothing else holds its numbers.
        Denied: An object is encrypted with a key that is not at hand: that is no damage, and must not be mended.
    """
    if local is not None and not same_session(local, ref.session_id):
        raise Invalid("the local transcript belongs to another session", hint=HINT)
    report = await verify_log(objects, ref.folder(subpath))
    stock = report.stock
    for error in stock.locked.values():
        raise error
    aside = _to_take_away(report)
    holes = _credible(stock, stock.missing(aside))
    fresh: Sequence[Any] = ()
    passed_over = 0
    if local is None:
        found = [Gap(hole, None, _known_of(stock, hole)) for hole in holes]
    else:
        found, whole = _filled(stock, aside, holes, local)
        alignment = align(local, whole)
        if whole and not alignment.common:
            raise Invalid("the local transcript has nothing in common with what is stored", hint=HINT)
        fresh, passed_over = alignment.after, len(alignment.inside)
        if alignment.diverged:
            fresh, passed_over = (), passed_over + len(alignment.after)
        if passed_over and fresh:
            raise Invalid(
                f"the local transcript does not fit: {passed_over} of its entries are missing where the log is whole",
                hint=HINT,
            )
    waiting = tuple(span for span in aside if _is_young(stock, span))
    return Plan(
        report,
        tuple(found),
        tuple(span for span in aside if span not in waiting),
        waiting,
        tuple(fresh),
        passed_over,
        await _wrong_home(objects, ref) if subpath is None else None,
        await _end_that_is_gone(objects, ref, stock.tail) if subpath is None else None,
        local is not None,
    )


class Repair:
    """Carries plans out.

    Args:
        objects: The store.
        ref: The session.
        subpath: A sub-transcript; `None` for the main one.
        clock: For the deadline of what is appended.
        ids: For write ids.
        writer: Who does it, for people.
    """

    def __init__(
        self, objects: Objects, ref: SessionRef, subpath: str | None, *, clock: Clock, ids: Ids, writer: str
    ) -> None:
        self._objects = objects
        self._ref = ref
        self._folder = ref.folder(subpath)
        self._clock = clock
        self._ids = ids
        self._writer = writer
        self._summary = None if subpath else Layout(ref.scope).summary(ref.project_key, ref.session_id)

    async def carry_out(self, plan: Plan) -> None:
        """Do what is planned. After a crash, or an error, plan again and go on.

        Args:
            plan: The plan.

        Raises:
            Conflict: Somebody else writes to the log, or something has to go and the session is under a hold.
            Unavailable: The store did not answer.
        """
        if plan.aside:
            await refuse_if_held(self._objects, self._ref.scope, self._ref.session_id)
        for span in plan.aside:
            await self._keep_copy(f"{self._folder}/{span.file_name}")
        for gap in reversed(plan.gaps):  # the last ones may be empty, and only the others tell why
            await self._fill(gap, plan)
        await self._objects.delete([f"{self._folder}/{span.file_name}" for span in plan.aside])
        if plan.home is not None:
            await self._write_home(plan.home)
        await append_missing(self._appender(), plan.missing)
        if self._summary is not None:  # it is derived, and what it was derived from has changed
            await self._objects.delete([self._summary])

    def _appender(self) -> LogWriter:
        return LogWriter(
            self._objects,
            self._folder,
            clock=self._clock,
            ids=self._ids,
            observer=StoreObserver(),
            writer=self._writer,
        )

    async def _keep_copy(self, key: str) -> None:
        """Copy an object to where readers do not look. Its digest is part of the name, so twice is once."""
        objects = as_stored(self._objects)
        stored = await objects.get(key)
        if stored is None:
            return
        copy = kept_under(key, stored.data)
        if await objects.create(copy, stored.data):
            return
        there = await objects.get(copy)
        if there is None or there.data != stored.data:
            raise Conflict(f"no copy of {key} could be kept", hint="it is safe to run the repair again")

    async def _fill(self, gap: Gap, plan: Plan) -> None:
        """Create what stands for missing numbers from now on."""
        epoch = max((row.note[0] for row in plan.report.rows if row.seq < gap.span.first), default=0)
        entries = gap.entries or []
        how = "lost" if gap.entries is None else "restored"
        for span in reversed(_free_names(gap.span, plan.report.stock)):
            parts = [self._part(seq, entries if seq == gap.span.first else [], epoch) for seq in _seqs(span)]
            write_id = self._ids.token()
            if span.segment:
                data = encode_segment(
                    [decode(each, part(seq)) for seq, each in zip(_seqs(span), parts, strict=True)],
                    writer=self._writer,
                    write_id=write_id,
                    repaired=how,
                )
            else:
                (data,) = parts
            await self._create(span, data)

    async def _create(self, span: Span, data: bytes) -> None:
        """Create an object and read it back.

        Raises:
            Conflict: Somebody else was first.
        """
        await self._objects.create(f"{self._folder}/{span.file_name}", data)
        there = await read_part(self._objects, self._folder, span)
        if there is None or there.header.write_id != decode(data, span).header.write_id:
            raise Conflict(
                f"somebody else writes to {self._folder}",
                hint="let no run of this session go on, then run the repair again",
            )

    def _part(self, seq: int, entries: list[Any], epoch: int) -> bytes:
        return encode_part(seq, entries, epoch=epoch, writer=self._writer, write_id=self._ids.token())[1]

    async def _write_home(self, key: str) -> None:
        await self._keep_copy(key)
        await self._objects.delete([key])
        home = self._ref.project_key
        if await self._objects.create(key, orjson.dumps({"v": 1, "project_key": home})):
            return
        if await noted_home(self._objects, Layout(self._ref.scope), self._ref.session_id) != home:
            raise Conflict(
                f"somebody else says where session {self._ref.session_id} lives",
                hint="let no run of this session go on, then run the repair again",
            )


async def append_missing(writer: LogWriter, entries: Sequence[Any]) -> int:
    """Append what a local transcript has beyond the log's end, and return how many entries that were.

    Raises:
        Unavailable: The store did not settle it in time. It is safe to align and append again.
        Fenced: A newer claim has taken over.
    """
    for batch in batches(entries):
        await writer.append(batch)
    return len(entries)


def kept_under(key: str, data: bytes) -> str:
    """Return the key of the copy that is kept of a damaged object."""
    return f"{DAMAGED}/{key.partition('/')[2]}.{hashlib.sha256(data).hexdigest()[:16]}"


def _to_take_away(report: LogReport) -> list[Span]:
    """Choose what has to go: what is damaged, and segments that are wrong while all that they hold stands elsewhere.

    Raises:
        Invalid: A segment is wrong, and some of its numbers stand nowhere else.
    """
    stock = report.stock
    damaged = [span for span in stock.damaged if span.last >= stock.start]
    whole = [span for span in stock.held if span not in report.wrong_segments]
    for span in sorted(report.wrong_segments):
        if left := gaps(whole, max(span.first, stock.start), span.last):
            raise Invalid(
                f"{stock.key(span)} contradicts other objects, and only it holds {numbers(left[0])}",
                hint="nobody can tell which is right; keep copies of both, and delete the wrong one by hand",
            )
    return sorted([*damaged, *report.wrong_segments])


def _credible(stock: Stock, holes: list[Span]) -> list[Span]:
    """Return the holes, if they are not so large that an object must have come from elsewhere.

    Raises:
        Invalid: One is.
    """
    for hole in holes:
        if hole.last - hole.first >= LARGEST_GAP:
            raise Invalid(
                f"{stock.folder} ends with number {stock.tail}, but has none of the {numbers(hole)}",
                hint="the objects after these numbers do not seem to belong here; move them away by hand",
            )
    return holes


def _is_young(stock: Stock, span: Span) -> bool:
    """Tell whether a writer may still believe that the part's number is the next free one."""
    newest_ms = max(item.modified_ms for item in stock.items.values())
    return not span.segment and newest_ms - stock.items[span].modified_ms < FREE_AFTER_MS


def _filled(
    stock: Stock, aside: Sequence[Span], holes: Sequence[Span], local: Sequence[Any]
) -> tuple[list[Gap], list[Any]]:
    """Take what belongs into each hole from a local transcript.

    Returns:
        The filled holes, and everything that the log will hold.

    Raises:
        Invalid: The local transcript does not fit.
    """
    stretches = _stretches(stock, aside, holes)
    filled: list[Gap] = []
    whole = stretches[0]
    took_the_rest = False
    for index, hole in enumerate(holes):
        following = [stretch for stretch in stretches[index + 1 :] if stretch]
        after = following[0] if following else []
        entries = between(local, whole, after, list(chain.from_iterable(following[1:])))
        took_the_rest = took_the_rest or bool(entries and not after)
        if not after and not took_the_rest:
            raise Invalid(f"the local transcript does not fit: it ends before {numbers(hole)}", hint=HINT)
        filled.append(Gap(hole, entries, _known_of(stock, hole)))
        whole = [*whole, *entries, *stretches[index + 1]]
    return filled, whole


def _stretches(stock: Stock, aside: Sequence[Span], holes: Sequence[Span]) -> list[list[Any]]:
    """Return what can be read: before the first hole, between the holes, after the last one."""
    stretches: list[list[Any]] = [[]]
    for row in stock.rows(aside):
        while len(stretches) <= len(holes) and row.seq > holes[len(stretches) - 1].last:
            stretches.append([])
        stretches[-1] += comparable(row.entries)
    return stretches + [[] for _ in range(len(holes) + 1 - len(stretches))]


def _known_of(stock: Stock, hole: Span) -> tuple[str, ...]:
    """Say what can still be told of numbers that are gone."""
    told = []
    for span in sorted(span for span in stock.damaged if span.first <= hole.last and span.last >= hole.first):
        size = f"{stock.items[span].size_bytes:,} bytes"
        said = stock.claimed.get(span)
        count = "" if said is None else f"; its header, if that can be believed, says {said} entries"
        told.append(f"{span.file_name} ({size}) is damaged: {stock.damaged[span]}{count}")
    older = [item.modified_ms for span, item in stock.items.items() if span.last < hole.first]
    newer = [item.modified_ms for span, item in stock.items.items() if span.first > hole.last]
    if older:
        told.append(f"what comes before was written by {_time(max(older))}")
    if newer:
        told.append(f"what comes after was written from {_time(min(newer))} on")
    return tuple(told)


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _seqs(span: Span) -> range:
    return range(span.first, span.last + 1)


def _free_names(span: Span, stock: Stock) -> list[Span]:
    """Return objects for a run of numbers whose names are free: a damaged segment may have the run's own name.

    Raises:
        Conflict: There are none.
    """
    cuts = ([_segment(span.first, at), _segment(at + 1, span.last)] for at in _seqs(span)[:-1])
    single = [[part(span.first)]] if span.first == span.last else []
    for segments in chain([[span]], cuts, single):
        if not any(segment in stock.items for segment in segments):
            return list(segments)
    raise Conflict(
        f"damaged objects take all names for {numbers(span)}",
        hint=f"move {stock.key(span)} away by hand, then run the repair again",
    )


def _segment(first: int, last: int) -> Span:
    return Span(first, last, segment=True)


async def _wrong_home(objects: Objects, ref: SessionRef) -> str | None:
    layout = Layout(ref.scope)
    found = await check_home(objects, layout, ref)
    return layout.home(ref.session_id) if any(finding.severity == "damage" for finding in found) else None


async def _end_that_is_gone(objects: Objects, ref: SessionRef, tail: int) -> int | None:
    data = await contents(objects, Layout(ref.scope).summary(ref.project_key, ref.session_id))
    record = summary_record(data or b"")
    return record["upto"] if record is not None and record["upto"] > tail else None
