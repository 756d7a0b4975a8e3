"""What commands share that take a while: progress bars, and work in parallel."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")
Result = TypeVar("Result")

PARALLEL = 8


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
