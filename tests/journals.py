"""Journals that tests share: events made by hand, and how they get into a store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from everturn import Settings
from everturn.clock import Ids, ManualClock
from everturn.journal.events import Assistant, Delta, Ended, Event, Prompt, Resumed, Started, Stream, TextDelta
from everturn.journal.journal import Journal
from everturn.journal.lines import Recorded, line_of, parse
from everturn.journal.reading import RunJournal, RunRef, put_in_order
from everturn.log.objects import run
from everturn.log.stores import admit, connect
from everturn.transcripts.observer import StoreObserver
from everturn.upkeep.journals import SessionJournals

WORK = "task:tap"
FIRST, SECOND = "1" * 20, "2" * 20
SESSION = "5a1d0c1e-0b7e-4c55-9d0a-7e9b3c1f0042"


def started(run_id: str, epoch: int = 1, previous: str | None = None, *, worker: str = "w1") -> Started:
    """How a run begins."""
    return Started(run_id, WORK, SESSION, epoch, worker, "/home/dev/tap", task_id="tap", previous_run_id=previous)


def streamed(text: str, message: str = "m1", index: int = 0, *, parent: str | None = None) -> list[Event]:
    """A block of text in pieces of a word each, without the whole."""
    words = text.split(" ")
    pieces = [*(f"{word} " for word in words[:-1]), words[-1]]
    begun = {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
    return [Stream(message, begun, parent), *(TextDelta(message, index, piece, parent) for piece in pieces)]


def said(text: str, message: str = "m1", index: int = 0, *, parent: str | None = None) -> list[Event]:
    """A block of text in pieces, and then the whole."""
    stop = Stream(message, {"type": "content_block_stop", "index": index}, parent)
    return [*streamed(text, message, index, parent=parent), Assistant(text, message, "m", parent), stop]


def killed() -> list[Event]:
    """A run whose worker is killed in the middle of a word."""
    begun = [started(FIRST), Prompt("Mend the tap.", resumed=False)]
    return [*begun, *said("Let me look."), *streamed("I see that the washer is", "m2")]


def resumed() -> list[Event]:
    """The run that goes on after it."""
    begun = [started(SECOND, 2, FIRST, worker="w2"), Resumed(SESSION, FIRST, took_over=True)]
    return [*begun, Prompt("Go on.", resumed=True), *said("The washer is worn.", "m3"), Ended("completed")]


def recorded(events: Iterable[Event], first: int = 1) -> list[Recorded]:
    """Return events as they are read from a journal."""
    return [parse(line_of(event, seq, 1_763_674_884_000 + seq * 100)) for seq, event in enumerate(events, first)]


def journal_of(events: Iterable[Event], run_id: str = FIRST, *, without: Sequence[int] = ()) -> RunJournal:
    """Return events as what was read of a run; some of them, perhaps, missing."""
    lines = [each.raw for each in recorded(events) if each.seq not in without]
    return put_in_order(RunRef(WORK, run_id), lines, 1)


def text_of(events: Iterable[Event]) -> str:
    """Return the pieces that were written, one after the other."""
    return "".join(event.text for event in events if isinstance(event, Delta))


class JournalStore:
    """A store in a folder, and a machine that writes journals into it.

    Args:
        folder: The store's folder is made in it, and that of the runs.
    """

    def __init__(self, folder: Path) -> None:
        self.url = (folder / "store").as_uri()
        self.settings = Settings.load(store=self.url, state=folder / "state", journal_ship_s=0.01)
        self.objects = connect(self.url, self.settings)
        self.clock = ManualClock(1_763_674_884.0)
        self._files = folder / "files"
        self._files.mkdir(exist_ok=True)
        run(admit(self.objects, WORK, self.url))

    def open(self, run_id: str, work: str = WORK) -> Journal:
        """Begin a journal."""
        path = self._files / f"{run_id}.jsonl"
        return Journal.open(self.objects, RunRef(work, run_id), path, settings=self.settings, ids=Ids(1))

    def keep(self, run_id: str, events: Sequence[Event], *, at_once: int = 3, work: str = WORK) -> None:
        """Store the journal of a run."""
        journal = self.open(run_id, work)
        for start in range(0, len(events), at_once):
            for event in events[start : start + at_once]:
                journal.write(event)
        journal.close(10)

    def delete(self, run_id: str) -> None:
        """Delete the journal of a run."""
        journals = SessionJournals(self.objects, self.settings, self.clock, Ids(2), StoreObserver())
        run(journals.delete(RunRef(WORK, run_id)))
