"""What commands share that take a while: progress bars, work in parallel, and how findings are shown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from everturn.cli.output import Terminal, plain
from everturn.log.verification import Finding

Item = TypeVar("Item")
Result = TypeVar("Result")

PARALLEL = 8
STYLES = {"damage": "bold red", "warning": "yellow", "info": "dim"}


@contextmanager
def progress(what: str, total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error, if that is a terminal. Yields what is told of each step."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = quiet or not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=hidden) as bar:
        task = bar.add_task(what, total=total)
        yield lambda steps: bar.update(task, advance=steps)


def in_parallel(what: str, items: Sequence[Item], work: Callable[[Item], Result], *, quiet: bool) -> list[Result]:
    """Do something with each item, several at once, behind a progress bar; return the results in order."""
    with progress(what, len(items), quiet=quiet) as step, ThreadPoolExecutor(PARALLEL) as pool:
        results = []
        for result in pool.map(work, items):
            results.append(result)
            step(1)
        return results


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


def counted(count: int, one: str, many: str) -> str:
    """Return a number with its noun."""
    return f"{count:,} {one if count == 1 else many}"
