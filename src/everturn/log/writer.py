"""Writing a log: every number is taken once, and only what is provably ours counts as written.

The argument, in short. Parts are created, never overwritten, at the number after the last one the writer knows of.
If the number turns out to be taken, the part that stands there decides: it is ours (an earlier attempt that took
effect without our hearing of it), or a newer owner's (we are fenced), or simply history, and we go one further.
If we do not hear at all, the same bytes go to the same number again until we do; an append that runs out of time
leaves its attempt behind, and the next call settles that first. So an entry is never written twice and an
acknowledged one is never lost (docs/format.md, section 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from everturn.clock import Clock, Ids
from everturn.errors import Corrupt, Fenced, Unavailable
from everturn.log.entries import encode_lines
from everturn.log.format import Header, Kind, decode, encode_part
from everturn.log.names import Span, part
from everturn.log.objects import Objects
from everturn.log.reader import Log, list_spans, read, read_part

BACKOFF_START_S = 0.1
BACKOFF_LIMIT_S = 2.0


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

    entries: Sequence[Any]
    header: Header
    data: bytes

    @property
    def seq(self) -> int:
        return self.header.span.first

    def is_for(self, entries: Sequence[Any], kind: Kind) -> bool:
        """Tell whether it writes the same batch. Compares lines: entries may be too deep for `==`."""
        lines = decode(self.data, self.header.span).lines
        return self.header.kind == kind and lines == encode_lines(entries)[0]


class LogWriter:
    """Appends to one log. Not for concurrent use: the caller takes turns.

    Args:
        objects: Where the log is.
        folder: The log's folder.
        clock: For deadlines and waiting times.
        ids: For write ids and jitter.
        observer: Is told what happens.
        epoch: 0 for a guest. From 1 on, call `open` first.
        writer: A name for people.
        deadline_s: How long one append may take. Give-up comes as `Unavailable`.
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
        self._writer = writer
        self._deadline_s = deadline_s
        self._tail: int | None = None
        self._unresolved: _Attempt | None = None

    @property
    def tail(self) -> int | None:
        """The last number this writer knows to be taken; `None` before it has looked."""
        return self._tail

    async def open(self) -> Log:
        """Write the fence of this writer's epoch, then read the log.

        In this order: what is returned can no longer change behind the caller's back, but for guests.

        Raises:
            Fenced: The log has seen a higher epoch already.
        """
        await self._append((), "fence")
        log = await read(self._objects, self._folder)
        for newer in log.parts:
            if newer.header.epoch > self._epoch:
                raise self._fenced(newer.header)
        return log

    async def append(self, entries: Sequence[Any]) -> int:
        """Append entries as one part. On return they are durable. No entries, no part.

        Returns:
            The part's number.

        Raises:
            Invalid: An entry is not a JSON value. Nothing was written.
            Fenced: A newer owner has taken over, or the log was deleted under a claimed writer.
            Unavailable: The store did not settle the write in time. Calling again with the same entries is safe.
            Corrupt: A claimed writer cannot read the part that took its number.
        """
        if not entries:
            return self._tail or 0
        return await self._append(entries, "data")

    async def truncate(self) -> int:
        """Append the mark that deletes everything before it, and return its number."""
        return await self._append((), "truncate")

    async def _append(self, entries: Sequence[Any], kind: Kind) -> int:
        started = self._clock.elapsed()
        try:
            left_over = self._unresolved
            if left_over is not None:
                seq = await self._settle(left_over, started)
                if left_over.is_for(entries, kind):
                    return seq
            if self._tail is None:
                self._tail = await self._find_tail()
            return await self._settle(self._attempt(self._tail + 1, kind, entries, self._ids.token()), started)
        except Unavailable as error:
            self._observer.failed(self._folder, len(entries), error)
            raise

    def _attempt(self, seq: int, kind: Kind, entries: Sequence[Any], write_id: str) -> _Attempt:
        return _Attempt(
            entries,
            *encode_part(seq, entries, epoch=self._epoch, writer=self._writer, write_id=write_id, kind=kind),
        )

    async def _find_tail(self) -> int:
        return max((span.last for span in await list_spans(self._objects, self._folder)), default=0)

    async def _settle(self, attempt: _Attempt, started: float) -> int:
        """Bring an attempt to its end: at its own number, or at the first one after it that is free."""
        backoff_s = BACKOFF_START_S
        while True:
            self._unresolved = attempt
            problem = await self._try(attempt)
            if isinstance(problem, Header):
                self._unresolved = None  # the number holds something else: these bytes did not take effect
                attempt = self._after(attempt, problem)
                continue
            if problem is None:
                self._settled(attempt, started)
                return attempt.seq
            if self._clock.elapsed() - started + backoff_s > self._deadline_s:
                raise problem
            await self._objects.wait(backoff_s / 2 + self._ids.jitter(backoff_s / 2))
            backoff_s = min(backoff_s * 2, BACKOFF_LIMIT_S)

    async def _try(self, attempt: _Attempt) -> Header | Unavailable | None:
        """Try once. `None`: it is written. A header: somebody else's part stands there. An error: not known yet."""
        try:
            if await self._objects.create(f"{self._folder}/{part(attempt.seq).file_name}", attempt.data):
                return None
            there = await self._standing_at(attempt.seq)
        except Unavailable as error:
            return error
        if there is None:
            return Unavailable(
                f"the store says that part {attempt.seq} of {self._folder} exists, but does not show it",
                hint="a concurrent write may be going on; it is safe to try again",
            )
        return None if there.write_id == attempt.header.write_id else there

    async def _standing_at(self, seq: int) -> Header | None:
        try:
            found = await read_part(self._objects, self._folder, part(seq))
        except Corrupt:
            # Our own parts are written whole or not at all, so this one is not ours. A guest's entries are
            # kept by going one further, and readers report the damage; a claimed writer cannot rule out
            # that a fence stood here.
            if self._epoch:
                raise
            self._observer.passed(self._folder, None)
            return Header(Span(seq, seq), "data", 0, "", "", 0, 0)
        return None if found is None else found.header

    def _after(self, attempt: _Attempt, other: Header) -> _Attempt:
        if self._epoch and (other.epoch > self._epoch or other.kind == "truncate"):
            raise self._fenced(other)
        self._observer.passed(self._folder, other)
        self._tail = attempt.seq
        return self._attempt(attempt.seq + 1, attempt.header.kind, attempt.entries, attempt.header.write_id)

    def _fenced(self, other: Header) -> Fenced:
        return Fenced(
            f"{other.writer or 'another worker'} has taken over {self._folder} with epoch {other.epoch}",
            hint="stop; the work goes on there",
        )

    def _settled(self, attempt: _Attempt, started: float) -> None:
        self._unresolved = None
        self._tail = attempt.seq
        seconds = self._clock.elapsed() - started
        self._observer.wrote(self._folder, attempt.header, len(attempt.data), seconds)
