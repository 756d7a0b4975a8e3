"""With a session go the journals and traces of its runs, and nothing brings them back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from claude_agent_sdk import SessionKey

from everturn import Conflict, Corrupt, Denied, EverturnError, Fenced, Settings, TranscriptStore
from everturn.clock import Ids, ManualClock
from everturn.journal.events import BeganAnew, Event, Started, TextDelta
from everturn.journal.journal import Journal
from everturn.journal.leftovers import LeftJournal
from everturn.journal.reading import Journals, RunJournal, RunRef
from everturn.log.objects import run
from everturn.log.reader import list_spans, read_part
from everturn.log.stores import connect
from everturn.testing import Fault, FaultyObjects
from everturn.transcripts.archive import Archive, SessionRef
from everturn.transcripts.holds import place_hold
from everturn.transcripts.layout import Layout
from everturn.upkeep.tending import Upkeep

SCOPE = "task:1"
KEPT, GONE = "11111111-f002-4f12-a0f4-5b4be6b08923", "7df19cb2-f002-4f12-a0f4-5b4be6b08923"
PROJECT = "-w"


class Shelf:
    """A store with two sessions of one work item, and the journals of their runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings.load(state=folder, journal_ship_s=3600.0)
        self.objects = connect("memory://", self.settings)
        self.upkeep = Upkeep(Archive(self.objects, ""), self.settings, ManualClock(), Ids(1))
        for session_id in (KEPT, GONE):
            anyio.run(self._write, session_id)

    async def _write(self, session_id: str) -> None:
        key: SessionKey = {"project_key": PROJECT, "session_id": session_id}
        async with TranscriptStore(self.objects, scope=SCOPE, settings=self.settings) as store:
            await store.append(key, [{"type": "user", "uuid": session_id}])

    def open(self, run_id: str, *events: Event) -> Journal:
        journal = Journal.open(
            self.objects, RunRef(SCOPE, run_id), self.folder / f"{run_id}.jsonl", settings=self.settings
        )
        for event in events:
            journal.write(event)
        return journal

    def journal(self, run_id: str, *events: Event) -> None:
        self.open(run_id, *events).close(10)
        run(self.objects.create(Layout(SCOPE).trace(run_id), b"what was said"))

    def read(self, run_id: str) -> RunJournal:
        return run(Journals(self.objects, "").read(RunRef(SCOPE, run_id)))

    def left(self, run_id: str) -> list[Any]:
        """Return the entries that lie in parts, whether readers are shown them or not."""
        folder = RunRef(SCOPE, run_id).folder
        parts = [run(read_part(self.objects, folder, span)) for span in run(list_spans(self.objects, folder))]
        return [entry for part in parts if part is not None for entry in part.entries()]

    def delete(self, session_id: str) -> None:
        run(self.upkeep.delete(SessionRef(SCOPE, PROJECT, session_id)))

    def traces(self) -> list[str]:
        return [item.key.rpartition("/")[2].partition(".")[0] for item in run(self.objects.listing("traces"))]


def started(run_id: str, session_id: str) -> Started:
    return Started(run_id, SCOPE, session_id, 1, "w", "/w")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_a_sessions_journals_and_traces_go_with_it_and_no_others(shelf: Shelf) -> None:
    shelf.journal("a", started("a", GONE), TextDelta("m", 0, "secret"))
    shelf.journal("b", started("b", KEPT), TextDelta("m", 0, "public"))
    shelf.journal("c", started("c", KEPT), BeganAnew(session_id="other", instead_of=GONE))
    shelf.delete(GONE)
    assert [bool(shelf.read(run_id).events) for run_id in "abc"] == [False, True, False]
    assert [shelf.read(run_id).deleted for run_id in "abc"] == [True, False, True]
    assert shelf.traces() == ["b"]


@pytest.mark.parametrize("error", [None, Denied("may not", hint="ask")], ids=["broken off", "denied"])
def test_a_deletion_that_cannot_take_a_trace_away_is_done_again_and_leaves_none(
    shelf: Shelf, error: EverturnError | None
) -> None:
    shelf.journal("a", started("a", GONE), TextDelta("m", 0, "secret"))
    faulty = FaultyObjects(shelf.objects, Fault("fail", "delete", "traces/*", error=error))
    upkeep = Upkeep(Archive(faulty, ""), shelf.settings, ManualClock(), Ids(2))
    with pytest.raises(EverturnError):
        run(upkeep.delete(SessionRef(SCOPE, PROJECT, GONE)))
    assert shelf.read("a").events, "while the journal is there, the trace is found by it"
    run(upkeep.delete(SessionRef(SCOPE, PROJECT, GONE)))
    assert (shelf.read("a").deleted, shelf.traces()) == (True, [])


def test_a_deletion_that_has_left_something_of_a_journal_is_done_again_and_leaves_nothing(shelf: Shelf) -> None:
    shelf.journal("a", started("a", GONE), TextDelta("m", 0, "secret"))
    faulty = FaultyObjects(shelf.objects, Fault("fail", "put", "journal/*"))
    upkeep = Upkeep(Archive(faulty, ""), shelf.settings, ManualClock(), Ids(2))
    with pytest.raises(EverturnError):
        run(upkeep.delete(SessionRef(SCOPE, PROJECT, GONE)))
    assert shelf.read("a").deleted
    assert shelf.left("a") != []
    run(upkeep.delete(SessionRef(SCOPE, PROJECT, GONE)))
    assert shelf.left("a") == []


def test_a_session_under_a_hold_keeps_its_journals(shelf: Shelf) -> None:
    shelf.journal("a", started("a", GONE))
    run(place_hold(shelf.objects, SCOPE, GONE, reason="asked for", by="me", now_s=1.0))
    with pytest.raises(Conflict):
        shelf.delete(GONE)
    assert shelf.read("a").events
    assert shelf.traces() == ["a"]


def test_a_run_that_is_still_alive_brings_nothing_back(shelf: Shelf) -> None:
    journal = shelf.open("a", started("a", GONE), TextDelta("m", 0, "secret"))
    journal._shipper.settle(10)
    shelf.delete(GONE)
    journal.write(TextDelta("m", 0, "more of it"))
    with pytest.raises(Fenced, match="was deleted"):
        journal.close(10)
    assert shelf.read("a").deleted


def test_what_a_dead_run_has_left_brings_nothing_back(shelf: Shelf) -> None:
    shelf.journal("a", started("a", GONE), TextDelta("m", 0, "secret"))
    shelf.delete(GONE)
    left = LeftJournal(shelf.objects, RunRef(SCOPE, "a"), shelf.folder / "a.jsonl", settings=shelf.settings)
    assert left.ship().events == 0
    assert shelf.read("a").deleted


def test_remains_of_journals_go_when_those_of_their_session_go(shelf: Shelf) -> None:
    shelf.journal("a", started("a", GONE))
    shelf.journal("b", started("b", KEPT))
    shelf.delete(GONE)
    found = run(shelf.upkeep.look(SessionRef(SCOPE, PROJECT, GONE)))
    assert found.is_remains
    assert run(shelf.upkeep.expire(found))
    assert [ref.run_id for ref in run(Journals(shelf.objects, "").runs(SCOPE))] == ["b"]


def damage(shelf: Shelf, run_id: str, number: int) -> None:
    """Have a part of a journal hold something else."""
    folder = RunRef(SCOPE, run_id).folder
    keys = sorted(item.key for item in run(shelf.objects.listing(folder)))
    run(shelf.objects.put(keys[number], b"something else"))


def test_a_damaged_journal_keeps_no_session_from_being_deleted_and_goes_with_its_own(shelf: Shelf) -> None:
    for run_id, session_id in (("a", KEPT), ("b", GONE)):
        journal = shelf.open(run_id, started(run_id, session_id))
        journal._shipper.settle(10)
        journal.write(TextDelta("m", 0, "secret"))
        journal.close(10)
        damage(shelf, run_id, 1)
    shelf.delete(GONE)
    with pytest.raises(Corrupt):
        shelf.read("a")
    assert shelf.read("b").deleted


def test_a_journal_of_which_nothing_tells_whose_it_is_outlives_no_session_of_its_work_item(
    shelf: Shelf,
) -> None:
    shelf.journal("a", started("a", GONE), TextDelta("m", 0, "secret"))
    damage(shelf, "a", 0)
    shelf.delete(GONE)
    assert shelf.read("a").deleted


def test_a_damaged_journal_keeps_no_remains_from_being_cleared(shelf: Shelf) -> None:
    shelf.journal("a", started("a", GONE))
    shelf.delete(GONE)
    shelf.journal("b", started("b", KEPT))
    damage(shelf, "b", 0)
    assert run(shelf.upkeep.expire(run(shelf.upkeep.look(SessionRef(SCOPE, PROJECT, GONE)))))
    assert [ref.run_id for ref in run(Journals(shelf.objects, "").runs(SCOPE))] == ["b"]
