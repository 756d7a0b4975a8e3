"""What could not be appended, kept in order: nothing overtakes it, and nothing of it is written twice.

The SDK tries a batch three times, drops it, and goes on with the next one. Were that one stored, the dropped one
could never be put in its place again, and the conversation would be broken there. So for the holder of a claim what
could not be appended is kept, and goes before whatever comes next for the same log.

What is held is bounded. Beyond that nothing more is taken for the log: what is stored is then a beginning of the
conversation without a hole, to which the rest can be appended from the agent's own file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from everturn.errors import EverturnError, Fenced, Invalid, Unavailable
from everturn.log.entries import encode
from everturn.log.patience import Patience
from everturn.transcripts.ledger import Ledger
from everturn.transcripts.session_logs import Target

HELD_BYTES = 64 << 20  # of one log, while the store is away
NEVER = float("inf")

Refused = Callable[[Target, int, EverturnError], None]


class Append(Protocol):
    """Appends a batch to a log, within the patience of the operation it belongs to if that has begun."""

    def __call__(
        self, target: Target, entries: list[Any], patience: Patience | None = None
    ) -> Coroutine[Any, Any, None]:
        """Append. On return the entries are durable."""


@dataclass
class Batch:
    """Entries that are appended together. It grows until the first attempt: one that is tried again has to be the
    same batch."""

    entries: list[Any] = field(default_factory=list)
    size_bytes: int = 0
    tried: bool = False

    def says(self, lines: bytes) -> bool:
        """Tell whether its entries are these."""
        return len(lines) == self.size_bytes and encode(self.entries).lines == lines


@dataclass
class Queue:
    """What waits for one log, and until when. With `gave_up`, something behind it was not taken.

    `stored_late` was stored by somebody else than who handed it over, and who may not know of it.
    """

    batches: list[Batch] = field(default_factory=list)
    due: float = 0.0
    gave_up: bool = False
    stored_late: list[Any] | None = None
    writing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_full(self) -> bool:
        """Whether no more is to be held."""
        return sum(batch.size_bytes for batch in self.batches) > HELD_BYTES


class Backlog:
    """Appends at once, and keeps what could not be appended.

    Args:
        append: Appends a batch to a log.
        patience: Returns the patience for one append, which what waits before it shares.
        ledger: Keeps the account of what is not stored.
        refused: Is told of entries that were not taken, as too much waits.
        in_order: Take nothing more for a log once something was not taken, until `take_again`.
    """

    def __init__(
        self,
        append: Append,
        *,
        patience: Callable[[], Patience],
        ledger: Ledger,
        refused: Refused,
        in_order: bool = True,
    ) -> None:
        self._append = append
        self._patience = patience
        self._ledger = ledger
        self._refused = refused
        self._in_order = in_order
        self._queues: dict[Target, Queue] = {}
        self._changed = threading.Condition()

    async def append(self, target: Target, entries: list[Any]) -> None:
        """Append entries, and what waits before them. On return they are durable.

        Raises:
            Invalid: An entry is not a JSON value. It was not taken.
            Fenced: A newer claim has taken over.
            EverturnError: They are not known to be durable. They are kept, unless too much is held already.
        """
        queue = self._queue(target)
        patience = self._patience()
        with queue.writing:
            if self._is_known_late(queue, entries):
                return
            if not queue.batches and not queue.gave_up:
                await self._append_at_once(target, queue, entries, patience)
                return
            self._put_behind(target, queue, entries)
            await self._write_waiting(target, queue, patience)
            queue.stored_late = None

    async def flush(self) -> None:
        """Write everything that waits. On return it is durable.

        Raises:
            EverturnError: The first thing that went wrong. What could not be written is kept. When the store does not
                answer for one log, the others are not tried: it would take as long for each of them.
        """
        failed: EverturnError | None = None
        for target in list(self._queues):
            try:
                await self._write(target)
            except Unavailable as error:
                raise failed or error from None
            except EverturnError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    async def close(self) -> None:
        """Write everything that waits."""
        await self.flush()

    def take_again(self, target: Target) -> None:
        """Take entries of a log again. For whoever appends first what was not taken, from elsewhere."""
        with self._changed:
            self._queue(target).gave_up = False

    def _is_known_late(self, queue: Queue, entries: list[Any]) -> bool:
        """Tell whether a batch that is handed over again was stored meanwhile: a flush came between two tries."""
        late, queue.stored_late = queue.stored_late, None
        return entries is late

    async def _append_at_once(self, target: Target, queue: Queue, entries: list[Any], patience: Patience) -> None:
        try:
            await self._append(target, entries, patience)
        except (Invalid, Fenced):
            raise
        except EverturnError:
            with self._changed:
                queue.batches.append(Batch(entries, len(encode(entries).lines), tried=True))
            raise

    def _put_behind(self, target: Target, queue: Queue, entries: list[Any]) -> None:
        """Let entries wait behind what waits, unless they are there already: whoever was refused tries again."""
        lines = encode(entries).lines
        with self._changed:
            if any(batch.entries is entries for batch in queue.batches):
                return
            if queue.batches and queue.batches[-1].says(lines):
                self._ledger.stored(queue.batches.pop().entries)  # from now on it goes by the name of the new list
            else:
                self._refuse_if_full(target, queue, entries)
            queue.batches.append(Batch(entries, len(lines), tried=True))
            self._ledger.failed(entries, None)

    def _refuse_if_full(self, target: Target, queue: Queue, entries: list[Any]) -> None:
        if not queue.gave_up and not queue.is_full:
            return
        if self._in_order:
            queue.gave_up = True
            self._ledger.gave_up(entries)
        error = Unavailable(f"{HELD_BYTES >> 20} MiB wait to be stored", hint="check that the store can be reached")
        self._refused(target, len(entries), error)
        raise error

    async def _write(self, target: Target) -> None:
        queue = self._queue(target)
        with queue.writing:
            await self._write_waiting(target, queue, None)

    async def _write_waiting(self, target: Target, queue: Queue, patience: Patience | None) -> None:
        """Write what waits for a log, in order. The caller has the queue's turn."""
        while (batch := self._next(queue)) is not None:
            if patience is not None:
                patience.check()
            try:
                await self._append(target, batch.entries, patience)
            except Invalid:
                with self._changed:  # the store will never take it; the ledger goes on counting it
                    queue.batches.pop(0)
                raise
            with self._changed:
                queue.stored_late = queue.batches.pop(0).entries

    def _next(self, queue: Queue) -> Batch | None:
        with self._changed:
            if not queue.batches:
                return None
            queue.batches[0].tried = True
            return queue.batches[0]

    def _queue(self, target: Target) -> Queue:
        return self._queues.setdefault(target, Queue())
