"""Sessions come in from every store that the reference adapters fill: whole, once, and equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from everturn import Settings, TranscriptStore
from everturn.errors import Denied, NotFound
from everturn.log.objects import Objects
from everturn.log.stores import connect
from everturn.testing import Fault, FaultyObjects
from everturn.upkeep.importing import Outcome, find_in, import_session
from everturn.upkeep.sources import open_source
from imports.adapters import Adapter
from upkeep.shelf import MODE, SESSION, said

PROJECT = "-home-ada-web"
OTHER = "10000000-0000-4000-8000-000000000000"
KEY: Any = {"project_key": PROJECT, "session_id": SESSION}
SUBPATH = "subagents/workflows/run-1/agent-2"
METADATA = [{"type": "agent_metadata", "agentType": "counter"}, {"type": "agent_metadata", "done": True}]
FULL = Denied("the store is full", hint="make room")


def memory() -> Objects:
    return connect("memory://", Settings.load())


def bring(url: str, objects: Objects, *, dry_run: bool = False, skip_malformed: bool = False) -> list[Outcome]:
    """Import everything into one scope, as the command does for each."""

    async def main() -> list[Outcome]:
        with open_source(url, Settings.load()) as source:
            sessions, others = find_in(source, skip_malformed=skip_malformed)
            async with TranscriptStore(objects, scope="s", any_cwd=True, settings=Settings.load()) as store:
                return others + [await import_session(store, each, dry_run=dry_run) for each in sessions]

    return anyio.run(main)


def results(outcomes: Sequence[Outcome]) -> list[tuple[str, int]]:
    return [(outcome.status, outcome.entries) for outcome in outcomes]


def loaded(objects: Objects, subpath: str | None = None, key: Any = KEY) -> list[Any] | None:
    async def main() -> Any:
        store = TranscriptStore(objects, scope="s", any_cwd=True, settings=Settings.load())
        return await store.load({**key, "subpath": subpath} if subpath else key)

    found: list[Any] | None = anyio.run(main)
    return found


def test_a_session_comes_in_with_its_subagents_whatever_they_say(adapter: Adapter) -> None:
    first = [said(1, text="schön \U0001f600 ∀", n=int("7" * 70), deep=[[{"a": [None, True, -1.5e-7]}]]), MODE]
    adapter.append(PROJECT, SESSION, first)
    adapter.append(PROJECT, SESSION, [said(2)])
    adapter.append(PROJECT, SESSION, METADATA[:1], SUBPATH)
    adapter.append(PROJECT, SESSION, [said(11, 0), METADATA[1], said(12)], SUBPATH)
    objects = memory()
    assert results(bring(adapter.url, objects)) == [("imported", 7)]
    assert loaded(objects) == [*first, said(2)]
    assert loaded(objects, SUBPATH) == [METADATA[0], said(11, 0), METADATA[1], said(12)]
    assert results(bring(adapter.url, objects)) == [("unchanged", 0)]


def test_a_session_that_has_gone_on_there_gets_the_rest(adapter: Adapter) -> None:
    adapter.append(PROJECT, SESSION, [said(1)])
    objects = memory()
    bring(adapter.url, objects)
    adapter.append(PROJECT, SESSION, [MODE, said(2)])
    adapter.append(PROJECT, SESSION, METADATA, SUBPATH)
    assert results(bring(adapter.url, objects)) == [("continued", 4)]
    assert (loaded(objects), loaded(objects, SUBPATH)) == ([said(1), MODE, said(2)], METADATA)


def test_one_that_has_gone_on_here_is_left_alone_and_one_that_went_another_way_is_refused(adapter: Adapter) -> None:
    adapter.append(PROJECT, SESSION, [said(1)])
    objects = memory()
    bring(adapter.url, objects)

    async def go_on() -> None:
        async with TranscriptStore(objects, scope="s", any_cwd=True, settings=Settings.load()) as store:
            await store.append(KEY, [said(2)])  # type: ignore[list-item]

    anyio.run(go_on)
    assert results(bring(adapter.url, objects)) == [("unchanged", 0)]
    adapter.append(PROJECT, SESSION, [said(3, 1)])
    (refusal,) = bring(adapter.url, objects)
    assert (refusal.status, "entry 2 of the main transcript differs" in refusal.message) == ("refused", True)
    assert loaded(objects) == [said(1), said(2)]


def test_what_a_retry_has_written_twice_comes_in_once(adapter: Adapter) -> None:
    """The adapters append whatever they are given: a batch whose answer was lost is there twice."""
    for batch in ([said(1)], [said(2), said(3)], [said(2), said(3)], [said(4)]):
        adapter.append(PROJECT, SESSION, batch)
    objects = memory()
    assert results(bring(adapter.url, objects)) == [("imported", 4)]
    assert loaded(objects) == [said(1), said(2), said(3), said(4)]
    assert results(bring(adapter.url, objects)) == [("unchanged", 0)]


@pytest.mark.slow
def test_an_import_that_is_broken_off_goes_on_where_it_was(adapter: Adapter) -> None:
    entries = [said(number, text="x" * 400_000) for number in range(1, 8)]
    adapter.append(PROJECT, SESSION, [*entries, MODE, MODE])
    adapter.append(PROJECT, SESSION, [METADATA[0], said(11, 0), METADATA[1], said(12)], SUBPATH)
    objects = FaultyObjects(memory())
    objects.faults.append(Fault("fail", "create", keys="*/main/0000000003.*", error=FULL, times=None))
    assert results(bring(adapter.url, objects)) == [("refused", 0)]
    objects.faults.clear()
    assert results(bring(adapter.url, objects)) == [("continued", 9)]
    assert loaded(objects) == [*entries, MODE, MODE]
    assert loaded(objects, SUBPATH) == [METADATA[0], said(11, 0), METADATA[1], said(12)]


def test_a_dry_run_says_the_same_and_writes_nothing(adapter: Adapter) -> None:
    adapter.append(PROJECT, SESSION, [said(1), said(2)])
    objects = FaultyObjects(memory())
    assert results(bring(adapter.url, objects, dry_run=True)) == [("imported", 2)]
    assert objects.counts["create"] == objects.counts["put"] == 0


def test_all_sessions_of_all_projects_are_found_and_other_names_are_skipped(adapter: Adapter) -> None:
    for project, session in (("-srv-b", SESSION), (PROJECT, OTHER), (PROJECT, "latest")):
        adapter.append(project, session, [{**said(1), "sessionId": session}])
    adapter.append(PROJECT, SESSION, [said(1)], "subagents/agent-1")
    with open_source(adapter.url, Settings.load()) as source:
        sessions, others = find_in(source)
    assert [(each.project_key, each.session_id) for each in sessions] == [
        (PROJECT, OTHER),
        (PROJECT, SESSION),
        ("-srv-b", SESSION),
    ]
    assert [(each.status, "latest" in each.place) for each in others] == [("skipped", True)]


def test_what_is_no_whole_session_is_refused_with_its_place_and_leaves_no_trace(adapter: Adapter) -> None:
    adapter.append("-a", SESSION, [said(1)], "subagents/agent-1")
    adapter.append("-b", SESSION, [{**said(1), "sessionId": OTHER}])
    adapter.append("-c", SESSION, [{"name": "no transcript"}])
    adapter.append("-d", SESSION, [said(1)])
    adapter.append("-d", SESSION, [said(2)], "subagents/../../up")
    objects = memory()
    outcomes = bring(adapter.url, objects)
    assert [outcome.status for outcome in outcomes] == ["refused"] * 4
    reasons = ("has no main transcript", "belong to another session", "entry 1 has no type", "..")
    for outcome, reason in zip(outcomes, reasons, strict=True):
        assert reason in outcome.message
        assert SESSION in outcome.place
    assert anyio.run(objects.listing, "") == []


def test_a_place_without_sessions_is_refused(adapter: Adapter) -> None:
    with (
        open_source(adapter.url, Settings.load()) as source,
        pytest.raises(NotFound, match="there are no sessions in"),
    ):
        find_in(source)
