"""Does what webhooks ask for, one after the other, until each is done.

A webhook is done at least once and noted once: the worker may be killed between the two, and then it is done again by
the next one, which finds nothing left to do. Whoever has the lock beside the logbook is the worker; those of other
processes stand by. The kernel frees the lock when its process is gone.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol, get_args

from everturn.clock import Clock, Ids
from everturn.errors import EverturnError
from everturn.forges.base import Happening, Kind
from everturn.git import locks
from everturn.housekeeping.removal import Fate
from everturn.logbook.entries import DeliveryEntry, Done
from everturn.logbook.logbook import Logbook
from everturn.telemetry import Metrics, get_logger

TICK_S = 1.0  # another process may have accepted something, or the worker may be gone
BATCH = 500
LOOK_S = 10.0  # for how long a look is good
FIRST_RETRY_S, LAST_RETRY_S = 15.0, 300.0
GIVE_UP_S = 86_400.0
LAST_PAUSE_S = 60.0

_AGAIN = "it is tried again: {}"


class Freed(Protocol):
    """What came of an attempt."""

    @property
    def fates(self) -> Sequence[Fate]:
        """What became of what."""

    @property
    def waiting(self) -> Sequence[str]:
        """What has to end first, for people."""


class Freeing(Protocol):
    """What the worker needs of `housekeeping.freeing.Freeing`. It may be asked for the same again and again."""

    def look(self) -> Any:
        """Return what there is that could be freed."""

    def free(self, happening: Happening, holdings: Any) -> Freed:
        """Free what a happening has ended."""


class DeliveryWorker:
    """The worker: one thread.

    Args:
        logbook: Where webhooks are queued.
        freeing: Does what they ask for.
        metrics: What is counted.
        clock: Tells when to try again.
        ids: Spreads that a little.
    """

    def __init__(self, logbook: Logbook, freeing: Freeing, metrics: Metrics, clock: Clock, ids: Ids) -> None:
        self._logbook = logbook
        self._attempts = _Attempts(freeing, clock, ids)
        self._metrics = metrics
        self._clock = clock
        self._log = get_logger()
        self._thread = threading.Thread(target=self._work, name="everturn-deliveries", daemon=True)
        self._woken, self._stopping = threading.Event(), threading.Event()
        self._failures = 0

    def start(self) -> None:
        """Begin. Once."""
        self._thread.start()

    def wake(self) -> None:
        """Look for work at once. Without it, the worker looks every second."""
        self._woken.set()

    def stop(self, timeout_s: float) -> bool:
        """End after the delivery that is being done; the others stay queued.

        Args:
            timeout_s: How long to wait for that.

        Returns:
            Whether it has ended. If not, it will, unless the process ends first.
        """
        self._stopping.set()
        self._woken.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        lock: locks.Lock | None = None
        try:
            while not self._stopping.is_set():
                self._woken.clear()
                try:
                    lock = lock or self._take_turn()
                    more = lock is not None and self._do_some()
                    self._show()
                except Exception as error:  # noqa: BLE001 - it is told; without this thread nothing would be done
                    self._pause(error)
                    continue
                self._failures = 0
                if not more:
                    self._woken.wait(TICK_S)
        finally:
            if lock is not None:
                lock.release()

    def _take_turn(self) -> locks.Lock | None:
        path = self._logbook.path
        path.parent.mkdir(parents=True, exist_ok=True)
        return locks.take(path.with_name(f"{path.name}.worker"), clock=self._clock)

    def _pause(self, error: Exception) -> None:
        """Wait longer each time that the logbook cannot be used. Nobody wakes us: nothing would be better."""
        if not self._failures:
            self._log.warning("deliveries_stuck", error=str(error))
        self._failures += 1
        self._stopping.wait(min(TICK_S * 2.0 ** min(self._failures, 10), LAST_PAUSE_S))

    def _show(self) -> None:
        waiting, now = self._logbook.deliveries.waiting(), self._clock.now()
        self._metrics.deliveries_waiting.set(waiting.count)
        self._metrics.oldest_delivery_seconds.set(max(0.0, now - waiting.oldest_at) if waiting.oldest_at else 0)

    def _do_some(self) -> bool:
        """Do what is due, and return whether there may be more."""
        batch = self._logbook.deliveries.due(self._clock.now(), BATCH)
        if not batch:
            return False
        began_s = self._clock.elapsed()
        look = self._attempts.look()
        tried: list[tuple[DeliveryEntry, Done]] = []
        for entry in batch:
            if self._stopping.is_set() or self._clock.elapsed() - began_s > LOOK_S:
                break
            done = self._attempts.attempt(entry, look)
            tried.append((entry, done))
            if done.freed > entry.freed:
                self._note(tried)
                tried = []
        else:
            self._note(tried)
            return len(batch) == BATCH
        self._note(tried)
        return True

    def _note(self, tried: Sequence[tuple[DeliveryEntry, Done]]) -> None:
        if not tried:
            return
        self._logbook.deliveries.finish([done for _, done in tried]).result()
        for entry, done in tried:
            self._tell(entry, done)

    def _tell(self, entry: DeliveryEntry, done: Done) -> None:
        about = {"forge": entry.forge, "delivery": entry.delivery_id, "kind": entry.event}
        if done.state == "failed":
            self._metrics.deliveries.labels("failed").inc()
            self._log.warning("delivery_failed", **about, error=done.details[-1])
        elif done.state == "done":
            self._metrics.deliveries.labels("freed" if done.freed else "nothing").inc()
            if done.freed:
                self._log.info("delivery_done", **about, freed=done.freed)
        elif done.failing_since is not None and entry.failing_since is None:
            self._log.warning("delivery_put_off", **about, error=done.details[-1])


class _Unreadable(Exception):
    """It was noted by another release."""


class _Attempts:
    """Tries to do what webhooks ask for. Whatever goes wrong, something can be noted."""

    def __init__(self, freeing: Freeing, clock: Clock, ids: Ids) -> None:
        self._freeing = freeing
        self._clock = clock
        self._ids = ids

    def look(self) -> Any:
        """Return what there is to free, or the error that it could not be seen for."""
        try:
            return self._freeing.look()
        except Exception as error:  # noqa: BLE001 - it is noted with each of those that have to wait for it
            return error

    def attempt(self, entry: DeliveryEntry, look: Any) -> Done:
        """Do what a webhook asks for, and return what came of it."""
        try:
            happening = _happening(entry)
        except _Unreadable as error:
            return self._failed(entry, str(error))
        if isinstance(look, Exception):
            return self._put_off(entry, look)
        try:
            freed = self._freeing.free(happening, look)
        except Exception as error:  # noqa: BLE001 - it is tried again, noted and told
            return self._put_off(entry, error)
        return self._judged(entry, freed)

    def _judged(self, entry: DeliveryEntry, freed: Freed) -> Done:
        gone = (*_kept(entry), *(fate.told() for fate in freed.fates if fate.action != "kept"))
        if freed.waiting:
            waits = tuple(_AGAIN.format(each) for each in freed.waiting)
            return Done(entry.number, "waiting", (*gone, *waits), self._next_at(entry), freed=len(gone))
        rest = tuple(fate.told() for fate in freed.fates if fate.action == "kept")
        return Done(entry.number, "done", (*gone, *rest), freed=len(gone))

    def _put_off(self, entry: DeliveryEntry, error: Exception) -> Done:
        now = self._clock.now()
        since = now if entry.failing_since is None else entry.failing_since
        text = str(error) if isinstance(error, EverturnError) else f"{type(error).__name__}: {error}"
        if now - since >= GIVE_UP_S:
            return self._failed(entry, f"given up after a day: {text}", since)
        details = (*_kept(entry), _AGAIN.format(text))
        return Done(entry.number, "waiting", details, self._next_at(entry), entry.freed, since)

    def _failed(self, entry: DeliveryEntry, why: str, since: float | None = None) -> Done:
        return Done(entry.number, "failed", (*_kept(entry), why), freed=entry.freed, failing_since=since)

    def _next_at(self, entry: DeliveryEntry) -> float:
        delay_s = min(FIRST_RETRY_S * 2.0 ** min(entry.attempts, 10), LAST_RETRY_S)
        return self._clock.now() + delay_s - self._ids.jitter(delay_s / 10)


def _happening(entry: DeliveryEntry) -> Happening:
    try:
        happening = Happening.of(entry.facts or {})
    except TypeError as error:
        raise _Unreadable(f"this release cannot read what was noted: {error}") from error
    if happening.kind not in get_args(Kind):
        raise _Unreadable(f"this release does not know what to do if {happening.kind!r}")
    return happening


def _kept(entry: DeliveryEntry) -> tuple[str, ...]:
    return entry.details[: entry.freed]
