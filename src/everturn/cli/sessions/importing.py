"""`everturn sessions import`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio
import anyio.to_thread
import typer
from rich.text import Text

from everturn.cli.output import Terminal, plain, refuse_memory
from everturn.cli.sessions.care import counted, progress
from everturn.cli.sessions.common import JsonOption, StoreOption, print_json
from everturn.errors import Invalid
from everturn.model import WorkItem
from everturn.runtime import open_transcripts
from everturn.settings import Settings, agent_folder
from everturn.telemetry import log_to_stderr
from everturn.transcripts import TranscriptStore
from everturn.upkeep.importing import LocalSession, Outcome, find_sessions, import_session, project_folder

STYLES = {"refused": "red", "skipped": "dim", "unchanged": "dim"}


def command(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH]...", help="A session's file, or a folder of them.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All sessions that the agent has kept here.")] = False,
    project_dir: Annotated[
        Path | None, typer.Option(help="The sessions that were held in this directory.", show_default=False)
    ] = None,
    scope: Annotated[str | None, typer.Option(help="The scope they go to; default: one for each project.")] = None,
    task: Annotated[str | None, typer.Option(help="The task whose scope they go to, in place of --scope.")] = None,
    store: StoreOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Bring in sessions that the agent command has kept on this machine, with their subagents.

    What the store has already is not written again, so it can be run again at any time. The exit code is 1 if a
    session was refused.
    """
    settings = Settings.load(store=store)
    refuse_memory(settings.store_url())
    log_to_stderr(settings.log_level if "log_level" in settings.model_fields_set else "warning")
    sessions, outcomes = find_sessions(_places(paths or [], project_dir, everything=everything))
    into = _scope(scope, task)
    with progress("importing", len(sessions), quiet=as_json) as step:
        outcomes += anyio.run(_import_all, settings, sessions, into, dry_run, step)
    if as_json:
        _print_json(outcomes, into, dry_run=dry_run)
    else:
        _print(outcomes, dry_run=dry_run)
    return 1 if any(outcome.status == "refused" for outcome in outcomes) else 0


def _places(paths: list[Path], project_dir: Path | None, *, everything: bool) -> list[Path]:
    found = [*paths, *([agent_folder()] if everything else [])]
    if project_dir is not None:
        found.append(project_folder(agent_folder(), project_dir))
    if not found:
        raise Invalid(
            "nothing was named to be imported",
            hint="name a session's file or a folder, or use --all or --project-dir",
        )
    return found


def _scope(scope: str | None, task: str | None) -> str | None:
    if scope is not None and task is not None:
        raise Invalid("--scope and --task say the same thing twice", hint="give one of them")
    return WorkItem.task(task).key if task is not None else scope


async def _import_all(
    settings: Settings, sessions: list[LocalSession], scope: str | None, dry_run: bool, step: Callable[[int], None]
) -> list[Outcome]:
    stores: dict[str, TranscriptStore] = {}
    outcomes = []
    try:
        for session in sessions:
            into = scope or session.project_key
            if into not in stores:
                opening = partial(open_transcripts, settings, into, only_look=dry_run)
                stores[into] = await anyio.to_thread.run_sync(opening)
            outcomes.append(await import_session(stores[into], session, dry_run=dry_run))
            step(1)
    finally:
        for each in stores.values():
            await each.aclose()
    return outcomes


def _record(outcome: Outcome, scope: str | None) -> dict[str, Any]:
    is_session = outcome.status in ("imported", "continued", "unchanged")
    session = LocalSession(outcome.path)
    return {
        "path": str(outcome.path),
        "session_id": session.session_id if is_session else None,
        "scope": (scope or session.project_key) if is_session else None,
        "status": outcome.status,
        "entries": outcome.entries,
        "message": outcome.message,
    }


def _print_json(outcomes: list[Outcome], scope: str | None, *, dry_run: bool) -> None:
    for outcome in outcomes:
        print_json(_record(outcome, scope))
    counts = {"sessions": 0, "entries": 0, "refused": 0}
    for outcome in outcomes:
        counts["sessions"] += outcome.status in ("imported", "continued")
        counts["entries"] += outcome.entries
        counts["refused"] += outcome.status == "refused"
    print_json({"type": "summary", "dry_run": dry_run, **counts})


def _print(outcomes: list[Outcome], *, dry_run: bool) -> None:
    terminal = Terminal(highlight=False)
    for outcome in outcomes:
        what = outcome.message or counted(outcome.entries, "entry", "entries")
        if outcome.status == "unchanged":
            what = "nothing to do"
        style = STYLES.get(outcome.status, "green")
        line = Text.assemble((f"{outcome.status:10}", style), f" {plain(str(outcome.path))}: {plain(what)}")
        terminal.print(line, soft_wrap=True)
    refused = sum(outcome.status == "refused" for outcome in outcomes)
    brought = sum(outcome.status in ("imported", "continued") for outcome in outcomes)
    would = " would be" if dry_run else ""
    total = f"{counted(brought, 'session', 'sessions')}{would} brought in, {refused} refused"
    terminal.print(Text(total, style="red" if refused else "green"))
