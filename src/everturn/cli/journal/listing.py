"""`everturn journal list`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from everturn.cli.journal import words
from everturn.cli.journal.common import WORK, open_runs
from everturn.cli.options import JsonOption, StoreOption
from everturn.cli.output import Terminal, plain, print_json, short_ids
from everturn.cli.progress import in_parallel
from everturn.conversations.story import End, Facts, end_of, facts_of, in_order, with_successors
from everturn.errors import Corrupt
from everturn.journal.reading import RunJournal, RunRef
from everturn.log.objects import run

_ROOMY = 110  # columns of a terminal that has room for the numbers of events and parts
_STYLES = {"completed": "green", "died": "red", "failed": "red", "damaged": "red"}


@dataclass(frozen=True, slots=True)
class Line:
    """A run in the list.

    Attributes:
        ref: The run.
        facts: How it began and ended.
        end: See `RunStory`.
        events: The number of its last event.
        parts: How many parts its journal has.
        is_damaged: Whether it cannot be read.
    """

    ref: RunRef
    facts: Facts
    end: End
    events: int
    parts: int
    is_damaged: bool

    @property
    def outcome(self) -> str:
        """How it ended."""
        return "damaged" if self.is_damaged else words.outcome(self.facts, self.end)


def command(
    work: Annotated[str | None, typer.Argument(help=f"{WORK} Default: all there are.")] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the runs that have journals, by work item, in the order in which they claimed it."""
    runs = open_runs(store)
    named = None if work is None else run(runs.find(work))
    tails = {
        ref: tail
        for ref, tail in run(runs.journals.tails()).items()
        if named is None or (ref.scope == named.work_key and named.run_id in (None, ref.run_id))
    }

    def look(ref: RunRef) -> RunJournal | None:
        try:
            return run(runs.glance(ref, tails[ref]))
        except Corrupt:
            return None

    refs = sorted(tails)
    looked = dict(zip(refs, in_parallel("reading", refs, look, quiet=as_json), strict=True))
    lines = _lines({ref: found for ref, found in looked.items() if found is None or not found.deleted}, tails)
    if as_json:
        for line in lines:
            print_json(_record(line))
        return
    terminal = Terminal(highlight=False)
    terminal.print(_table(lines, terminal.width) if lines else Text("there are no journals", style="dim"))


def _lines(looked: dict[RunRef, RunJournal | None], tails: dict[RunRef, int]) -> list[Line]:
    """Return the lines of the list. `None` stands for a journal that cannot be read."""
    by_scope: dict[str, dict[RunRef, Facts]] = defaultdict(dict)
    for ref, found in looked.items():
        by_scope[ref.scope][ref] = facts_of(() if found is None else found.events)
    lines = []
    for facts in by_scope.values():
        for ref, successor in with_successors(in_order(facts)):
            found = looked[ref]
            last = found.events[-1].seq if found is not None and found.events else 0
            end = end_of(facts[ref], None if successor is None else facts[successor])
            lines.append(Line(ref, facts[ref], end, last, tails[ref], found is None))
    return lines


def _table(lines: list[Line], width: int) -> Table:
    short = short_ids([line.ref.run_id for line in lines])
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("run", no_wrap=True)
    table.add_column("began (UTC)", no_wrap=True)
    table.add_column("work item", no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column("worker", no_wrap=True, overflow="ellipsis", ratio=2)
    table.add_column("claim", no_wrap=True, justify="right")
    table.add_column("outcome", no_wrap=True)
    if width >= _ROOMY:
        table.add_column("events", no_wrap=True, justify="right")
        table.add_column("parts", no_wrap=True, justify="right")
    for line in lines:
        started, at_ms = line.facts.started, line.facts.first_at_ms
        sizes = (f"{line.events:,}", f"{line.parts:,}") if width >= _ROOMY else ()
        table.add_row(
            Text(plain(short[line.ref.run_id])),
            "" if at_ms is None else words.moment(at_ms),
            Text(plain(line.ref.scope)),
            Text("" if started is None else plain(started.worker)),
            "" if started is None else str(started.epoch),
            Text(plain(line.outcome), style=_STYLES.get(line.outcome, "yellow")),
            *sizes,
        )
    return table


def _record(line: Line) -> dict[str, Any]:
    facts, started = line.facts, line.facts.started
    return {
        "run_id": line.ref.run_id,
        "work": line.ref.scope,
        "session_id": None if started is None else started.session_id,
        "worker": None if started is None else started.worker,
        "agent": None if started is None else started.agent,
        "repo": None if started is None else started.repo,
        "issue": None if started is None else started.issue,
        "epoch": None if started is None else started.epoch,
        "previous_run_id": None if started is None else started.previous_run_id,
        "first_at_ms": facts.first_at_ms,
        "last_at_ms": facts.last_at_ms,
        "outcome": line.outcome,
        "error": None if facts.ended is None else facts.ended.error,
        "events": line.events,
        "parts": line.parts,
    }
