"""Going on with what comes: from the store, whoever writes there, and from the runs of this machine at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event

from everturn.cli.journal import words
from everturn.cli.journal.events import EventPrinter
from everturn.cli.output import EXIT_FAILED, EXIT_INTERRUPTED, complain
from everturn.conversations.runs import Named, Runs
from everturn.conversations.story import facts_of, in_order
from everturn.conversations.turning import last_turns
from everturn.errors import EverturnError, Unavailable
from everturn.journal.lines import Recorded
from everturn.journal.reading import RunJournal, RunRef
from everturn.log.background import start_thread
from everturn.log.objects import run

LOCAL_S = 0.1  # how often to look at the files of this machine
OLD_ROUNDS = 10  # an older run without an end is asked for this rarely: its worker may have more to store


@dataclass(slots=True)
class _Seen:
    """How much of a run was printed."""

    last: int = 0
    missing: list[tuple[int, int]] = field(default_factory=list)

    def is_new(self, seq: int) -> bool:
        """Tell whether an event was not printed yet, and count it as printed."""
        if seq > self.last:
            self.last = seq
            return True
        for place, (first, last) in enumerate(self.missing):
            if first <= seq <= last:
                left = [(first, seq - 1), (seq + 1, last)]
                self.missing[place : place + 1] = [gap for gap in left if gap[0] <= gap[1]]
                return True
        return False


class Watcher:
    """Asks the store for what is new, in a thread of its own: it may take its time to answer.

    Args:
        runs: The journals.
        named: What to look at.
        interval_s: How long to wait between two rounds.
    """

    def __init__(self, runs: Runs, named: Named, interval_s: float) -> None:
        self.news: SimpleQueue[list[RunJournal] | EverturnError] = SimpleQueue()
        self._runs = runs
        self._named = named
        self._interval_s = interval_s
        self._tails: dict[RunRef, int] = {}
        self._epochs: dict[RunRef, int] = {}
        self._ended: set[RunRef] = set()
        self._stopped = Event()
        self._round = 0

    def work(self) -> None:
        """Go on until `stop` is called, or something is wrong that time will not mend."""
        while not self._stopped.is_set():
            try:
                found = self.look()
            except EverturnError as error:
                self.news.put(error)
                if not isinstance(error, Unavailable):
                    return
            else:
                self.news.put(found)
            self._stopped.wait(self._interval_s)

    def stop(self) -> None:
        """Ask nothing more."""
        self._stopped.set()

    def look(self) -> list[RunJournal]:
        """Return what is new. What is read before something fails is read again."""
        refs = run(self._runs.journals.runs(self._named.work_key))
        refs = [ref for ref in refs if self._named.run_id in (None, ref.run_id)]
        found = [run(self._runs.journals.read(ref, after=self._tails.get(ref, 0))) for ref in self._due(refs)]
        for journal in found:
            self._tails[journal.ref] = max(self._tails.get(journal.ref, 0), journal.tail)
            facts = facts_of(journal.events)
            if facts.started is not None:
                self._epochs[journal.ref] = facts.started.epoch
            if facts.ended is not None:
                self._ended.add(journal.ref)
        self._round += 1
        return found

    def _due(self, refs: Sequence[RunRef]) -> list[RunRef]:
        """Return the runs to ask for: new ones and the last one each time, and rarely those before it without end."""
        known = [ref for ref in refs if ref in self._tails]
        latest = max(known, key=lambda ref: self._epochs.get(ref, 0), default=None)
        return [
            ref
            for ref in refs
            if ref not in self._tails or (ref not in self._ended and (ref == latest or self._round % OLD_ROUNDS == 0))
        ]


class Follower:
    """Prints each event once, in order, wherever it comes from first.

    Args:
        printer: Prints them.
        last: How many turns to show of what is there at the beginning; `None`: all.
    """

    def __init__(self, printer: EventPrinter, *, last: int | None = None) -> None:
        self._printer = printer
        self._last = last
        self._seen: dict[RunRef, _Seen] = {}
        self._is_first = True

    def take(self, journals: Sequence[RunJournal]) -> None:
        """Print what is new in these journals."""
        by_ref = {journal.ref: journal for journal in journals}
        order = [by_ref[ref] for ref in in_order({ref: facts_of(each.events) for ref, each in by_ref.items()})]
        if self._is_first and any(journal.events for journal in journals):
            self._is_first = False
            self._shorten(order)
        for journal in order:
            self._take(journal)

    def _take(self, journal: RunJournal) -> None:
        seen = self._seen.setdefault(journal.ref, _Seen())
        fresh: list[Recorded] = []
        for recorded in journal.events:
            if recorded.seq > seen.last + 1:
                self._print(journal.ref, fresh)
                self._printer.tell(journal.ref, words.gap(seen.last + 1, recorded.seq - 1))
                seen.missing.append((seen.last + 1, recorded.seq - 1))
            if seen.is_new(recorded.seq):
                fresh.append(recorded)
        self._print(journal.ref, fresh)
        if journal.unreadable:
            self._printer.tell(journal.ref, words.unreadable(journal.unreadable))

    def _print(self, ref: RunRef, fresh: list[Recorded]) -> None:
        if fresh:
            self._printer.take(ref, fresh)
            fresh.clear()

    def _shorten(self, journals: list[RunJournal]) -> None:
        """Pass over what comes before the last turns that are wanted."""
        kept = {extract.ref: extract.events for extract in last_turns(journals, self._last)}
        for journal in journals:
            events = kept.get(journal.ref, ())
            first = events[0].seq if events else None
            passed = [recorded for recorded in journal.events if first is None or recorded.seq < first]
            if passed:
                self._printer.pass_over(journal.ref, passed)
                self._seen[journal.ref] = _Seen(last=passed[-1].seq)


def follow(runs: Runs, named: Named, printer: EventPrinter, *, interval_s: float, last: int | None) -> int:
    """Print what happens to a work item until somebody interrupts it.

    Args:
        runs: The journals.
        named: What to look at.
        printer: Prints it.
        interval_s: How often to ask the store.
        last: How many turns to show of what is there at the beginning; `None`: all.

    Returns:
        The exit code of a command that was interrupted.

    Raises:
        EverturnError: Something is wrong that time will not mend.
        OutputError: Standard output took no more.
    """
    watcher = Watcher(runs, named, interval_s)
    follower = Follower(printer, last=last)
    thread = start_thread(watcher.work, "everturn-follow")
    is_away: bool | None = None  # nothing is known yet
    try:
        while thread is None or thread.is_alive() or not watcher.news.empty():
            found = _next(watcher)
            if isinstance(found, Unavailable):
                if not is_away:
                    complain(f"the store does not answer: {found.message}", "it is asked again", kind="warning")
                is_away = True
            elif isinstance(found, EverturnError):
                raise found
            elif found is not None:
                if is_away:
                    complain("the store answers again", "nothing was passed over", kind="note")
                is_away = False
                follower.take(found)
            if is_away is not None:  # what came before is in the store
                follower.take(_local(runs, named))
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        watcher.stop()


def _next(watcher: Watcher) -> list[RunJournal] | EverturnError | None:
    try:
        return watcher.news.get(timeout=LOCAL_S)
    except Empty:
        return None


def _local(runs: Runs, named: Named) -> list[RunJournal]:
    """Return what the runs of this machine have written since the last time."""
    found = []
    for ref, file in runs.local.runs().items():
        if ref.scope == named.work_key and named.run_id in (None, ref.run_id):
            events, unreadable = file.read()
            if events or unreadable:
                found.append(RunJournal(ref, tuple(events), 0, (), unreadable))
    return found
