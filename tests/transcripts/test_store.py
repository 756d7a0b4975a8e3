"""What the transcript store promises beyond the SDK's conformance suite."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from claude_agent_sdk import SessionKey

from everturn import Corrupt, Fenced, Invalid, TranscriptStore
from everturn.log.stores import connect
from support import StorePlace
from transcripts.desk import BACKENDS, KEY, SUB, entry, in_loop, memory, store_on

ELSEWHERE: SessionKey = {**KEY, "project_key": "-srv-B"}


# --- Entries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param({"type": "x", "text": "\ud83d unpaired \udc00"}, id="lone-surrogates"),
        pytest.param({"type": "x", "n": int("7" * 70), "m": -int("7" * 70)}, id="70-digit-integers"),
        pytest.param({"type": "x", "text": "long " * 4_000_000}, id="20-MB-string"),
        pytest.param({"type": "mode", "mode": "default"}, id="no-uuid"),
        pytest.param({"type": "x", "u": "e\u0301 \u00e9 \u2028 \x00 \U0001f600", "f": 1e-7, "z": -0.0}, id="unicode"),
    ],
)
def test_odd_entries_come_back_deep_equal(place: StorePlace, odd: Any) -> None:
    async def main() -> None:
        async with TranscriptStore.open(place.url, scope="odd", settings=place.settings) as store:
            await store.append(KEY, [odd, odd] if "uuid" not in odd else [odd])
            assert await store.load(KEY) == [odd, odd]

    in_loop(main)


def test_an_entry_deeper_than_the_interpreter_recurses_comes_back_deep_equal(place: StorePlace) -> None:
    deep: Any = "bottom"
    for level in range(5_000):
        deep = [deep] if level % 2 else {"k": deep}

    async def main() -> None:
        async with TranscriptStore.open(place.url, scope="deep", settings=place.settings) as store:
            await store.append(KEY, [{"type": "x", "deep": deep}])
            (found,) = await store.load(KEY) or []
            value: Any = found["deep"]  # type: ignore[typeddict-item]
            for level in reversed(range(5_000)):
                assert len(value) == 1
                value = value[0] if level % 2 else value["k"]
            assert value == "bottom"

    in_loop(main)


def test_what_is_not_json_is_refused_and_the_next_append_is_fine() -> None:
    async def main() -> None:
        store = store_on(memory())
        for wrong in (float("nan"), {1: "key"}, b"bytes", (1, 2), object()):
            with pytest.raises(Invalid):
                await store.append(KEY, [entry(1), {"type": "x", "wrong": wrong}])  # type: ignore[typeddict-unknown-key]
        await store.append(KEY, [entry(2)])
        assert await store.load(KEY) == [entry(2)]
        await store.aclose()

    in_loop(main)


def test_appending_nothing_writes_nothing(file_place: StorePlace, tmp_path: Path) -> None:
    async def main() -> None:
        async with TranscriptStore.open(file_place.url, scope="s", settings=file_place.settings) as store:
            await store.append(KEY, [])

    in_loop(main)
    assert not (tmp_path / "store" / "sessions").exists()


@BACKENDS
def test_appends_of_one_process_keep_the_order_of_their_calls(backend: str) -> None:
    async def main() -> None:
        store = store_on(memory())
        async with anyio.create_task_group() as group:
            for number in range(60):
                group.start_soon(store.append, KEY, [entry(number)])
                await anyio.lowlevel.checkpoint()
        assert await store.load(KEY) == [entry(number) for number in range(60)]
        await store.aclose()

    in_loop(main, backend)


def test_one_store_serves_several_event_loops_at_once_and_one_after_the_other() -> None:
    store = store_on(memory())

    def append_from(first: int, backend: str) -> None:
        async def main() -> None:
            for number in range(first, first + 30):
                await store.append(KEY, [entry(number)])

        in_loop(main, backend)

    threads = [threading.Thread(target=append_from, args=(100, "asyncio"))]
    threads += [threading.Thread(target=append_from, args=(200, "trio"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    append_from(300, "asyncio")

    async def check() -> None:
        numbers = [found["n"] for found in await store.load(KEY) or []]  # type: ignore[typeddict-item]
        assert sorted(numbers) == [*range(100, 130), *range(200, 230), *range(300, 330)]
        for first in (100, 200, 300):
            assert [n for n in numbers if first <= n < first + 30] == list(range(first, first + 30))
        await store.aclose()

    in_loop(check)


def test_two_stores_on_one_session_interleave_and_lose_nothing() -> None:
    objects = memory()

    async def main() -> None:
        one, other = store_on(objects), store_on(objects)
        for number in range(0, 20, 2):
            await one.append(KEY, [entry(number)])
            await other.append(KEY, [entry(number + 1)])
        assert await one.load(KEY) == [entry(number) for number in range(20)]
        await one.aclose()
        await other.aclose()

    in_loop(main)


def test_a_damaged_part_is_reported_by_name_and_never_skipped(file_place: StorePlace, tmp_path: Path) -> None:
    async def main() -> None:
        async with TranscriptStore.open(file_place.url, scope="s", settings=file_place.settings) as store:
            for number in range(3):
                await store.append(KEY, [entry(number)])
            part = next((tmp_path / "store").glob("sessions/**/main/0000000002.jsonl.zst"))
            part.write_bytes(part.read_bytes()[:-3] + b"???")
            with pytest.raises(Corrupt, match=r"main/0000000002\.jsonl\.zst is damaged"):
                await store.load(KEY)

    in_loop(main)


@pytest.mark.parametrize(
    "key",
    [
        {**KEY, "session_id": "../other"},
        {**KEY, "session_id": ""},
        {**KEY, "project_key": "a/../../b"},
        {**KEY, "subpath": "subagents/../../x"},
        {**KEY, "subpath": ""},
        {**KEY, "subpath": "a\x00b"},
    ],
)
def test_names_that_try_to_climb_out_are_refused(file_place: StorePlace, tmp_path: Path, key: SessionKey) -> None:
    async def main() -> None:
        async with TranscriptStore.open(file_place.url, scope="s", settings=file_place.settings) as store:
            for attempt in (store.append(key, [entry(1)]), store.load(key), store.delete(key)):
                with pytest.raises(Invalid):
                    await attempt

    in_loop(main)
    assert not (tmp_path / "store" / "sessions").exists()


@pytest.mark.parametrize("scope", ["../up", "", "a/../b", ".", "a\nb"])
def test_a_scope_that_tries_to_climb_out_is_refused(tmp_path: Path, scope: str) -> None:
    with pytest.raises(Invalid):
        TranscriptStore.open((tmp_path / "store").as_uri(), scope=scope)
    assert not (tmp_path / "store" / "sessions").exists()


# --- One home per session ----------------------------------------------------------------------------------------


def test_any_cwd_finds_a_session_whatever_project_key_it_arrives_under(place: StorePlace) -> None:
    objects = connect(place.url, place.settings)

    async def main() -> None:
        first = store_on(objects, any_cwd=True)
        await first.append(KEY, [entry(1)])
        await first.append(SUB, [entry(2)])
        await first.aclose()
        second = store_on(objects, any_cwd=True)
        assert await second.load(ELSEWHERE) == [entry(1)]
        await second.append(ELSEWHERE, [entry(3)])
        assert await second.list_subkeys({"project_key": "-srv-B", "session_id": KEY["session_id"]}) == [
            "subagents/agent-1"
        ]
        assert await second.load({**ELSEWHERE, "subpath": "subagents/agent-1"}) == [entry(2)]
        assert [row["session_id"] for row in await second.list_sessions("-srv-B")] == [KEY["session_id"]]
        await second.aclose()
        plain = store_on(objects)
        assert await plain.load(KEY) == [entry(1), entry(3)]
        assert await plain.load(ELSEWHERE) is None
        await plain.aclose()

    in_loop(main)


def test_any_cwd_finds_a_session_that_a_plain_store_wrote() -> None:
    objects = memory()

    async def main() -> None:
        await store_on(objects).append(KEY, [entry(1)])
        store = store_on(objects, any_cwd=True)
        await store.append(ELSEWHERE, [entry(2)])
        assert await store.load(KEY) == [entry(1), entry(2)]

    in_loop(main)


def test_two_first_writers_under_two_project_keys_agree_on_one_home() -> None:
    objects = memory()

    async def main() -> None:
        stores = [store_on(objects, any_cwd=True) for _ in range(8)]
        async with anyio.create_task_group() as group:
            for number, store in enumerate(stores):
                group.start_soon(store.append, {**KEY, "project_key": f"-srv-{number}"}, [entry(number)])
        for store in stores:
            loaded = await store.load({**KEY, "project_key": "-third"}) or []
            assert sorted(found["n"] for found in loaded) == list(range(8))  # type: ignore[typeddict-item]

    in_loop(main)


def test_a_session_that_was_begun_anew_elsewhere_is_deleted_there() -> None:
    objects = memory()

    async def main() -> None:
        store, other = store_on(objects, any_cwd=True), store_on(objects, any_cwd=True)
        await store.append(KEY, [entry(1)])
        assert await other.load(KEY) == [entry(1)]
        await store.delete(KEY)
        await store.append(ELSEWHERE, [entry(2)])
        await other.delete(KEY)
        assert await store_on(objects, any_cwd=True).load(KEY) is None

    in_loop(main)


def test_a_session_that_was_deleted_and_written_again_has_a_new_home() -> None:
    objects = memory()

    async def main() -> None:
        store, other = store_on(objects, any_cwd=True), store_on(objects, any_cwd=True)
        await store.append(KEY, [entry(1)])
        assert await other.load(KEY) == [entry(1)]
        await store.delete(ELSEWHERE)
        assert await store.load(KEY) is None
        await store.append(ELSEWHERE, [entry(2)])
        assert await store.load(KEY) == [entry(2)]
        assert await store_on(objects, any_cwd=True).load(KEY) == [entry(2)]
        assert await other.load(KEY) == [entry(2)]

    in_loop(main)


# --- Claims ------------------------------------------------------------------------------------------------------


def test_taking_over_stops_the_older_claim_and_keeps_what_it_wrote() -> None:
    objects = memory()

    async def main() -> None:
        old = store_on(objects, any_cwd=True, epoch=1)
        assert await old.take_over(KEY["project_key"], KEY["session_id"]) is False
        await old.append(KEY, [entry(1)])
        new = store_on(objects, any_cwd=True, epoch=2)
        assert await new.take_over(ELSEWHERE["project_key"], KEY["session_id"]) is True
        with pytest.raises(Fenced):
            await old.append(KEY, [entry(2)])
        with pytest.raises(Fenced):
            await old.append(SUB, [entry(3)])
        await new.append(KEY, [entry(4)])
        assert await new.load(KEY) == [entry(1), entry(4)]

    in_loop(main)


def test_reading_a_live_session_does_not_stop_its_writer() -> None:
    objects = memory()

    async def main() -> None:
        writer = store_on(objects, any_cwd=True, epoch=1)
        await writer.take_over(KEY["project_key"], KEY["session_id"])
        await writer.append(KEY, [entry(1)])
        assert await store_on(objects).load(KEY) == [entry(1)]
        await writer.append(KEY, [entry(2)])
        assert await store_on(objects).load(KEY) == [entry(1), entry(2)]

    in_loop(main)
