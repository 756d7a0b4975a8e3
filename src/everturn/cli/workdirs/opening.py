"""`everturn workdirs open`."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import typer

from everturn.cli.options import JsonOption
from everturn.cli.output import complain, print_json, printing
from everturn.cli.work import work_item
from everturn.cli.workdirs.common import reach
from everturn.host.agents import END_AGENTS_S, end_agents_of_run
from everturn.workdirs import located


def command(
    agent: Annotated[str | None, typer.Option(help="Who works on it.")] = None,
    repo: Annotated[str | None, typer.Option(help="The repository: a URL or a path.")] = None,
    issue: Annotated[str | None, typer.Option(help="The issue to work on.")] = None,
    task: Annotated[str | None, typer.Option(help="The id of a task, in place of an issue.")] = None,
    branch: Annotated[
        str | None, typer.Option(help="What to work on: a branch, a ref such as refs/pull/7/head, or a commit.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="As for a new conversation: up to date; what is unsaved is rescued first.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Have a work item's workdir ready, as a run does before its agent starts, and print its path.

    It is not held: a run, or somebody else, may begin to work in it at once.
    """
    work = work_item(agent, repo, issue, task)
    workshop = reach().workshop
    begun = workshop.root.clock.elapsed()
    vacate = partial(end_agents_of_run, timeout_s=END_AGENTS_S)  # of a worker that was killed
    workdir = workshop.workdirs.open(located(work), branch, keep=not fresh, vacate=vacate)
    seconds = workshop.root.clock.elapsed() - begun
    workdir.close()
    for warning in workdir.warnings:
        complain(warning, "everturn workdirs list shows what there is", "warning")
    if as_json:
        facts = {"path": str(workdir.path), "name": workdir.name, "outcome": workdir.outcome}
        print_json({**facts, "seconds": round(seconds, 3), "warnings": workdir.warnings})
        return
    with printing():
        sys.stdout.write(f"{workdir.path}\n")
