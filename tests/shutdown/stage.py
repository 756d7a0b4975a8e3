"""Machines with real workers on one store and one registry; a model keeps their agents where a test wants them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any

import anyio

from everturn import Held, Runtime, Settings, WorkItem
from everturn.host.agents import find_cli
from everturn.model import Claim, Holder, SessionRecord
from everturn.testing import (
    ModelRequest,
    Reply,
    ScriptedModel,
    Text,
    ToolUse,
    cli_environment,
    compare,
    kill_machine,
    read_receipts,
)
from everturn.transcripts.store import UNKNOWN_PROJECT
from everturn.upkeep.alignment import align, comparable
from everturn.upkeep.local import read_transcript
from polling import processes_below, wait_until
from shutdown.proxy import Proxy

TIMEOUT_S = 60.0
GRACE_S = 8.0
TTL_S = 4.0
TASK = "sheep"
WORK = WorkItem.task(TASK)
PROMPT = "Count the sheep behind the hill."
RESUME_PROMPT = "You were interrupted. Go on counting."
SUBAGENT_PROMPT = "COUNT THE BLACK SHEEP"
BEGINNING = "I shall walk up the hill and look at the meadow behind it."
ENDING = "There are seven sheep behind the hill."
# The tool ends when it is let go, and has a helper in a session of its own.
TOOL = (
    "(setsid sh -c 'while :; do sleep 0.1; done' &) ; touch in-the-tool;"
    " while [ ! -e go ]; do sleep 0.05; done; echo seven"
)
HELD_CLI = """#!/bin/sh
touch cli-started
while [ ! -e go ]; do sleep 0.05; done
exec '{cli}' "$@"
"""
WORKER = Path(__file__).with_name("worker.py")
TESTS = WORKER.parent.parent

Event = dict[str, Any]


@dataclass
class Worker:
    """A worker that runs, and what it says."""

    machine: Machine
    process: subprocess.Popen[str]
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def say(self, word: str) -> None:
        """Give it a line on its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def saw(self, event: str) -> list[Event]:
        return [each for each in self.events if each["event"] == event]

    def wait_for(self, event: str, count: int = 1) -> list[Event]:
        """Wait until it has said something so many times."""

        def look() -> list[Event]:
            seen = self.saw(event)
            assert len(seen) >= count or self._reader.is_alive(), self.last_words()
            return seen if len(seen) >= count else []

        return wait_until(look, f"{event} of {self.machine.name}", TIMEOUT_S)

    def wait(self, timeout_s: float = TIMEOUT_S) -> int:
        """Wait for its end and return its exit code."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker does not end: {self.last_words()}") from None
        self._reader.join()
        return code

    def last_words(self) -> str:
        return f"{self.events[-3:]}\n{self.machine.complaints()[-6000:]}"

    def close(self) -> None:
        kill_machine(self.pid)
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))


@dataclass
class Machine:
    """A home, a desk, temporary files and state of its own."""

    stage: Stage
    name: str

    def __post_init__(self) -> None:
        self.folder = self.stage.folder / self.name
        self.home, self.desk, self.tmp, self.state = (self.folder / name for name in ("home", "desk", "tmp", "state"))
        for place in (self.home, self.desk, self.tmp):
            place.mkdir(parents=True, exist_ok=True)

    def environment(self, **more: str) -> dict[str, str]:
        return {
            **cli_environment(self.stage.model.url, self.home, path=os.environ["PATH"], tmpdir=self.tmp),
            **self.stage.shared,
            "EVERTURN_STATE": str(self.state),
            "EVERTURN_WORKER": self.name,
            "PYTHONPATH": str(TESTS),
            **more,
        }

    @contextlib.contextmanager
    def worker(
        self, *, held: bool = False, backend: str = "asyncio", rounds: bool = False, **more: str
    ) -> Iterator[Worker]:
        """Run a worker here. Whatever is left of it at the end of the block is killed."""
        plan = self.plan(backend, cli=str(self.held_cli()) if held else None, rounds=rounds)
        with self.start([sys.executable, str(WORKER), plan], **more) as worker:
            yield worker

    @contextlib.contextmanager
    def caller(
        self,
        program: Path,
        scenario: str,
        backend: str = "asyncio",
        variables: dict[str, str] | None = None,
        **plan: Any,
    ) -> Iterator[Worker]:
        """Run a program that treats its run in some way."""
        command = [sys.executable, str(program), scenario, self.plan(backend, **plan)]
        with self.start(command, **(variables or {})) as worker:
            yield worker

    def plan(self, backend: str, **more: Any) -> str:
        """Return what a worker is to do, as it takes it."""
        plan = {
            "task": TASK,
            "prompt": PROMPT,
            "resume_prompt": RESUME_PROMPT,
            "receipts": str(self._fresh_receipts()),
        }
        return json.dumps({**plan, "backend": backend, **more})

    @contextlib.contextmanager
    def start(self, command: list[str], **more: str) -> Iterator[Worker]:
        with (self.folder / "stderr.log").open("ab") as stderr:
            process = subprocess.Popen(
                command,
                cwd=self.desk,
                env=self.environment(**more),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        worker = Worker(self, process)
        try:
            yield worker
        finally:
            worker.close()

    def held_cli(self) -> Path:
        """Write an agent command that waits to be let go before it does anything."""
        path = self.folder / "held-cli"
        path.write_text(HELD_CLI.format(cli=find_cli(None)))
        path.chmod(0o700)
        return path

    def let_go(self) -> None:
        """Let go of what waits here."""
        (self.desk / "go").touch()

    def complaints(self) -> str:
        return (self.folder / "stderr.log").read_text(errors="replace")

    def acknowledged(self) -> list[dict[str | None, list[Any]]]:
        """Return what each worker here was told is stored, by subpath."""
        found = [read_receipts(path) for path in sorted(self.folder.glob("receipts-*"))]
        return [each for each in found if each]

    def _fresh_receipts(self) -> Path:
        return self.folder / f"receipts-{next(self.stage.numbers)}"

    def processes(self) -> list[int]:
        return processes_below(self.folder)


class Stage:
    """Machines, a registry, a store behind a proxy, and a model.

    Args:
        folder: Where the machines are.
        shared: Variables that all machines have.
        store_url: The store.
        proxy: The way to it for the workers; tests go there directly.
        moment: Where the model and its tools keep the agent.
    """

    def __init__(self, folder: Path, shared: dict[str, str], proxy: Proxy | None, moment: str = "") -> None:
        self.folder = folder
        self.shared = shared
        self.proxy = proxy
        self.moment = moment
        self.calm = False
        self.numbers = count(100)  # of workers
        self.model = ScriptedModel(self._answer)
        self.subagent_request = 0
        self.settings = Settings.load(
            store=shared["EVERTURN_STORE"], registry=shared["EVERTURN_REGISTRY"], state=folder / "here"
        )
        self.runtime = Runtime(self.settings)

    def machine(self, name: str) -> Machine:
        return Machine(self, name)

    # --- The model ------------------------------------------------------------------------------------------------

    def _answer(self, request: ModelRequest) -> Reply:
        said = request.last_user_text()
        if SUBAGENT_PROMPT in said:
            self.subagent_request = request.index
            return Reply(Text("One two three four five."), stall_after_chunks=None if self.calm else 2)
        if RESUME_PROMPT in said or self.calm or request.tool_results():
            return Reply(Text(ENDING))
        if self.moment == "streaming":
            return Reply(Text(BEGINNING), stall_after_chunks=4)
        if self.moment == "in-a-tool":
            return Reply(Text(BEGINNING), ToolUse("Bash", {"command": TOOL}))
        if self.moment == "with-a-subagent":
            delegate = {"description": "Count", "prompt": SUBAGENT_PROMPT, "run_in_background": False}
            return Reply(Text(BEGINNING), ToolUse("Agent", delegate))
        return Reply(Text(ENDING))

    def reach(self, worker: Worker) -> None:
        """Wait until the agent is where it is to be kept."""
        machine = worker.machine
        if self.moment == "before-the-first-frame":
            self._poll(worker, (machine.desk / "cli-started").exists)
            return
        if self.moment == "streaming":
            self._poll(worker, lambda: self.model.requests)
            self.model.wait_until_streamed(1, 4, TIMEOUT_S)
            worker.wait_for("delta")
        elif self.moment == "in-a-tool":
            self._poll(worker, (machine.desk / "in-the-tool").exists)
        elif self.moment == "with-a-subagent":
            self._poll(worker, lambda: self.subagent_request)
            self.model.wait_until_streamed(self.subagent_request, 2, TIMEOUT_S)
        else:
            worker.wait_for("result")
        self._poll(worker, machine.acknowledged)

    def wait_until_cut_off(self) -> None:
        """Wait until nobody listens to the model any more: the run has begun to let go."""
        wait_until(lambda: self.model.open_replies == 0, "the agent has left its model", TIMEOUT_S)

    def _poll(self, worker: Worker, look: Any) -> None:
        def running_and() -> Any:
            assert worker.process.poll() is None, worker.last_words()
            return look()

        wait_until(running_and, f"the agent is {self.moment}", TIMEOUT_S)

    def let_go(self, worker: Worker) -> None:
        """Keep nobody any more."""
        self.calm = True
        self.model.release()
        worker.machine.let_go()

    # --- The registry and the store, seen from outside ------------------------------------------------------------

    @property
    def record(self) -> SessionRecord | None:
        return self.runtime.registry.get(WORK)

    def evict(self) -> Claim:
        """Take the work item from whoever holds it."""
        record = self.record
        assert record is not None
        held = Held("", hint="", holder="", run_id=record.run_id, epoch=record.epoch, until=0)
        return self.runtime.registry.claim(WORK, Holder("thief", "thief"), ttl_s=60, instead_of=held)

    def stored(self, session_id: str, subpath: str | None = None) -> list[Any]:
        async def load() -> list[Any]:
            async with self.runtime.open_store(WORK.key) as store:
                key: Any = {"project_key": UNKNOWN_PROJECT, "session_id": session_id}
                if subpath is not None:
                    key["subpath"] = subpath
                return list(await store.load(key) or [])

        return anyio.run(load)

    # --- What must hold -------------------------------------------------------------------------------------------

    def assert_acknowledged_is_stored(self, session_id: str, *machines: Machine) -> int:
        """Every entry that somebody was told is stored is there, in order. Returns how many."""
        total = 0
        by_worker = [each for machine in machines for each in machine.acknowledged()]
        for subpath, entries in chain.from_iterable(each.items() for each in by_worker):
            stored = self.stored(session_id, subpath)
            verdict = compare(entries, stored)
            assert verdict.lost == 0, [
                entry for entry in entries if entry not in stored
            ] or "the order is another one"
            total += verdict.acknowledged
        return total

    def assert_whole(self, session_id: str, machine: Machine) -> None:
        """What the agent wrote on a machine is in the store: nothing is missing, nothing twice, in order."""
        for main in machine.home.glob(f".claude/projects/*/{session_id}.jsonl"):
            for path in [main, *main.with_suffix("").rglob("*.jsonl")]:
                subpath = None if path == main else path.relative_to(main.with_suffix("")).with_suffix("").as_posix()
                local = comparable(read_transcript(path, torn_end=True))
                stored = comparable(self.stored(session_id, subpath))
                found = align(local, stored)
                assert (found.inside, found.after) == ([], []), subpath
                ours = {entry["uuid"] for entry in local if "uuid" in entry}
                uuids = [entry["uuid"] for entry in stored if entry.get("uuid") in ours]
                assert uuids == [entry["uuid"] for entry in local if "uuid" in entry], subpath

    def assert_nobody_is_left(self) -> None:
        wait_until(lambda: not processes_below(self.folder), "no process is left", 5.0)


def note(measured: str) -> None:
    """Say what was measured, for `pytest -rP`."""
    sys.stdout.write(f"{measured}\n")


def seconds_since(begun: float) -> float:
    return time.monotonic() - begun


SIGNALS = {"sigterm": signal.SIGTERM, "sigint": signal.SIGINT, "sigkill": signal.SIGKILL, "cancel": signal.SIGUSR1}
