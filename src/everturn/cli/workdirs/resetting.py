"""`everturn workdirs reset`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from everturn.cli.options import DryRunOption, JsonOption
from everturn.cli.output import EXIT_FAILED, EXIT_OK, Terminal, consent, counted, print_json
from everturn.cli.progress import progress
from everturn.cli.workdirs.common import Reached, reach, show_fates, summed
from everturn.errors import Invalid, NotFound
from everturn.housekeeping.removal import Fate
from everturn.housekeeping.selection import Selection
from everturn.model import WorkItem
from everturn.workdirs import located
from everturn.workdirs.records import WorkdirRecord


def command(  # noqa: PLR0913, PLR0917  # one parameter for each option
    names: Annotated[
        list[str] | None, typer.Argument(help="Workdirs, by their names or paths; or what lies in quarantine.")
    ] = None,
    work: Annotated[str | None, typer.Option(help="Those of a work item, by its key.")] = None,
    agent: Annotated[str | None, typer.Option(help="Those of an agent.")] = None,
    repo: Annotated[str | None, typer.Option(help="Those of a repository.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With whatever is unsaved in them. It is gone for good then.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> int:
    """Remove workdirs, so that the next run gets fresh ones. What is unsaved is rescued first, unless it is forced.

    One that a run is at work in is kept, even if it is forced: stop the run first. Several selections narrow each
    other down.
    """
    reached = reach()
    wanted = _wanted(reached, names or [], work, agent, repo, every=every)
    if force and wanted and not dry_run:
        what = counted(len(wanted), "workdir", "workdirs")
        consent(f"Remove {what} with whatever is unsaved?", yes=yes, quiet=as_json)
    fates = []
    with progress("removing", len(wanted), quiet=as_json) as step:
        for name in wanted:
            fates.append(_remove(reached, name, force=force, dry_run=dry_run))
            step(1)
    if not dry_run:
        reached.workshop.root.empty_trash()
    if as_json:
        for fate in fates:
            print_json({**fate.facts(), "dry_run": dry_run})
    else:
        terminal = Terminal(highlight=False)
        show_fates(terminal, fates, dry_run=dry_run)
        terminal.print(summed(fates, dry_run=dry_run))
    return EXIT_FAILED if any(fate.action == "kept" for fate in fates) else EXIT_OK


def _remove(reached: Reached, name: str, *, force: bool, dry_run: bool) -> Fate:
    removal = reached.workshop.removal
    if (reached.workshop.root.quarantine / name).is_dir():
        return removal.remove_quarantined(name, force=force, dry_run=dry_run)
    return removal.remove(name, "reset", force=force, dry_run=dry_run)


def _wanted(
    reached: Reached, names: list[str], work: str | None, agent: str | None, repo: str | None, *, every: bool
) -> list[str]:
    selects = every or (work, agent, repo) != (None, None, None)
    if not names and not selects:
        raise Invalid("nothing says which workdirs", hint="name some, or use --work, --agent, --repo or --all")
    if names and selects:
        raise Invalid("workdirs are both named and selected", hint="do one of the two")
    root = reached.workshop.root
    if names:
        found = list(dict.fromkeys(_name(name) for name in names))  # a name and a path may mean the same
        for name in found:
            if not any((folder / name).exists() for folder in (root.trees, root.quarantine)):
                raise NotFound(
                    f"there is no workdir {name}", hint="everturn workdirs list shows those that there are"
                )
        return found
    place = None if repo is None else located(WorkItem.task("any", repo=repo)).repo
    selection = Selection(work, agent, place, every)
    return [record.name for record in WorkdirRecord.all(root) if selection.has(record)]


def _name(text: str) -> str:
    """Return a workdir's name, which may be given as a path."""
    name = Path(text).name
    if name in ("", ".", ".."):
        raise Invalid(f"{text!r} is no workdir", hint="everturn workdirs list shows those that there are")
    return name
