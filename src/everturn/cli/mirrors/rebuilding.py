"""`everturn mirrors rebuild`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from everturn.cli.mirrors.common import OnlyOption, mirrors_of
from everturn.cli.options import JsonOption, StoreOption, settings_for
from everturn.cli.output import Terminal, counted, plain, print_json, size
from everturn.clock import SystemClock
from everturn.journal.reading import Journals
from everturn.mirrors.base import Mirror
from everturn.mirrors.keeping import Progress, Told, rebuild
from everturn.opening import open_journals


def command(store: StoreOption = None, only: OnlyOption = None, as_json: JsonOption = False) -> None:
    """Throw the mirrors of this machine away, and make them anew from the journals in the store.

    Whoever searches meanwhile gets answers from the old one. One that was interrupted is gone on with.
    """
    settings = settings_for(store)
    mirrors = mirrors_of(settings, only)
    journals = open_journals(settings)
    for mirror in mirrors:
        facts = _rebuild(journals, mirror, quiet=as_json)
        if as_json:
            print_json(facts)
        else:
            _print(facts)


def _rebuild(journals: Journals, mirror: Mirror, *, quiet: bool) -> dict[str, Any]:
    clock = SystemClock()
    began = clock.elapsed()
    with _bar(mirror.name, clock, quiet=quiet) as told:
        done = rebuild(journals, mirror, told=told)
    return {
        "mirror": mirror.name,
        "path": str(mirror.path),
        "runs": done.runs,
        "events": done.events,
        "unreadable": done.unreadable,
        "damaged": list(done.damaged),
        "read_bytes": done.size_bytes,
        "seconds": round(clock.elapsed() - began, 3),
    }


@contextmanager
def _bar(name: str, clock: SystemClock, *, quiet: bool) -> Iterator[Told]:
    """Show a bar on standard error, if that is a terminal."""
    columns = (
        TextColumn("rebuilding {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    began = clock.elapsed()
    hidden = quiet or not sys.stderr.isatty()
    with Bar(*columns, console=Console(stderr=True), transient=True, disable=hidden) as bar:
        task = bar.add_task(name, total=None, speed="")

        def told(done: Progress) -> None:
            speed = _speed(done.events, done.size_bytes, clock.elapsed() - began)
            bar.update(task, completed=done.runs, total=done.runs_to_do, speed=speed)

        yield told


def _speed(events: int, size_bytes: int, seconds: float) -> str:
    return f"{events / seconds:,.0f} events/s, {size(size_bytes / seconds)}/s" if seconds > 0 else ""


def _print(facts: dict[str, Any]) -> None:
    speed = _speed(facts["events"], facts["read_bytes"], facts["seconds"])
    line = Text.assemble((facts["mirror"], "bold"), f": {counted(facts['runs'], 'run', 'runs')}, ")
    line.append(counted(facts["events"], "event", "events"))
    line.append(f" in {facts['seconds']:.1f} s")
    line.append(f" ({speed})" if speed else "", style="dim")
    terminal = Terminal(highlight=False)
    terminal.print(line, soft_wrap=True)
    if facts["unreadable"]:
        told = counted(facts["unreadable"], "line was no event", "lines were no events")
        terminal.print(Text(told, style="yellow"), soft_wrap=True)
    for problem in facts["damaged"]:
        terminal.print(Text(plain(f"not whole: {problem}"), style="red"), soft_wrap=True)
