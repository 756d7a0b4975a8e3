"""The holder of a claim loses nothing to an outage, and stores nothing out of order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from claude_agent_sdk import SessionKey
from obstore.store import MemoryStore

from everturn import Denied, Fenced, Invalid, Settings, TranscriptStore, Unavailable
from everturn.clock import ManualClock
from everturn.log.objects import BlockingObjects
from everturn.testing import Fault, FaultyObjects
from everturn.transcripts import backlog

KEY: SessionKey = {"project_key": "-home-a", "session_id": "7df19cb2-f002-4f12-a0f4-5b4be6b08923"}
SUB: SessionKey = {**KEY, "subpath": "subagents/agent-1"}
SDK_LIMIT_S = 60.0


class Bench:
    """A store of a claim, behind faults, with a clock that only moves when somebody waits."""

    def __init__(self, *, epoch: int = 1, linger_s: float = 0.0) -> None:
        self.clock = ManualClock()
        self.objects = FaultyObjects(BlockingObjects(MemoryStore(), "memory://", self.clock))
        self.store = self.open(epoch, linger_s=linger_s)

    def open(self, epoch: int, *, linger_s: float = 0.0) -> TranscriptStore:
        settings = Settings.load(summary_pause_s=3600, linger_s=linger_s)
        return TranscriptStore(self.objects, scope="t", epoch=epoch, clock=self.clock, settings=settings)

    @contextmanager
    def outage(self, effect: Any = "fail", **how: Any) -> Iterator[None]:
        """Nothing can be created for a while."""
        fault = Fault(effect, "create", times=None, **how)
        self.objects.faults.append(fault)
        yield
        self.objects.faults.remove(fault)

    async def hand_over(self, key: SessionKey, batch: list[Any]) -> bool:
        """Append as the SDK does: three times the same list, then no more."""
        for _ in range(3):
            try:
                await self.store.append(key, batch)
            except Unavailable:
                continue
            return True
        return False

    async def stored(self, key: SessionKey = KEY) -> list[int]:
        """Return what another process reads."""
        entries: list[Any] = list(await self.open(0).load(key) or ())
        return [entry["n"] for entry in entries]


def note(number: int) -> Any:
    """Return an entry that has nothing to tell a second copy by."""
    return {"type": "queue-operation", "n": number}


@pytest.mark.parametrize(("epoch", "is_final"), [(1, True), (0, False)])
def test_the_sdk_is_told_to_try_again_only_where_that_is_of_use(epoch: int, is_final: bool) -> None:
    """It takes a time-out as final. What a claim's holder could not append is kept anyway."""

    async def main() -> None:
        bench = Bench(epoch=epoch)
        with bench.outage(), pytest.raises(Unavailable) as failure:
            await bench.store.append(KEY, [note(1)])
        assert isinstance(failure.value, TimeoutError) is is_final

    anyio.run(main)


@pytest.mark.parametrize("effect", ["fail", "lose_reply"])
def test_what_the_sdk_has_dropped_stands_before_what_comes_next(effect: Any) -> None:
    async def main() -> None:
        bench = Bench()
        await bench.store.append(KEY, [note(1)])
        with bench.outage(effect):
            assert not await bench.hand_over(KEY, [note(2), note(3)])
            assert not await bench.hand_over(KEY, [note(4)])
            assert bench.store.unstored_entries == 3
        assert await bench.hand_over(KEY, [note(5)])
        assert await bench.stored() == [1, 2, 3, 4, 5]
        assert bench.store.unstored_entries == 0

    anyio.run(main)


def test_each_log_has_its_own_order() -> None:
    async def main() -> None:
        bench = Bench()
        with bench.outage(keys="*/sub/*"):
            assert not await bench.hand_over(SUB, [note(1)])
            assert await bench.hand_over(KEY, [note(10)])
        assert await bench.hand_over(SUB, [note(2)])
        assert (await bench.stored(SUB), await bench.stored()) == ([1, 2], [10])

    anyio.run(main)


def test_draining_and_closing_store_what_was_kept() -> None:
    async def main() -> None:
        bench = Bench()
        with bench.outage():
            assert not await bench.hand_over(KEY, [note(1)])
            with pytest.raises(Unavailable):
                await bench.store.drain()
        await bench.store.drain()
        assert await bench.stored() == [1]
        with bench.outage():
            assert not await bench.hand_over(KEY, [note(2)])
        await bench.store.aclose()
        assert await bench.stored() == [1, 2]

    anyio.run(main)


def test_the_same_entries_in_another_list_are_the_same_batch() -> None:
    async def main() -> None:
        bench = Bench()
        with bench.outage():
            for _ in range(3):
                with pytest.raises(Unavailable):
                    await bench.store.append(KEY, [note(1)])
            assert bench.store.unstored_entries == 1
        await bench.store.append(KEY, [note(1)])
        assert await bench.stored() == [1]
        assert bench.store.unstored_entries == 0

    anyio.run(main)


def test_an_append_behind_a_backlog_answers_within_its_deadline() -> None:
    async def main() -> None:
        bench = Bench()
        with bench.outage(effect="fail"):
            for number in range(5):
                began = bench.clock.elapsed()
                with pytest.raises(Unavailable):
                    await bench.store.append(KEY, [note(number)])
                assert bench.clock.elapsed() - began < SDK_LIMIT_S / 2
        assert await bench.hand_over(KEY, [note(5)])
        assert await bench.stored() == [0, 1, 2, 3, 4, 5]

    anyio.run(main)


def test_a_refusal_for_other_reasons_is_kept_too() -> None:
    async def main() -> None:
        bench = Bench()
        with bench.outage(error=Denied("the token has run out", hint="")), pytest.raises(Denied):
            await bench.store.append(KEY, [note(1)])
        await bench.store.append(KEY, [note(2)])
        assert await bench.stored() == [1, 2]

    anyio.run(main)


def test_what_is_no_json_is_refused_and_holds_up_nothing() -> None:
    async def main() -> None:
        bench = Bench()
        bad: Any = [{"type": "user", "x": object()}]
        with pytest.raises(Invalid):
            await bench.store.append(KEY, bad)
        with bench.outage():
            assert not await bench.hand_over(KEY, [note(1)])
            with pytest.raises(Invalid):
                await bench.store.append(KEY, bad)
        assert await bench.hand_over(KEY, [note(2)])
        assert await bench.stored() == [1, 2]
        assert bench.store.unstored_entries == 1  # the same list twice

    anyio.run(main)


def test_a_fenced_holder_keeps_nothing_to_write_later() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.store.take_over(KEY["project_key"], KEY["session_id"])
        with bench.outage():
            assert not await bench.hand_over(KEY, [note(1)])
        await bench.open(2).take_over(KEY["project_key"], KEY["session_id"])
        with pytest.raises(Fenced):
            await bench.store.append(KEY, [note(2)])
        with pytest.raises(Fenced):
            await bench.store.drain()
        assert await bench.stored() == []
        assert bench.store.unstored_entries == 2

    anyio.run(main)


@pytest.mark.parametrize("linger_s", [0.0, 60.0])
def test_beyond_what_can_be_held_a_log_stays_a_beginning_without_a_hole(
    monkeypatch: pytest.MonkeyPatch, linger_s: float
) -> None:
    monkeypatch.setattr(backlog, "HELD_BYTES", 40)

    async def main() -> None:
        bench = Bench(linger_s=linger_s)
        with bench.outage():
            await bench.hand_over(KEY, [note(1), note(2)])
            assert not await bench.hand_over(KEY, [note(3)])
            assert not await bench.hand_over(KEY, [note(4)])
        await bench.store.drain()
        assert bench.store.unstored_entries == 2
        assert not await bench.hand_over(KEY, [note(5)])
        assert await bench.stored() == [1, 2]
        assert bench.store.unstored_entries == 3
        bench.store.take_again(KEY)
        await bench.hand_over(KEY, [note(3)])
        await bench.store.drain()
        assert await bench.stored() == [1, 2, 3]

    anyio.run(main)


def test_a_guest_keeps_the_sdks_contract_to_the_letter() -> None:
    async def main() -> None:
        bench = Bench(epoch=0)
        with bench.outage():
            assert not await bench.hand_over(KEY, [note(1)])
            assert not await bench.hand_over(KEY, [note(2)])
        assert await bench.hand_over(KEY, [note(3)])
        assert await bench.stored() == [1, 3]
        assert bench.store.unstored_entries == 1

    anyio.run(main)


@pytest.mark.parametrize("how", ["drain", "load"])
def test_what_a_flush_has_stored_between_two_tries_is_not_stored_again(how: str) -> None:
    async def main() -> None:
        bench = Bench()
        batch = [note(2)]
        await bench.store.append(KEY, [note(1)])
        with bench.outage(), pytest.raises(Unavailable):
            await bench.store.append(KEY, batch)
        await (bench.store.drain() if how == "drain" else bench.store.load(KEY))
        assert await bench.hand_over(KEY, batch)
        assert await bench.stored() == [1, 2]
        assert bench.store.unstored_entries == 0

    anyio.run(main)


def test_the_same_list_is_stored_as_often_as_it_is_handed_over_and_taken() -> None:
    async def main() -> None:
        bench = Bench()
        batch = [note(1)]
        with bench.outage(), pytest.raises(Unavailable):
            await bench.store.append(KEY, batch)
        assert await bench.hand_over(KEY, batch)
        assert await bench.hand_over(KEY, batch)
        assert await bench.stored() == [1, 1]

    anyio.run(main)


@pytest.mark.parametrize("linger_s", [0.0, 60.0])
def test_an_append_that_is_refused_as_too_much_waits_is_counted(
    monkeypatch: pytest.MonkeyPatch, linger_s: float
) -> None:
    async def main() -> None:
        monkeypatch.setattr(backlog, "HELD_BYTES", 50)
        bench = Bench(linger_s=linger_s)
        with bench.outage():
            for number in range(1, 5):
                await bench.hand_over(KEY, [note(number)])
            before = bench.store.observer.failed_appends
            assert not await bench.hand_over(KEY, [note(5)])
            assert bench.store.observer.failed_appends == before + 3

    anyio.run(main)
