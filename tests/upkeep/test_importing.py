"""Local sessions come into a store whole, once, and only if they are what they seem to be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from everturn import Settings, TranscriptStore
from everturn.errors import Denied, Invalid
from everturn.log.objects import BlockingObjects, Objects
from everturn.log.stores import connect
from everturn.testing import Fault, FaultyObjects
from everturn.upkeep.importing import LocalSession, Outcome, find_sessions, import_session, project_folder
from everturn.upkeep.local import read_transcript
from upkeep.shelf import MODE, SESSION, said, write

OTHER = "10000000-0000-4000-8000-000000000000"
PROJECT = "-home-ada-web"
KEY: Any = {"project_key": PROJECT, "session_id": SESSION}
SUB: Any = {**KEY, "subpath": "subagents/agent-1"}
DEEP: Any = {**KEY, "subpath": "subagents/workflows/run-1/agent-2"}


@pytest.fixture
def projects(tmp_path: Path) -> Path:
    folder = tmp_path / "agent" / "projects"
    (folder / PROJECT).mkdir(parents=True)
    return folder


def session_file(projects: Path, *entries: Any, session_id: str = SESSION, end: str = "\n") -> Path:
    return write(projects / PROJECT / f"{session_id}.jsonl", *entries, end=end)


def memory() -> BlockingObjects:
    return connect("memory://", Settings.load())


def bring(objects: Objects, path: Path, *, dry_run: bool = False) -> Outcome:
    """Import one session with a store of its own."""

    async def main() -> Outcome:
        async with TranscriptStore(objects, scope="s", any_cwd=True, settings=Settings.load()) as store:
            return await import_session(store, LocalSession(path), dry_run=dry_run)

    return anyio.run(main)


def loaded(objects: Objects, key: Any = KEY) -> list[Any] | None:
    async def main() -> Any:
        return await TranscriptStore(objects, scope="s", settings=Settings.load()).load(key)

    found: list[Any] | None = anyio.run(main)
    return found


def in_store(objects: Objects, work: Callable[[TranscriptStore], Awaitable[None]]) -> None:
    async def main() -> None:
        async with TranscriptStore(objects, scope="s", settings=Settings.load()) as store:
            await work(store)

    anyio.run(main)


# --- Finding them ---------------------------------------------------------------------------------------------------


def test_sessions_are_found_from_the_agents_folder_projects_a_project_or_a_file(projects: Path) -> None:
    one = session_file(projects, said(1))
    two = write(projects / "-srv-b" / f"{OTHER}.jsonl", said(1))
    everything = [LocalSession(one), LocalSession(two)]
    assert find_sessions([projects.parent]) == (everything, [])
    assert find_sessions([projects]) == (everything, [])
    assert find_sessions([projects / PROJECT]) == (everything[:1], [])
    assert find_sessions([two, projects, two]) == (everything[::-1], [])
    assert (everything[1].project_key, everything[1].session_id) == ("-srv-b", OTHER)


def test_a_directory_leads_to_its_project(projects: Path, tmp_path: Path) -> None:
    found = project_folder(projects.parent, tmp_path / "web.app")
    assert found.parent == projects
    assert found.name.endswith("-web-app")


def test_files_with_other_names_are_skipped_in_a_folder_and_refused_by_name(projects: Path, tmp_path: Path) -> None:
    session_file(projects, said(1))
    old = write(projects / PROJECT / "agent-123.jsonl", said(1))
    sessions, others = find_sessions([projects])
    assert len(sessions) == 1
    assert [(each.place, each.status) for each in others] == [(str(old), "skipped")]
    for wrong in (old, tmp_path / "nothing.jsonl", tmp_path / "agent" / "nothing"):
        ((), (refusal,)) = find_sessions([wrong])
        assert refusal.status == "refused"
        assert str(wrong) in refusal.message


def test_a_folder_without_sessions_is_refused(tmp_path: Path) -> None:
    ((), (refusal,)) = find_sessions([tmp_path])
    assert (refusal.status, refusal.message.startswith("there are no sessions in")) == ("refused", True)


def test_a_place_that_cannot_be_looked_at_is_refused(tmp_path: Path) -> None:
    ((), (refusal,)) = find_sessions([tmp_path / ("x" * 300)])  # as one that is not ours to look at
    assert (refusal.status, "cannot be looked at: File name too long" in refusal.message) == ("refused", True)


# --- Bringing them in -----------------------------------------------------------------------------------------------


def test_a_session_comes_in_with_its_subagents_and_their_metadata(projects: Path) -> None:
    main = session_file(projects, said(1), MODE, said(2))
    beside = main.with_suffix("")
    write(beside / "subagents" / "agent-1.jsonl", said(11, 0), said(12))
    write(beside / "subagents" / "agent-1.meta.json", {"agentType": "counter", "type": "shadow"})
    write(beside / "subagents" / "workflows" / "run-1" / "agent-2.jsonl", said(21, 0))
    write(beside / "subagents" / "workflows" / "run-1" / "agent-2.meta.json", "half", end="")
    objects = memory()
    assert bring(objects, main) == Outcome(str(main), "imported", 7)
    assert loaded(objects) == [said(1), MODE, said(2)]
    assert loaded(objects, SUB) == [said(11, 0), said(12), {"agentType": "counter", "type": "agent_metadata"}]
    assert loaded(objects, DEEP) == [said(21, 0)]
    assert bring(objects, main) == Outcome(str(main), "unchanged")


def test_a_session_that_has_gone_on_gets_the_rest(projects: Path) -> None:
    objects = memory()
    bring(objects, session_file(projects, said(1), MODE, MODE))
    main = session_file(projects, said(1), MODE, MODE, MODE, said(2))
    write(main.with_suffix("") / "subagents" / "agent-1.jsonl", said(11, 0))
    assert bring(objects, main) == Outcome(str(main), "continued", 3)
    assert loaded(objects) == [said(1), MODE, MODE, MODE, said(2)]
    assert loaded(objects, SUB) == [said(11, 0)]


def test_a_session_that_has_gone_on_in_the_store_is_left_alone(projects: Path) -> None:
    objects = memory()
    bring(objects, session_file(projects, said(1), said(2)))
    main = session_file(projects, said(1))
    assert bring(objects, main).status == "unchanged"
    assert loaded(objects) == [said(1), said(2)]


def test_what_the_agent_mirrored_itself_is_not_brought_in_again(projects: Path) -> None:
    objects = memory()
    metadata: Any = {"type": "agent_metadata", "agentType": "x"}

    async def mirror(store: TranscriptStore) -> None:
        await store.append(KEY, [said(1)])  # type: ignore[list-item]
        await store.append(SUB, [metadata])
        await store.append(SUB, [said(11, 0), {**metadata, "finished": True}])

    in_store(objects, mirror)
    main = session_file(projects, said(1), said(1))  # a repeated uuid, too
    write(main.with_suffix("") / "subagents" / "agent-1.jsonl", said(11, 0))
    write(main.with_suffix("") / "subagents" / "agent-1.meta.json", {"agentType": "x", "finished": True})
    assert bring(objects, main).status == "unchanged"


REQUESTS: list[Any] = [{"type": f"api-request{what}", "body": "long"} for what in ("-shape", "-blob", "")]
CLOSING: Any = {"type": "cost-state", "usd": 1}


def test_the_agents_notes_of_its_requests_stay_out_as_they_do_when_it_mirrors(projects: Path) -> None:
    objects = memory()
    bring(objects, session_file(projects, said(1), *REQUESTS, said(2)))
    assert loaded(objects) == [said(1), said(2)]
    main = session_file(projects, said(1), *REQUESTS, said(2), *REQUESTS, said(3), *REQUESTS)
    assert bring(objects, main) == Outcome(str(main), "continued", 1)
    assert loaded(objects) == [said(1), said(2), said(3)]


def test_notes_with_which_the_agent_has_closed_here_do_not_matter_if_the_store_has_gone_on(projects: Path) -> None:
    objects = memory()

    async def mirror(store: TranscriptStore) -> None:
        await store.append(KEY, [said(1), said(2)])  # type: ignore[list-item]

    in_store(objects, mirror)
    main = session_file(projects, said(1), CLOSING)
    assert bring(objects, main).status == "unchanged"
    assert bring(objects, session_file(projects, said(1), CLOSING, said(3))).status == "refused"
    assert bring(objects, session_file(projects, CLOSING)).status == "refused"


@pytest.mark.parametrize("where", ["main", "sub"])
def test_another_session_of_that_id_is_refused_and_nothing_is_written(projects: Path, where: str) -> None:
    objects = memory()
    main = session_file(projects, said(1), said(2))
    sub = write(main.with_suffix("") / "subagents" / "agent-1.jsonl", said(11, 0))
    bring(objects, main)
    write(main if where == "main" else sub, said(1), said(2, text="other"))
    write(main.with_suffix("") / "subagents" / "agent-0.jsonl", said(5))
    refusal = bring(objects, main)
    assert refusal.status == "refused"
    assert (
        "entry 2 of the main transcript" if where == "main" else "entry 1 of subagents/agent-1"
    ) in refusal.message
    assert loaded(objects, {**KEY, "subpath": "subagents/agent-0"}) is None


def test_a_dry_run_compares_and_writes_nothing(projects: Path) -> None:
    objects = FaultyObjects(memory())
    main = session_file(projects, said(1), said(2))
    assert bring(objects, main, dry_run=True) == Outcome(str(main), "imported", 2)
    assert objects.counts["create"] == objects.counts["put"] == 0
    assert loaded(objects) is None


def test_an_import_that_is_broken_off_goes_on_where_it_was(projects: Path) -> None:
    entries = [said(number, text="x" * 400_000) for number in range(1, 8)]
    main = session_file(projects, *entries)
    objects = FaultyObjects(memory())
    objects.faults.append(Fault("fail", "create", keys="*/main/0000000003.*", error=FULL, times=None))
    assert bring(objects, main).status == "refused"
    assert loaded(objects) == entries[:4]
    objects.faults.clear()
    assert bring(objects, main) == Outcome(str(main), "continued", 3)
    assert loaded(objects) == entries


def test_what_was_written_is_read_back_and_another_writer_in_between_is_told(projects: Path) -> None:
    objects = memory()

    async def main() -> Outcome:
        async with TranscriptStore(objects, scope="s", any_cwd=True, settings=Settings.load()) as store:
            write_as_told = store.append

            async def interrupted(key: Any, entries: Any) -> None:
                await write_as_told(key, [said(9)])  # type: ignore[list-item]
                await write_as_told(key, entries)

            store.append = interrupted  # type: ignore[method-assign]
            return await import_session(store, LocalSession(session_file(projects, said(1), said(2))))

    outcome = anyio.run(main)
    assert outcome.status == "refused"
    assert "was written, but entry 1 of the main transcript is another one now" in outcome.message


FULL = Denied("the store is full", hint="make room")


def test_parts_are_of_about_a_megabyte(projects: Path) -> None:
    objects = FaultyObjects(memory())
    bring(objects, session_file(projects, *(said(number, text="x" * 100_000) for number in range(1, 31))))
    assert len(anyio.run(objects.listing, "sessions")) == 4


@pytest.mark.slow
def test_a_session_of_60_megabytes_comes_in(projects: Path) -> None:
    entries = [said(number, text="word " * 40_000) for number in range(1, 301)]
    main = session_file(projects, *entries)
    assert main.stat().st_size > 60_000_000
    objects = memory()
    assert bring(objects, main) == Outcome(str(main), "imported", 300)
    assert loaded(objects) == entries


def test_entries_come_in_equal_whatever_json_they_hold(projects: Path) -> None:
    main = session_file(projects, said(1, n=int("7" * 70), text="\ud83d unpaired"), said(2))
    with main.open("a") as file:
        file.write('{"type":"x","deep":' + "[" * 3_000 + '"bottom"' + "]" * 3_000 + "}\n")
    objects = memory()
    assert bring(objects, main).status == "imported"
    first, _, last = loaded(objects) or []
    assert (first["n"], first["text"]) == (int("7" * 70), "\ud83d unpaired")
    assert len(last["deep"]) == 1
    assert bring(objects, main).status == "unchanged"


# --- What is no session ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "there is nothing in"),
        (b"\n \n", "there is nothing in"),
        (b'{"type":"user"}\n{"type":"us', "the last line of"),
        (b'{"type":"user"}\nnot json\n{"type":"user"}\n', "line 2 of"),
        (b'{"type":"user","n":NaN}\n', "line 1 of"),
        (b'{"type":"user"}\n[1]\n', "line 2 of"),
        (b"\xff\xfe\n\n", "line 1 of"),
        (b'{"name":"no transcript"}\n', "entry 1 has no type"),
        (b'{"type":"user","sessionId":"another"}\n', "belong to another session"),
    ],
)
def test_a_file_that_is_no_whole_transcript_is_refused_and_leaves_no_trace(
    projects: Path, content: bytes, why: str
) -> None:
    main = session_file(projects)
    main.write_bytes(content)
    objects = memory()
    refusal = bring(objects, main)
    assert refusal.status == "refused"
    assert why in refusal.message
    assert str(main) in refusal.message
    assert anyio.run(objects.listing, "") == []


def test_a_link_and_a_folder_are_refused(projects: Path) -> None:
    real = write(projects / "real.jsonl", said(1))
    link = projects / PROJECT / f"{SESSION}.jsonl"
    link.symlink_to(real)
    folder = projects / PROJECT / f"{OTHER}.jsonl"
    folder.mkdir()
    objects = memory()
    assert "is a symbolic link" in bring(objects, link).message
    assert "cannot be read" in bring(objects, folder).message


def test_a_file_that_cannot_even_be_looked_at_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot be read: File name too long"):
        read_transcript(tmp_path / ("long" * 100))


def test_a_torn_end_may_be_left_out_for_a_repair(projects: Path) -> None:
    main = session_file(projects, said(1), said(2))
    main.write_bytes(main.read_bytes()[:-9])
    assert read_transcript(main, torn_end=True) == [said(1)]
