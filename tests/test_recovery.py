"""Runs that could not store what they should have, and how the next one goes on. Real agent, scripted model."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import anyio
import pytest
from claude_agent_sdk import ClaudeAgentOptions, Message, ResultMessage, SessionKey, SessionStoreEntry

from everturn import Conflict, Run, Runtime, Settings, TranscriptStore, Unavailable, WorkItem
from everturn.testing import Reply, ScriptedModel, Text, cli_environment

pytestmark = [pytest.mark.cli, pytest.mark.slow]

WORK = WorkItem.task("recovery")


class DeafStore(TranscriptStore):
    """A store that can be fenced, but takes no entries."""

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        await super().append(key, [*entries, {"type": "never", "stored": object()}])  # type: ignore[typeddict-unknown-key]


def on_machine(monkeypatch: pytest.MonkeyPatch, url: str, home: Path) -> None:
    for name, value in cli_environment(url, home, path=os.environ["PATH"], tmpdir=home).items():
        monkeypatch.setenv(name, value)


def run_once(runtime: Runtime, said: list[Message], **options: Any) -> Run:
    async def main() -> Run:
        run = runtime.run(WORK, prompt="Hello.", options=ClaudeAgentOptions(setting_sources=[], **options))
        async for message in run:
            said.append(message)  # noqa: PERF401  # kept even if the run fails after it
        return run

    return anyio.run(main)


def test_a_turn_that_was_not_stored_is_reported_and_stored_by_the_next_run_on_the_same_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = Settings.load(state=tmp_path / "state")
    with ScriptedModel(lambda request: Reply(Text(f"Hello {len(request.messages)}."))).serve() as url:
        on_machine(monkeypatch, url, tmp_path)
        said: list[Message] = []
        with pytest.raises(Unavailable, match="is not whole"):
            run_once(Runtime(settings, make_store=DeafStore), said, cwd=tmp_path)
        assert isinstance(said[-1], ResultMessage)
        first = Runtime(settings).registry.get(WORK)
        again = run_once(Runtime(settings), [], cwd=tmp_path)
        later = run_once(Runtime(settings), [], cwd=tmp_path)
    assert first is not None
    assert first.tainted is not None
    assert again.resumed
    assert again.session_id == later.session_id == first.session_id
    assert "had left on this machine were stored now" in " ".join(again.warnings)
    assert later.warnings == ()
    assert list((settings.runs_path()).glob("*/")) == []


def test_a_turn_that_was_not_stored_leads_to_a_fresh_session_on_another_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shared = {"store": (tmp_path / "store").as_uri(), "registry": f"sqlite://{tmp_path / 'registry.db'}"}
    here, there = (Settings.load(state=tmp_path / name, **shared) for name in ("here", "there"))
    with ScriptedModel(lambda request: Reply(Text(f"Hello {len(request.messages)}."))).serve() as url:
        on_machine(monkeypatch, url, tmp_path)
        with pytest.raises(Unavailable, match="is not whole"):
            run_once(Runtime(here, make_store=DeafStore), [], cwd=tmp_path)
        first = Runtime(here).registry.get(WORK)
        again = run_once(Runtime(there), [], cwd=tmp_path)
    assert first is not None
    assert again.resumed is False
    assert again.session_id != first.session_id
    assert "was not found" in " ".join(again.warnings)


def test_a_home_of_the_agents_own_is_mirrored_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "agent").mkdir()
    with ScriptedModel([Reply("One."), Reply("Two.")]).serve() as url:
        on_machine(monkeypatch, url, tmp_path)
        env = {"HOME": str(tmp_path / "agent")}
        runtime = Runtime(Settings.load(state=tmp_path / "state"))
        assert run_once(runtime, [], cwd=tmp_path, env=env).resumed is False
        assert run_once(runtime, [], cwd=tmp_path, env=env).resumed is True
    assert list((tmp_path / "agent" / ".claude" / "projects").glob("*/*.jsonl"))


def test_a_run_against_another_store_is_refused_and_the_conversation_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = Settings.load(state=tmp_path / "state")
    elsewhere = Settings.load(state=tmp_path / "state", store=(tmp_path / "elsewhere").as_uri())
    with ScriptedModel(lambda _: Reply("Hello.")).serve() as url:
        on_machine(monkeypatch, url, tmp_path)
        first = run_once(Runtime(here), [], cwd=tmp_path)
        with pytest.raises(Conflict, match=r"is in file:///.*/state/store, and not in file:///.*/elsewhere"):
            run_once(Runtime(elsewhere), [], cwd=tmp_path)
        again = run_once(Runtime(here), [], cwd=tmp_path)
        shutil.copytree(tmp_path / "state" / "store", tmp_path / "elsewhere", dirs_exist_ok=True)
        moved = run_once(Runtime(elsewhere), [], cwd=tmp_path)
    assert (again.resumed, moved.resumed) == (True, True)
    assert first.session_id == again.session_id == moved.session_id


def test_the_log_lines_of_a_run_say_whose_they_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ScriptedModel(lambda _: Reply("Hello.")).serve() as url, caplog.at_level("DEBUG", "everturn"):
        on_machine(monkeypatch, url, tmp_path)
        run = run_once(Runtime(Settings.load(state=tmp_path / "state")), [], cwd=tmp_path)
    lines = [json.loads(record.message) for record in caplog.records if record.name == "everturn"]
    ours = {line["event"]: line for line in lines}
    assert {"claimed", "run_started", "part_written", "run_ended"} <= set(ours)
    for event in ("run_started", "run_ended"):
        assert (ours[event]["task_id"], ours[event]["session_id"]) == (WORK.key, run.session_id)
    assert ours["part_written"]["session_id"] == run.session_id
    assert "Hello" not in str(lines)
