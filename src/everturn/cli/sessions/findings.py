"""How findings are shown."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from everturn.cli.output import Terminal, plain
from everturn.log.verification import Finding

STYLES = {"damage": "bold red", "warning": "yellow", "info": "dim"}


def show_findings(terminal: Terminal, findings: Iterable[Finding]) -> None:
    """Print findings, each with what to do about it."""
    for finding in findings:
        number = "" if finding.number is None else f" (number {finding.number})"
        terminal.print(
            Text.assemble(
                "  ",
                (finding.severity, STYLES[finding.severity]),
                f" {plain(finding.kind)}{number}: {plain(finding.message)}",
            ),
            soft_wrap=True,
        )
        terminal.print(Text(plain(f"    in {finding.key}"), style="dim"), soft_wrap=True)
        if finding.severity != "info":
            terminal.print(Text(plain(f"    → {finding.advice}"), style="dim"), soft_wrap=True)
