"""Whatever is put, finished, pruned and reopened, the logbook says what a dictionary would."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from everturn.clock import ManualClock
from everturn.logbook.entries import Done, Waiting
from everturn.logbook.logbook import Logbook
from everturn.logbook.pruning import DAY_S, ID_S

IDS = st.sampled_from([f"d-{number}" for number in range(8)])


@dataclass
class Known:
    """A webhook, as the model has it."""

    number: int
    state: str
    accepted_at: float
    done_at: float | None
    attempts: int = 0
    next_at: float | None = None


class LogbookMachine(RuleBasedStateMachine):
    """A logbook beside a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = ManualClock()
        self.logbook = Logbook(self.folder / "logbook.db", clock=self.clock)
        self.known: dict[str, Known] = {}
        self.last = 0

    def teardown(self) -> None:
        self.logbook.close()
        shutil.rmtree(self.folder)

    @rule(ids=st.lists(IDS, min_size=1, max_size=4), ignored=st.booleans())
    def put(self, ids: list[str], ignored: bool) -> None:
        why = "nothing is to do" if ignored else ""
        answers = [self.logbook.deliveries.put("github", each, "push", {"of": each}, why) for each in ids]
        for each, answer in zip(ids, answers, strict=True):
            assert answer.result() == ("duplicate" if each in self.known else "ignored" if ignored else "queued")
            if each not in self.known:
                now = self.clock.now()
                number = next(e.number for e in self.logbook.deliveries.page(100) if e.delivery_id == each)
                assert number > self.last
                self.last = number
                self.known[each] = Known(number, answer.result(), now, now if ignored else None)

    @rule(done=st.lists(st.tuples(IDS, st.sampled_from(["done", "waiting", "failed"])), max_size=4))
    def finish(self, done: list[tuple[str, str]]) -> None:
        there = [(self.known[each], state) for each, state in done if each in self.known]
        next_at = self.clock.now() + 15
        self.logbook.deliveries.finish(
            [Done(entry.number, state, next_at=next_at) for entry, state in there]  # type: ignore[arg-type]
        ).result()
        for entry, state in there:
            if entry.done_at is None:
                entry.state, entry.attempts = state, entry.attempts + 1
                entry.next_at = next_at if state == "waiting" else None
                entry.done_at = None if state == "waiting" else self.clock.now()

    @rule(seconds=st.sampled_from([1.0, 15.0, DAY_S, 5 * DAY_S]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(days=st.sampled_from([1, 9]))
    def prune(self, days: int) -> None:
        before = self.clock.now() - max(days * DAY_S, ID_S)
        gone = {each for each, entry in self.known.items() if entry.done_at is not None and entry.done_at < before}
        assert self.logbook.prune(days * DAY_S).result() == len(gone)
        for each in gone:
            del self.known[each]

    @rule()
    def reopen(self) -> None:
        self.logbook.close()
        self.logbook = Logbook(self.folder / "logbook.db", clock=self.clock)

    @invariant()
    def it_says_the_same(self) -> None:
        page = {entry.delivery_id: entry for entry in self.logbook.deliveries.page(100)}
        assert page.keys() == self.known.keys()
        for each, entry in self.known.items():
            found = page[each]
            assert Known(
                *(found.number, found.state, found.accepted_at, found.done_at, found.attempts, found.next_at)
            ) == (entry)
        still = [entry for entry in self.known.values() if entry.done_at is None]
        oldest_at = min((entry.accepted_at for entry in still), default=None)
        assert self.logbook.deliveries.waiting() == Waiting(len(still), oldest_at)
        now = self.clock.now()
        due = sorted(entry.number for entry in still if entry.next_at is None or entry.next_at <= now)
        assert [entry.number for entry in self.logbook.deliveries.due(now, 100)] == due


TestLogbookMachine = LogbookMachine.TestCase
TestLogbookMachine.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
