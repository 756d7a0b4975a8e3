"""Sessions are listed, summarised and deleted."""

from __future__ import annotations

import gc
from pathlib import Path

import anyio
import pytest
from claude_agent_sdk import get_session_messages_from_store, list_sessions_from_store

from everturn import Corrupt, Fenced, Settings, TranscriptStore
from everturn.log.frames import assemble, compress
from everturn.log.objects import run
from everturn.transcripts.session_logs import Target
from everturn.transcripts.sizes import LARGE_ENTRY_BYTES
from support import StorePlace
from transcripts.desk import BACKENDS, KEY, SUB, entry, in_loop, memory, store_on


def test_the_sdk_lists_and_reads_sessions_from_the_store(place: StorePlace, tmp_path: Path) -> None:
    message = {"role": "user", "content": "Count the sheep"}
    line = entry(1, message=message, timestamp="2026-01-01T00:00:00.000Z", sessionId=KEY["session_id"])
    line["uuid"] = "11111111-1111-4111-8111-111111111111"

    async def main() -> None:
        async with TranscriptStore.open(place.url, scope="s", any_cwd=True, settings=place.settings) as store:
            await store.append(KEY, [line])
            (info,) = await list_sessions_from_store(store, str(tmp_path))
            assert (info.session_id, info.first_prompt) == (KEY["session_id"], "Count the sheep")
            (found,) = await get_session_messages_from_store(store, KEY["session_id"], str(tmp_path))
            assert found.message == message

    in_loop(main)


def test_a_session_whose_writer_died_before_it_wrote_a_summary_is_listed() -> None:
    objects = memory()

    async def main() -> None:
        await store_on(objects).append(KEY, [entry(1, customTitle="Sheep")])  # never closed, never quiet
        reader = store_on(objects)
        (listed,) = await reader.list_sessions(KEY["project_key"])
        (summary,) = await reader.list_session_summaries(KEY["project_key"])
        assert summary["mtime"] == listed["mtime"] > 1e12
        assert summary["data"]["custom_title"] == "Sheep"

    in_loop(main)


def test_a_damaged_summary_is_made_anew_from_the_log() -> None:
    objects = memory()

    async def main() -> None:
        store = store_on(objects)
        await store.append(KEY, [entry(1, customTitle="Sheep")])
        await store.flush()
        await objects.put(f"summaries/task-1/-home-a/{KEY['session_id']}.json", b"{broken")
        (summary,) = await store_on(objects).list_session_summaries(KEY["project_key"])
        assert summary["data"]["custom_title"] == "Sheep"
        await store.aclose()

    in_loop(main)


def test_a_summary_tells_of_what_others_wrote_in_between() -> None:
    objects = memory()

    async def main() -> None:
        one, other = store_on(objects), store_on(objects)
        await one.append(KEY, [entry(1, customTitle="One")])
        await other.append(KEY, [entry(2, summary="Two")])
        await one.append(KEY, [entry(3, lastPrompt="Three")])
        (summary,) = await one.list_session_summaries(KEY["project_key"])
        assert {"custom_title": "One", "summary_hint": "Two", "last_prompt": "Three"}.items() <= summary[
            "data"
        ].items()
        await one.aclose()
        await other.aclose()

    in_loop(main)


def test_a_summary_is_written_when_a_session_pauses() -> None:
    objects = memory()
    settings = Settings.load(summary_pause_s=0.05)
    store = TranscriptStore(objects, scope="task-1", settings=settings)
    key = f"summaries/task-1/-home-a/{KEY['session_id']}.json"

    async def main() -> None:
        await store.append(KEY, [entry(1)])
        with anyio.fail_after(20):
            while run(objects.get(key)) is None:
                await anyio.lowlevel.checkpoint()
        assert [row["session_id"] for row in await store.list_session_summaries("-home-a")] == [KEY["session_id"]]
        await store.aclose()

    in_loop(main)


@pytest.mark.slow
def test_a_summary_is_written_when_a_session_pauses_though_another_goes_on() -> None:
    objects = memory()
    store = TranscriptStore(objects, scope="task-1", settings=Settings.load(summary_pause_s=0.2))
    key = f"summaries/task-1/-home-a/{KEY['session_id']}.json"

    async def main() -> None:
        await store.append(KEY, [entry(1)])
        with anyio.fail_after(20):
            while run(objects.get(key)) is None:
                await store.append({**KEY, "session_id": "busy"}, [entry(2)])
        assert [row["session_id"] for row in await store_on(objects).list_sessions("-home-a")][:1] == [
            KEY["session_id"]
        ]
        await store.aclose()

    in_loop(main)


def test_an_entry_that_the_sdk_cannot_summarize_is_stored_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def indigestible(*_: object) -> None:
        raise KeyError("a later SDK stumbles over this entry")

    monkeypatch.setattr("claude_agent_sdk.fold_session_summary", indigestible)

    async def main() -> None:
        store = store_on(memory())
        await store.append(KEY, [entry(1)])
        await store.flush()
        assert await store.load(KEY) == [entry(1)]
        assert [row["session_id"] for row in await store.list_sessions(KEY["project_key"])] == [KEY["session_id"]]
        assert await store.list_session_summaries(KEY["project_key"]) == []
        await store.aclose()

    in_loop(main)


def test_deleting_a_session_leaves_nothing_to_load_and_an_append_begins_anew(place: StorePlace) -> None:
    async def main() -> None:
        async with TranscriptStore.open(place.url, scope="s", settings=place.settings) as store:
            for number in range(5):
                await store.append(KEY, [entry(number)])
            await store.append(SUB, [entry(7)])
            await store.delete(KEY)
            await store.delete(KEY)
            assert await store.load(KEY) is None
            assert await store.load(SUB) is None
            assert await store.list_sessions(KEY["project_key"]) == []
            await store.append(KEY, [entry(9)])
            assert await store.load(KEY) == [entry(9)]
            assert await store.list_subkeys({"project_key": "-home-a", "session_id": KEY["session_id"]}) == []

    in_loop(main)


def test_a_claimed_writer_cannot_bring_back_a_deleted_session() -> None:
    objects = memory()

    async def main() -> None:
        zombie = store_on(objects, any_cwd=True, epoch=1)
        await zombie.take_over(KEY["project_key"], KEY["session_id"])
        await zombie.append(KEY, [entry(1)])
        await store_on(objects, any_cwd=True).delete(KEY)
        with pytest.raises(Fenced):
            await zombie.append(KEY, [entry(2)])
        assert await store_on(objects).load(KEY) is None

    in_loop(main)


def test_an_open_store_may_be_awaited() -> None:
    async def main() -> None:
        store = await TranscriptStore.open("memory://", scope="s")
        assert await store.load(KEY) is None

    in_loop(main)


def test_whoever_takes_over_a_session_that_is_too_large_for_the_agent_is_warned(
    caplog: pytest.LogCaptureFixture,
) -> None:
    objects = memory()

    async def main() -> None:
        await store_on(objects).append(KEY, [entry(1, text="x" * 10_000_001)])
        store = store_on(objects, any_cwd=True, epoch=1)
        assert await store.take_over(KEY["project_key"], KEY["session_id"])
        (warning,) = store.size_warnings
        assert "entry 1 has 10.0 MB" in warning
        assert warning in caplog.text

    in_loop(main)


@pytest.mark.parametrize("size_bytes", [100, LARGE_ENTRY_BYTES + 1])
def test_whoever_takes_over_a_damaged_session_is_told_which_object_it_is(size_bytes: int) -> None:
    objects = memory()
    key = f"sessions/task-1/{KEY['project_key']}/{KEY['session_id']}/main/0000000001.jsonl.zst"
    header = {"v": 1, "kind": "data", "epoch": 0, "writer": "", "write_id": "0" * 16, "count": 1, "seq": 1}
    run(objects.put(key, assemble({**header, "size": size_bytes}, compress(b"short"))))

    async def main() -> None:
        store = store_on(objects, any_cwd=True, epoch=1)
        with pytest.raises(Corrupt, match=key):
            await store.take_over(KEY["project_key"], KEY["session_id"])

    in_loop(main)


def test_an_ordinary_session_is_taken_over_without_a_warning() -> None:
    objects = memory()

    async def main() -> None:
        await store_on(objects).append(KEY, [entry(1)])
        store = store_on(objects, any_cwd=True, epoch=1)
        await store.take_over(KEY["project_key"], KEY["session_id"])
        assert store.size_warnings == ()

    in_loop(main)


@pytest.mark.slow
@BACKENDS
def test_an_event_loop_keeps_nothing_of_the_stores_that_are_gone(backend: str) -> None:
    async def use_some() -> int:
        for _ in range(3):
            async with store_on(memory(), epoch=1) as store:
                await store.append(KEY, [entry(1)])
            del store
        gc.collect()
        return sum(type(each) is Target for each in gc.get_objects())

    async def main() -> None:
        before = await use_some()
        assert await use_some() == before

    in_loop(main, backend)
