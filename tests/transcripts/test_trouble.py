"""The store when things go wrong: outages, zombies, deletions under live writers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from claude_agent_sdk import SessionKey
from obstore.store import MemoryStore

from everturn import Conflict, Corrupt, Denied, Fenced, Invalid, Settings, TranscriptStore, Unavailable
from everturn.clock import ManualClock
from everturn.log.objects import BlockingObjects, Item, run
from everturn.log.reader import read
from everturn.testing import Fault, FaultyObjects

KEY: SessionKey = {"project_key": "-home-a", "session_id": "7df19cb2-f002-4f12-a0f4-5b4be6b08923"}
ELSEWHERE: SessionKey = {**KEY, "project_key": "-srv-b"}
SUB: SessionKey = {**KEY, "subpath": "subagents/agent-1"}
MAIN = f"sessions/task-1/-home-a/{KEY['session_id']}/main"
SUMMARY = f"summaries/task-1/-home-a/{KEY['session_id']}.json"


class Bench:
    """Stores on one memory, behind faults, with a clock that only moves when somebody waits."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.objects = FaultyObjects(BlockingObjects(MemoryStore(), "memory://", self.clock))

    def store(self, *, any_cwd: bool = False, epoch: int = 0) -> TranscriptStore:
        return TranscriptStore(
            self.objects,
            scope="task-1",
            any_cwd=any_cwd,
            epoch=epoch,
            clock=self.clock,
            settings=Settings.load(summary_pause_s=3600),
        )


@pytest.fixture
def bench() -> Bench:
    return Bench()


def entry(number: int, **more: Any) -> Any:
    return {"type": "user", "uuid": f"u-{number}", "n": number, **more}


@contextmanager
def outage(bench: Bench, keys: str = "*") -> Iterator[None]:
    """Nothing can be created for a while."""
    fault = Fault("fail", "create", keys=keys, times=None)
    bench.objects.faults.append(fault)
    yield
    bench.objects.faults.remove(fault)


def numbers(entries: Any) -> list[int]:
    return [found["n"] for found in entries or []]


# --- Outages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("any_cwd", [False, True])
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_first_append_outlasts_an_outage(bench: Bench, any_cwd: bool, epoch: int) -> None:
    async def main() -> None:
        store = bench.store(any_cwd=any_cwd, epoch=epoch)
        bench.objects.faults.append(Fault("fail", times=8))
        await store.append(KEY, [entry(1)])
        assert numbers(await store.load(KEY)) == [1]
        assert store.unstored_entries == 0

    anyio.run(main)


def test_what_could_not_be_stored_is_counted_until_it_is(bench: Bench) -> None:
    async def main() -> None:
        store = bench.store()
        await store.append(KEY, [entry(1)])
        with outage(bench):
            batch = [entry(2), entry(3)]
            for _ in range(3):  # as the SDK does
                with pytest.raises(Unavailable):
                    await store.append(KEY, batch)
            assert store.unstored_entries == 2
        await store.append(KEY, [entry(4)])
        assert store.unstored_entries == 0
        assert numbers(await store.load(KEY)) == [1, 2, 3, 4]

    anyio.run(main)


def test_a_batch_that_the_sdk_gave_up_while_an_earlier_one_was_unresolved_stays_counted(bench: Bench) -> None:
    async def main() -> None:
        store = bench.store()
        await store.append(KEY, [entry(1)])
        with outage(bench):
            for batch in ([entry(2)], [entry(3)]):
                with pytest.raises(Unavailable):
                    await store.append(KEY, batch)
        await store.append(KEY, [entry(4)])
        assert numbers(await store.load(KEY)) == [1, 2, 4]
        assert store.unstored_entries == 1

    anyio.run(main)


def test_what_was_denied_and_stored_by_the_next_append_is_no_longer_counted(
    bench: Bench,
) -> None:
    async def main() -> None:
        store = bench.store()
        bench.objects.faults.append(Fault("fail", "create", error=Denied("the token has expired", hint="renew it")))
        with pytest.raises(Denied):
            await store.append(KEY, [entry(1)])
        assert store.unstored_entries == 1
        await store.append(KEY, [entry(2)])
        assert numbers(await store.load(KEY)) == [1, 2]
        assert store.unstored_entries == 0

    anyio.run(main)


def test_a_fence_that_was_left_unresolved_is_not_taken_for_the_batch(bench: Bench) -> None:
    async def main() -> None:
        store = bench.store(any_cwd=True, epoch=1)
        await store.take_over(KEY["project_key"], KEY["session_id"])
        with outage(bench, "*/sub/*"), pytest.raises(Unavailable):
            await store.append(SUB, [entry(1)])
        await store.append(SUB, [entry(2)])
        assert numbers(await store.load(SUB)) == [1, 2]
        assert store.unstored_entries == 0

    anyio.run(main)


def test_what_is_refused_for_its_name_is_counted_as_not_stored(bench: Bench) -> None:
    async def main() -> None:
        store = bench.store()
        with pytest.raises(Invalid):
            await store.append({**KEY, "subpath": "x" * 300}, [entry(1)])
        assert store.unstored_entries == 1

    anyio.run(main)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_several_can_wait_until_everything_is_settled(bench: Bench, backend: str) -> None:
    async def main() -> None:
        store = bench.store()
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                for number in range(5):
                    group.start_soon(store.append, KEY, [entry(number)])
                    group.start_soon(store.settled)
                    group.start_soon(store.settled)
        await store.settled()
        assert len(await store.load(KEY) or []) == 5

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("keys", ["homes/*", "sessions/*"])
def test_an_append_that_fails_is_counted_once_wherever_it_got_stuck(bench: Bench, keys: str) -> None:
    async def main() -> None:
        store = bench.store(any_cwd=True)
        with outage(bench, keys), pytest.raises(Unavailable):
            await store.append(KEY, [entry(1)])
        assert store.observer.failed_appends == 1
        for unfit in (entry(2, it=b"x"), entry(3, it={1, 2})):
            with pytest.raises(Invalid):
                await store.append(KEY, [unfit])
        assert store.observer.failed_appends == 3
        await store.append(KEY, [entry(1)])
        assert store.observer.failed_appends == 3

    anyio.run(main)


def test_of_the_summaries_that_are_behind_one_is_tried_while_the_store_is_away(bench: Bench) -> None:
    async def main() -> None:
        store = bench.store()
        sessions = {f"{number}7df19cb2" for number in range(3)}
        for session_id in sessions:
            await store.append({**KEY, "session_id": session_id}, [entry(1)])
        bench.objects.faults.append(Fault("fail", "put", keys="summaries/*", times=None))
        before = bench.objects.counts["put"]
        await store.flush()
        assert bench.objects.counts["put"] == before + 1
        bench.objects.faults.clear()
        await store.flush()
        summaries = run(bench.objects.listing("summaries"))
        assert {item.key.rsplit("/", 1)[-1].removesuffix(".json") for item in summaries} == sessions

    anyio.run(main)


# --- Claims ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newer", [2, 1])
def test_an_older_claim_cannot_begin_a_sub_transcript_after_a_takeover(bench: Bench, newer: int) -> None:
    async def main() -> None:
        zombie = bench.store(any_cwd=True, epoch=1)
        await zombie.take_over(KEY["project_key"], KEY["session_id"])
        await bench.store(any_cwd=True, epoch=newer).take_over(KEY["project_key"], KEY["session_id"])
        with pytest.raises(Fenced):
            await zombie.append(SUB, [entry(1)])
        assert await bench.store().load(SUB) is None

    anyio.run(main)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault("fail", "listing", keys=MAIN, times=None), id="look whether it is still ours"),
        pytest.param(Fault("fail", "create", keys="*/sub/*", times=None), id="fence"),
        pytest.param(Fault("fail", "listing", keys="*/sub/*", times=None, after=1), id="read"),
    ],
)
def test_an_append_that_cannot_even_open_its_log_is_counted_with_its_entries(
    bench: Bench, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        store = bench.store(any_cwd=True, epoch=1)
        await begin(store)
        bench.objects.faults.append(fault)
        with pytest.raises(Unavailable):
            await store.append(SUB, [entry(1), entry(2)])
        assert store.observer.failed_appends == 1

    anyio.run(main)
    (line,) = [line for line in caplog.messages if "append_failed" in line]
    assert re.search(r"entries\W+2\b", line)


def test_only_what_was_said_makes_a_conversation_to_resume(bench: Bench) -> None:
    async def main() -> None:
        store = bench.store(any_cwd=True, epoch=1)
        assert await store.take_over(KEY["project_key"], KEY["session_id"]) is False
        await store.append(KEY, [{"type": "queue-operation"}])
        again = bench.store(any_cwd=True, epoch=2)
        assert await again.take_over(KEY["project_key"], KEY["session_id"]) is False
        await again.append(KEY, [entry(1)])
        assert await bench.store(any_cwd=True, epoch=3).take_over(KEY["project_key"], KEY["session_id"]) is True

    anyio.run(main)


async def begin(store: TranscriptStore) -> bool:
    return await store.take_over(KEY["project_key"], KEY["session_id"], is_new=True)


@pytest.mark.parametrize("effect", ["fail", "lose_reply", "busy"])
@pytest.mark.parametrize("keys", ["homes/*", "sessions/*"])
def test_a_new_session_is_begun_when_the_answer_to_its_note_or_its_fence_is_lost(
    bench: Bench, effect: Any, keys: str
) -> None:
    async def main() -> None:
        bench.objects.faults.append(Fault(effect, "create", keys=keys))
        store = bench.store(any_cwd=True, epoch=1)
        assert await begin(store) is False
        await store.append(ELSEWHERE, [entry(1)])
        assert await bench.store().load(KEY) == [entry(1)]
        assert await bench.store(any_cwd=True).is_known(KEY["session_id"])

    anyio.run(main)


@pytest.mark.parametrize(("keys", "known"), [("homes/*", False), ("sessions/*", True)])
def test_a_new_session_that_could_not_be_noted_or_fenced_is_refused_and_holds_nothing(
    bench: Bench, keys: str, known: bool
) -> None:
    async def main() -> None:
        with outage(bench, keys), pytest.raises(Unavailable):
            await begin(bench.store(any_cwd=True, epoch=1))
        again = bench.store(any_cwd=True, epoch=2)
        assert await again.is_known(KEY["session_id"]) is known
        assert await again.load(KEY) is None

    anyio.run(main)


def test_a_session_that_lives_elsewhere_already_is_not_begun_as_a_new_one(bench: Bench) -> None:
    async def main() -> None:
        await bench.store(any_cwd=True).append(ELSEWHERE, [entry(1)])
        with pytest.raises(Conflict, match="is not new"):
            await begin(bench.store(any_cwd=True, epoch=1))

    anyio.run(main)


def test_a_claim_from_before_a_deletion_cannot_be_taken_up_after_it(bench: Bench) -> None:
    async def main() -> None:
        newest = bench.store(any_cwd=True, epoch=5)
        await newest.take_over(KEY["project_key"], KEY["session_id"])
        await newest.append(KEY, [entry(1)])
        await bench.store(any_cwd=True).append(KEY, [entry(2)])
        await bench.store(any_cwd=True).delete(KEY)
        with pytest.raises(Fenced):
            await bench.store(any_cwd=True, epoch=4).take_over(KEY["project_key"], KEY["session_id"])
        assert await bench.store(any_cwd=True, epoch=6).take_over(KEY["project_key"], KEY["session_id"]) is False

    anyio.run(main)


# --- Deletion ----------------------------------------------------------------------------------------------------


def test_what_was_left_unresolved_does_not_come_back_after_a_deletion(bench: Bench) -> None:
    async def main() -> None:
        store = bench.store()
        await store.append(KEY, [entry(1)])
        with outage(bench), pytest.raises(Unavailable):
            await store.append(KEY, [entry(2)])
        await store.delete(KEY)
        await store.append(KEY, [entry(3)])
        assert numbers(await store.load(KEY)) == [3]

    anyio.run(main)


def test_a_late_summary_does_not_bring_a_deleted_session_back_into_the_list(bench: Bench) -> None:
    async def main() -> None:
        writer = bench.store()
        await writer.append(KEY, [entry(1)])
        await bench.store().delete(KEY)
        await writer.flush()
        assert await bench.objects.get(SUMMARY) is None
        assert await bench.store().list_sessions(KEY["project_key"]) == []

    anyio.run(main)


def test_a_deleted_session_is_nobodys_home(bench: Bench) -> None:
    async def main() -> None:
        await bench.store().append(KEY, [entry(1)])
        await bench.store().delete(KEY)
        await bench.store().append(ELSEWHERE, [entry(2)])
        for key in (KEY, ELSEWHERE, {**KEY, "project_key": "-third"}):
            assert numbers(await bench.store(any_cwd=True).load(key)) == [2]

    anyio.run(main)


def test_a_guest_that_stalled_over_a_deletion_keeps_its_entry(bench: Bench) -> None:
    async def main() -> None:
        stalled, busy = bench.store(), bench.store()
        await stalled.append(KEY, [entry(1)])
        for number in range(2, 6):
            await busy.append(KEY, [entry(number)])
        await busy.delete(KEY)
        await stalled.append(KEY, [entry(9)])
        assert numbers(await bench.store().load(KEY)) == [9]

    anyio.run(main)


def test_deleting_takes_old_parts_away_and_writes_over_young_ones(bench: Bench) -> None:
    class Aged(FaultyObjects):
        """Shows every part but the last three as an hour old."""

        async def listing(self, folder: str) -> list[Item]:
            items = sorted(await super().listing(folder), key=lambda item: item.key)
            return [Item(item.key, item.size_bytes, item.modified_ms - 3_600_000) for item in items[:-3]] + items[-3:]

    bench.objects = Aged(bench.objects)

    async def main() -> None:
        store = bench.store()
        for number in range(6):
            await store.append(KEY, [entry(number, secret="do not keep")])
        await store.delete(KEY)

    anyio.run(main)
    left = {
        item.key.rsplit("/", 1)[-1]: run(bench.objects.get(item.key)) for item in run(bench.objects.listing(MAIN))
    }
    assert sorted(left) == [f"{number:010}.jsonl.zst" for number in (5, 6, 7)]
    assert all(part is not None and b'"kind":"truncate"' in part.data for part in left.values())
    assert not run(read(bench.objects, MAIN)).exists


def test_a_damaged_session_is_listed_reported_and_can_be_deleted(bench: Bench) -> None:
    async def main() -> None:
        store = bench.store()
        await store.append(KEY, [entry(1)])
        await bench.objects.put(f"{MAIN}/0000000001.jsonl.zst", b"garbage")
        reader = bench.store()
        assert [row["session_id"] for row in await reader.list_sessions(KEY["project_key"])] == [KEY["session_id"]]
        assert await reader.list_session_summaries(KEY["project_key"]) == []
        with pytest.raises(Corrupt):
            await reader.load(KEY)
        await reader.delete(KEY)
        assert await reader.load(KEY) is None

    anyio.run(main)
