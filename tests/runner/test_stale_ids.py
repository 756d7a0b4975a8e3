"""Runs of sessions that are too old, that are lost, or that the agent command does not find."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import anyio
import pytest
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ResultMessage,
    SessionKey,
    SessionListSubkeysKey,
    SessionStoreEntry,
    StreamEvent,
    SystemMessage,
)

from everturn import EverturnError, NotFound, Runtime, TranscriptStore, Unavailable, WorkItem
from everturn.testing import InstantAgent, ModelRequest, Reply, ScriptedModel, cli_environment
from everturn.testing.instant_agent import Phase
from everturn.workdirs import Workdirs
from everturn.workshop import Workshop
from runner.stage import DELTA, PROMPT, WORK, Desk, counted, finish, kinds
from workdirs.yard import Origin, git

ANSWERED = ["init", "AssistantMessage", "ResultMessage"]
PHASES: list[Phase] = ["connect", "query", "streaming"]
FAILURES = "claude_session_resume_failures_total"


# --- Too old ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_session_of_25_hours_is_gone_and_the_run_begins_anew_without_trying_it(desk: Desk) -> None:
    finish(desk.run())
    old = desk.use(hours_ago=25)
    stale, failures = counted("everturn_stale_sessions_total"), counted(FAILURES)
    run = desk.run()
    assert kinds(finish(run)) == ANSWERED
    assert (run.resumed, run.session_id == old.session_id) == (False, False)
    assert [(start.session_id, start.resumed) for start in desk.agent.starts[1:]] == [(run.session_id, False)]
    assert desk.agent.prompts[-1] == PROMPT
    assert [record.session_id for record in desk.records()] == [run.session_id]
    assert (stale(), failures()) == (1, 0)
    [warning] = run.warnings
    assert warning == f"session {old.session_id} was too old, so the conversation has begun anew"


@pytest.mark.slow
def test_a_session_of_one_hour_is_resumed(desk: Desk) -> None:
    first = desk.run()
    finish(first)
    desk.use(hours_ago=1)
    run = desk.run()
    assert kinds(finish(run)) == ANSWERED
    assert (run.resumed, run.session_id, run.warnings) == (True, first.session_id, ())
    assert [(start.session_id, start.resumed) for start in desk.agent.starts] == [
        (first.session_id, False),
        (first.session_id, True),
    ]
    assert desk.agent.prompts == [PROMPT, DELTA]


@pytest.mark.slow
def test_without_a_limit_a_session_is_resumed_after_a_year(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    first = desk.run()
    finish(first)
    desk.use(hours_ago=365 * 24)
    monkeypatch.setenv("EVERTURN_MAX_SESSION_AGE_MS", "null")
    run = desk.run()
    finish(run)
    assert (run.resumed, run.session_id) == (True, first.session_id)


@pytest.mark.slow
def test_each_agent_has_a_limit_of_its_own(desk: Desk) -> None:
    ages = {"hasty": {"max_session_age_ms": 60_000}, "patient": {"max_session_age_ms": None}}
    file = desk.folder / "ages.json"
    file.write_text(json.dumps(ages))
    resumed = {}
    for agent in ("hasty", "patient", "other"):
        work = WorkItem.task(f"by-{agent}", agent=agent)
        for hours_ago in (None, 2, 48):
            if hours_ago is not None:
                desk.use(work, hours_ago=hours_ago)
            run = desk.run(work, runtime=desk.runtime(agents_file=file))
            finish(run)
            resumed[agent, hours_ago] = run.resumed
    assert {key for key, value in resumed.items() if value} == {("patient", 2), ("patient", 48), ("other", 2)}


# --- Lost ---------------------------------------------------------------------------------------------------------


def test_a_session_that_is_not_in_the_store_is_dropped_and_no_agent_is_started_for_it(desk: Desk) -> None:
    lost = desk.use()
    failures = counted(FAILURES)
    run = desk.run()
    assert kinds(finish(run)) == ANSWERED
    assert (run.resumed, failures()) == (False, 1)
    assert [(start.session_id, start.resumed) for start in desk.agent.starts] == [(run.session_id, False)]
    assert desk.agent.prompts == [PROMPT]
    assert [record.session_id for record in desk.records()] == [run.session_id] != [lost.session_id]
    assert run.warnings == (f"session {lost.session_id} was not found, so the conversation has begun anew",)


@pytest.mark.slow
def test_a_session_whose_store_was_emptied_is_lost_and_the_run_after_that_resumes_the_new_one(desk: Desk) -> None:
    finish(desk.run())
    shutil.rmtree(desk.store)
    second, third = desk.run(), desk.run()
    finish(second)
    finish(third)
    assert [run.resumed for run in (second, third)] == [False, True]
    assert second.session_id == third.session_id
    assert third.warnings == ()


def workdirs_of(desk: Desk) -> Workdirs:
    runtime = desk.runtime()
    return Workshop.open(runtime.settings, runtime.registry).workdirs


@pytest.mark.slow
@pytest.mark.parametrize("how", ["never stored", "emptied", "not found by the agent"])
def test_with_the_conversation_its_workdir_begins_anew_too(desk: Desk, tmp_path: Path, how: str) -> None:
    origin = Origin(tmp_path / "remotes" / "shop", {"a.txt": "a\n"})
    work = WorkItem("fixer", origin.url, 7)
    if how == "never stored":
        lost = desk.use(work).session_id
        workdirs_of(desk).open(work).close()
    else:
        first = desk.run(work)
        finish(first)
        lost = first.session_id
    path = workdirs_of(desk).path(work)
    (path / "half.txt").write_text("half")
    latest = origin.push({"a.txt": "newer\n"})
    if how == "emptied":
        shutil.rmtree(desk.store)
    runtime = Runtime(desk.runtime().settings, make_store=ForgetfulStore) if how.startswith("not") else desk.runtime()
    shutil.rmtree(desk.folder.parent / ".claude", ignore_errors=True)  # the agent would find its own copy
    run = desk.run(work, runtime=runtime)
    finish(run)
    assert (run.resumed, run.session_id == lost, run.cwd) == (False, False, path)
    assert git(path, "rev-parse", "HEAD") == latest
    assert "quarantine" in " ".join(run.warnings)
    assert not (path / "half.txt").exists()
    with_lock = workdirs_of(desk).open(work)
    assert with_lock.outcome == "kept"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["too old", "lost"])
def test_forty_stale_ids_waste_no_start_of_an_agent(desk: Desk, how: str) -> None:
    works = [WorkItem.task(f"night-{number}") for number in range(40)]
    old = {desk.use(work, hours_ago=25 if how == "too old" else 0).session_id for work in works}
    runtime = desk.runtime()

    async def main() -> None:
        limit = anyio.CapacityLimiter(4)

        async def run_one(work: WorkItem) -> None:
            async with limit:
                assert kinds([message async for message in desk.run(work, runtime=runtime)]) == ANSWERED

        async with anyio.create_task_group() as group:
            for work in works:
                group.start_soon(run_one, work)

    anyio.run(main)
    starts = desk.agent.starts
    assert len(starts) == 40
    assert not any(start.resumed for start in starts)
    assert not old & {start.session_id for start in starts}
    assert {record.session_id for record in desk.records()} == {start.session_id for start in starts}
    assert desk.agent.prompts == [PROMPT] * 40


# --- Not found by the agent command -------------------------------------------------------------------------------


@pytest.fixture
def begun(desk: Desk) -> str:
    """The id of a session that is in the store and the registry."""
    run = desk.run()
    finish(run)
    assert run.session_id is not None
    return run.session_id


@pytest.mark.parametrize("phase", PHASES)
def test_a_conversation_that_is_not_found_is_dropped_counted_told_and_begun_anew_once(
    desk: Desk, begun: str, tmp_path: Path, phase: Phase
) -> None:
    agent = InstantAgent(tmp_path / "losing", loses_resumed=phase)
    failures = counted(FAILURES)
    run = desk.run(agent=agent)
    messages = finish(run)
    before = ["init", "AssistantMessage"] if phase == "streaming" else []
    assert kinds(messages) == [*before, "everturn_began_anew", *ANSWERED]
    told = messages[len(before)]
    assert isinstance(told, SystemMessage)
    assert (told.data["session_id"], told.data["instead_of"]) == (run.session_id, begun)
    assert run.warnings == (f"session {begun} was not found, so the conversation has begun anew",)
    assert (run.resumed, run.epoch, failures()) == (False, 3, 1)
    assert [(start.session_id, start.resumed) for start in agent.starts] == [(begun, True), (run.session_id, False)]
    assert agent.prompts[-1] == PROMPT
    assert [record.session_id for record in desk.records()] == [run.session_id] != [begun]


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_a_conversation_that_was_begun_anew_is_resumed_by_the_next_run(
    desk: Desk, begun: str, tmp_path: Path, phase: Phase
) -> None:
    first = desk.run(agent=InstantAgent(tmp_path / "losing", loses_resumed=phase))
    finish(first)
    second = desk.run()
    finish(second)
    assert (second.resumed, second.session_id, second.warnings) == (True, first.session_id, ())


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_a_fresh_start_that_is_lost_as_well_ends_the_run_and_frees_the_claim(
    desk: Desk, begun: str, tmp_path: Path, phase: Phase
) -> None:
    agent = InstantAgent(tmp_path / "losing", loses_resumed=phase, loses_begun=phase)
    failures = counted(FAILURES)
    run = desk.run(agent=agent)
    with pytest.raises(NotFound, match=r"lost session .* as soon as it had begun"):
        finish(run)
    assert [start.resumed for start in agent.starts] == [True, False]
    assert failures() == 1
    assert desk.record().held_until is None
    again = desk.run()
    assert kinds(finish(again)) == ANSWERED
    assert again.resumed is False
    assert begun not in {start.session_id for start in desk.agent.starts[1:]}


@pytest.mark.parametrize("phase", PHASES)
def test_a_first_run_that_is_lost_at_once_is_an_error(desk: Desk, tmp_path: Path, phase: Phase) -> None:
    agent = InstantAgent(tmp_path / "losing", loses_begun=phase)
    with pytest.raises(NotFound, match="as soon as it had begun"):
        finish(desk.run(agent=agent))
    assert len(agent.starts) == 1
    assert counted(FAILURES)() == 0


@pytest.mark.slow
def test_a_session_that_never_came_to_its_first_answer_is_no_failure_to_resume(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(EverturnError):
        finish(desk.run(agent=InstantAgent(tmp_path / "losing", loses_begun="connect")))
    failures = counted(FAILURES)
    run = desk.run()
    messages = finish(run)
    assert isinstance(messages[-1], ResultMessage)
    assert (run.resumed, run.warnings, failures()) == (False, (), 0)


class ForgetfulStore(TranscriptStore):
    """A store that has lost a conversation by the time the agent asks for it."""

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        return None


@pytest.mark.slow
def test_a_store_that_has_nothing_after_all_is_a_conversation_that_is_not_found(desk: Desk, begun: str) -> None:
    failures = counted(FAILURES)
    run = desk.run(runtime=Runtime(desk.runtime().settings, make_store=ForgetfulStore))
    shutil.rmtree(desk.folder.parent / ".claude")  # the agent would find its own copy
    assert kinds(finish(run)) == ["everturn_began_anew", *ANSWERED]
    assert [(start.session_id == begun, start.resumed) for start in desk.agent.starts[1:]] == [
        (True, True),
        (False, False),
    ]
    assert failures() == 1


class SilentStore(TranscriptStore):
    """A store that stops answering when the agent is about to be started."""

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        raise Unavailable("the store does not answer", hint="wait")


def test_a_store_that_is_away_is_no_lost_conversation(desk: Desk, begun: str) -> None:
    failures = counted(FAILURES)
    run = desk.run(runtime=Runtime(desk.runtime().settings, make_store=SilentStore))
    with pytest.raises(Unavailable, match="does not answer"):
        finish(run)
    assert (len(desk.agent.starts), failures()) == (1, 0)
    again = desk.run()
    finish(again)
    assert (again.resumed, again.session_id) == (True, begun)


@pytest.mark.cli
@pytest.mark.slow
def test_the_real_agent_command_does_not_find_a_conversation_and_begins_anew(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: ModelRequest) -> Reply:
        return Reply(f"I see {sum(PROMPT in text for text in request.texts())}.")

    options = ClaudeAgentOptions(cwd=desk.work, setting_sources=[], include_partial_messages=True)
    prompts = {"prompt": PROMPT, "resume_prompt": DELTA}
    with ScriptedModel(answer).serve() as url:
        for name, value in cli_environment(url, desk.folder, path=os.environ["PATH"], tmpdir=desk.folder).items():
            monkeypatch.setenv(name, value)
        first = desk.runtime().run(WORK, options=options, **prompts)
        finish(first)
        shutil.rmtree(desk.folder / ".claude")  # it would find its own copy
        failures = counted(FAILURES)
        forgetful = Runtime(desk.runtime().settings, make_store=ForgetfulStore)
        second = forgetful.run(WORK, options=options, **prompts)
        messages = [message for message in finish(second) if not isinstance(message, StreamEvent)]
        third = desk.runtime().run(WORK, options=options, **prompts)
        finish(third)
    assert failures() == 1
    assert kinds(messages)[0] == "everturn_began_anew"
    last = messages[-1]
    assert isinstance(last, ResultMessage)
    assert (last.result, last.session_id) == ("I see 1.", second.session_id)
    assert (second.resumed, second.session_id == first.session_id) == (False, False)
    assert second.warnings == (f"session {first.session_id} was not found, so the conversation has begun anew",)
    assert (third.resumed, third.session_id, third.warnings) == (True, second.session_id, ())
