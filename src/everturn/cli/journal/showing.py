"""`everturn journal show`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import typer
from rich.text import Text

from everturn.cli.journal import words
from everturn.cli.journal.common import WorkArgument, open_runs
from everturn.cli.journal.events import EventPrinter, FlatPrinter, JsonPrinter
from everturn.cli.journal.following import follow
from everturn.cli.journal.live import LivePrinter
from everturn.cli.options import JsonOption, StoreOption
from everturn.cli.output import EXIT_FAILED, EXIT_OK, Terminal, complain, plain, printing
from everturn.cli.printer import Printer
from everturn.cli.progress import in_parallel
from everturn.conversations import wording
from everturn.conversations.conversation import Turn
from everturn.conversations.runs import Named, Runs
from everturn.conversations.story import RunStory, Story, facts_of, in_order, tell
from everturn.conversations.turning import Extract, last_turns, turns_of
from everturn.errors import Corrupt, Invalid, NotFound
from everturn.journal.reading import RunJournal, RunRef
from everturn.log.objects import run


@dataclass(frozen=True, slots=True)
class Read:
    """What was read of a work item.

    Attributes:
        journals: The journals, in the order of their runs.
        problems: Why some of them could not be read.
    """

    journals: list[RunJournal]
    problems: dict[RunRef, str]


def command(  # noqa: PLR0913, PLR0917  # one parameter for each option
    work: WorkArgument,
    run_id: Annotated[str | None, typer.Option("--run", help="Show only this run: its id, or the beginning.")] = None,
    turn: Annotated[int | None, typer.Option(help="Show only this turn of the run.", min=0)] = None,
    last: Annotated[int | None, typer.Option(help="Show only so many turns, from the end.", min=1)] = None,
    follow_on: Annotated[bool, typer.Option("--follow", "-f", help="Go on as events come, until Ctrl-C.")] = False,
    interval: Annotated[
        float, typer.Option(help="With --follow: how often to ask the store, in seconds.", min=0.1, max=3600)
    ] = 1.0,
    subagents: Annotated[bool, typer.Option("--subagents", help="Show what subagents said and did.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Unfold tool calls, results and thoughts.")] = False,
    deltas: Annotated[
        bool, typer.Option("--deltas", help="Show a line for each event, the pieces of answers too.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Print the lines of the journals as they are stored.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show what happened to a work item, run by run, whoever ran it."""
    if turn is not None and (last is not None or follow_on):
        raise Invalid("--turn is given with --last or --follow", hint="leave one of them out")
    runs = open_runs(store)
    named = run(runs.find(work))
    if run_id is not None:
        named = Named(named.work_key, run(runs.choose(named.work_key, run_id)).run_id)
    as_lines = as_json or raw
    terminal = Terminal(highlight=False)
    events: EventPrinter | None = JsonPrinter(raw=raw) if as_lines else FlatPrinter(terminal) if deltas else None
    if follow_on:
        shown = Printer(terminal, full=full, agents=subagents, branches=False)
        printer = events or LivePrinter(shown, terminal, subagents=subagents)
        return follow(runs, named, printer, interval_s=interval, last=last)
    read = _read(runs, named, quiet=as_lines)
    extracts = _extracts(read, turn=turn, last=last)
    with printing():
        if events is None:
            _show(terminal, _story(named, read), extracts, full=full, agents=subagents, label=runs.journals.label)
        else:
            _print(events, extracts)
    if as_lines or deltas:
        _complain(read)
    return EXIT_FAILED if read.problems else EXIT_OK


def _read(runs: Runs, named: Named, *, quiet: bool) -> Read:
    refs = [ref for ref in run(runs.runs(named.work_key)) if named.run_id in (None, ref.run_id)]

    def read(ref: RunRef) -> tuple[RunJournal, str | None]:
        try:
            return run(runs.read(ref)), None
        except Corrupt as error:
            return RunJournal(ref, (), 0), error.message

    found = in_parallel("reading", refs, read, quiet=quiet)
    results = [
        (journal, why) for journal, why in found if why is not None or not (journal.deleted or journal.is_empty)
    ]
    if not results:
        raise NotFound(
            f"the journals of {named.work_key} were deleted", hint="everturn journal list shows what is left"
        )
    by_ref = {journal.ref: journal for journal, _ in results}
    order = in_order({ref: facts_of(journal.events) for ref, journal in by_ref.items()})
    problems = {journal.ref: why for journal, why in results if why is not None}
    return Read([by_ref[ref] for ref in order], problems)


def _extracts(read: Read, *, turn: int | None, last: int | None) -> list[Extract]:
    """Return what to show of each run."""
    if turn is None:
        return last_turns(read.journals, last)
    if len(read.journals) > 1:
        raise Invalid("--turn is given for several runs", hint="name the run with --run")
    (journal,) = read.journals
    found = [piece for piece in turns_of(journal) if piece.number == turn]
    if not found:
        raise NotFound(f"run {journal.ref.run_id} has no turn {turn}", hint="leave out --turn to see which it has")
    return [Extract(journal.ref, frozenset({turn}), found[0].events)]


def _print(printer: EventPrinter, extracts: Sequence[Extract]) -> None:
    for extract in extracts:
        printer.take(extract.ref, extract.events)


def _complain(read: Read) -> None:
    for journal in read.journals:
        lost = [words.gap(*gap) for gap in journal.missing]
        if journal.unreadable:
            lost.append(words.unreadable(journal.unreadable))
        for each in lost:
            complain(f"{each} in the journal of run {journal.ref.run_id}", "see docs/journal.md", kind="warning")
    for ref, why in read.problems.items():
        complain(f"the journal of run {ref.run_id} cannot be read: {why}", "the others are shown")


def _story(named: Named, read: Read) -> Story:
    return tell(named.work_key, read.journals, read.problems)


def _show(
    terminal: Terminal, story: Story, extracts: Sequence[Extract], *, full: bool, agents: bool, label: str
) -> None:
    conversation = story.conversation()
    sessions = dict.fromkeys(each.facts.started.session_id for each in story.runs if each.facts.started is not None)
    terminal.print(Text(plain(story.work_key), style="bold"), soft_wrap=True)
    heading = " · ".join([*sessions, *words.models(conversation.turns)])
    terminal.print(Text(wording.one_line(heading), style="dim"), soft_wrap=True)
    printer = Printer(terminal, full=full, agents=agents, branches=False)
    wanted = {extract.ref: extract for extract in extracts}
    left_out = sum(len(each.conversation.turns) for each in story.runs) - sum(
        1 for each in story.runs for _ in _chosen(each, wanted)
    )
    if left_out:
        printer.show_line(f"… {wording.plural(left_out, 'other turn')}")
    for each in story.runs:
        if each.ref in wanted:
            _show_run(printer, each, tuple(_chosen(each, wanted)))
    parts = wording.plural(sum(each.parts for each in story.runs), "part")
    rows = [("runs", str(len(story.runs))), *wording.summary(conversation), ("stored", parts), ("in", label)]
    printer.finish(rows)


def _chosen(story: RunStory, wanted: dict[RunRef, Extract]) -> Iterator[Turn]:
    extract = wanted.get(story.ref)
    for turn in story.conversation.turns:
        if extract is not None and (extract.turns is None or turn.number in extract.turns):
            yield turn


def _show_run(printer: Printer, story: RunStory, turns: tuple[Turn, ...]) -> None:
    printer.show_heading(words.title(story.ref), words.beginning(story.facts))
    agents = story.conversation.agents if len(turns) == len(story.conversation.turns) else ()
    printer.show(replace(story.conversation, turns=turns, branches=(), agents=agents))
    if story.problem is not None:
        printer.show_line(words.problem(story.problem), "bold red")
        return
    if story.unreadable:
        printer.show_line(words.unreadable(story.unreadable), "red")
    printer.show_line(*words.ending(story.facts, story.end, story.successor))
