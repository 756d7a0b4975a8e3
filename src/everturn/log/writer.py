"""Writing a log: every number is taken once, and only what is provably ours counts as written.

The argument, in short. Parts are created, never overwritten, at the number after the last one the writer knows of.
If the number turns out to be taken, the part that stands there decides: it is ours (an earlier attempt that took
effect without our hearing of it), or a newer owner's (we are fenced), or simply history, and we go one further.
If we do not hear at all, the same bytes go to the same number again until we do; an append that runs out of time
leaves its attempt behind, and the next call settles that first. So an entry is never written twice and an
acknowledged one is never lost (docs/format.md, section 5).

One trap is left: a number that was taken and then freed, by compaction, can be taken again. Numbers are freed only a
grace period after they were the last, so a writer whose knowledge of the tail is older than that looks again before
it believes that what it has created counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from everturn.clock import Clock, Ids
from everturn.errors import Corrupt, EverturnError, Fenced, Invalid, Unavailable
from everturn.log.entries import Batch, encode
from everturn.log.format import Header, Kind, encode_batch
from everturn.log.grace import GRACE_S
from everturn.log.names import Span, part
from everturn.log.objects import Objects
from everturn.log.patience import Patience
from everturn.log.reader import Log, adjoining, decode_object, list_spans, read, read_part, uncovered

PASSES_BEFORE_LOOKING = 4
WRITER_BYTES = 400  # of a name, once escaped: readers tell fences and truncations by how small they are
_UNREADABLE = ""  # the write id of what cannot be read


class Observer(Protocol):
    """Is told what happens to a log, for logs and metrics."""

    def wrote(self, folder: str, header: Header, size_bytes: int, seconds: float) -> None:
        """A part is durable."""

    def passed(self, folder: str, other: Header | None) -> None:
        """The number was taken by somebody else; `None` if what stands there cannot be read."""

    def failed(self, folder: str, count: int, error: Exception) -> None:
        """An append gave up. Its entries may or may not be in the store; the next append settles it."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A part that we have begun to write."""

    batch: Batch
    header: Header
    data: bytes

    @property
    def seq(self) -> int:
        return self.header.span.first


class LogWriter:
    """Appends to one log. Not for concurrent use: the caller takes turns.

    Args:
        objects: Where the log is.
        folder: The log's folder.
        clock: For deadlines and waiting times.
        ids: For write ids and jitter.
        observer: Is told what happens.
        epoch: 0 for a guest. From 1 on, call `open` first.
        writer: A name for people; only its beginning if it is very long.
        deadline_s: How long an append goes on trying. Give-up comes as `Unavailable`.
    """

    def __init__(
        self,
        objects: Objects,
        folder: str,
        *,
        clock: Clock,
        ids: Ids,
        observer: Observer,
        epoch: int = 0,
        writer: str = "",
        deadline_s: float = 20.0,
    ) -> None:
        self._objects = objects
        self._folder = folder
        self._clock = clock
        self._ids = ids
        self._observer = observer
        self._epoch = epoch
        self._yields = epoch > 0  # to newer claims and to truncations
        self._writer = _clipped(writer)
        self._deadline_s = deadline_s
        self._tail: int | None = None
        self._tail_known_at = 0.0
        self._unresolved: _Attempt | None = None
        self._fenced: Fenced | None = None
        self._fence_seq = 0  # the number of our own fence, once it stands
        self.written = b""  # the part that was appended last, as it was sent

    @property
    def tail(self) -> int | None:
        """The last number this writer knows to be taken; `None` before it has looked."""
        return self._tail

    @property
    def unresolved(self) -> str | None:
        """The write id of an attempt whose outcome is not known, or `None`. The next append settles it."""
        return None if self._unresolved is None else self._unresolved.header.write_id

    def patience(self) -> Patience:
        """Return the patience for one append. Steps that belong to it may be taken before it, and share it."""
        return Patience(self._objects, self._clock, self._ids, self._deadline_s)

    async def open(self, patience: Patience | None = None, *, is_new: bool = False) -> Log:
        """Write the fence of this writer's epoch, then read the log.

        In this order: what is returned can no longer change behind the caller's back, but for guests.

        Args:
            patience: That of the operation this belongs to, if it has begun already.
            is_new: Nobody else can know of this log yet. If that is so, the fence is all there is to write and read.

        Raises:
            Fenced: The log has seen a higher epoch already.
            Unavailable: The store did not answer in time.
            Corrupt: Something in the log is missing or damaged.
        """
        patience = patience or self.patience()
        if is_new and self._tail is None:
            self._learn(0, self._clock.elapsed())
        self._fence_seq = 0
        fence = self._fence_seq = await self._append(encode(()), "fence", patience)
        if is_new and fence == 1:
            return Log(self._folder, (decode_object(self.written, self._folder, part(1)),), 1, 1, self._epoch)
        log = await patience.insist(partial(read, self._objects, self._folder, at_least=fence))
        if self._is_taken_over(log):
            raise self._stopped("a newer claim", log.epoch)
        return log

    async def check(self, patience: Patience | None = None) -> None:
        """Look whether a newer owner has taken over since the last append.

        Raises:
            Fenced: One has.
        """
        patience = patience or self.patience()
        for span in await patience.insist(partial(list_spans, self._objects, self._folder)):
            if span.last > (self._tail or 0):
                found = await patience.insist(partial(read_part, self._objects, self._folder, span))
                if found is not None:
                    self._stop_if_overtaken(found.header, "data", after=self._tail or 0)

    async def append(self, entries: Sequence[Any], patience: Patience | None = None) -> int:
        """Append entries as one part. On return they are durable. No entries, no part.

        Args:
            entries: JSON values.
            patience: That of the operation this append belongs to, if it has begun already.

        Returns:
            The part's number.

        Raises:
            Invalid: An entry is not a JSON value, or the store takes no object like this. Nothing was written.
            Fenced: A newer owner has taken over, or the log was deleted under a claimed writer.
            Unavailable: The store did not settle the write in time. It is safe to call again with the same entries.
            Corrupt: A claimed writer cannot read the part that took its number.
        """
        if not entries:
            return self._tail or 0
        try:
            batch = encode(entries)
        except Invalid as error:
            self._observer.failed(self._folder, len(entries), error)
            raise
        return await self.append_batch(batch, patience)

    async def append_batch(self, batch: Batch, patience: Patience | None = None) -> int:
        """Append entries that are encoded already as one part. See `append`."""
        return await self._append(batch, "data", patience or self.patience())

    async def truncate(self, *, after: int | None = None) -> int:
        """Append the mark that deletes everything before it, and return its number.

        It carries this writer's epoch, which has to be the highest in the log, so that no older claim opens it again.

        Args:
            after: The number up to which the caller knows that this is so, from a listing of any age. A higher epoch
                behind it ends the truncation as it would end a claim, though the writer be a guest.

        Raises:
            Fenced: A newer claim, or another truncation, stands there.
        """
        if after is not None:
            self._yields = True
            self._learn(after, -math.inf)
        return await self._append(encode(()), "truncate", self.patience())

    async def _append(self, batch: Batch, kind: Kind, patience: Patience) -> int:
        if self._fenced is not None:
            raise self._fenced
        try:
            with patience:  # what the store is asked more than once is asked within this deadline
                return await self._write(batch, kind, patience)
        except Fenced:
            raise
        except EverturnError as error:
            if kind == "data":  # what else is appended holds no entries, and whoever asked for it is told
                self._observer.failed(self._folder, batch.count, error)
            raise

    async def _write(self, batch: Batch, kind: Kind, patience: Patience) -> int:
        left_over = self._unresolved
        if left_over is not None:
            seq = await self._settle(left_over, patience, tried=True)
            if left_over.header.kind == kind and left_over.batch.lines == batch.lines:
                return seq
            if self._fenced is not None:  # it is in, but somebody has taken over since
                raise self._fenced
        if self._tail is None:
            await patience.insist(self._find_tail)
        return await self._settle(self._attempt((self._tail or 0) + 1, kind, batch, self._ids.token()), patience)

    def _attempt(self, seq: int, kind: Kind, batch: Batch, write_id: str) -> _Attempt:
        header, data = encode_batch(seq, batch, epoch=self._epoch, writer=self._writer, write_id=write_id, kind=kind)
        return _Attempt(batch, header, data)

    async def _find_tail(self) -> None:
        looked_at = self._clock.elapsed()
        spans = await list_spans(self._objects, self._folder)
        self._learn(max((span.last for span in spans), default=0), looked_at)

    def _learn(self, tail: int, known_at: float) -> None:
        self._tail = tail
        self._tail_known_at = known_at

    async def _settle(self, attempt: _Attempt, patience: Patience, *, tried: bool = False) -> int:
        """Bring an attempt to its end: at its own number, or at the first one after it that is free."""
        passed = 0
        while True:
            self._unresolved = attempt
            # What was tried before may have taken effect at any time since we knew the tail.
            known_at = self._tail_known_at if tried else self._clock.elapsed()
            outcome = await self._try(attempt, patience, tried=tried)
            if isinstance(outcome, Unavailable):
                tried = True
                await patience.wait(outcome)
                continue
            if outcome is None:
                moved = await self._took_a_freed_number(attempt, known_at, patience)
            elif tried and self._is_out_of_date:  # ours may have stood here, and been freed, before this one came
                moved = await self._look_for(attempt, patience)
            else:
                moved = self._go_further(attempt, outcome)
                patience.check()
                passed += 1
                if passed % PASSES_BEFORE_LOOKING == 0 or (self._yields and self._is_out_of_date):
                    moved = await patience.insist(partial(self._catch_up, moved))
            if moved is None:
                self._unresolved = None
                self.written = attempt.data
                self._observer.wrote(self._folder, attempt.header, len(attempt.data), patience.used_s)
                return attempt.seq
            attempt, tried = moved, False

    @property
    def _is_out_of_date(self) -> bool:
        """Whether numbers behind the tail that we know of may have been taken and freed since."""
        return self._clock.elapsed() - self._tail_known_at >= GRACE_S

    async def _try(self, attempt: _Attempt, patience: Patience, *, tried: bool) -> Header | Unavailable | None:
        """Try once. `None`: it is written. A header: somebody else's part is there. An error: not known yet."""
        try:
            if await self._objects.create(f"{self._folder}/{part(attempt.seq).file_name}", attempt.data):
                return None
            patience.check()
            there = await self._standing_at(attempt.seq)
        except Unavailable as error:
            return error
        except Invalid:
            # The store will never take it, and must not be asked for ever; unless it has taken it before.
            if tried and await self._is_ours(attempt):
                return None
            self._unresolved = None
            raise
        if there is None:
            return Unavailable(
                f"the store says that part {attempt.seq} of {self._folder} exists, but does not show it",
                hint="a concurrent write may be going on; it is safe to try again",
            )
        return None if there.write_id == attempt.header.write_id else there

    async def _is_ours(self, attempt: _Attempt) -> bool:
        there = await self._standing_at(attempt.seq)
        return there is not None and there.write_id == attempt.header.write_id

    async def _standing_at(self, seq: int) -> Header | None:
        try:
            found = await read_part(self._objects, self._folder, part(seq))
        except Corrupt:
            # Our own parts are written whole or not at all, so this one is not ours. A guest's entries are
            # kept by going one further, and readers report the damage; a claimed writer cannot rule out
            # that a fence stood here.
            if self._epoch:
                raise
            return Header(Span(seq, seq), "data", 0, "", _UNREADABLE, 0, 0)
        return None if found is None else found.header

    def _go_further(self, attempt: _Attempt, other: Header) -> _Attempt:
        """Return the attempt at the next number: this one holds something else, so our bytes took no effect.

        That a number is taken does not tell that the next one was never freed, so what we know of the tail is as old
        as it was.
        """
        self._unresolved = None
        self._stop_if_overtaken(other, attempt.header.kind, after=attempt.seq - 1)
        self._observer.passed(self._folder, None if other.write_id == _UNREADABLE else other)
        self._tail = attempt.seq
        return self._moved(attempt, attempt.seq + 1)

    async def _catch_up(self, attempt: _Attempt) -> _Attempt:
        """Go to the tail at once, when there is much history between it and us, or none that a claim can trust.

        A number can have been a newer claim's fence, freed and taken again by a late guest, so a claimed writer that
        has not known the tail for long believes what the segments say, not what stands there.
        """
        looked_at = self._clock.elapsed()
        spans = uncovered(await list_spans(self._objects, self._folder))
        ahead = [span for span in spans if span.last >= attempt.seq - 1]
        if self._yields and not await self._may_pass(ahead, attempt):
            raise Unavailable(f"{self._folder} changed while it was looked at", hint="it is safe to try again")
        if not ahead:
            return attempt
        self._learn(max(span.last for span in ahead), looked_at)
        return self._moved(attempt, max(span.last for span in ahead) + 1)

    async def _may_pass(self, ahead: Sequence[Span], attempt: _Attempt) -> bool:
        """Tell whether all of these could be read, and none is missing. Raises if one of them ends our claim."""
        if len(adjoining(ahead)) != 1 or ahead[0].first > attempt.seq - 1:
            return False
        for span, stored in zip(ahead, await self._objects.get_many(self._keys(ahead)), strict=True):
            if stored is None:  # freed in between: whether it was a fence is told by what covers it
                return False
            header = decode_object(stored.data, self._folder, span).header
            self._stop_if_overtaken(header, attempt.header.kind, after=attempt.seq - 2)
        return True

    def _keys(self, spans: Sequence[Span]) -> list[str]:
        return [f"{self._folder}/{span.file_name}" for span in spans]

    def _moved(self, attempt: _Attempt, seq: int) -> _Attempt:
        return self._attempt(seq, attempt.header.kind, attempt.batch, attempt.header.write_id)

    async def _took_a_freed_number(self, attempt: _Attempt, known_at: float, patience: Patience) -> _Attempt | None:
        """Return the attempt to make instead if this one took a number that others had taken and freed before.

        The last number of a log is never freed, so a part that turns out to be the last is where it should be, and
        one listing tells. Only if there is more behind it, or over it, the log has to be read. What took longer than
        our patience may be out of date itself; then the attempt stays unresolved.
        """
        if not self._is_out_of_date:
            self._learn(attempt.seq, known_at)
            return None
        looked_at = self._clock.elapsed()
        spans = await patience.insist(partial(list_spans, self._objects, self._folder))
        patience.check()
        if spans and max(spans, key=lambda span: (span.last, span.segment)) == part(attempt.seq):
            self._learn(attempt.seq, looked_at)
            return None
        return await self._look_for(attempt, patience)

    async def _look_for(self, attempt: _Attempt, patience: Patience) -> _Attempt | None:
        """Read the log. Return the attempt to make instead, or `None` if what we attempted is in it."""
        looked_at = self._clock.elapsed()
        log = await patience.insist(partial(read, self._objects, self._folder, at_least=attempt.seq))
        patience.check()
        self._learn(log.tail, looked_at)
        overtaken = self._yields and (self._is_taken_over(log) or log.start > attempt.seq)
        stopped = self._stopped("a newer claim", log.epoch) if overtaken else None
        if log.has(attempt.header.write_id):
            return None  # it is in, and to say so is the truth; whoever was overtaken since stops at the next append
        self._unresolved = None
        if stopped is not None:
            raise stopped
        return self._moved(attempt, log.tail + 1)

    def _stop_if_overtaken(self, other: Header, wanted: Kind, *, after: int) -> None:
        """Raise `Fenced` if a part, or one of those in a segment, ends this writer's claim.

        Args:
            other: What was found.
            wanted: What this writer wants to append.
            after: The number up to which parts are known.
        """
        for epoch, _, _, kind in other.notes[max(after + 1 - other.span.first, 0) :]:
            if self._is_overtaken_by(epoch, kind, wanted):
                raise self._stopped("" if other.span.segment else other.writer, epoch)

    def _is_overtaken_by(self, epoch: int, kind: str, wanted: Kind) -> bool:
        """Tell whether another's part ends this writer's claim: a newer claim, a deletion that it did not begin
        after, or an equal claim's fence.

        A registry that was restored from an older copy gives an epoch a second time. The claim that opened the log
        last is the one it knows of, so a fence goes behind an equal one, and entries do not. Nor is a deletion held
        up by that.
        """
        deleted = kind == "truncate" and wanted != "fence"
        equal = kind == "fence" and epoch == self._epoch and wanted == "data"
        return self._yields and (epoch > self._epoch or deleted or equal)

    def _is_taken_over(self, log: Log) -> bool:
        """Tell whether a newer claim stands in a log, or an equal one behind our fence, if that stands already."""
        if log.epoch != self._epoch or not self._fence_seq:
            return log.epoch > self._epoch
        return any(
            (epoch, kind) == (self._epoch, "fence")
            for part in log.parts
            for epoch, _, _, kind in part.header.notes[max(self._fence_seq + 1 - part.header.span.first, 0) :]
        )

    def _stopped(self, by: str, epoch: int) -> Fenced:
        self._fenced = Fenced(
            f"{by or 'another worker'} has taken over {self._folder} with epoch {epoch}",
            hint="stop; the work goes on there",
        )
        return self._fenced


def _clipped(name: str) -> str:
    name = name[:WRITER_BYTES]
    while len(json.dumps(name)) > WRITER_BYTES:
        name = name[:-1]
    return name
