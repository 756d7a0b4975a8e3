"""Mirrors are kept up to date with the journals in the store, or rebuilt from them (docs/mirrors.md)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass

from everturn.errors import Corrupt
from everturn.journal.reading import Journals, Lines, RunRef, lines_of
from everturn.log.objects import run
from everturn.log.reader import Log
from everturn.mirrors.base import Batch, Checkpoint, Folding, Mirror, Reason
from everturn.telemetry import Metrics, default_metrics

READERS = 8


@dataclass(frozen=True, slots=True)
class Progress:
    """How far keeping up has come.

    Attributes:
        runs: How many runs have been folded.
        runs_to_do: How many there are to fold.
        events: How many events have been read.
        size_bytes: How large they are in the store's parts, decompressed.
        unreadable: How many lines were no events.
        damaged: What is wrong with journals that cannot be read whole, a sentence for each. What could be read of
            them before is in the mirror; they are tried again the next time.
        reason: Why the mirror is rebuilt, if it is.
    """

    runs: int = 0
    runs_to_do: int = 0
    events: int = 0
    size_bytes: int = 0
    unreadable: int = 0
    damaged: tuple[str, ...] = ()
    reason: Reason | None = None


Told = Callable[[Progress], None]
IsLive = Callable[[RunRef], bool]


def nowhere(_: RunRef) -> bool:
    """Tell that no run has a journal on this machine."""
    return False


def catch_up(
    journals: Journals,
    mirror: Mirror,
    *,
    told: Told | None = None,
    is_live: IsLive = nowhere,
    metrics: Metrics | None = None,
) -> Progress:
    """Fold what is new in the store, or rebuild the mirror if it cannot be used.

    It may be killed at any moment; the next one goes on from there.

    Args:
        journals: The journals.
        mirror: What to keep up to date.
        told: Is told how far it has come.
        is_live: Tells whether a run has a journal on this machine: of such a run, the store need not know all yet.
        metrics: What is counted.

    Raises:
        EverturnError: The store or the mirror failed. What was folded stays.
    """
    reason = mirror.unusable()
    if reason is not None:
        return rebuild(journals, mirror, reason=reason, told=told, is_live=is_live, metrics=metrics)
    return _Keeping(journals, mirror, told, is_live, metrics or default_metrics(), None).keep_up()


def rebuild(  # as `catch_up`, and why
    journals: Journals,
    mirror: Mirror,
    *,
    reason: Reason = "asked",
    told: Told | None = None,
    is_live: IsLive = nowhere,
    metrics: Metrics | None = None,
) -> Progress:
    """Purge a mirror and replay all journals into it. Whoever asks it meanwhile gets answers from the old one.

    Args:
        journals: The journals.
        mirror: What to rebuild.
        reason: Why.
        told: Is told how far it has come.
        is_live: See `catch_up`.
        metrics: What is counted.

    Raises:
        EverturnError: The store or the mirror failed. The old one is there as before.
    """
    with mirror.rebuilding(reason) as fresh:
        if fresh is not None:
            keeping = _Keeping(journals, fresh, told, nowhere, metrics or default_metrics(), reason)
            return keeping.keep_up()
    return catch_up(journals, mirror, told=told, is_live=is_live, metrics=metrics)  # somebody else has rebuilt it


def follow(
    journals: Journals, mirror: Mirror, runs: Sequence[Checkpoint], *, metrics: Metrics | None = None
) -> Progress:
    """Fold what is new of some runs, and ask the store for nothing else: a listing for each.

    Args:
        journals: The journals.
        mirror: What to keep up to date. It has to be usable.
        runs: The runs, and how far they are folded. None of them may have a journal on this machine.
        metrics: What is counted.

    Raises:
        EverturnError: The store or the mirror failed. What was folded stays.
    """
    return _Keeping(journals, mirror, None, nowhere, metrics or default_metrics(), None).do(runs)


class _Damaged(Exception):
    """A journal cannot be read whole. That is no reason to keep others out of the mirror."""


class _Keeping:
    def __init__(
        self,
        journals: Journals,
        folding: Folding,
        told: Told | None,
        is_live: IsLive,
        metrics: Metrics,
        reason: Reason | None,
    ) -> None:
        self._journals = journals
        self._folding = folding
        self._told = told
        self._is_live = is_live
        self._metrics = metrics
        self._reason = reason
        self._damaged: list[str] = []
        self._runs = self._runs_to_do = self._events = self._size_bytes = self._unreadable = 0

    def keep_up(self) -> Progress:
        """Do all there is to do."""
        tails = only_first(run(self._journals.tails()))
        known = self._folding.checkpoints()
        gone = {ref for ref, done in known.items() if self._is_gone(done, tails.get(ref, 0))}
        if gone:
            self._folding.forget(gone)
            known = {ref: done for ref, done in known.items() if ref not in gone}
        wanted = {
            ref: known[ref] if ref in known else Checkpoint(ref, 0)
            for ref, tail in tails.items()
            if ref not in known or known[ref].part < tail
        }
        return self.do(list(wanted.values()))

    def do(self, wanted: Sequence[Checkpoint]) -> Progress:
        """Do what there is to do for some runs."""
        self._runs_to_do = len(wanted)
        self._tell()
        for done, fetched in self._fetched(wanted):
            try:
                self._take(done, fetched)
            except _Damaged as damaged:
                self._damaged.append(str(damaged))
            self._runs += 1
            self._tell()
        return self._progress()

    def _is_gone(self, done: Checkpoint, tail: int) -> bool:
        """Tell whether a run, or some of what was folded of it, is in the store no more, nor on this machine."""
        is_ahead = tail < done.part or (tail == done.part and done.seq > done.stored_seq)
        return is_ahead and not self._is_live(done.ref)

    def _fetched(self, wanted: Iterable[Checkpoint]) -> Iterator[tuple[Checkpoint, Future[Log]]]:
        """Yield runs in their order; several are fetched ahead."""
        waiting: deque[tuple[Checkpoint, Future[Log]]] = deque()
        with ThreadPoolExecutor(READERS, "everturn-mirror-read") as pool:
            try:
                for done in wanted:
                    waiting.append((done, pool.submit(copy_context().run, self._fetch, done.ref, done.part)))
                    if len(waiting) > READERS:
                        yield waiting.popleft()
                while waiting:
                    yield waiting.popleft()
            finally:
                pool.shutdown(cancel_futures=True)

    def _fetch(self, ref: RunRef, after: int) -> Log:
        with _naming_damage():
            return run(self._journals.fetch(ref, after=after))

    def _take(self, done: Checkpoint, fetched: Future[Log]) -> None:
        log = fetched.result()
        if not log.parts and log.tail <= done.part:
            return
        anew = Checkpoint(done.ref, 0)
        if done.seq and log.start > done.part + 1:  # it was deleted: what it says now is all it says
            self._folding.forget([done.ref])
            self._fold(anew, log)
        elif not self._fold(done, log):
            self._folding.forget([done.ref])
            self._fold(anew, self._fetch(done.ref, 0))

    def _fold(self, done: Checkpoint, log: Log) -> bool:
        self._size_bytes += sum(part.header.size for part in log.parts)
        after = done.part
        found = lines_of(log, after=done.part, first=done.stored_seq + 1)
        try:
            while (lines := _next(found)) is not None:
                self._note(len(lines.lines), lines.unreadable)
                batch = Batch(done.ref, lines.lines, part=lines.part, after=after, more=lines.more)
                if not self._folding.fold(batch):
                    return False
                after = lines.part
        except _Damaged:
            self._folding.fold(Batch(done.ref, [], part=after, after=after))  # nothing follows: it may be kept now
            raise
        return bool(log.parts) or self._folding.fold(Batch(done.ref, [], part=log.tail, after=after))

    def _note(self, events: int, unreadable: int) -> None:
        self._events += events
        if unreadable:
            self._unreadable += unreadable
            self._metrics.mirror_events.labels("unreadable").inc(unreadable)

    def _progress(self) -> Progress:
        return Progress(
            runs=self._runs,
            runs_to_do=self._runs_to_do,
            events=self._events,
            size_bytes=self._size_bytes,
            unreadable=self._unreadable,
            damaged=tuple(self._damaged),
            reason=self._reason,
        )

    def _tell(self) -> None:
        if self._told is not None:
            self._told(self._progress())


def _next(found: Iterator[Lines]) -> Lines | None:
    with _naming_damage():
        return next(found, None)


@contextmanager
def _naming_damage() -> Iterator[None]:
    try:
        yield
    except Corrupt as error:
        raise _Damaged(error.message) from error


def behind(journals: Journals, mirror: Mirror) -> int:
    """Return of how many runs the store has more than the mirror. One listing.

    Raises:
        EverturnError: The store or the mirror cannot be read.
    """
    known = mirror.checkpoints()
    tails = only_first(run(journals.tails()))
    return sum(1 for ref, tail in tails.items() if ref not in known or known[ref].part < tail)


def only_first(tails: dict[RunRef, int]) -> dict[RunRef, int]:
    """Leave out copies: runs go by their ids, and of several scopes that have one of this id the first counts."""
    found: dict[str, RunRef] = {}
    for ref in sorted(tails):
        found.setdefault(ref.run_id, ref)
    return {ref: tails[ref] for ref in found.values()}
