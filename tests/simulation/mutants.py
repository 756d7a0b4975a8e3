"""Broken protocols. Each breaks one rule of the real code, and the simulation has to notice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from everturn.errors import Corrupt, Unavailable
from everturn.log import compaction, deletion, reader
from everturn.log.compaction import compact
from everturn.log.entries import Batch, encode
from everturn.log.format import Header, Kind
from everturn.log.names import Span
from everturn.log.objects import Item, Objects, Stored
from everturn.log.patience import Patience
from everturn.log.reader import Log, list_parts, read
from everturn.log.writer import LogWriter, _Attempt
from simulation import world
from simulation.actors import Protocol
from simulation.oracle import Violation
from simulation.scenario import play
from simulation.themes import CLEARING, DEAF, DOZERS, LATE_CLAIMS, MIXED, RESTORED, SLEEPERS, Theme
from simulation.world import SimObjects

# --- Writers --------------------------------------------------------------------------------------------------------


class NoFence(LogWriter):
    """Opens by reading alone."""

    async def open(self, patience: Patience | None = None) -> Log:
        log = await read(self._objects, self._folder)
        if log.epoch > self._epoch:
            raise self._stopped("a newer claim", log.epoch)
        return log


class LoadsFirst(LogWriter):
    """Reads before its fence stands."""

    async def open(self, patience: Patience | None = None) -> Log:
        log = await read(self._objects, self._folder)
        if log.epoch > self._epoch:
            raise self._stopped("a newer claim", log.epoch)
        await self._append(encode(()), "fence", self.patience())
        return log


class NeverLooks(LogWriter):
    """Believes in every number that it could take, however long ago it knew the tail."""

    async def _took_a_freed_number(self, attempt: _Attempt, known_at: float, patience: Patience) -> _Attempt | None:
        self._learn(attempt.seq, known_at)
        return None


class TakenIsOurs(LogWriter):
    """Does not read what stands at a number that is taken: it must have been us."""

    async def _try(self, attempt: _Attempt, patience: Patience, *, tried: bool) -> Header | Unavailable | None:
        outcome = await super()._try(attempt, patience, tried=tried)
        return None if isinstance(outcome, Header) else outcome


class UnknownIsFailed(LogWriter):
    """Takes the next number at once when it did not hear of the last one."""

    async def _try(self, attempt: _Attempt, patience: Patience, *, tried: bool) -> Header | Unavailable | None:
        outcome = await super()._try(attempt, patience, tried=tried)
        return Header(attempt.header.span, "data", 0, "", "?", 0, 0) if isinstance(outcome, Unavailable) else outcome


class Forgets(LogWriter):
    """Forgets an attempt that it had to leave unresolved."""

    async def _append(self, batch: Batch, kind: Kind, patience: Patience) -> int:
        self._unresolved = None
        return await super()._append(batch, kind, patience)


class WritesAgain(LogWriter):
    """Settles what it had left unresolved, but does not see that it was the same batch."""

    async def _append(self, batch: Batch, kind: Kind, patience: Patience) -> int:
        if self._unresolved is not None:
            await self._settle(self._unresolved, patience)
        return await super()._append(batch, kind, patience)


class PassRenews(LogWriter):
    """Thinks that a number that is taken is the last one."""

    def _go_further(self, attempt: _Attempt, other: Header) -> _Attempt:
        moved = super()._go_further(attempt, other)
        self._learn(attempt.seq, self._clock.elapsed())
        return moved


class LateIsTail(LogWriter):
    """Thinks that what turned out to be its own long ago is the last one."""

    async def _took_a_freed_number(self, attempt: _Attempt, known_at: float, patience: Patience) -> _Attempt | None:
        late = await super()._took_a_freed_number(attempt, known_at, patience)
        if late is None:
            self._learn(attempt.seq, self._clock.elapsed())
        return late


class GoesOnBehindTheFence(LogWriter):
    """Does not stop when it reads of a newer claim in a log that has its entry."""

    async def _took_a_freed_number(self, attempt: _Attempt, known_at: float, patience: Patience) -> _Attempt | None:
        late = await super()._took_a_freed_number(attempt, known_at, patience)
        if late is None:
            self._fenced = None
        return late


class NeverSearches(LogWriter):
    """Thinks that what stands at a number is what has always stood there, when it settles an old attempt."""

    _searching = False

    async def _settle(self, attempt: _Attempt, patience: Patience, *, tried: bool = False) -> int:
        self._searching = tried
        return await super()._settle(attempt, patience, tried=tried)

    async def _look_for(self, attempt: _Attempt, patience: Patience) -> _Attempt | None:
        standing = await self._standing_at(attempt.seq) if self._searching else None
        if standing is not None and standing.write_id != attempt.header.write_id:
            return self._go_further(attempt, standing)
        return await super()._look_for(attempt, patience)


class IgnoresFences(LogWriter):
    """Goes past newer claims."""

    def _is_overtaken_by(self, epoch: int, kind: str, wanted: Kind) -> bool:
        return kind == "truncate" and super()._is_overtaken_by(epoch, kind, wanted)


class IgnoresEqualClaims(LogWriter):
    """Goes past claims of the same epoch."""

    def _is_overtaken_by(self, epoch: int, kind: str, wanted: Kind) -> bool:
        return (kind, epoch) != ("fence", self._epoch) and super()._is_overtaken_by(epoch, kind, wanted)


class IgnoresTruncations(LogWriter):
    """Goes past a deletion."""

    def _is_overtaken_by(self, epoch: int, kind: str, wanted: Kind) -> bool:
        return kind != "truncate" and super()._is_overtaken_by(epoch, kind, wanted)


class TruncatesBlindly(LogWriter):
    """Appends a truncation at the end of the log, whatever has come in between."""

    async def truncate(self, *, after: int | None = None) -> int:
        return await super().truncate()


# --- Reading --------------------------------------------------------------------------------------------------------


def entries_without_dedup(log: Log, after: int = 0) -> list[Any]:
    """Return the entries with their repetitions."""
    kept: list[Any] = []
    done = after
    for part in log.parts:
        entries = part.entries()
        kept += entries[len(entries) - part.count_after(done) :]
        done = max(done, part.header.span.last)
    return kept


async def read_one_listing(objects: Objects, folder: str, *, at_least: int = 0) -> Log:
    """Read, and judge by the first listing."""
    try:
        return await read(objects, folder, at_least=at_least)
    except Unavailable as error:
        if error.message.startswith("the log changed"):
            raise Corrupt(error.message, hint=error.hint) from None
        raise


def one_run(spans: Sequence[Span]) -> list[list[Span]]:
    """See no holes."""
    return [list(spans)] if spans else []


def believe(stored: Stored, item: Item) -> bool:
    """Take what is fetched for what was listed."""
    return False


def anything(folder: str, seconds: float) -> None:
    """Take any listing, however long it took."""


# --- Compaction and deletion ----------------------------------------------------------------------------------------


class Hopeful(SimObjects):
    """Takes a create that was not answered for one that succeeded."""

    def __init__(self, objects: SimObjects) -> None:
        super().__init__(objects._clock)

    async def create(self, key: str, data: bytes) -> bool:
        try:
            return await super().create(key, data)
        except Unavailable:
            return True


async def compact_and_free(objects: SimObjects, folder: str, *, everything: bool = False, **who: Any) -> None:
    """Free what was merged as soon as the segment should be there, without reading it back."""
    listed = await list_parts(objects, folder)
    outcome = await compact(Hopeful(objects), folder, everything=everything, **who)
    for segment in outcome.segments:
        merged = [span for span in listed if segment.first <= span.first and span.last <= segment.last]
        await objects.delete([f"{folder}/{span.file_name}" for span in merged if span != segment])


async def whole(objects: Objects, folder: str, segment: Span) -> bool:
    """Do not verify."""
    return True


async def leave(objects: Objects, folder: str, written: Sequence[Span], *, known: Any) -> None:
    """Do not withdraw."""


async def newest_claim_first(objects: Objects, folder: str, parts: Any) -> Any:
    """Take the epoch of the last claim in the log for the highest."""
    end = await deletion_end(objects, folder, parts)
    for span in sorted(parts, reverse=True):
        stored = await objects.get(f"{folder}/{span.file_name}")
        header = deletion._header(stored, span)
        if header is not None and header.epoch:
            return deletion._End(header.epoch, end.truncated, True)
    return end


deletion_end = deletion._end_of


# --- The list -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutant:
    """A broken protocol.

    Attributes:
        name: What is broken.
        theme: In what kind of scenario it shows.
        protocol: The code that differs.
        patches: Module, name and value of what is replaced besides.
        seeds: Within how many seeds it has to be caught.
        first: The first of them. The ones before are left out where hundreds of them show nothing.
    """

    name: str
    theme: Theme
    protocol: Protocol = field(default_factory=Protocol)
    patches: tuple[tuple[Any, str, Any], ...] = ()
    seeds: int = 100
    first: int = 1

    def hunt(self, seeds: int | None = None) -> tuple[int, Violation] | None:
        """Play seed after seed until the mutant is caught. Returns the seed and how, or `None`."""
        with pytest.MonkeyPatch.context() as patch:
            for module, name, value in self.patches:
                patch.setattr(module, name, value)
            for seed in range(self.first, self.first + (seeds or self.seeds)):
                try:
                    play(seed, self.protocol, self.theme)
                except Violation as violation:
                    return seed, violation
        return None


def _writer(name: str, writer: type[LogWriter], theme: Theme = MIXED, seeds: int = 100, first: int = 1) -> Mutant:
    return Mutant(name, theme, Protocol(writer=writer), seeds=seeds, first=first)


def _patch(  # a table, row by row
    name: str, module: Any, attribute: str, value: Any, theme: Theme = MIXED, seeds: int = 100, first: int = 1
) -> Mutant:
    return Mutant(name, theme, patches=((module, attribute, value),), seeds=seeds, first=first)


MUTANTS = [
    _writer("no fence", NoFence, LATE_CLAIMS),
    _writer("load before fence", LoadsFirst, LATE_CLAIMS),
    _writer("fences are ignored", IgnoresFences),
    _writer("fences of the same epoch are ignored", IgnoresEqualClaims, RESTORED),
    _writer("no look after a stall", NeverLooks, SLEEPERS),
    _writer("a taken number counts as ours", TakenIsOurs),
    _writer("an unknown outcome takes the next number", UnknownIsFailed),
    _writer("an unresolved attempt is forgotten", Forgets),
    _writer("a retried batch is not recognised", WritesAgain),
    _writer("a pass renews the knowledge of the tail", PassRenews, SLEEPERS, 500),
    _writer("a settled attempt renews the knowledge of the tail", LateIsTail, DEAF, seeds=1000),
    _writer("a settled attempt does not stop an overtaken writer", GoesOnBehindTheFence),
    _writer("a truncation does not stop a claimed writer", IgnoresTruncations, LATE_CLAIMS),
    _writer("a deletion does not look at what came in between", TruncatesBlindly, LATE_CLAIMS, seeds=1000),
    _patch(
        "a deletion trusts the last claim to be the highest",
        deletion,
        "_end_of",
        newest_claim_first,
        LATE_CLAIMS,
        seeds=500,
    ),
    _writer("what stands at a number is taken for what always stood there", NeverSearches, DOZERS, 5500, 501),
    _patch("a deletion frees young numbers", deletion, "FREE_AFTER_MS", 0),
    _patch("dedup off", reader.Log, "entries", entries_without_dedup),
    Mutant("one listing is trusted", MIXED, Protocol(read=read_one_listing), ((reader, "LISTINGS", 1),), 500),
    _patch("holes are skipped", reader, "adjoining", one_run, seeds=500),
    _patch("replaced objects are believed", reader, "was_replaced", believe, DOZERS, 2500, 601),
    Mutant("covered parts are freed before their segment is verified", SLEEPERS, Protocol(compact=compact_and_free)),
    _patch("covered parts are freed at once", compaction, "FREE_AFTER_MS", 0, SLEEPERS),
    _patch(
        "a segment is not verified before its parts are freed",
        compaction,
        "_is_whole",
        whole,
        SLEEPERS,
        1500,
        1501,
    ),
    _patch("pages that are hours apart are believed", world, "check_listing", anything, DOZERS, 4000, 2001),
    _patch("a segment of a deleted log is not withdrawn", compaction, "_withdraw_if_deleted", leave, CLEARING, 500),
]
