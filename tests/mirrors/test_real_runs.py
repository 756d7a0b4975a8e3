"""What the real agent command says, as a mirror has it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from claude_agent_sdk import ClaudeAgentOptions

from everturn import Runtime, Settings, WorkItem
from everturn.journal.events import Event, Result
from everturn.journal.journal import Journal
from everturn.journal.reading import RunRef
from everturn.log.objects import run
from everturn.mirrors.feed import MirrorFeed
from everturn.mirrors.keeping import catch_up, rebuild
from everturn.mirrors.sqlite import SqliteMirror, folder_of
from everturn.opening import open_journals
from everturn.testing import ModelRequest, Reply, ScriptedModel, Text, ToolUse, cli_environment
from mirrors.ground import check_index, dump, matches, rows
from polling import wait_until

pytestmark = [pytest.mark.cli, pytest.mark.slow]

WORK = WorkItem.task("mirrored")
ENOUGH_S = 10.0


def answering(folder: Path) -> Callable[[ModelRequest], Reply]:
    def answer(request: ModelRequest) -> Reply:
        if not request.tool_results():
            return Reply(Text("Let me have a peek."), ToolUse("Read", {"file_path": str(folder / "notes.txt")}))
        return Reply("It says marmalade.")

    return answer


def run_twice(settings: Settings, folder: Path) -> None:
    async def once(prompt: str) -> None:
        options = ClaudeAgentOptions(setting_sources=[], cwd=folder, permission_mode="bypassPermissions")
        async for _ in Runtime(settings).run(WORK, prompt=prompt, options=options):
            pass

    anyio.run(once, "Please look into notes.txt.")
    anyio.run(once, "And once more.")


def test_two_runs_of_a_work_item_are_mirrored_from_what_they_wrote(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("marmalade")
    settings = Settings.load(state=tmp_path / "state")
    said: dict[RunRef, MirrorFeed] = {}
    write = Journal.write

    def write_and_tell(journal: Journal, *events: Event) -> None:
        write(journal, *events)
        if journal.ref not in said:
            said[journal.ref] = MirrorFeed.open(settings)
            said[journal.ref].note(journal.ref, journal.path)

    monkeypatch.setattr(Journal, "write", write_and_tell)
    with ScriptedModel(answering(tmp_path)).serve() as url:
        for name, value in cli_environment(url, tmp_path, path=os.environ["PATH"], tmpdir=tmp_path).items():
            monkeypatch.setenv(name, value)
        run_twice(settings, tmp_path)
    live = SqliteMirror(folder_of(settings), settings.store_url())
    wait_until(lambda: rows(live, "SELECT count(outcome) FROM runs") == [(2,)], "both runs have ended in the mirror")
    for feed in said.values():
        feed.close(ENOUGH_S)
    told_live = dump(live)
    journals = open_journals(settings)
    again = SqliteMirror(tmp_path / "again", settings.store_url())
    rebuild(journals, again)
    found = dump(again)
    told_live.pop("checkpoints")  # they say which parts of the store have been read, and none had been
    found.pop("checkpoints")
    assert told_live == found
    catch_up(journals, live)
    check_index(live)
    query = "SELECT outcome, turns, tool_calls, unreadable_events, unknown_events, resumed FROM runs ORDER BY epoch"
    assert rows(again, query) == [("completed", 1, 1, 0, 0, 0), ("completed", 1, 0, 0, 0, 1)]
    assert rows(again, "SELECT path, action FROM files") == [("notes.txt", "read")]
    assert rows(again, "SELECT count(*) FROM texts WHERE partial") == [(0,)]
    assert {kind for *_, kind, _ in matches(again, "marmalade")} == {"answer", "tool_result"}
    assert rows(again, "SELECT runs, died, cost_is_partial FROM work_items") == [(2, 0, 0)]
    ((cost, tokens),) = rows(again, "SELECT cost_usd, output_tokens FROM work_items")
    assert cost > 0
    assert tokens > 0


def test_what_a_conversation_has_cost_before_is_no_cost_of_the_runs_that_go_on_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("marmalade")
    settings = Settings.load(state=tmp_path / "state")
    with ScriptedModel(answering(tmp_path)).serve() as url:
        for name, value in cli_environment(url, tmp_path, path=os.environ["PATH"], tmpdir=tmp_path).items():
            monkeypatch.setenv(name, value)
        run_twice(settings, tmp_path)
        run_twice(settings, tmp_path)
    journals = open_journals(settings)
    mirror = SqliteMirror(tmp_path / "mirror", settings.store_url())
    rebuild(journals, mirror)
    told = [run(journals.read(ref)).events for ref in run(journals.tails())]
    results = [each.event for events in told for each in events if isinstance(each.event, Result)]
    whole = max(results, key=lambda result: result.cost_usd or 0)
    assert whole.model_usage is not None
    ((cost, tokens),) = rows(mirror, "SELECT cost_usd, input_tokens FROM work_items")
    assert cost == pytest.approx(whole.cost_usd)
    assert tokens == sum(each["inputTokens"] for each in whole.model_usage.values())
    assert tokens == sum(result.usage["input_tokens"] for result in results if result.usage)
    query = "SELECT runs.input_tokens, turns.input_tokens, runs.cost_usd, turns.cost_usd"
    for of_run, of_turn, cost_of_run, cost_of_turn in rows(mirror, f"{query} FROM runs JOIN turns USING (run_id)"):
        assert (of_run, cost_of_run) == (of_turn, pytest.approx(cost_of_turn))
    costs = [usd for (usd,) in rows(mirror, "SELECT cost_usd FROM model_usage")]
    assert sum(costs) == pytest.approx(whole.cost_usd)
