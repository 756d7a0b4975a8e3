"""What earlier runs have left on this machine is looked after, whatever the next run is about and however it ends."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest
from claude_agent_sdk import SessionKey, SessionStoreEntry

from everturn import Run, Runtime, TranscriptStore, Unavailable, WorkItem
from everturn.runner.past import Past
from runner.stage import Desk, finish

pytestmark = pytest.mark.slow

OTHER = WorkItem.task("drain")


def folders(desk: Desk) -> list[Path]:
    """Return the folders of runs that are still there."""
    return [path for path in (desk.folder / "state" / "runs").iterdir() if path.name != ".lock"]


def traces(desk: Desk) -> set[str]:
    return {path.name.partition(".")[0] for path in (desk.store / "traces").rglob("*.gz")}


def refuse(*_: Any, **__: Any) -> None:
    raise Unavailable("the store is away", hint="wait")


def test_the_next_start_uploads_a_trace_that_was_left_here_though_it_begins_a_new_session(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = desk.runtime()
    monkeypatch.setattr(runtime._stores, "upload_trace", refuse)
    first = desk.run(runtime=runtime)
    finish(first)
    assert [path.name for path in folders(desk)] == [first.run_id]
    second = desk.run(OTHER)
    finish(second)
    assert traces(desk) == {first.run_id, second.run_id}
    assert not list((desk.folder / "state" / "runs").rglob("trace.jsonl"))


def test_a_trace_whose_upload_was_cut_short_is_left_for_the_next_start(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, go = desk.runtime(shutdown_grace_s=0.1), threading.Event()

    def hang(*_: Any, **__: Any) -> None:
        go.wait(20)

    monkeypatch.setattr(runtime._stores, "upload_trace", hang)
    first = desk.run(runtime=runtime)
    finish(first)
    assert [path.name for path in folders(desk)] == [first.run_id]
    go.set()
    finish(desk.run())
    assert first.run_id in traces(desk)


# --- What could not be stored -------------------------------------------------------------------------------------


class DeafStore(TranscriptStore):
    """A store that can be fenced, but takes no entries."""

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        raise Unavailable("the store is away", hint="wait")


class Machines:
    """Several machines that work for the same desk."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def runtime(self, machine: str, store: type[TranscriptStore] = TranscriptStore) -> Runtime:
        return Runtime(self.desk.runtime(state=self.desk.folder / machine).settings, make_store=store)

    def run(self, machine: str) -> Run:
        run = self.desk.run(runtime=self.runtime(machine))
        finish(run)
        return run

    def fail_to_store(self, machine: str, *, told: bool = True) -> None:
        """Hold a turn of which nothing is stored, and tell the registry or not."""
        runtime = self.runtime(machine, DeafStore)
        with pytest.MonkeyPatch.context() as patch:
            if not told:
                patch.setattr(runtime.registry, "taint", refuse)
            with pytest.raises(Unavailable, match="not whole"):
                finish(self.desk.run(runtime=runtime))


@pytest.fixture
def machines(desk: Desk) -> Machines:
    return Machines(desk)


def test_what_could_not_be_stored_is_stored_later_although_traces_are_refused(
    desk: Desk, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.run("a")
    machines.fail_to_store("a")
    runtime = machines.runtime("a")
    monkeypatch.setattr(runtime._stores, "upload_trace", refuse)
    run = desk.run(runtime=runtime)
    finish(run)
    assert "2 entries that an earlier run had left on this machine were stored now" in run.warnings
    assert desk.record().tainted is None


class StuckStore(TranscriptStore):
    """A store that does not come to an end when a conversation is loaded."""

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        await anyio.sleep_forever()
        raise AssertionError


def test_a_run_that_is_stopped_while_it_looks_after_what_is_left_leaves_it_for_the_next_one(
    desk: Desk, machines: Machines
) -> None:
    machines.run("a")
    machines.fail_to_store("a")

    async def main() -> None:
        run = desk.run(runtime=machines.runtime("a", StuckStore))
        with anyio.move_on_after(2):
            await anext(run)
        assert run.stopped == "cancelled"

    anyio.run(main)
    run = machines.run("a")
    assert "2 entries that an earlier run had left on this machine were stored now" in run.warnings


def test_what_one_machine_has_left_does_not_make_up_for_what_another_one_has_lost(
    desk: Desk, machines: Machines
) -> None:
    machines.run("a")
    machines.fail_to_store("a")
    machines.fail_to_store("b")
    run = machines.run("b")
    assert any("is not whole" in warning for warning in run.warnings)
    assert desk.record().tainted is not None


def test_what_was_left_and_no_longer_fits_is_told_now_and_from_then_on(desk: Desk, machines: Machines) -> None:
    machines.run("a")
    machines.fail_to_store("a", told=False)
    assert machines.run("b").warnings == ()
    run = machines.run("a")
    assert any("is not whole" in warning for warning in run.warnings)
    assert desk.record().tainted is not None
    assert any("is not whole" in warning for warning in machines.run("b").warnings)


def test_a_leftover_that_cannot_be_looked_after_keeps_no_run_from_its_work(desk: Desk, machines: Machines) -> None:
    machines.run("a")
    machines.fail_to_store("a")
    [left] = (desk.folder / "a" / "runs").glob("[!.]*")
    (left / "care").mkdir()
    assert machines.run("a").resumed


@pytest.mark.parametrize("gone", ["store", "session_id", "task_id"])
def test_a_leftover_whose_notes_do_not_say_all_keeps_no_run_from_its_work(desk: Desk, gone: str) -> None:
    runtime = desk.runtime(upload_traces=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime._stores, "upload_trace", refuse)
        finish(desk.run(runtime=runtime))
    [left] = folders(desk)
    notes = left / "run.json"
    notes.write_text(json.dumps({**json.loads(notes.read_text()), gone: None}))
    run = desk.run()
    finish(run)
    assert run.resumed
    assert folders(desk) == [left]


class CountedStore(TranscriptStore):
    """A store that says when it is closed."""

    closed: ClassVar[list[int]] = []

    async def aclose(self) -> None:
        self.closed.append(self.epoch)
        await super().aclose()


def test_a_run_that_ends_while_it_looks_after_what_is_left_closes_its_store(
    desk: Desk, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.run("a")
    monkeypatch.setattr(CountedStore, "closed", [])
    monkeypatch.setattr(Past, "look_after", refuse)
    with pytest.raises(Unavailable):
        finish(desk.run(runtime=machines.runtime("a", CountedStore)))
    assert CountedStore.closed == [2]
