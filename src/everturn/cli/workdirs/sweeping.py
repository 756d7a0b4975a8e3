"""`everturn workdirs sweep`."""

from __future__ import annotations

from rich.text import Text

from everturn.cli.options import DryRunOption, JsonOption, RegistryOption
from everturn.cli.output import Terminal, plain, print_json, size
from everturn.cli.workdirs.common import reach, show_fates, summed
from everturn.housekeeping.sweeping import Report


def command(registry: RegistryOption = None, dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Bring together what the registry knows, what is noted and what lies on the disk, and make room.

    Removes what has not been used for long, or is in the way, as far as nothing is lost by it; says what is kept and
    why.
    """
    report = reach(registry).workshop.sweeper.sweep(dry_run=dry_run)
    if as_json:
        print_report_as_json(report)
    else:
        print_report(Terminal(highlight=False), report)


def print_report_as_json(report: Report) -> None:
    """Print what became of each thing, one object a line, and one for the whole."""
    for fate in report.fates:
        print_json({**fate.facts(), "dry_run": report.dry_run})
    print_json({"kind": "summary", **{name: value for name, value in report.facts().items() if name != "fates"}})


def print_report(terminal: Terminal, report: Report) -> None:
    """Print it for people."""
    show_fates(terminal, report.fates, dry_run=report.dry_run)
    for note in report.notes:
        terminal.print(Text(plain(f"note: {note}"), style="yellow"), soft_wrap=True)
    terminal.print(summed(report.fates, dry_run=report.dry_run))
    if report.missing_bytes:
        terminal.print(Text(f"{size(report.missing_bytes)} more should be free", style="yellow"))
