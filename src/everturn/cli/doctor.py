"""`everturn doctor`: is everything in place for a run?"""

from __future__ import annotations

import signal
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from everturn.checks.doctor import checks_of_machine, checks_of_settings
from everturn.checks.findings import Check, Finding, examine, failed
from everturn.cli.output import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_REFUSED,
    Terminal,
    complain,
    counted,
    json_line,
    plain,
    printing,
)
from everturn.cli.progress import progress
from everturn.clock import Ids, SystemClock
from everturn.errors import EverturnError
from everturn.settings import Settings, agent_folder, inherited_environment
from everturn.telemetry import log_to_stderr

MARKS = {"pass": ("✓", "green"), "warn": ("!", "bold yellow"), "fail": ("✗", "bold red")}


def command(
    store: Annotated[str | None, typer.Option(help="Where transcripts go: s3://… or file:///…")] = None,
    registry: Annotated[str | None, typer.Option(help="Who owns which session: sqlite:///…")] = None,
    scope: Annotated[str | None, typer.Option(help="Whose folders in the store to try; default: its own.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Check this machine, the store and the registry, and say how to mend what is wrong.

    The exit code is 2 if something failed, 0 if nothing did; warnings are no failures. Nothing that is written stays.
    """
    log_to_stderr("error")  # what goes wrong stands in the report
    clock = SystemClock()
    environment = inherited_environment()
    stop = threading.Event()
    checks = checks_of_machine(environment, agent_folder(), clock, stop)
    given = {name: value for name, value in (("store", store), ("registry", registry)) if value is not None}
    try:
        settings = Settings.load(**given)
    except EverturnError as error:
        wrong = failed("settings.load", error.message, error.hint)
        checks.append(Check(wrong.name, lambda: [wrong]))
    else:
        checks += checks_of_settings(settings, frozenset(given), environment, scope, clock, Ids())
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was made is taken away
    try:
        with progress("checking", len(checks), quiet=as_json) as step:
            findings = examine(checks, clock, step, stop)
    except KeyboardInterrupt:  # caught here: what is said elsewhere is about agents
        complain("interrupted", "nothing was changed; run it again")
        return EXIT_INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    counts = Counter(finding.status for finding in findings)
    if as_json:
        summary = {"passed": counts["pass"], "warned": counts["warn"], "failed": counts["fail"]}
        with printing():
            sys.stdout.write(json_line({"checks": [asdict(each) for each in findings], "summary": summary}) + "\n")
    else:
        Terminal(highlight=False).print(report(findings))
    return EXIT_REFUSED if counts["fail"] else EXIT_OK


def report(findings: Sequence[Finding]) -> Group:
    """Return the findings as people read them: by group, each with its mend under it, and a verdict."""
    parts: list[Table | Text] = []
    for group, members in groupby(findings, key=lambda finding: finding.name.partition(".")[0]):
        parts += [Text(group, style="bold"), _table(list(members)), Text()]
    return Group(*parts, _verdict(Counter(finding.status for finding in findings)))


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1))
    table.add_column(width=3, justify="right")
    table.add_column(width=20)
    table.add_column(overflow="fold")
    for finding in findings:
        mark, style = MARKS[finding.status]
        name = finding.name.partition(".")[2].replace("_", " ")
        told = Text(plain(finding.message), style="" if finding.status == "pass" else style.removeprefix("bold "))
        table.add_row(Text(mark, style=style), name, told)
        if finding.mend:
            table.add_row("", "", Text(plain(f"→ {finding.mend}"), style="dim" if finding.status == "pass" else ""))
    return table


def _verdict(counts: Counter[str]) -> Text:
    told = f"{counts['pass']} passed, {counted(counts['warn'], 'warning', 'warnings')}, {counts['fail']} failed"
    status = "fail" if counts["fail"] else "warn" if counts["warn"] else "pass"
    return Text.assemble(MARKS[status], " ", (told, MARKS[status][1]))
