"""The performance: two machines, one death, and a verdict that is computed from what really happened."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from claude_agent_sdk import project_key_for_directory

from everturn.clock import Clock, SystemClock
from everturn.demo import story
from everturn.demo.machine import Event, Machine
from everturn.demo.verdict import Report, continues, sent_not_stored, was_sent_again
from everturn.demo.worker import Plan
from everturn.errors import Invalid
from everturn.git.runner import Git
from everturn.model import WorkItem
from everturn.runtime import Runtime
from everturn.settings import Settings, inherited_environment
from everturn.testing import ScriptedModel, cli_environment, compare, make_repository, read_receipts

TURN_TIMEOUT_S = 60.0
LIVE_TIMEOUT_S = 600.0
STORE_VARIABLES = ("AWS_", "HTTPS_PROXY", "HTTP_PROXY", "SSL_CERT")
LIVE_VARIABLES = ("ANTHROPIC_", "CLAUDE_CODE_")


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What may differ from one performance to the next.

    Attributes:
        store: URL of the object store; a folder of the demo's own if `None`.
        live: Whether to use the real model; needs `ANTHROPIC_API_KEY`.
        model: The real model's name, or `None` for the agent command's own choice.
        keep: Whether to leave the demo's folder where it is.
    """

    store: str | None = None
    live: bool = False
    model: str | None = None
    keep: bool = False


@dataclass
class _Stage:
    """Everything that is set up before the curtain."""

    folder: Path
    settings: Settings
    environment: dict[str, str]
    work: WorkItem
    model: ScriptedModel | None
    git: Git
    plan: Callable[[str], Plan] = field(init=False)

    def receipts(self, worker: str) -> Path:
        return self.folder / f"receipts-{worker}.jsonl"


Tell = Callable[[str, Event], None]


def perform(options: DemoOptions, tell: Tell, clock: Clock | None = None) -> Report:
    """Run the demo.

    Args:
        options: What may differ.
        tell: Called with the name of who acts (`demo`, `worker-a`, `worker-b`) and each event, as it happens.
        clock: Measures how long it takes.

    Raises:
        EverturnError: The store cannot be used, or a worker failed in a way that the demo did not plan.
    """
    clock = clock or SystemClock()
    started = clock.elapsed()
    with _set(options) as stage:
        # The store is tried out first: what is wrong with it is better heard from us than from a worker.
        Runtime(stage.settings).open_store(stage.work.key)
        tell("demo", {"event": "set", "store": stage.settings.store_url(), "folder": str(stage.folder)})
        killed = _first_act(stage, tell)
        events = _second_act(stage, tell)
        return _judge(stage, options, events, killed, clock.elapsed() - started)


@contextlib.contextmanager
def _set(options: DemoOptions) -> Iterator[_Stage]:
    folder = Path(tempfile.mkdtemp(prefix="everturn-demo-")).resolve()
    try:
        with contextlib.ExitStack() as stack:
            git = Git(inherited_environment(), timeout_s=TURN_TIMEOUT_S)
            make_repository(folder / "shapes", story.FILES, "Shapes")
            settings = Settings.load(
                store=options.store or (folder / "store").as_uri(),
                registry=f"sqlite://{folder / 'registry.db'}",
                state=folder,
            )
            model = None if options.live else story.scripted_model()
            environment = machine_environment(settings, stack.enter_context(model.serve()) if model else None)
            work = WorkItem(story.AGENT, str(folder / "shapes"), story.ISSUE)
            stage = _Stage(folder, settings, environment, work, model, git)
            stage.plan = partial(_plan, stage, options.model)
            yield stage
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def machine_environment(settings: Settings, model_url: str | None) -> dict[str, str]:
    """Return the variables of a machine: nothing of this one's but what reaches the store, and live the model.

    Args:
        settings: They say where the store and the registry are.
        model_url: The scripted model's address, or `None` for the real model.

    Raises:
        Invalid: There is no key for the real model.
    """
    inherited = inherited_environment()
    passed = STORE_VARIABLES if model_url else STORE_VARIABLES + LIVE_VARIABLES
    environment = {name: value for name, value in inherited.items() if name.startswith(passed)}
    environment |= cli_environment(model_url or "", "", path=inherited.get("PATH"))
    if "NO_PROXY" in inherited:
        environment["NO_PROXY"] += f",{inherited['NO_PROXY']}"
    if model_url is None:
        if not inherited.get("ANTHROPIC_API_KEY"):
            raise Invalid(
                "--live needs ANTHROPIC_API_KEY", hint="set it, or leave out --live to use the scripted model"
            )
        environment |= {name: value for name, value in inherited.items() if name.startswith("ANTHROPIC_")}
        if "ANTHROPIC_BASE_URL" not in inherited:
            del environment["ANTHROPIC_BASE_URL"]
    return {
        **environment,
        "EVERTURN_STORE": settings.store_url(),
        "EVERTURN_REGISTRY": settings.registry_url(),
        "EVERTURN_CLAIM_TTL_S": "2",  # so that the second machine need not wait long for the first one's to run out
        "EVERTURN_CLAIM_WAIT_S": "60",
        "GIT_AUTHOR_NAME": "Everturn demo",
        "GIT_AUTHOR_EMAIL": "demo@everturn.invalid",
        "GIT_COMMITTER_NAME": "Everturn demo",
        "GIT_COMMITTER_EMAIL": "demo@everturn.invalid",
    }


def _plan(stage: _Stage, model: str | None, worker: str) -> Plan:
    return Plan(
        agent=story.AGENT,
        repo=str(stage.work.repo),
        issue=story.ISSUE,
        prompt=story.PROMPT,
        resume_prompt=story.RESUME_PROMPT,
        receipts=str(stage.receipts(worker)),
        model=model,
    )


def _first_act(stage: _Stage, tell: Tell) -> int:
    """Worker A begins, uses a tool, and dies in mid-sentence. Return how many processes died."""
    name = "worker-a"
    tell("demo", {"event": "begin", "worker": name})
    with Machine(stage.folder / name, stage.environment, stage.plan(name), partial(tell, name)) as machine:
        machine.wait_for(has_used_a_tool, LIVE_TIMEOUT_S if stage.model is None else TURN_TIMEOUT_S)
        if stage.model is not None:
            machine.wait_for(has_spoken_since_the_tool, TURN_TIMEOUT_S)
            stage.model.wait_until_streamed(story.FATAL_REQUEST, story.FATAL_CHUNKS, TURN_TIMEOUT_S)
        killed = machine.kill()
    tell("demo", {"event": "killed", "worker": name, "processes": len(killed)})
    return len(killed)


def _second_act(stage: _Stage, tell: Tell) -> list[Event]:
    """Worker B, elsewhere, takes the work over and finishes it."""
    name = "worker-b"
    tell("demo", {"event": "begin", "worker": name})
    with Machine(stage.folder / name, stage.environment, stage.plan(name), partial(tell, name)) as machine:
        events = machine.wait(LIVE_TIMEOUT_S if stage.model is None else TURN_TIMEOUT_S)
    tell("demo", {"event": "ended", "worker": name})
    return events


def has_used_a_tool(events: list[Event]) -> bool:
    """Tell whether a worker's agent has got an answer from a tool."""
    return any(event["event"] == "tool_result" for event in events)


def has_spoken_since_the_tool(events: list[Event]) -> bool:
    """Tell whether it has said something since."""
    used = next(index for index, event in enumerate(events) if event["event"] == "tool_result")
    return any(event["event"] == "delta" for event in events[used:])


def _judge(stage: _Stage, options: DemoOptions, events: list[Event], killed: int, seconds: float) -> Report:
    started = next(event for event in events if event["event"] == "started")
    session_id = str(started["session_id"])
    receipts_a, receipts_b = read_receipts(stage.receipts("worker-a")), read_receipts(stage.receipts("worker-b"))
    stored = anyio.run(_load, stage, session_id, {None, *receipts_a, *receipts_b})
    verdicts = [
        compare(receipts_a.get(subpath, []) + receipts_b.get(subpath, []), entries)
        for subpath, entries in stored.items()
    ]
    main_a, main_b = receipts_a.get(None, []), receipts_b.get(None, [])
    return Report(
        entries_acknowledged=sum(verdict.acknowledged for verdict in verdicts),
        entries_recovered=sum(verdict.recovered for verdict in verdicts),
        entries_lost=sum(verdict.lost for verdict in verdicts),
        sent_not_stored=sent_not_stored(stage.model, stored[None]) if stage.model else 0,
        resumed=was_sent_again(stage.model) if stage.model else continues(main_a, main_b),
        session_id=session_id,
        seconds=round(seconds, 2),
        finished=_is_mended(stage.git, Path(started["cwd"])),
        store=stage.settings.store_url(),
        killed_processes=killed,
        folder=str(stage.folder) if options.keep else None,
    )


async def _load(stage: _Stage, session_id: str, subpaths: set[str | None]) -> dict[str | None, list[Any]]:
    """Load what was acknowledged from the store, as a third machine would: from a directory of its own."""
    async with Runtime(stage.settings).open_store(stage.work.key) as store:
        found: dict[str | None, list[Any]] = {}
        for subpath in subpaths:
            project_key = project_key_for_directory(stage.folder)
            entries = await store.load(
                {"project_key": project_key, "session_id": session_id, "subpath": subpath}
                if subpath
                else {"project_key": project_key, "session_id": session_id}
            )
            found[subpath] = list(entries or [])
        return found


def _is_mended(git: Git, checkout: Path) -> bool:
    clean = git.run(["status", "--porcelain", "--untracked-files=no"], checkout) == ""
    ahead = git.run(["rev-list", "--count", "origin/main..HEAD"], checkout).strip()
    return clean and ahead != "0"
