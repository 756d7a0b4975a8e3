"""A session is read with everything that belongs to it."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from claude_agent_sdk import SessionKey

from everturn import Corrupt, Settings, TranscriptStore
from everturn.conversations.loading import load_session
from everturn.log.objects import run
from everturn.opening import open_archive
from everturn.transcripts.archive import Archive
from recorded import PROJECT, SESSION, TAP_AGENT, answered, keep, said, tap, text
from support import StorePlace

KEY: SessionKey = {"project_key": PROJECT, "session_id": SESSION}


def folder_of(place: StorePlace) -> Path:
    return Path(place.url.removeprefix("file://"))


def archive_of(place: StorePlace) -> Archive:
    return open_archive(Settings.load(store=place.url))


def test_a_session_is_loaded_with_its_subagents_and_what_it_takes(file_place: StorePlace) -> None:
    entries, agents = tap()
    keep(folder_of(file_place), entries, agents, at_once=50)
    archive = archive_of(file_place)
    told: list[tuple[int, int]] = []
    found = run(load_session(archive, run(archive.find("tap")), told=lambda *step: told.append(step)))
    assert (found.entries, found.agents) == (entries, agents)
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert found.parts == 3 + 1
    assert found.conversation().turns[0].calls[-1].agent is not None


def test_the_claims_of_a_session_mark_where_its_workers_changed(file_place: StorePlace) -> None:
    async def work(epoch: int, *entries: object) -> None:
        async with TranscriptStore.open(
            file_place.url, scope="tap", epoch=epoch, settings=file_place.settings
        ) as store:
            await store.append(KEY, list(entries))  # type: ignore[arg-type]

    anyio.run(work, 1, said("a", None, "One"), answered("b", "a", text("1")))
    anyio.run(work, 3, said("c", "b", "Two"))
    archive = archive_of(file_place)
    turns = run(load_session(archive, run(archive.find(SESSION)))).conversation().turns
    assert [(turn.claim, turn.resumed) for turn in turns] == [(1, False), (3, True)]


def test_a_damaged_sub_transcript_is_an_error_that_names_it(file_place: StorePlace) -> None:
    folder = folder_of(file_place)
    keep(folder, tap()[0][:5], {TAP_AGENT: [said("s", None, "Sub")]})
    [part] = folder.glob("sessions/*/*/*/sub/*/*")
    part.write_bytes(part.read_bytes()[:-1])
    archive = archive_of(file_place)
    with pytest.raises(Corrupt, match="/sub/"):
        run(load_session(archive, run(archive.find(SESSION))))
