"""A run's journal with its file and its store, and what is counted."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from prometheus_client import CollectorRegistry

from everturn import Settings
from everturn.clock import ManualClock
from everturn.journal.events import Event, TextDelta
from everturn.journal.journal import Journal
from everturn.journal.leftovers import LeftJournal
from everturn.journal.reading import Journals, RunJournal, RunRef
from everturn.log.objects import Objects, run
from everturn.log.stores import connect
from everturn.telemetry import Metrics
from everturn.testing import FaultyObjects

REF = RunRef("acme/web#12", "run-1")
NEVER_S = 3600.0  # events that wait so long are shipped because somebody asks
QUICK_S = 0.01


def delta(number: int, text: str = "word ") -> TextDelta:
    return TextDelta("msg_1", 0, f"{text}{number}")


def shippers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "everturn-journal"]


class Desk:
    """A journal's file, its store, and what is counted."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.path = folder / "journal.jsonl"
        given: dict[str, object] = {"state": folder, "journal_ship_s": NEVER_S, "append_deadline_s": 1.0, **settings}
        self.settings = Settings.load(**given)
        self.objects = FaultyObjects(connect("memory://", self.settings))
        self.metrics = Metrics(CollectorRegistry())
        self.clock = ManualClock()

    def open(self) -> Journal:
        return Journal.open(
            self.objects, REF, self.path, settings=self.settings, clock=self.clock, metrics=self.metrics
        )

    def stored(self, objects: Objects | None = None) -> RunJournal:
        return run(Journals(objects or self.objects, "").read(REF))

    def events(self) -> list[Event | None]:
        return [each.event for each in self.stored().events]

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]

    def look_after(self) -> tuple[int, int, int]:
        left = LeftJournal(
            self.objects, REF, self.path, settings=self.settings, clock=self.clock, metrics=self.metrics
        ).ship()
        return left.events, left.torn_bytes, left.damaged
