"""`everturn sessions import`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio
import anyio.to_thread
import typer
from claude_agent_sdk import project_key_for_directory
from rich.text import Text

from everturn.cli.options import JsonOption, StoreOption, settings_for
from everturn.cli.output import Terminal, counted, plain, print_json
from everturn.cli.progress import progress
from everturn.errors import Invalid
from everturn.model import WorkItem
from everturn.runtime import open_transcripts
from everturn.settings import Settings, agent_folder
from everturn.transcripts.store import TranscriptStore
from everturn.upkeep.importing import Outcome, find_in, find_sessions, import_session, project_folder, select
from everturn.upkeep.sources import is_url, open_source
from everturn.upkeep.sources.base import SourceSession

AT_ONCE = 4  # sessions; each is held in memory while it is compared
STYLES = {"refused": "red", "skipped": "dim", "unchanged": "dim"}


def command(  # noqa: PLR0913, PLR0917  # one parameter for each option
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH]...", help="A session's file, or a folder of them.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="URL",
            help="Another store: s3://…, redis://…, postgresql://…, or a folder; @FILE: the URL is in a file.",
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All sessions that the agent has kept here.")] = False,
    project_dir: Annotated[
        Path | None, typer.Option(help="The sessions that were held in this directory.", show_default=False)
    ] = None,
    project: Annotated[list[str] | None, typer.Option(help="Only sessions of this project key; repeatable.")] = None,
    session: Annotated[
        list[str] | None, typer.Option(help="Only the session of this id, or beginning of one; repeatable.")
    ] = None,
    scope: Annotated[str | None, typer.Option(help="The scope they go to; default: one for each project.")] = None,
    task: Annotated[str | None, typer.Option(help="The task whose scope they go to, in place of --scope.")] = None,
    store: StoreOption = None,
    skip_malformed: Annotated[
        bool, typer.Option("--skip-malformed", help="With --from URL: leave out lines that are no entries.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Bring in sessions that the agent command has kept on this machine, or that another store has.

    Their subagents come with them. What the store has already is not written again, so it can be run again at any
    time. The exit code is 1 if a session was refused.
    """
    settings = settings_for(store)
    into = _scope(scope, task)
    places = _places(paths or [], project_dir, everything=everything, elsewhere=source is not None)
    projects = [*(project or [])]
    if source is not None and project_dir is not None:
        projects.append(project_key_for_directory(str(project_dir.absolute())))
    with _found(_origin(source), places, settings, skip_malformed=skip_malformed) as (all_, others):
        sessions, refused = select(all_, session or [], projects)
        with progress("importing", len(sessions), quiet=as_json) as step:
            outcomes = others + refused + anyio.run(_import_all, settings, sessions, into, dry_run, step)
    if as_json:
        _print_json(outcomes, into, dry_run=dry_run)
    else:
        _print(outcomes, dry_run=dry_run)
    return 1 if any(outcome.status == "refused" for outcome in outcomes) else 0


def _origin(source: str | None) -> str | None:
    """Return what `--from` says, or what is in the file that it names: a URL may hold a password."""
    if source is None or not source.startswith("@"):
        return source
    try:
        said = Path(source[1:]).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise Invalid(f"{source[1:]} cannot be read: {error}", hint="name a file with one URL in it") from None
    if not said:  # it would be the current folder
        raise Invalid(f"there is nothing in {source[1:]}", hint="name a file with one URL in it")
    return said


@contextmanager
def _found(
    origin: str | None, places: list[Path], settings: Settings, *, skip_malformed: bool
) -> Iterator[tuple[Sequence[SourceSession], list[Outcome]]]:
    """Find the sessions, and stay connected to where they are until the block ends."""
    if origin is not None and is_url(origin):
        with open_source(origin, settings) as source:
            yield find_in(source, skip_malformed=skip_malformed)
        return
    if skip_malformed:
        raise Invalid("--skip-malformed is for --from URL", hint="mend a copy of the file, or leave it out")
    yield find_sessions(places if origin is None else [Path(origin)])


def _places(paths: list[Path], project_dir: Path | None, *, everything: bool, elsewhere: bool) -> list[Path]:
    if elsewhere:
        if paths:
            raise Invalid("--from and a path were given", hint="name one place")
        return []
    found = [*paths, *([agent_folder()] if everything else [])]
    if project_dir is not None:
        found.append(project_folder(agent_folder(), project_dir))
    if not found:
        raise Invalid(
            "nothing was named to be imported",
            hint="name a session's file or a folder, or use --all, --project-dir or --from",
        )
    return found


def _scope(scope: str | None, task: str | None) -> str | None:
    if scope is not None and task is not None:
        raise Invalid("--scope and --task say the same thing twice", hint="give one of them")
    return WorkItem.task(task).key if task is not None else scope


async def _import_all(
    settings: Settings,
    sessions: Sequence[SourceSession],
    scope: str | None,
    dry_run: bool,
    step: Callable[[int], None],
) -> list[Outcome]:
    """Import several sessions at once, but one after the other those of one id: they may go to the same log."""
    stores: dict[str, TranscriptStore] = {}
    outcomes: dict[int, Outcome] = {}
    turns = anyio.CapacityLimiter(AT_ONCE)
    same_id: dict[str, list[tuple[int, SourceSession]]] = {}
    for number, session in enumerate(sessions):
        same_id.setdefault(session.session_id, []).append((number, session))

    async def bring(numbered: list[tuple[int, SourceSession]]) -> None:
        for number, session in numbered:
            async with turns:
                into = stores[scope or session.project_key]
                outcomes[number] = await import_session(into, session, dry_run=dry_run)
            step(1)

    try:
        for into in dict.fromkeys(scope or session.project_key for session in sessions):
            opening = partial(open_transcripts, settings, into, only_look=dry_run)
            stores[into] = await anyio.to_thread.run_sync(opening)
        async with anyio.create_task_group() as group:
            for numbered in same_id.values():
                group.start_soon(bring, numbered)
    finally:
        for each in stores.values():
            await each.aclose()
    return [outcome for _, outcome in sorted(outcomes.items())]


def _record(outcome: Outcome, scope: str | None) -> dict[str, Any]:
    session = outcome.session
    return {
        "source": outcome.place,
        "project_key": session.project_key if session else None,
        "session_id": session.session_id if session else None,
        "scope": (scope or session.project_key) if session else None,
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
        what = "nothing to do" if outcome.status == "unchanged" else counted(outcome.entries, "entry", "entries")
        if outcome.message:
            what = outcome.message if outcome.status in ("refused", "skipped") else f"{what}; {outcome.message}"
        style = STYLES.get(outcome.status, "green")
        line = Text.assemble((f"{outcome.status:10}", style), f" {plain(outcome.place)}: {plain(what)}")
        terminal.print(line, soft_wrap=True)
    refused = sum(outcome.status == "refused" for outcome in outcomes)
    brought = sum(outcome.status in ("imported", "continued") for outcome in outcomes)
    would = " would be" if dry_run else ""
    total = f"{counted(brought, 'session', 'sessions')}{would} brought in, {refused} refused"
    terminal.print(Text(total, style="red" if refused else "green"))
