"""What a dead run has left is salvaged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio

from everturn.upkeep.healing import Healing, folder_of, salvage
from upkeep.mending import CLOSING, KEY, SUB, WHOLE, Bench, talk
from upkeep.shelf import MODE, SESSION, said, write


async def die(bench: Bench, mirrored: Sequence[Any], local: Sequence[Any]) -> None:
    """A run that had its agent say more than it could store."""
    await bench.take_over(1)
    await bench.mirror(*mirrored)
    write(bench.path, *local, end='\n{"type": "torn')


def test_what_a_dead_run_has_left_is_salvaged_before_the_next_agent_starts(bench: Bench) -> None:
    async def main() -> None:
        await die(bench, [MODE, *talk(1, 2)], [MODE, *talk(1, 4), MODE])
        await bench.take_over(2)
        assert await salvage(bench.store, KEY, bench.local) == Healing(appended=3)
        assert await salvage(bench.store, KEY, bench.local) == WHOLE
        everything = [MODE, *talk(1, 4), MODE]
        assert await bench.store.load(KEY) == everything
        bench.path.unlink()
        write(bench.path, *everything, said(5))
        await bench.mirror(said(5))
        assert await bench.heal() == WHOLE

    anyio.run(main)


def test_a_run_that_died_before_anything_was_stored_is_salvaged_whole(bench: Bench) -> None:
    async def main() -> None:
        await die(bench, [], talk(1, 3))
        await bench.take_over(2)
        assert (await salvage(bench.store, KEY, bench.local)).appended == 3
        assert await bench.stored() == talk(1, 3)

    anyio.run(main)


def test_nothing_is_salvaged_once_the_conversation_has_gone_on(bench: Bench) -> None:
    async def main() -> None:
        await die(bench, talk(1, 2), talk(1, 4))
        write(bench.sub_path, said(11, 0))
        await bench.take_over(2)
        await bench.mirror(said(50, 2))
        await bench.take_over(3)
        found = await salvage(bench.store, KEY, bench.local)
        assert (found.appended, found.missing) == (0, 3)
        assert found.reasons[0] == "2 entries of main are missing: the conversation has gone on without them"
        assert await bench.stored() == [*talk(1, 2), said(50, 2)]
        assert await bench.stored(SUB) == []

    anyio.run(main)


def test_the_notes_with_which_an_agent_has_closed_are_no_loss_once_the_conversation_has_gone_on(bench: Bench) -> None:
    async def main() -> None:
        await die(bench, talk(1, 2), [*talk(1, 2), *CLOSING])
        await bench.take_over(2)
        await bench.mirror(said(3))
        await bench.take_over(3)
        assert await salvage(bench.store, KEY, bench.local) == WHOLE
        assert await bench.stored() == talk(1, 3)

    anyio.run(main)


def test_a_session_that_was_deleted_is_not_brought_back_from_what_a_dead_run_has_left(bench: Bench) -> None:
    async def main() -> None:
        await die(bench, talk(1, 2), talk(1, 4))
        await bench.open(0).delete(KEY)
        await bench.take_over(2)
        found = await salvage(bench.store, KEY, bench.local)
        assert (found.appended, found.missing) == (0, 4)
        assert found.reasons == ("4 entries of main are missing: they were deleted",)
        assert await bench.stored() == []

    anyio.run(main)


def test_the_files_are_found_where_the_agent_has_put_them(tmp_path: Path) -> None:
    usual, other = tmp_path / KEY["project_key"], tmp_path / "-private-home-a"
    assert folder_of(tmp_path, KEY) == usual
    write(other / f"{SESSION}.jsonl", said(1))
    assert folder_of(tmp_path, KEY) == other
    write(usual / f"{SESSION}.jsonl", said(1))
    assert folder_of(tmp_path, KEY) == usual
