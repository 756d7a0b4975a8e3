"""What admins ask for is noted before it is done, and what came of it after; nothing is done that cannot be noted."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import anyio
import pytest
from prometheus_client import CollectorRegistry

from everturn.clock import Ids, ManualClock
from everturn.errors import Conflict, Held, Invalid, NotFound, Unavailable
from everturn.git import locks
from everturn.housekeeping.freeing import Selection
from everturn.logbook.entries import Act
from everturn.logbook.logbook import Logbook
from everturn.model import Claim, Holder, WorkItem
from everturn.registry import open_registry
from everturn.service.offices import Admin
from everturn.service.parts import Parts
from everturn.service.sweeping import DailySweep
from everturn.settings import Settings
from everturn.telemetry import Metrics
from everturn.testing import make_repository
from everturn.transcripts.store import TranscriptStore
from everturn.workshop import Workshop

WHO = "127.0.0.1"
KEY = "fixer@https://git.example/acme/shop#7"
WORK = WorkItem("fixer", "https://git.example/acme/shop", 7)
TOKEN = "sixteen-letters-at-least"
SECRET = "what the transcript says"


class Office:
    """An admin's office, with real parts."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings.load(store=f"file://{folder}/store", state=folder / "state", admin_token=TOKEN)
        clock = ManualClock()
        self.registry = open_registry(self.settings.registry_url(), ages=self.settings.session_ages())
        metrics = Metrics(CollectorRegistry())
        workshop = Workshop.open(self.settings, self.registry)
        self.logbook = Logbook(self.settings.logbook_path(), clock=clock)
        self.parts = Parts(self.settings, clock, Ids(), metrics, self.registry, workshop, self.logbook)
        self.admin = Admin(self.parts, DailySweep.of(self.parts))

    def acts(self) -> list[Act]:
        return self.logbook.acts.page(100)

    def act(self) -> Act:
        [act] = self.acts()
        return act

    def count(self, outcome: str) -> float | None:
        return self.parts.metrics.registry.get_sample_value("everturn_admin_calls_total", {"outcome": outcome})

    def claim(self, work: WorkItem = WORK) -> Claim:
        return self.registry.claim(work, Holder("w1", "run-1"), ttl_s=60)

    def session(self, work: WorkItem = WORK) -> str:
        claim = self.claim(work)
        self.registry.release(claim)
        return claim.session_id


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.logbook.close()


def append(office: Office, scope: str, session_id: str, *, times: int = 3) -> None:
    """Have a transcript in the store."""

    async def main() -> None:
        store = TranscriptStore.open(office.settings.store_url(), scope=scope, settings=office.settings)
        key = {"project_key": "-desk", "session_id": session_id}
        for number in range(times):
            await store.append(key, [{"type": "user", "uuid": str(uuid.UUID(int=number)), "text": SECRET}])  # type: ignore[typeddict-item, arg-type]
        await store.aclose()

    anyio.run(main)


# --- Reset --------------------------------------------------------------------------------------------------------


def test_a_reset_removes_workdirs_and_ends_sessions_and_is_noted(office: Office, tmp_path: Path) -> None:
    work = WorkItem("fixer", str(make_repository(tmp_path / "shop", {"a.txt": "a"}, "One")), 7)
    workdir = office.parts.workshop.workdirs.open(work)
    workdir.close()
    office.session(work)
    would = office.admin.reset(Selection(agent="fixer"), dry_run=True, who=WHO)
    assert workdir.path.exists()
    done = office.admin.reset(Selection(agent="fixer"), who=WHO)
    assert [fate.action for fate in would.fates] == [fate.action for fate in done.fates] == ["dropped", "removed"]
    assert not workdir.path.exists()
    assert office.registry.records() == []
    second, first = office.acts()
    assert (first.source, first.action, first.state) == (WHO, "reset", "done")
    assert first.asked == {"agent": "fixer", "dry_run": True, "force": False}
    assert first.details[0] == f"session {work.key} would be dropped: it was reset"
    assert second.details == (
        f"session {work.key} dropped: it was reset",
        f"workdir {workdir.name} removed: it was reset",
    )
    assert second.done_at is not None
    assert office.count("done") == 2


def test_a_reset_of_nothing_cannot_even_be_asked_for() -> None:
    with pytest.raises(Invalid, match="nothing is selected"):
        Selection()


# --- Sweep --------------------------------------------------------------------------------------------------------


def test_a_sweep_on_request_is_done_and_noted(office: Office) -> None:
    result = office.admin.sweep(who=WHO)
    assert result.dropped == ()
    assert (office.act().action, office.act().asked, office.act().state) == ("sweep", {"dry_run": False}, "done")
    assert office.logbook.sweeps.page(1)[0].reason == "admin"


def test_a_sweep_beside_another_one_is_refused(office: Office) -> None:
    office.logbook.path.parent.mkdir(parents=True, exist_ok=True)
    lock = locks.take(office.logbook.path.with_name("sweep.lock"), clock=office.parts.clock)
    assert lock is not None
    with pytest.raises(Conflict):
        office.admin.sweep(who=WHO)
    assert (office.act().state, office.act().details) == ("refused", ("another sweep is under way",))
    assert office.count("refused") == 1
    lock.release()


# --- Drop ---------------------------------------------------------------------------------------------------------


def test_a_session_is_dropped_and_the_next_run_begins_a_new_one(office: Office) -> None:
    session_id = office.session()
    dropped = office.admin.drop(session_id, who=WHO)
    assert dropped.facts() == {"session_id": session_id, "work": KEY}
    assert office.claim().session_id != session_id
    assert office.act().asked == {"session_id": session_id, "force": False}
    assert office.act().details == (f"session {KEY} dropped: {session_id}",)


def test_a_session_that_a_live_worker_has_is_dropped_by_force_alone(office: Office) -> None:
    claim = office.claim()
    with pytest.raises(Held, match="is held by w1"):
        office.admin.drop(claim.session_id, who=WHO)
    office.registry.renew(claim, 60)
    assert office.act().state == "refused"
    assert office.act().details[0].startswith(f"{KEY} is held by w1 (run run-1)")
    office.admin.drop(claim.session_id, force=True, who=WHO)
    assert office.registry.records() == []
    assert [act.state for act in office.acts()] == ["done", "refused"]


@pytest.mark.parametrize("session_id", ["0e5f5b66-8b0e-4f4e-9a50-6c9d1d8c7f11", "../..", "", "x" * 10_000])
def test_a_session_that_nobody_knows_is_not_found(office: Office, session_id: str) -> None:
    office.session()
    with pytest.raises(NotFound):
        office.admin.drop(session_id, who=WHO)
    assert office.act().state == "refused"
    assert len(office.registry.records()) == 1


# --- Compact ------------------------------------------------------------------------------------------------------


def test_a_session_is_compacted(office: Office) -> None:
    session_id = str(uuid.uuid4())
    append(office, KEY, session_id)
    done = office.admin.compact(session_id, who=WHO)
    assert (done.session_id, done.work, done.segments) == (session_id, KEY, 1)
    assert done.objects_before >= 3
    assert done.facts()["segments"] == 1
    assert office.act().state == "done"
    assert SECRET not in repr(office.acts())


def test_a_session_is_named_by_its_whole_id(office: Office) -> None:
    session_id = str(uuid.uuid4())
    append(office, "task:nightly", session_id)
    for name in (session_id[:8], "task:nightly", str(uuid.uuid4())):
        with pytest.raises(NotFound):
            office.admin.compact(name, who=WHO)
    assert {act.state for act in office.acts()} == {"refused"}


def test_a_session_that_is_there_twice_is_not_chosen_by_chance(office: Office) -> None:
    session_id = str(uuid.uuid4())
    for scope in ("task:a", "task:b"):
        append(office, scope, session_id)
    with pytest.raises(Conflict, match="stands for 2 sessions"):
        office.admin.compact(session_id, who=WHO)


# --- The log ------------------------------------------------------------------------------------------------------


def test_an_act_is_noted_before_it_is_done(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    session_id = office.session()
    seen: list[Act] = []
    monkeypatch.setattr(office.registry, "drop", lambda *_, **__: bool(seen.extend(office.acts())) or True)
    office.admin.drop(session_id, who=WHO)
    assert [(act.action, act.state) for act in seen] == [("drop", "begun")]


def test_what_cannot_be_noted_is_not_done(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    session_id = office.session()
    monkeypatch.setattr(office.logbook.acts, "add", lambda *_: failed())
    with pytest.raises(Unavailable):
        office.admin.drop(session_id, who=WHO)
    assert len(office.registry.records()) == 1


def test_what_is_done_is_told_even_if_its_end_cannot_be_noted(
    office: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session_id = office.session()
    monkeypatch.setattr(office.logbook.acts, "end", lambda *_: failed())
    assert office.admin.drop(session_id, who=WHO).session_id == session_id
    assert office.act().state == "begun"
    assert "act_not_noted" in caplog.text


def test_an_act_that_ends_in_an_error_of_ours_is_noted_without_what_the_error_says(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: Any) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(office.registry, "find", break_down)
    with pytest.raises(RuntimeError):
        office.admin.drop("x", who=WHO)
    assert (office.act().state, office.act().details) == ("failed", ("RuntimeError was raised",))
    assert office.count("failed") == 1


def test_no_token_is_noted(office: Office) -> None:
    office.admin.reset(Selection(every=True), who=WHO)
    assert TOKEN not in repr(office.acts())


def failed() -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(Unavailable("the disk is full", hint="make room"))
    return future
