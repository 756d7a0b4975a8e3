"""Everturn on the deployed stack, from its outputs alone: store, registry, runs, a takeover, the service."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anyio
import httpx
import pytest
from claude_agent_sdk import SessionKey

from everturn import Denied, Settings, TranscriptStore, WorkItem
from everturn.cli import main
from everturn.errors import Held
from everturn.log.names import escape
from everturn.log.stores import connect
from everturn.model import Holder
from everturn.registry import open_registry
from everturn.testing import ModelRequest, Reply, ScriptedModel, ToolUse, kill_machine
from polling import wait_until
from stack.conftest import become
from stack.deployed import Deployed, Finished, Machine

pytestmark = [pytest.mark.cli, pytest.mark.slow]

KEY: SessionKey = {"project_key": "-home-ada", "session_id": "10000000-0000-4000-8000-000000000000"}
UUIDS = [f"u{number}" for number in range(12)]
PROMPT, DELTA = "Count the sheep.", "Go on counting."


def answer(request: ModelRequest) -> Reply:
    if "stall" in request.last_user_text() and not request.tool_results():
        return Reply("Let me look.", ToolUse("Bash", {"command": "echo five sheep"}))
    if request.tool_results() and DELTA not in request.last_user_text():
        return Reply("Five sheep, and then some more.", stall_after_chunks=3)
    return Reply("Seven sheep.")


@pytest.fixture
def model() -> Iterator[tuple[ScriptedModel, str]]:
    scripted = ScriptedModel(answer)
    with scripted.serve() as url:
        yield scripted, url


def parts_of(stack: Deployed, task: str) -> int:
    prefix = f"{stack.root}/sessions/{escape(f'task:{task}', 'scope')}/"
    return int(stack.aws.client("s3").list_objects_v2(Bucket=stack.bucket, Prefix=prefix)["KeyCount"])


async def use_a_store(settings: Settings, scope: str) -> None:
    def opened() -> TranscriptStore:
        return TranscriptStore.open(settings.store_url(), scope=scope, any_cwd=True, epoch=1, settings=settings)

    async with await anyio.to_thread.run_sync(opened) as store:
        await store.take_over(KEY["project_key"], KEY["session_id"], is_new=True)
        for uuid in UUIDS:
            await store.append(KEY, [{"type": "user", "uuid": uuid}])
        await store.append({**KEY, "subpath": "subagents/agent-1"}, [{"type": "user", "uuid": "s1"}])
        await store.flush()
        assert [entry["uuid"] for entry in await store.load(KEY) or []] == UUIDS
        assert await store.list_subkeys(KEY) == ["subagents/agent-1"]
        assert [each["session_id"] for each in await store.list_sessions(KEY["project_key"])] == [KEY["session_id"]]
        assert len(await store.list_session_summaries(KEY["project_key"])) == 1


@pytest.mark.parametrize("who", ["worker", "service"])
def test_a_store_and_a_row_for_one_task(stack: Deployed, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    become(monkeypatch, stack.task(who) if who == "worker" else stack.service())
    settings = Settings.load(compact_after_parts=4)
    anyio.run(use_a_store, settings, f"task:{who}")

    registry, work = open_registry(settings.registry_url(), settings=settings), WorkItem.task(who)
    claim = registry.claim(work, Holder("one"), settings.store_url(), ttl_s=30)
    with pytest.raises(Held):
        registry.claim(work, Holder("two"), settings.store_url(), ttl_s=30)
    claim = registry.renew(claim, 30)
    registry.confirm(claim, "/home/ada")
    registry.release(claim)
    assert registry.claim(work, Holder("two"), settings.store_url(), ttl_s=30).epoch == claim.epoch + 1
    if who == "worker":
        with pytest.raises(Denied):
            registry.claim(WorkItem.task("other"), Holder("one"), settings.store_url(), ttl_s=30)
        with pytest.raises(Denied):
            registry.records()
        with pytest.raises(Denied):
            TranscriptStore.open(settings.store_url(), scope="task:other", settings=settings)
    else:
        assert work.key in {record.work_key for record in registry.records()}


def test_what_a_task_deletes_at_once_is_gone_for_readers_and_the_service_takes_it_away(
    stack: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, stack.task("deletes"))
    settings = Settings.load()

    async def delete(*, finishes: bool) -> None:
        objects = connect(settings.store_url(), settings)
        async with TranscriptStore(objects, scope="task:deletes", settings=settings) as store:
            if finishes:
                await store.delete(KEY)
            else:
                await store.append(KEY, [{"type": "user", "uuid": "1"}])
                with pytest.raises(Denied):
                    await store.delete(KEY)
            assert await store.load(KEY) is None

    anyio.run(partial(delete, finishes=False))
    assert parts_of(stack, "deletes") > 1
    become(monkeypatch, stack.service())
    anyio.run(partial(delete, finishes=True))


def test_the_service_looks_after_sessions(
    stack: Deployed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    become(monkeypatch, stack.service())
    anyio.run(use_a_store, Settings.load(), "task:cared-for")
    session, scope = KEY["session_id"], ("--scope", "task:cared-for")

    def care(*arguments: str) -> Finished:
        monkeypatch.setattr(sys, "argv", ["everturn", "sessions", *arguments, *scope, "--json"])
        with pytest.raises(SystemExit) as ended:
            main()  # in this process, as each of its own would take seconds to begin
        status = ended.value.code
        assert isinstance(status, int)
        return Finished(status, *capsys.readouterr())

    assert session in care("list").done()
    assert care("verify").summary()["damaged"] == 0
    for arguments in (("compact", session), ("hold", session, "--reason", "a lawsuit")):
        care(*arguments).done()
    assert "hold" in care("delete", session, "--yes").complaints
    care("hold", session, "--lift").done()
    care("delete", session, "--yes").done()
    assert session not in care("list").done()


def test_a_worker_with_one_tasks_rights_runs_it_twice(
    stack: Deployed, model: tuple[ScriptedModel, str], tmp_path: Path
) -> None:
    _, url = model
    orchestrator = Machine(tmp_path / "orchestrator", stack.service())
    who = stack.printed(orchestrator.command("credentials", "--task", "42").done())
    runs = [
        Machine(tmp_path / name, who, url).command("run", "--task", "42", "--prompt", PROMPT, "--json")
        for name in ("a", "b")
    ]
    first, second = (run.summary() for run in runs)
    assert (first["ok"], first["resumed"], first["epoch"]) == (True, False, 1)
    assert (second["ok"], second["resumed"], second["epoch"]) == (True, True, 2)
    assert first["session"] == second["session"]
    other = Machine(tmp_path / "a", who, url).command("run", "--task", "4", "--prompt", PROMPT, "--json")
    assert other.status != 0
    assert "AccessDenied" in other.complaints


def test_a_worker_is_killed_and_another_one_goes_on(
    stack: Deployed, model: tuple[ScriptedModel, str], tmp_path: Path
) -> None:
    scripted, url = model
    tools = ("--permission-mode", "bypassPermissions")
    work = ("run", "--task", "killed", "--resume-prompt", DELTA, "--json", *tools)
    one, two = (Machine(tmp_path / name, stack.service(), url) for name in ("one", "two"))
    with one.start(*work, "--prompt", f"{PROMPT} Then stall.", claim_ttl_s="2") as child:
        scripted.wait_until_streamed(2, 2, 60)
        wait_until(lambda: parts_of(stack, "killed") > 1, "what was said before")  # the first one is the fence
        kill_machine(child.pid)
    done = two.command(*work, "--prompt", PROMPT, "--wait", "30", claim_ttl_s="2")
    summary = done.summary()
    assert (summary["ok"], summary["resumed"], summary["epoch"]) == (True, True, 2)
    assert {"role_assumed", "run_started", "run_ended"} <= set(done.events())
    said = "\n".join(scripted.requests[-1].texts())
    assert PROMPT in said
    assert DELTA in said


def test_the_service_sweeps_the_table(stack: Deployed, tmp_path: Path) -> None:
    who = stack.service()
    machine = Machine(tmp_path / "service", who)
    child = machine.start("serve", "--json", "--port", "0", max_session_age_ms="1", admin_token="an-admin-token-x")
    with child:
        try:
            assert child.stdout is not None
            address = json.loads(child.stdout.readline())["address"]
            with httpx.Client(base_url=address, trust_env=False) as client:
                done = 'everturn_sweeps_total{outcome="done"} 1.0'  # it is there from the beginning, as 0.0
                wait_until(lambda: done in client.get("/metrics").text, "a sweep")
        finally:
            child.terminate()
            try:
                _, complaints = child.communicate(timeout=30)
            finally:
                child.kill()
            sys.stderr.write(complaints)  # shown if there was no sweep
    assert "swept" in [json.loads(line)["event"] for line in complaints.splitlines() if line.startswith("{")]
