"""A run writes down everything before it hands it out; what it cannot write down is not handed out."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from claude_agent_sdk import AssistantMessage, Message, ResultMessage

from everturn import NotFound, Run, Unavailable, WorkItem
from everturn.clock import Ids, SystemClock
from everturn.host.folders import RunFolders
from everturn.journal.events import BeganAnew, Ended, Event, Prompt, Resumed, Shutdown, Started
from everturn.journal.reading import Journals, RunJournal, RunRef
from everturn.journal.shipping import Appender
from everturn.log.objects import run as run_blocking
from everturn.log.stores import connect
from everturn.mirrors.sqlite import SqliteMirror, folder_of
from everturn.settings import Settings
from everturn.testing import InstantAgent
from everturn.transcripts.archive import Archive
from everturn.upkeep.tending import Upkeep
from polling import wait_until
from runner.stage import DELTA, PROMPT, UNDER_TRIO, WORK, Desk, counted, finish


def journal_of(desk: Desk, run: Run | str) -> RunJournal:
    objects = connect(desk.store.as_uri(), Settings.load())
    run_id = run if isinstance(run, str) else run.run_id
    return run_blocking(Journals(objects, "").read(RunRef(WORK.key, run_id)))


def events_of(desk: Desk, run: Run) -> list[Event | None]:
    return [each.event for each in journal_of(desk, run).events]


def types_of(desk: Desk, run: Run) -> list[str]:
    return [each.type for each in journal_of(desk, run).events]


def run_folders(desk: Desk) -> list[Path]:
    return [path for path in (desk.folder / "state" / "runs").iterdir() if path.name != ".lock"]


@pytest.mark.parametrize("backend", ["asyncio", pytest.param("trio", marks=UNDER_TRIO)])
def test_a_runs_journal_tells_whose_it_is_and_what_happened_from_first_to_last(desk: Desk, backend: str) -> None:
    run = desk.run()
    finish(run, backend)
    first, second, *_, last = events_of(desk, run)
    assert first == Started(
        run_id=run.run_id,
        work_key=WORK.key,
        session_id=str(run.session_id),
        epoch=1,
        worker=Settings.load().worker,
        cwd=str(desk.work),
        task_id="tap",
    )
    assert second == Prompt(PROMPT, resumed=False)
    assert last == Ended("completed")
    assert types_of(desk, run) == ["started", "prompt", "init", "assistant", "result", "ended"]
    assert journal_of(desk, run).missing == ()
    assert run_folders(desk) == []


@pytest.mark.slow
def test_a_run_that_goes_on_names_the_one_before(desk: Desk) -> None:
    first, second = desk.run(), desk.run()
    finish(first)
    finish(second)
    started, resumed, prompt, *_ = events_of(desk, second)
    assert isinstance(started, Started)
    assert (started.previous_run_id, started.epoch) == (first.run_id, 2)
    assert resumed == Resumed(str(first.session_id), first.run_id, took_over=False)
    assert prompt == Prompt(DELTA, resumed=True)


@pytest.mark.slow
def test_a_run_after_a_session_that_was_too_old_names_the_one_before_too(desk: Desk) -> None:
    first = desk.run()
    finish(first)
    second = desk.run(runtime=desk.runtime(max_session_age_ms=0))
    finish(second)
    started, *_ = events_of(desk, second)
    assert isinstance(started, Started)
    assert started.previous_run_id == first.run_id
    assert "resumed" not in types_of(desk, second)


@pytest.mark.slow
def test_a_conversation_that_is_lost_on_the_way_is_told(desk: Desk) -> None:
    finish(desk.run())
    run = desk.run(agent=InstantAgent(desk.folder / "forgetful", loses_resumed="streaming"))
    finish(run)
    anew = [event for event in events_of(desk, run) if isinstance(event, BeganAnew)]
    assert [event.session_id for event in anew] == [run.session_id]
    assert [event.text for event in events_of(desk, run) if isinstance(event, Prompt)] == [DELTA, PROMPT]


def test_nothing_is_handed_out_before_it_is_in_the_file(desk: Desk) -> None:
    async def main() -> list[tuple[str, bool]]:
        seen = []
        async for message in run:
            if isinstance(message, AssistantMessage | ResultMessage):
                written = (run_folders(desk)[0] / "journal.jsonl").read_bytes()
                kind = "assistant" if isinstance(message, AssistantMessage) else "result"
                seen.append((kind, b'"type":"%s"' % kind.encode() in written))
        return seen

    run = desk.run()
    assert anyio.run(main) == [("assistant", True), ("result", True)]


def test_with_store_nothing_is_handed_out_before_it_is_in_the_store(desk: Desk) -> None:
    async def main() -> list[list[str]]:
        return [types_of(desk, run) async for message in run if isinstance(message, AssistantMessage)]

    run = desk.run(runtime=desk.runtime(journal_durability="store", journal_ship_s=3600))
    assert anyio.run(main) == [["started", "prompt", "init", "assistant"]]


def test_with_fsync_the_files_names_and_whose_they_are_are_on_the_disk_too(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, synced = os.fsync, list[Path]()

    def note(file: int) -> None:
        synced.append(Path(f"/proc/self/fd/{file}").readlink())
        fsync(file)

    monkeypatch.setattr(os, "fsync", note)
    run = desk.run(runtime=desk.runtime(journal_durability="fsync"))
    finish(run)
    folder = desk.folder / "state" / "runs" / run.run_id
    assert {folder / "run.json", folder, folder.parent} <= set(synced)


def full_after(monkeypatch: pytest.MonkeyPatch, kind: bytes) -> None:
    """Have the disk be full in the middle of the line of an event of this type, and of all after it."""
    write, full = os.write, threading.Event()

    def fail(file: int, data: Any) -> int:
        if b'"type":"%s"' % kind in bytes(data)[:80]:
            full.set()
            return write(file, bytes(data)[:20])
        if full.is_set() and b'"seq":' in bytes(data)[:20]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if full.is_set() and isinstance(data, memoryview):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data)

    monkeypatch.setattr(os, "write", fail)


def test_what_the_disk_cannot_take_is_in_the_store_before_it_is_handed_out(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> list[list[str]]:
        return [types_of(desk, run) async for message in run if isinstance(message, AssistantMessage)]

    failures = counted("everturn_journal_write_failures_total")
    run = desk.run(runtime=desk.runtime(journal_ship_s=3600))
    with monkeypatch.context() as patch:
        full_after(patch, b"assistant")
        assert anyio.run(main) == [["started", "prompt", "init", "assistant"]]
    assert types_of(desk, run) == ["started", "prompt", "init", "assistant", "result", "ended"]
    assert failures() == 3


@pytest.mark.slow
def test_what_neither_disk_nor_store_take_is_not_handed_out_and_the_next_run_goes_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen = desk.run(), list[Message]()

    async def main() -> None:
        async for message in run:
            seen.append(message)

    def refuse(*_: Any) -> None:
        raise Unavailable("the store is away", hint="wait")

    with monkeypatch.context() as patch:
        full_after(patch, b"assistant")
        patch.setattr(Appender, "append", refuse)
        with pytest.raises(Unavailable, match="the store is away"):
            anyio.run(main)
    assert not any(isinstance(message, AssistantMessage | ResultMessage) for message in seen)
    assert desk.record().held_until is None
    second = desk.run()
    finish(second)
    assert types_of(desk, run) == ["started", "prompt", "init"]
    started, resumed, *_ = events_of(desk, second)
    assert isinstance(started, Started)
    assert started.previous_run_id == run.run_id
    assert isinstance(resumed, Resumed)


def test_a_run_that_is_stopped_says_why(desk: Desk) -> None:
    async def main() -> None:
        async for message in run:
            if isinstance(message, AssistantMessage):
                run.stop("enough")

    run = desk.run()
    anyio.run(main)
    ends = [event for event in events_of(desk, run) if isinstance(event, Shutdown | Ended)]
    assert ends == [Shutdown("enough"), Ended("stopped")]


def test_a_run_that_is_stopped_while_it_lets_go_says_why(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = desk.runtime()
    run = desk.run(runtime=runtime)
    monkeypatch.setattr(runtime._stores, "upload_trace", lambda *_, **__: run.stop("enough"))
    finish(run)
    assert events_of(desk, run)[-2:] == [Shutdown("enough"), Ended("stopped")]


def test_a_run_that_fails_says_what_went_wrong(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    run = desk.run(agent=InstantAgent(desk.folder / "lost", loses_begun="streaming"))
    with pytest.raises(Exception, match="lost session"):
        finish(run)
    last = events_of(desk, run)[-1]
    assert isinstance(last, Ended)
    assert (last.outcome, "lost session" in str(last.error)) == ("failed", True)


def refuse(*_: Any) -> None:
    raise Unavailable("the store is away", hint="wait")


def leave(desk: Desk, monkeypatch: pytest.MonkeyPatch, *works: WorkItem) -> list[Run]:
    """Have runs of which nothing of their journals is stored when they end."""
    runs = []
    for work in works:
        runs.append(desk.run(work, runtime=desk.runtime(journal_ship_s=3600)))
        with monkeypatch.context() as patch:
            patch.setattr(Appender, "append", refuse)
            patch.setattr(RunFolders, "leftovers", lambda _: [])
            finish(runs[-1])
    return runs


@pytest.mark.slow
def test_what_was_not_shipped_is_shipped_by_the_next_run_on_this_machine(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    [first] = leave(desk, monkeypatch, WORK)
    assert types_of(desk, first) == []
    assert [folder.name for folder in run_folders(desk)] == [first.run_id]
    with (run_folders(desk)[0] / "journal.jsonl").open("ab") as file:
        file.write(b'{"v":1,"seq":7,"at_ms":17')
    second = desk.run(WorkItem.task("another"))
    finish(second)
    assert types_of(desk, first) == ["started", "prompt", "init", "assistant", "result", "ended"]
    assert any("was torn" in warning for warning in second.warnings)
    assert not list((desk.folder / "state" / "runs").rglob("journal.jsonl"))


@pytest.mark.slow
def test_what_was_not_shipped_when_its_session_was_deleted_is_never_shipped(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    [first] = leave(desk, monkeypatch, WORK)
    archive = Archive(connect(desk.store.as_uri(), Settings.load()), "")
    upkeep = Upkeep(archive, Settings.load(), SystemClock(), Ids())
    run_blocking(upkeep.delete(run_blocking(archive.find(str(first.session_id)))))
    second = desk.run(WorkItem.task("another"))
    finish(second)
    assert types_of(desk, first) == []
    assert any("its session was deleted" in warning for warning in second.warnings)
    assert not list((desk.folder / "state" / "runs").rglob("journal.jsonl"))


@pytest.mark.slow
def test_a_store_that_takes_no_journal_is_waited_for_once_however_many_were_left(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = leave(desk, monkeypatch, *(WorkItem.task(name) for name in "abc"))
    runtime, asked = desk.runtime(), []

    def ship(ref: RunRef, _: Path) -> None:
        asked.append(ref)
        refuse()

    with monkeypatch.context() as patch:
        patch.setattr(runtime._stores, "ship_journal", ship)
        finish(desk.run(runtime=runtime))
    assert len(asked) == 1
    finish(desk.run(WorkItem.task("another")))
    objects = connect(desk.store.as_uri(), Settings.load())
    refs = [RunRef(f"task:{name}", run.run_id) for name, run in zip("abc", left, strict=True)]
    assert all(len(run_blocking(Journals(objects, "").read(ref)).events) == 6 for ref in refs)


# --- The mirror of this machine ---


def folded(settings: Settings) -> dict[str, int]:
    """Return the last event of each run that the mirror has."""
    try:
        known = SqliteMirror(folder_of(settings), settings.store_url()).checkpoints()
    except NotFound:
        return {}
    return {ref.run_id: done.seq for ref, done in known.items()}


@pytest.mark.slow
def test_runs_keep_the_mirror_of_this_machine_up_to_date(desk: Desk) -> None:
    runtime, runs = desk.runtime(), []
    for _ in range(2):
        runs.append(desk.run(runtime=runtime))
        finish(runs[-1])
    events = {run.run_id: len(journal_of(desk, run).events) for run in runs}
    wait_until(lambda: folded(runtime.settings) == events, "the mirror has all of it")


def test_a_mirror_that_cannot_be_written_does_not_concern_a_run(desk: Desk) -> None:
    place = desk.folder / "mirrors"
    place.write_text("a file, where a folder should be")
    failures = counted("everturn_mirror_update_failures_total")
    run = desk.run(runtime=desk.runtime(mirrors=place))
    assert isinstance(finish(run)[-1], ResultMessage)
    wait_until(lambda: failures() >= 1, "it is counted")


def test_where_no_live_mirror_is_wanted_there_is_none(desk: Desk) -> None:
    finish(desk.run(runtime=desk.runtime(live_mirror=False)))
    assert not (desk.folder / "state" / "mirrors").exists()
