"""`everturn sessions repair`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from everturn.cli.options import JsonOption, StoreOption
from everturn.cli.output import Terminal, consent, counted, plain, print_json
from everturn.cli.sessions.common import ScopeOption, SessionArgument, open_store
from everturn.cli.sessions.findings import show_findings
from everturn.clock import Ids, SystemClock
from everturn.errors import Invalid
from everturn.log.objects import run
from everturn.log.verification import numbers
from everturn.settings import Settings
from everturn.transcripts.archive import Archive, SessionRef
from everturn.upkeep.local import read_transcript
from everturn.upkeep.repair import Plan, Repair, plan_repair
from everturn.upkeep.verification import SessionReport, verify_session


def command(  # noqa: PLR0913, PLR0917  # one parameter for each option of the command line
    session: SessionArgument,
    local: Annotated[
        Path | None, typer.Option("--from", help="A local transcript (.jsonl) to take from what is missing.")
    ] = None,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Go on without what is missing, if it is nowhere else.")
    ] = False,
    subpath: Annotated[str | None, typer.Option(help="The sub-transcript to repair; default: the main one.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreOption = None,
    scope: ScopeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Mend a session that is damaged. No run of it should be going on.

    Whatever is taken away is kept under `damaged/` in the store. The exit code is 1 if damage is left.
    """
    if local is not None and accept_loss:
        raise Invalid("--from and --accept-loss are two ways to go", hint="give one; try --from first")
    archive = open_store(store)
    ref = run(archive.find(session, scope))
    entries = None if local is None else read_transcript(local, torn_end=True)
    plan = run(plan_repair(archive.objects, ref, subpath, entries))
    terminal = Terminal(highlight=False, quiet=as_json)
    _show(terminal, plan)
    if not dry_run and not plan.is_empty:
        _consent(terminal, plan, accept_loss=accept_loss, unasked=yes)
        _carry_out(archive, ref, subpath, plan)
    report = run(verify_session(archive.objects, ref))
    _conclude(terminal, report, plan, dry_run=dry_run)
    if as_json:
        print_json(_record(report, subpath, plan, dry_run=dry_run))
    return 1 if report.is_damaged and not dry_run else 0


def _carry_out(archive: Archive, ref: SessionRef, subpath: str | None, plan: Plan) -> None:
    worker = f"{Settings.load().worker} (repair)"
    run(Repair(archive.objects, ref, subpath, clock=SystemClock(), ids=Ids(), writer=worker).carry_out(plan))


def _show(terminal: Terminal, plan: Plan) -> None:
    for gap in plan.gaps:
        if gap.entries is None:
            what = "lost"
        else:
            what = f"{counted(len(gap.entries), 'entry', 'entries')} in the local transcript"
        terminal.print(Text(f"{numbers(gap.span)}: {what}", style="bold"))
        for told in gap.told:
            terminal.print(Text(plain(f"  {told}"), style="dim"), soft_wrap=True)
    for loss in plan.loses[sum(gap.entries is None for gap in plan.gaps) :]:
        terminal.print(Text(f"lost: {loss}", style="bold"))
    if plan.missing:
        more = counted(len(plan.missing), "entry", "entries")
        terminal.print(Text(f"to append: {more} that the local transcript has after the end of the stored one"))
    if plan.passed_over:
        more = counted(plan.passed_over, "entry", "entries")
        why = "the log is whole where they would be, or has gone on with something else"
        terminal.print(Text(f"left alone: {more} of the local transcript; {why}"))
    for span in plan.aside:
        terminal.print(Text(f"to take away: {span.file_name}, after a copy is kept"))
    for span in plan.waiting:
        terminal.print(Text(f"to pass over: {span.file_name}, too young to be taken away", style="dim"))
    if plan.home is not None:
        terminal.print(Text(plain(f"to write anew: {plan.home}")), soft_wrap=True)


def _consent(terminal: Terminal, plan: Plan, *, accept_loss: bool, unasked: bool) -> None:
    """Make sure that whoever calls agrees to what is lost.

    Raises:
        Invalid: They do not, or cannot be asked.
    """
    if not plan.loses:
        return
    lost = ", ".join(plan.loses)
    if not accept_loss:
        raise Invalid(
            f"without a local transcript this is lost: {lost}",
            hint="give one with --from, or agree to the loss with --accept-loss",
        )
    consent(f"Give up {lost} for good?", yes=unasked, quiet=terminal.quiet)


def _conclude(terminal: Terminal, report: SessionReport, plan: Plan, *, dry_run: bool) -> None:
    if plan.is_empty:
        terminal.print("there is nothing to repair here")
    elif dry_run:
        terminal.print("nothing was done, as you asked")
    left = [finding for finding in report.findings if finding.severity == "damage"]
    if left and not dry_run:
        terminal.print(Text("what is left:", style="red"))
        show_findings(terminal, left)
    elif not plan.is_empty and not dry_run:
        terminal.print(Text("mended: the session can be read and resumed", style="green"))


def _record(report: SessionReport, subpath: str | None, plan: Plan, *, dry_run: bool) -> dict[str, Any]:
    return {
        **dataclasses.asdict(report.ref),
        "subpath": subpath,
        "dry_run": dry_run,
        "gaps": [
            {
                "first": gap.span.first,
                "last": gap.span.last,
                "entries": None if gap.entries is None else len(gap.entries),
                "told": list(gap.told),
            }
            for gap in plan.gaps
        ],
        "taken_away": [span.file_name for span in plan.aside],
        "passed_over": [span.file_name for span in plan.waiting],
        "appended": len(plan.missing),
        "home": plan.home,
        "damaged": report.is_damaged,
        "findings": [dataclasses.asdict(finding) for finding in report.findings],
    }
