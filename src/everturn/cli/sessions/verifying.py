"""`everturn sessions verify`."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer
from rich.text import Text

from everturn.cli.options import JsonOption, StoreOption
from everturn.cli.output import Terminal, counted, plain, print_json
from everturn.cli.progress import progress
from everturn.cli.sessions.common import ScopeOption, open_store
from everturn.cli.sessions.findings import show_findings
from everturn.log.objects import run
from everturn.log.verification import Finding
from everturn.transcripts.archive import Archive, SessionRef
from everturn.upkeep.verification import SessionReport, all_scopes, all_sessions, verify_sessions

SessionsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[SESSION]...", help="Sessions, as for show; default: all of them.")
]


def command(
    sessions: SessionsArgument = None,
    store: StoreOption = None,
    scope: ScopeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check sessions and name everything that is missing, damaged or contradictory. Writes nothing.

    The exit code is 1 if there is damage, 0 if there is none.
    """
    archive = open_store(store)
    refs, strangers = _chosen(archive, sessions or [], scope)
    with progress("checking", len(refs), quiet=as_json) as step:
        reports = [each for each in verify_sessions(archive, refs, lambda _: step(1)) if _counts(each)]
    if as_json:
        _print_json(reports, strangers)
    else:
        _print(reports, strangers, in_full=bool(sessions))
    return 1 if any(report.is_damaged for report in reports) else 0


def _chosen(archive: Archive, sessions: list[str], scope: str | None) -> tuple[list[SessionRef], list[Finding]]:
    if sessions:
        return list(dict.fromkeys(run(archive.find(session, scope)) for session in sessions)), []
    scopes, strangers = ([scope], []) if scope is not None else run(all_scopes(archive))
    refs: list[SessionRef] = []
    for each in scopes:
        found, more = run(all_sessions(archive, each))
        refs += found
        strangers += more
    return refs, strangers


def _counts(report: SessionReport) -> bool:
    """Tell whether a session is worth a word: one that was deleted, with nothing odd about it, is not."""
    return report.exists or any(finding.severity != "info" for finding in report.findings)


def record(finding: Finding) -> dict[str, Any]:
    """Return a finding as it is printed for programs."""
    return dataclasses.asdict(finding)


def _print_json(reports: list[SessionReport], strangers: list[Finding]) -> None:
    for report in reports:
        line = {
            **dataclasses.asdict(report.ref),
            "damaged": report.is_damaged,
            "entries": report.entries,
            "findings": [record(finding) for finding in report.findings],
        }
        print_json(line)
    summary = {
        "type": "summary",
        "sessions": len(reports),
        "damaged": sum(report.is_damaged for report in reports),
        "findings": [record(finding) for finding in strangers],
    }
    print_json(summary)


def _print(reports: list[SessionReport], strangers: list[Finding], *, in_full: bool) -> None:
    terminal = Terminal(highlight=False)
    for report in reports:
        shown = [each for each in report.findings if in_full or each.severity != "info"]
        if shown or in_full:
            title = f"{report.ref.session_id}  {report.ref.scope}  {counted(report.entries, 'entry', 'entries')}"
            terminal.print(Text(plain(title), style="bold"), soft_wrap=True)
            show_findings(terminal, shown)
    show_findings(terminal, strangers)
    damaged = sum(report.is_damaged for report in reports)
    verdict = f"{damaged} damaged" if damaged else "no damage"
    checked = counted(len(reports), "session", "sessions")
    terminal.print(Text(f"{checked} checked: {verdict}", style="red" if damaged else "green"))
