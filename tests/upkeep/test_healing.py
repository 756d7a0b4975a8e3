"""What the agent's own file has and the store has not is appended, in order and once, or told."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from everturn import Invalid, Unavailable
from everturn.telemetry import default_metrics
from everturn.testing import Fault
from everturn.transcripts import backlog
from everturn.transcripts.marks import METADATA
from everturn.upkeep.healing import Healing, heal
from upkeep.mending import CLOSING, KEY, SUB, WHOLE, Bench, talk
from upkeep.shelf import MODE, SESSION, said, write

REQUEST = {"type": "api-request", "sessionId": SESSION, "hash": "h"}


def reads(bench: Bench) -> int:
    return bench.objects.counts["get"] + bench.objects.counts["listing"]


# --- Nothing is missing ---------------------------------------------------------------------------------------------


def test_a_session_without_files_is_whole(bench: Bench) -> None:
    async def main() -> None:
        await bench.take_over()
        assert await bench.heal(final=False) == WHOLE
        assert await bench.heal() == WHOLE
        write(bench.path)
        assert await bench.heal() == WHOLE
        assert await bench.stored() == []

    anyio.run(main)


def test_a_healthy_run_asks_the_store_for_nothing(bench: Bench) -> None:
    async def main() -> None:
        await bench.take_over()
        everything: list[Any] = []
        for turn in range(5):
            fresh = [MODE, *talk(turn * 10 + 1, turn * 10 + 10), {**MODE, "mode": "plan"}]
            everything += fresh
            await bench.mirror(*fresh)
            write(bench.path, *everything[:-1], REQUEST, everything[-1])
            write(bench.path, *(each for entry in everything for each in (entry, REQUEST)))
            before = reads(bench)
            assert await bench.heal(final=turn == 4) == WHOLE
            assert reads(bench) == before
        assert await bench.stored() == everything

    anyio.run(main)


def test_a_session_that_was_resumed_is_not_read_again(bench: Bench) -> None:
    async def main() -> None:
        await bench.take_over(1)
        await bench.mirror(*talk(1, 20))
        await bench.take_over(2)
        loaded = await bench.store.load(KEY)  # by the SDK, which makes the local file of it
        write(bench.path, *(loaded or ()), said(21))
        await bench.mirror(said(21))
        before = reads(bench)
        assert await bench.heal() == WHOLE
        assert reads(bench) == before

    anyio.run(main)


def test_what_the_agent_repeats_in_its_own_file_alone_is_no_loss(bench: Bench) -> None:
    tools = {"type": "tools-used", "tools": ["Bash"], "sessionId": SESSION}
    own = {"type": "of-a-later-release", "sessionId": SESSION}

    async def main() -> None:
        await bench.take_over()
        await bench.mirror(said(1), tools, said(2), said(3))
        write(bench.path, said(1), tools, said(2), tools, own, said(3))
        assert await bench.heal() == WHOLE
        assert len(await bench.stored()) == 4

    anyio.run(main)


def test_a_repeated_note_does_not_take_the_place_of_one_that_was_handed_over(bench: Bench) -> None:
    plan = {**MODE, "mode": "plan"}

    async def main() -> None:
        await bench.take_over()
        await bench.mirror(said(1), MODE, said(2), plan, MODE, said(3))
        write(bench.path, said(1), MODE, said(2), MODE, plan, MODE, said(3))
        assert await bench.heal() == WHOLE
        write(bench.path, said(1), MODE, MODE, said(2), plan, MODE, said(3))
        assert await bench.heal() == WHOLE

    anyio.run(main)


def test_while_the_agent_lives_what_is_missing_at_the_end_may_be_under_way(bench: Bench) -> None:
    async def main() -> None:
        await bench.take_over()
        await bench.mirror(*talk(1, 2))
        write(bench.path, *talk(1, 2), MODE, end='\n{"type": "us')
        assert await bench.heal(final=False) == WHOLE
        assert await bench.stored() == talk(1, 2)
        await bench.mirror(MODE, said(3))
        write(bench.path, *talk(1, 2), MODE, said(3))
        assert await bench.heal() == WHOLE
        assert await bench.stored() == [*talk(1, 2), MODE, said(3)]

    anyio.run(main)


# --- Something is missing at the end --------------------------------------------------------------------------------


def test_what_is_missing_at_the_end_is_appended_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    counted = default_metrics().healed_entries._value.get()

    async def main() -> None:
        await bench.take_over()
        await bench.mirror(*talk(1, 2))
        write(bench.path, *talk(1, 4), MODE, REQUEST, *CLOSING, end='\n{"type": "torn')
        assert await bench.heal() == Healing(appended=5)
        assert await bench.heal() == WHOLE
        assert await bench.stored() == [*talk(1, 4), MODE, *CLOSING]

    with caplog.at_level("INFO", "everturn"):
        anyio.run(main)
    (line,) = [json.loads(record.message) for record in caplog.records if '"healed"' in record.message]
    assert (line["log"], line["entries"], line["level"]) == ("main", 5, "info")
    assert default_metrics().healed_entries._value.get() == counted + 5


def test_a_last_line_without_its_end_is_an_entry_if_it_is_whole(bench: Bench) -> None:
    async def main() -> None:
        await bench.take_over()
        write(bench.path, *talk(1, 2), end="")
        assert await bench.heal() == Healing(appended=2)
        assert await bench.heal() == WHOLE

    anyio.run(main)


def test_a_long_end_is_appended_in_order_in_several_parts(bench: Bench) -> None:
    entries = [said(number, text="x" * 300_000) for number in range(1, 9)]

    async def main() -> None:
        await bench.take_over()
        write(bench.path, *entries)
        assert (await bench.heal()).appended == 8
        assert await bench.stored() == entries

    anyio.run(main)


def test_subagents_are_healed_with_their_metadata(bench: Bench) -> None:
    metadata = {"agentType": "counter", "finished": True}
    other = bench.local / SESSION / "subagents" / "agent-2.jsonl"

    async def main() -> None:
        await bench.take_over()
        await bench.mirror(said(1))
        await bench.mirror({"type": METADATA, "agentType": "counter"}, said(11, 0), key=SUB)
        write(bench.path, said(1))
        write(bench.sub_path, said(11, 0), said(12))
        write(bench.sub_path.with_name("agent-1.meta.json"), metadata)
        write(other, said(21, 0))
        assert await bench.heal(final=False) == WHOLE
        assert await bench.heal() == Healing(appended=3)
        assert await bench.heal() == WHOLE
        assert await bench.stored(SUB) == [
            {"type": METADATA, "agentType": "counter"},
            said(11, 0),
            said(12),
            {**metadata, "type": METADATA},
        ]
        assert await bench.stored({**KEY, "subpath": "subagents/agent-2"}) == [said(21, 0)]

    anyio.run(main)


def test_what_was_given_up_during_an_outage_comes_from_the_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "HELD_BYTES", 10)

    async def main() -> None:
        await bench.take_over()
        await bench.mirror(said(1))
        fault = bench.fail_creates()
        await bench.mirror(MODE, *talk(2, 4))
        bench.objects.faults.remove(fault)
        await bench.mirror(said(5))
        write(bench.path, said(1), MODE, *talk(2, 5))
        during = await bench.heal(final=False)
        assert (during.appended, during.missing, during.whole) == (0, 4, False)
        assert await bench.heal() == Healing(appended=4)
        assert await bench.stored() == [said(1), MODE, *talk(2, 5)]
        assert bench.store.unstored_entries == 0
        await bench.mirror(said(6))
        assert len(await bench.stored()) == 7

    anyio.run(main)


@pytest.mark.parametrize("effect", ["fail", "lose_reply"])
def test_healing_that_fails_goes_on_when_it_is_called_again(bench: Bench, effect: Any) -> None:
    entries = [said(number, text="x" * 600_000) for number in range(1, 5)]

    async def main() -> None:
        await bench.take_over()
        write(bench.path, MODE, *entries, *CLOSING)
        fault = Fault(effect, "create", times=None, after=2)
        bench.objects.faults.append(fault)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await bench.heal()
        bench.objects.faults.remove(fault)
        assert (await bench.heal()).whole
        assert await bench.heal() == WHOLE
        assert await bench.stored() == [MODE, *entries, *CLOSING]
        assert bench.store.unstored_entries == 0

    anyio.run(main)


def test_while_the_store_is_away_healing_says_so(bench: Bench) -> None:
    async def main() -> None:
        await bench.take_over()
        fault = bench.fail_creates()
        await bench.mirror(said(1))
        write(bench.path, said(1))
        for final in (False, True):
            with pytest.raises(Unavailable):
                await bench.heal(final=final)
        bench.objects.faults.remove(fault)
        assert await bench.heal(final=False) == WHOLE
        assert await bench.stored() == [said(1)]

    anyio.run(main)


# --- What cannot be healed ------------------------------------------------------------------------------------------


def test_what_is_missing_inside_is_told_and_the_end_is_appended(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        await bench.take_over()
        await bench.mirror(said(1), said(4))
        write(bench.path, *talk(1, 4))
        for _ in range(3):
            found = await bench.heal(final=False)
            assert (found.appended, found.missing, found.whole) == (0, 2, False)
        write(bench.path, *talk(1, 5))
        before = reads(bench)
        found = await bench.heal()
        assert reads(bench) == before  # the marks are as good as a read
        assert (found.appended, found.missing) == (1, 2)
        assert found.reasons == ("2 entries of main are missing: the store has gone on behind them",)
        assert await bench.stored() == [said(1), said(4), said(5)]

    anyio.run(main)
    lines = [json.loads(record.message) for record in caplog.records if '"not_healed"' in record.message]
    assert [(line["log"], line["entries"], line["level"]) for line in lines] == [("main", 2, "error")]
    assert "words" not in caplog.text


def test_what_comes_late_but_comes_is_no_longer_missing(bench: Bench) -> None:
    async def main() -> None:
        await bench.take_over()
        await bench.mirror(said(1), said(3))
        write(bench.path, *talk(1, 3))
        assert (await bench.heal(final=False)).missing == 1
        await bench.mirror(said(2))
        assert (await bench.heal()).whole

    anyio.run(main)


@pytest.mark.parametrize("line", ['{"type": "user", "uuid"', "[1]", "NaN"])
def test_a_damaged_line_is_told_and_nothing_is_guessed(bench: Bench, line: str) -> None:
    async def main() -> None:
        await bench.take_over()
        await bench.mirror(said(1))
        write(bench.path, said(1), end=f"\n{line}\n{json.dumps(said(3))}\n")
        write(bench.sub_path, said(11, 0))
        found = await bench.heal()
        assert (found.appended, found.whole, len(found.reasons)) == (1, False, 1)
        assert found.reasons[0].startswith("main cannot be compared: line 2 of ")
        assert await bench.stored() == [said(1)]

    anyio.run(main)


def test_the_file_of_another_session_is_refused(bench: Bench) -> None:
    async def main() -> None:
        await bench.take_over()
        await bench.store.load(KEY)
        write(bench.path, {**said(1), "sessionId": "another"})
        found = await bench.heal()
        assert (found.appended, found.reasons) == (
            0,
            ("main cannot be compared: the file belongs to another session",),
        )

    anyio.run(main)


def test_without_a_file_what_is_not_stored_is_told(bench: Bench) -> None:
    async def main() -> None:
        await bench.take_over()
        with pytest.raises(Invalid):
            await bench.store.append(KEY, [{"type": "user", "x": object()}])  # type: ignore[typeddict-unknown-key]
        found = await bench.heal()
        assert (found.missing, found.whole) == (1, False)

    anyio.run(main)


def test_a_file_that_was_written_anew_is_compared_from_its_beginning(bench: Bench) -> None:
    async def main() -> None:
        await bench.take_over()
        await bench.mirror(*talk(1, 5))
        write(bench.path, *talk(1, 5))
        assert await bench.heal(final=False) == WHOLE
        write(bench.path, *talk(1, 3), said(6, 3))
        await bench.mirror(said(6, 3))
        assert await bench.heal(final=False) == WHOLE
        write(bench.path, *talk(1, 3), said(6, 3), said(7))
        assert await bench.heal() == Healing(appended=1)

    anyio.run(main)


def test_only_the_holder_of_a_claim_heals(bench: Bench) -> None:
    async def main() -> None:
        write(bench.path, said(1))
        with pytest.raises(Invalid):
            await heal(bench.open(0), KEY, bench.local, final=True)

    anyio.run(main)
