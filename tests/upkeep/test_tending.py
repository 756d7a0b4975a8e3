"""Compacting, deleting, expiring and holding sessions."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import anyio
import pytest
from claude_agent_sdk import SessionKey
from obstore.store import MemoryStore

from everturn import Conflict, Invalid, NotFound, Settings, TranscriptStore, Unavailable
from everturn.clock import Ids, ManualClock
from everturn.log.compaction import compact
from everturn.log.objects import BlockingObjects, Item, Objects, Stored, run
from everturn.testing import Fault, FaultyObjects
from everturn.transcripts.archive import Archive, SessionRef
from everturn.transcripts.holds import held, hold_on, lift_hold, place_hold
from everturn.upkeep.tending import DAY_MS, Upkeep

SESSION = "7df19cb2-f002-4f12-a0f4-5b4be6b08923"
OTHER = "11111111-f002-4f12-a0f4-5b4be6b08923"
KEY: SessionKey = {"project_key": "-home-a", "session_id": SESSION}
SUB: SessionKey = {**KEY, "subpath": "subagents/agent-1"}
REF = SessionRef("task-1", "-home-a", SESSION)


class TimedObjects(FaultyObjects):
    """A memory whose clock is turned by hand."""

    def __init__(self) -> None:
        super().__init__(BlockingObjects(MemoryStore(), "memory://"))
        self.now_ms = 1_700_000_000_000
        self._times: dict[str, int] = {}

    async def create(self, key: str, data: bytes) -> bool:
        made = await super().create(key, data)
        if made:
            self._times[key] = self.now_ms
        return made

    async def put(self, key: str, data: bytes) -> None:
        self._times[key] = self.now_ms
        await super().put(key, data)

    async def get(self, key: str) -> Stored | None:
        stored = await super().get(key)
        return None if stored is None else Stored(stored.data, self._times[key])

    async def listing(self, folder: str) -> list[Item]:
        return [replace(item, modified_ms=self._times[item.key]) for item in await super().listing(folder)]


@pytest.fixture
def objects() -> TimedObjects:
    return TimedObjects()


@pytest.fixture
def archive(objects: TimedObjects) -> Archive:
    return Archive(objects, "memory://")


@pytest.fixture
def upkeep(archive: Archive) -> Upkeep:
    return Upkeep(archive, settings(), ManualClock(), Ids())


def settings() -> Settings:
    return Settings.load(summary_pause_s=3600, compact_after_parts=0)


def entry(number: int) -> Any:
    return {"type": "user", "uuid": f"u-{number}", "n": number}


def fill(objects: TimedObjects, key: SessionKey, count: int, *, any_cwd: bool = False) -> None:
    async def main() -> None:
        async with TranscriptStore(objects, scope="task-1", settings=settings(), any_cwd=any_cwd) as store:
            for number in range(count):
                await store.append(key, [entry(number)])

    anyio.run(main)


def load(objects: TimedObjects, key: SessionKey) -> Any:
    return anyio.run(TranscriptStore(objects, scope="task-1", settings=settings()).load, key)


def keys(objects: TimedObjects, folder: str = "") -> list[str]:
    return sorted(item.key for item in run(objects.listing(folder)))


# --- Compacting ----------------------------------------------------------------------------------------------------


def test_a_session_is_compacted_with_its_sub_transcripts_and_freed_two_minutes_later(
    objects: TimedObjects, upkeep: Upkeep
) -> None:
    fill(objects, KEY, 5)
    fill(objects, SUB, 4)
    first = run(upkeep.compact(REF))
    assert (first.objects_before, first.objects_after, first.segments, first.freed, first.waiting) == (9, 11, 2, 0, 9)
    objects.now_ms += 119_000
    assert run(upkeep.compact(REF)).freed == 0
    objects.now_ms += 1_000
    last = run(upkeep.compact(REF))
    assert (last.objects_after, last.segments, last.freed, last.waiting) == (2, 0, 9, 0)
    assert [found["n"] for found in load(objects, KEY)] == list(range(5))
    assert [found["n"] for found in load(objects, SUB)] == list(range(4))


def test_what_a_deletion_left_behind_goes_when_it_is_old_enough(objects: TimedObjects, upkeep: Upkeep) -> None:
    fill(objects, KEY, 5)
    run(upkeep.delete(REF))
    fill(objects, KEY, 2)
    run(upkeep.compact(REF))
    assert len(keys(objects, REF.folder())) == 9  # five erased, the truncation, two parts and their segment
    objects.now_ms += 120_000
    run(upkeep.compact(REF))
    assert [key.rsplit("/", 1)[-1] for key in keys(objects, REF.folder())] == [
        "0000000006.jsonl.zst",
        "0000000007-0000000008.jsonl.zst",
    ]
    assert [found["n"] for found in load(objects, KEY)] == [0, 1]


def test_a_session_that_is_compacted_is_not_read_again(objects: TimedObjects, upkeep: Upkeep) -> None:
    fill(objects, KEY, 5)
    run(upkeep.compact(REF))
    objects.now_ms += 120_000
    run(upkeep.compact(REF))
    objects.counts.clear()
    again = run(upkeep.compact(REF))
    assert (again.objects_before, again.objects_after) == (1, 1)
    assert objects.counts["get"] + objects.counts["put"] == 0


def test_whether_a_session_is_there_costs_no_more_than_its_last_object(objects: TimedObjects, upkeep: Upkeep) -> None:
    fill(objects, KEY, 50)
    objects.counts.clear()
    assert not run(upkeep.look(REF)).is_remains
    assert objects.counts["get"] == 1


def test_whether_a_compacted_session_is_there_is_told_by_its_size(objects: TimedObjects, upkeep: Upkeep) -> None:
    async def main() -> None:
        async with TranscriptStore(objects, scope="task-1", settings=settings()) as store:
            for number in range(2):
                await store.append(KEY, [{**entry(number), "noise": random.Random(number).randbytes(2000).hex()}])

    anyio.run(main)
    run(upkeep.compact(REF))
    objects.counts.clear()
    assert not run(upkeep.look(REF)).is_remains
    assert objects.counts["get"] == 0


@pytest.mark.slow
def test_a_compacted_session_of_fences_alone_is_not_there(objects: TimedObjects, upkeep: Upkeep) -> None:
    for epoch in range(1, 100):
        store = TranscriptStore(objects, scope="task-1", settings=settings(), epoch=epoch)
        anyio.run(store.take_over, KEY["project_key"], SESSION)
    assert run(compact(objects, REF.folder(), writer="", ids=Ids(), everything=True)).merged == 99
    assert run(upkeep.look(REF)).is_remains


def test_a_deleted_session_is_not_there_however_long_the_name_of_who_deleted_it(objects: TimedObjects) -> None:
    long = Settings.load(summary_pause_s=3600, worker="\N{SHEEP}" * 1000)
    fill(objects, KEY, 1)
    store = TranscriptStore(objects, scope="task-1", settings=long)
    anyio.run(store.delete, KEY)
    assert anyio.run(store.list_sessions, KEY["project_key"]) == []


def test_sub_transcripts_are_found_with_one_listing(objects: TimedObjects) -> None:
    for number in range(5):
        fill(objects, {**KEY, "subpath": f"subagents/agent-{number}"}, 2)
    objects.counts.clear()
    store = TranscriptStore(objects, scope="task-1", settings=settings())
    found = anyio.run(store.list_subkeys, {"project_key": KEY["project_key"], "session_id": SESSION})
    assert found == [f"subagents/agent-{number}" for number in range(5)]
    assert objects.counts["listing"] == 1


# --- Deleting ------------------------------------------------------------------------------------------------------


def test_deleting_takes_the_session_its_summary_and_its_home(objects: TimedObjects, upkeep: Upkeep) -> None:
    fill(objects, KEY, 3, any_cwd=True)
    objects.now_ms += DAY_MS
    run(upkeep.delete(REF))
    assert load(objects, KEY) is None
    left = [key for key in keys(objects) if key.split("/")[0] in ("sessions", "summaries", "homes", "catalogs")]
    assert left == [f"{REF.folder()}/0000000004.jsonl.zst"]


def test_a_sub_transcript_that_begins_while_the_session_is_deleted_goes_too(objects: TimedObjects) -> None:
    class Busy(TimedObjects):
        async def create(self, key: str, data: bytes) -> bool:
            if key.endswith("/main/0000000002.jsonl.zst"):  # the truncation
                fill(objects, SUB, 1)
            return await objects.create(key, data)

    fill(objects, KEY, 1)
    busy = Busy()
    busy._inner = objects
    busy._times = objects._times
    anyio.run(TranscriptStore(busy, scope="task-1", settings=settings()).delete, KEY)
    assert load(objects, SUB) is None


def test_one_sub_transcript_is_deleted_alone(objects: TimedObjects, upkeep: Upkeep) -> None:
    fill(objects, KEY, 2)
    fill(objects, SUB, 2)
    run(upkeep.delete(REF, "subagents/agent-1"))
    assert load(objects, SUB) is None
    assert len(load(objects, KEY)) == 2
    with pytest.raises(NotFound, match="agent-2"):
        run(upkeep.delete(REF, "subagents/agent-2"))


# --- Holds ---------------------------------------------------------------------------------------------------------


def hold(objects: Objects) -> None:
    run(place_hold(objects, "task-1", SESSION, "case 12", by="ada", now_s=1_700_000_000))


def test_a_session_under_a_hold_is_not_deleted_by_anybody(objects: TimedObjects, upkeep: Upkeep) -> None:
    fill(objects, KEY, 2)
    fill(objects, SUB, 2)
    hold(objects)
    for act in (upkeep.delete(REF), upkeep.delete(REF, "subagents/agent-1")):
        with pytest.raises(Conflict, match=r"legal hold since 2023-11-14T22:13:20\+00:00: case 12"):
            run(act)
    with pytest.raises(Conflict, match="legal hold"):
        anyio.run(TranscriptStore(objects, scope="task-1", settings=settings()).delete, SUB)
    assert len(load(objects, KEY)) == len(load(objects, SUB)) == 2


def test_a_hold_is_placed_once_and_lifted_once(objects: TimedObjects) -> None:
    hold(objects)
    assert run(held(objects, "task-1")) == {SESSION}
    with pytest.raises(Conflict, match="already"):
        hold(objects)
    assert run(lift_hold(objects, "task-1", SESSION, by="bob")).reason == "case 12"
    assert run(hold_on(objects, "task-1", SESSION)) is None
    with pytest.raises(NotFound, match="no hold"):
        run(lift_hold(objects, "task-1", SESSION, by="bob"))


def test_the_log_tells_who_placed_a_hold_and_who_lifted_it(
    objects: TimedObjects, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "everturn"):
        hold(objects)
        run(lift_hold(objects, "task-1", SESSION, by="bob"))
    placed, lifted = (json.loads(record.message) for record in caplog.records if record.name == "everturn")
    assert (placed["event"], placed["session_id"], placed["by"]) == ("hold_placed", SESSION, "ada")
    assert (lifted["event"], lifted["by"], lifted["placed_by"]) == ("hold_lifted", "bob", "ada")
    assert "case 12" not in caplog.text


def test_a_hold_that_the_store_was_too_busy_for_is_not_taken_for_one(objects: TimedObjects) -> None:
    with pytest.raises(Unavailable, match="busy"):
        hold(FaultyObjects(objects, Fault("busy")))
    assert run(held(objects, "task-1")) == set()


def test_a_hold_whose_reason_is_no_unicode_is_refused(objects: TimedObjects) -> None:
    with pytest.raises(Invalid, match="Unicode"):
        run(place_hold(objects, "task-1", SESSION, "case \udcff", by="ada", now_s=0))


def test_when_the_hold_is_lifted_the_session_can_be_deleted(objects: TimedObjects, upkeep: Upkeep) -> None:
    fill(objects, KEY, 2)
    hold(objects)
    run(lift_hold(objects, "task-1", SESSION, by="bob"))
    run(upkeep.delete(REF))
    assert load(objects, KEY) is None


def test_a_hold_that_cannot_be_read_holds(objects: TimedObjects, upkeep: Upkeep) -> None:
    fill(objects, KEY, 2)
    run(objects.put(f"holds/task-1/{SESSION}.json", b"{"))
    with pytest.raises(Exception, match="damaged"):
        run(upkeep.delete(REF))
    assert len(load(objects, KEY)) == 2


# --- Expiring ------------------------------------------------------------------------------------------------------


def expired(upkeep: Upkeep, days: int = 90) -> list[str]:
    return [found.ref.session_id for found in run(upkeep.expired("task-1", days * DAY_MS))]


def test_sessions_expire_by_their_last_entry(objects: TimedObjects, upkeep: Upkeep) -> None:
    fill(objects, KEY, 2)
    objects.now_ms += 30 * DAY_MS
    fill(objects, {**KEY, "session_id": OTHER}, 2)
    objects.now_ms += 60 * DAY_MS + 1
    assert expired(upkeep) == [SESSION]
    assert expired(upkeep, days=59) == [SESSION, OTHER] or expired(upkeep, days=59) == [OTHER, SESSION]
    assert expired(upkeep, days=91) == []


def test_a_session_whose_summary_is_behind_does_not_expire(objects: TimedObjects, upkeep: Upkeep) -> None:
    fill(objects, KEY, 2)
    objects.now_ms += 89 * DAY_MS

    async def main() -> None:  # a worker that dies before its session pauses
        await TranscriptStore(objects, scope="task-1", settings=settings()).append(KEY, [entry(9)])

    anyio.run(main)
    objects.now_ms += 2 * DAY_MS
    assert expired(upkeep) == []


def test_a_sub_transcript_that_goes_on_keeps_its_session(objects: TimedObjects, upkeep: Upkeep) -> None:
    fill(objects, KEY, 2)
    objects.now_ms += 89 * DAY_MS
    fill(objects, SUB, 1)
    objects.now_ms += 2 * DAY_MS
    assert expired(upkeep) == []


def test_an_expired_session_is_deleted_unless_somebody_has_written_to_it(
    objects: TimedObjects, upkeep: Upkeep
) -> None:
    fill(objects, KEY, 2)
    objects.now_ms += 100 * DAY_MS
    (found,) = run(upkeep.expired("task-1", 90 * DAY_MS))
    fill(objects, KEY, 3)
    assert run(upkeep.expire(found)) is False
    assert len(load(objects, KEY)) == 3
    objects.now_ms += 100 * DAY_MS
    (found,) = run(upkeep.expired("task-1", 90 * DAY_MS))
    assert run(upkeep.expire(found)) is True
    assert load(objects, KEY) is None


def test_a_held_session_is_found_expired_and_refused(objects: TimedObjects, upkeep: Upkeep) -> None:
    fill(objects, KEY, 2)
    hold(objects)
    objects.now_ms += 100 * DAY_MS
    (found,) = run(upkeep.expired("task-1", 90 * DAY_MS))
    assert found.is_held
    with pytest.raises(Conflict, match="legal hold"):
        run(upkeep.expire(found))
    assert len(load(objects, KEY)) == 2


def test_the_traces_of_a_deletion_go_after_a_week_at_the_earliest(objects: TimedObjects, upkeep: Upkeep) -> None:
    fill(objects, KEY, 2)
    run(upkeep.delete(REF))
    objects.now_ms += 6 * DAY_MS
    assert expired(upkeep, days=1) == []
    objects.now_ms += DAY_MS + 1
    (found,) = run(upkeep.expired("task-1", DAY_MS))
    assert found.is_remains
    assert run(upkeep.expire(found)) is True
    assert keys(objects, "sessions") == []
    assert expired(upkeep, days=1) == []


def test_a_session_that_expires_under_one_key_does_not_take_the_one_that_lives_under_another(
    objects: TimedObjects, upkeep: Upkeep
) -> None:
    """A plain store does not ask for a session's home, so the same id can lie under two project keys."""
    elsewhere: SessionKey = {**KEY, "project_key": "-elsewhere"}
    fill(objects, KEY, 1, any_cwd=True)
    fill(objects, elsewhere, 1)
    objects.now_ms += 100 * DAY_MS
    fill(objects, KEY, 2, any_cwd=True)
    (found,) = run(upkeep.expired("task-1", 90 * DAY_MS))
    assert found.ref.project_key == "-elsewhere"
    assert run(upkeep.expire(found))
    assert load(objects, elsewhere) is None
    assert [entry["n"] for entry in load(objects, KEY)] == [0, 1]
    assert len(keys(objects, "homes")) == 1


def test_the_summary_that_a_broken_deletion_left_goes_with_its_traces(objects: TimedObjects, upkeep: Upkeep) -> None:
    fill(objects, KEY, 1, any_cwd=True)
    objects.faults.append(Fault("fail", "delete", "summaries/*"))
    with pytest.raises(Unavailable):
        run(upkeep.delete(REF))
    objects.now_ms += 8 * DAY_MS
    (found,) = run(upkeep.expired("task-1", DAY_MS))
    assert found.is_remains
    assert run(upkeep.expire(found))
    assert keys(objects) == ["probes/task-1.json"]


def test_deleting_takes_the_copies_that_a_repair_has_kept(objects: TimedObjects, upkeep: Upkeep) -> None:
    fill(objects, KEY, 2)
    fill(objects, SUB, 2)
    copy = f"damaged/{REF.folder().removeprefix('sessions/')}/0000000001.jsonl.zst.0123456789abcdef"
    of_sub = (
        f"damaged/{REF.folder('subagents/agent-1').removeprefix('sessions/')}/0000000001.jsonl.zst.0123456789abcdef"
    )
    for key in (copy, of_sub):
        run(objects.create(key, b"bytes"))
    run(upkeep.delete(REF, "subagents/agent-1"))
    assert keys(objects, "damaged") == [copy]
    run(upkeep.delete(REF))
    assert keys(objects, "damaged") == []


def test_compaction_does_not_make_a_session_younger(objects: TimedObjects, upkeep: Upkeep) -> None:
    fill(objects, KEY, 3)
    fill(objects, SUB, 3)
    for _ in range(2):
        objects.now_ms += 40 * DAY_MS
        run(upkeep.compact(REF))
    assert expired(upkeep, days=81) == []
    objects.now_ms += 2 * DAY_MS
    assert expired(upkeep, days=81) == [SESSION]
    (found,) = run(upkeep.expired("task-1", 81 * DAY_MS))
    assert run(upkeep.expire(found)) is True
    assert load(objects, KEY) is None


def test_a_compacted_session_that_went_on_counts_from_there(objects: TimedObjects, upkeep: Upkeep) -> None:
    fill(objects, KEY, 3)
    objects.now_ms += 80 * DAY_MS

    async def main() -> None:  # a worker that dies before its session pauses
        await TranscriptStore(objects, scope="task-1", settings=settings()).append(KEY, [entry(9)])

    anyio.run(main)
    for _ in range(2):
        objects.now_ms += 5 * DAY_MS
        run(upkeep.compact(REF))
    assert len(keys(objects, REF.folder())) == 1
    objects.now_ms += DAY_MS
    assert expired(upkeep, days=90) == []


def test_a_session_is_there_until_it_is_deleted(objects: TimedObjects, archive: Archive, upkeep: Upkeep) -> None:
    fill(objects, SUB, 1)
    assert run(archive.exists(REF))
    run(upkeep.delete(REF))
    assert not run(archive.exists(REF))
