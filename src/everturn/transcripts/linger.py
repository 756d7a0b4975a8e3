"""Frames that wait a moment for each other, so that they share one object: cheaper, and no longer durable at once.

Entries that were handed over and not yet written live in this process alone. They count as unstored until they are
in the store. What could not be written is kept, in order, and tried again with what comes next.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from everturn.clock import Clock
from everturn.errors import Unavailable
from everturn.log.background import start_thread
from everturn.log.entries import encode
from everturn.log.objects import run
from everturn.log.patience import Patience
from everturn.telemetry import carrying_run
from everturn.transcripts.backlog import NEVER, Append, Backlog, Batch, Queue, Refused
from everturn.transcripts.ledger import Ledger
from everturn.transcripts.session_logs import Target

FULL_ENTRIES = 500
FULL_BYTES = 1 << 20


class Linger(Backlog):
    """Collects entries for up to `linger_s` and appends them together.

    Args:
        append: Appends a batch to a log.
        patience: See `Backlog`.
        linger_s: How long entries wait at most, unless the store is away.
        clock: Tells how long they have waited.
        ledger: Keeps the account of what is not stored.
        refused: See `Backlog`.
        in_order: See `Backlog`.
    """

    def __init__(
        self,
        append: Append,
        *,
        patience: Callable[[], Patience],
        linger_s: float,
        clock: Clock,
        ledger: Ledger,
        refused: Refused,
        in_order: bool,
    ) -> None:
        super().__init__(append, patience=patience, ledger=ledger, refused=refused, in_order=in_order)
        self._linger_s = linger_s
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._closing = False
        self._at_exit = carrying_run(self._flush_at_exit)  # kept: what is taken back has to be what was given

    async def append(self, target: Target, entries: list[Any]) -> None:
        """Take entries, to be written soon. They are not durable on return, unless it was closed before.

        Raises:
            Invalid: An entry is not a JSON value. None was taken.
            Unavailable: The store has been away for so long that no more can be held. None was taken.
        """
        size_bytes = len(encode(entries).lines)
        with self._changed:
            closed = self._closing
            if not closed:
                batch = self._put_in(target, entries, size_bytes)
        if closed:  # nobody would come back for them
            await super().append(target, entries)
        elif _is_full(batch):
            self._try_to_write(target)

    async def close(self) -> None:
        """Write everything that waits and end the thread. What comes later is written as it comes."""
        with self._changed:  # first: what comes while we flush has to be written by whoever brings it
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()
        await self.flush()

    def _put_in(self, target: Target, entries: list[Any], size_bytes: int) -> Batch:
        """Add entries to the batch that grows."""
        queue = self._queue(target)
        self._refuse_if_full(target, queue, entries)
        batch = _growing(queue)
        if batch is None:
            batch = Batch()
            queue.batches.append(batch)
            queue.due = self._clock.elapsed() + self._linger_s
        batch.entries += entries
        batch.size_bytes += size_bytes
        self._ledger.failed(batch.entries, None)
        self._watch()
        return batch

    def _next(self, queue: Queue) -> Batch | None:
        with self._changed:
            queue.due = self._clock.elapsed() + self._linger_s
            return super()._next(queue)

    def _watch(self) -> None:
        if self._thread is None and not self._closing:
            atexit.register(self._at_exit)
            self._thread = start_thread(self._write_when_due, "everturn-linger")

    def _write_when_due(self) -> None:
        while True:
            with self._changed:
                waiting = {
                    target: queue.due for target, queue in self._queues.items() if queue.batches and queue.due < NEVER
                }
                if self._closing or not waiting:
                    self._thread = None
                    if not any(queue.batches for queue in self._queues.values()):
                        atexit.unregister(self._at_exit)
                    return
                target = min(waiting, key=lambda each: waiting[each])
                left_s = waiting[target] - self._clock.elapsed()
                if left_s > 0:
                    self._changed.wait(left_s)
                    continue
            self._try_to_write(target)

    def _try_to_write(self, target: Target) -> None:
        try:
            run(self._write(target))
        except Unavailable:
            return  # counted and logged where it happened; tried again after another while
        except Exception:  # noqa: BLE001  # the thread has other logs to write
            with self._changed:  # it will not go away by itself: whoever flushes is told
                self._queues[target].due = NEVER

    def _flush_at_exit(self) -> None:
        # What goes wrong is counted and logged where it happens; a store that is away is asked for one log only.
        with suppress(Exception):
            run(self.flush())


def _growing(queue: Queue) -> Batch | None:
    """Return the batch that still grows, if there is one."""
    return queue.batches[-1] if queue.batches and not queue.batches[-1].tried else None


def _is_full(batch: Batch) -> bool:
    return len(batch.entries) >= FULL_ENTRIES or batch.size_bytes >= FULL_BYTES
