"""The real agent command against the scripted model: a healthy run heals nothing but its closing notes."""

from __future__ import annotations

import os
import shlex
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import claude_agent_sdk
import pytest
from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, SessionKey, project_key_for_directory
from obstore.store import MemoryStore

from everturn import EverturnError, Settings, TranscriptStore
from everturn.log.objects import BlockingObjects
from everturn.testing import Fault, FaultyObjects, ModelRequest, Reply, ScriptedModel, ToolUse, cli_environment
from everturn.upkeep.alignment import align, comparable
from everturn.upkeep.healing import Healing, heal, salvage
from everturn.upkeep.local import read_transcript
from polling import WAIT_S

pytestmark = [pytest.mark.cli, pytest.mark.slow]

COMMAND = Path(claude_agent_sdk.__file__).parent / "_bundled" / "claude"
# Stands in for the agent command: tells where it keeps its files, and saves them before the SDK deletes them.
KEEPER = """#!/bin/sh
where="${{CLAUDE_CONFIG_DIR:-$HOME/.claude}}"
echo "$where" > "$KEEP/where"
{command} "$@"
code=$?
cp -r "$where/projects" "$KEEP/"
exit $code
"""
CLOSING = {"last-prompt", "cost-state", "mode", "atis-latch", "tools-used", "permission-mode"}
DELEGATE = {"description": "Count", "prompt": "COUNT THEM", "run_in_background": False}


def answer(request: ModelRequest) -> Reply:
    """Do what the last prompt says."""
    prompt = request.last_user_text()
    answered = request.messages[-1]["role"] == "user" and '"tool_result"' in repr(request.messages[-1]).replace(
        "'", '"'
    )
    if "COUNT THEM" in prompt:
        return Reply("There are seven.")
    if "TOOL" in prompt and not answered:
        return Reply("I look.", ToolUse("Bash", {"command": "echo from the tool"}))
    if "DELEGATE" in prompt and not answered:
        return Reply(ToolUse("Agent", DELEGATE))
    if "STALL" in prompt:
        return Reply("one two three four five", stall_after_chunks=2)
    return Reply("Fine.")


@dataclass
class Bench:
    """One session, run after run."""

    folder: Path
    url: str
    model: ScriptedModel
    session_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    epoch: int = 0
    reads: int = 0  # of the store, while healing
    turns: list[Healing] = field(default_factory=list)
    kept: Path = field(init=False)
    store: TranscriptStore = field(init=False)
    key: SessionKey = field(init=False)
    objects: FaultyObjects = field(default_factory=lambda: FaultyObjects(BlockingObjects(MemoryStore(), "memory://")))

    def open(self, epoch: int) -> TranscriptStore:
        settings = Settings.load(
            append_deadline_s=0.05, retry_start_s=0.01, retry_limit_s=0.02, compact_after_parts=0
        )
        return TranscriptStore(self.objects, scope="t", any_cwd=True, epoch=epoch, settings=settings)

    async def run(
        self, *prompts: str, cwd: str = "work", during: Callable[[ClaudeSDKClient], Any] | None = None
    ) -> Healing:
        """Take turns with an agent of its own, heal after each, and at the end."""
        self.epoch += 1
        self.store = self.open(self.epoch)
        place = self.folder / cwd
        self.kept = self.folder / f"kept-{self.epoch}"
        for folder in (place, self.kept):
            folder.mkdir(exist_ok=True)
        self.key = {"project_key": project_key_for_directory(str(place)), "session_id": self.session_id}
        resume = await self.store.take_over(self.key["project_key"], self.session_id)
        async with ClaudeSDKClient(self._options(place, resume=resume)) as client:
            for prompt in prompts:
                await client.query(prompt)
                if during is not None:
                    await during(client)
                async for _ in client.receive_response():
                    pass
                await self.store.settled()
                where = Path((self.kept / "where").read_text().strip())
                await self._heal_turn(where / "projects" / self.key["project_key"])
        return await self._heal(self.kept_project, final=True)

    @property
    def kept_project(self) -> Path:
        return self.kept / "projects" / self.key["project_key"]

    async def _heal_turn(self, local: Path) -> None:
        try:
            self.turns.append(await self._heal(local, final=False))
        except EverturnError:
            assert self.objects.faults

    async def _heal(self, local: Path, *, final: bool) -> Healing:
        before = self._count_reads()
        found = await heal(self.store, self.key, local, final=final)
        self.reads += self._count_reads() - before
        return found

    def _count_reads(self) -> int:
        return self.objects.counts["get"] + self.objects.counts["listing"]

    def _options(self, place: Path, *, resume: bool) -> ClaudeAgentOptions:
        keeper = self.folder / "keeper"
        keeper.write_text(KEEPER.format(command=shlex.quote(str(COMMAND))))
        keeper.chmod(0o755)
        path = os.environ["PATH"]
        return ClaudeAgentOptions(
            cwd=place,
            cli_path=keeper,
            permission_mode="bypassPermissions",
            setting_sources=[],
            session_store=self.store,
            session_store_flush="eager",
            resume=self.session_id if resume else None,
            session_id=None if resume else self.session_id,
            env={
                **cli_environment(self.url, self.folder, path=path, tmpdir=self.folder),
                "KEEP": str(self.kept),
            },
        )

    async def assert_complete(self) -> None:
        """Everything in the agent's files is in the store, in order and once."""
        main = self.kept_project / f"{self.session_id}.jsonl"
        for path in [main, *main.with_suffix("").rglob("*.jsonl")]:
            subpath = None if path == main else path.relative_to(main.with_suffix("")).with_suffix("").as_posix()
            key: SessionKey = self.key if subpath is None else {**self.key, "subpath": subpath}
            local = comparable(read_transcript(path))
            stored: list[Any] = list(await self.open(0).load(key) or ())
            found = align(local, stored)
            assert (found.after, found.diverged) == ([], False)
            assert {entry["type"] for entry in found.inside} <= CLOSING
            uuids = [entry["uuid"] for entry in comparable(stored) if "uuid" in entry]
            assert uuids == [entry["uuid"] for entry in local if "uuid" in entry]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    model = ScriptedModel(answer)
    with model.serve() as url:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        yield Bench(tmp_path, url, model)


def assert_healthy(bench: Bench, *ends: Healing) -> None:
    assert bench.turns
    assert bench.reads == 0
    assert all(turn == Healing() for turn in bench.turns)
    assert all(end.whole and end.appended <= 4 for end in ends)
    assert bench.store.unstored_entries == 0


@pytest.mark.parametrize(
    "prompts",
    [
        ["Hello.", "TOOL", "Bye."],
        ["DELEGATE", "Bye."],
        ["Hello.", "TOOL", "/compact", "TOOL again"],
    ],
    ids=["tool", "subagent", "compacted"],
)
def test_a_healthy_run_and_the_runs_that_resume_it_heal_only_closing_notes(
    bench: Bench, prompts: Sequence[str]
) -> None:
    async def main() -> None:
        first = await bench.run(*prompts)
        await bench.assert_complete()
        again = await bench.run("And on.", prompts[0])
        await bench.assert_complete()
        elsewhere = await bench.run("TOOL", cwd="elsewhere")
        await bench.assert_complete()
        assert_healthy(bench, first, again, elsewhere)

    anyio.run(main)


def test_an_interrupted_run_heals_only_closing_notes(bench: Bench) -> None:
    async def interrupt(client: ClaudeSDKClient) -> None:
        await anyio.to_thread.run_sync(bench.model.wait_until_streamed, 1, 2, WAIT_S)
        await client.interrupt()

    async def main() -> None:
        first = await bench.run("STALL", during=interrupt)
        again = await bench.run("Hello.")
        await bench.assert_complete()
        assert_healthy(bench, first, again)

    anyio.run(main)


def test_what_an_outage_held_up_is_stored_in_order_when_it_is_over(bench: Bench) -> None:
    fault = Fault("lose_reply", "create", keys="*/main/*", times=12, after=4)

    async def main() -> None:
        bench.objects.faults.append(fault)
        end = await bench.run("TOOL", "TOOL more", "DELEGATE")
        assert end.whole
        await bench.assert_complete()
        assert bench.store.unstored_entries == 0
        assert bench.turns[-1] == Healing()

    anyio.run(main)


def test_what_could_never_be_stored_during_a_run_is_salvaged_by_the_next_claim(bench: Bench) -> None:
    async def main() -> None:
        fault = Fault("fail", "create", times=None, after=6)
        bench.objects.faults.append(fault)
        with pytest.raises(EverturnError):
            await bench.run("TOOL", "DELEGATE")
        bench.objects.faults.remove(fault)
        next_claim = bench.open(2)
        await next_claim.take_over(bench.key["project_key"], bench.session_id)
        saved = await salvage(next_claim, bench.key, bench.kept_project)
        assert saved.whole
        assert saved.appended > 10
        await bench.assert_complete()
        assert await salvage(next_claim, bench.key, bench.kept_project) == Healing()

    anyio.run(main)
