"""Which events belong to which turn of a run: a turn begins with its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from everturn.conversations.retelling import readable
from everturn.journal.events import Prompt
from everturn.journal.lines import Recorded
from everturn.journal.reading import RunJournal, RunRef


@dataclass(frozen=True, slots=True)
class TurnEvents:
    """The events of a turn.

    Attributes:
        number: From 1; 0 for what comes before the first prompt.
        events: In order.
    """

    number: int
    events: tuple[Recorded, ...]


@dataclass(frozen=True, slots=True)
class Extract:
    """What is wanted of a run.

    Attributes:
        ref: The run.
        turns: The numbers of the turns; `None`: all.
        events: Their events.
    """

    ref: RunRef
    turns: frozenset[int] | None
    events: tuple[Recorded, ...]


def turns_of(journal: RunJournal) -> list[TurnEvents]:
    """Return the turns of a run, what comes before the first prompt as well."""
    pieces: list[list[Recorded]] = [[]]
    for recorded in journal.events:
        if isinstance(readable(recorded).event, Prompt):
            pieces.append([])
        pieces[-1].append(recorded)
    return [TurnEvents(number, tuple(events)) for number, events in enumerate(pieces) if events]


def last_turns(journals: Sequence[RunJournal], wanted: int | None) -> list[Extract]:
    """Return what is wanted of runs, if only so many turns from the end are.

    Args:
        journals: The journals, in the order of their runs. Those without any turn are kept where all after them is.
        wanted: How many turns; `None`: all.
    """
    if wanted is None:
        return [Extract(journal.ref, None, journal.events) for journal in journals]
    left = wanted
    found: list[Extract] = []
    for journal in reversed(journals):
        if left <= 0:
            break
        turns = turns_of(journal)
        numbers = [turn.number for turn in turns if turn.number][-left:]
        left -= len(numbers)
        if left > 0 or len(numbers) == len([turn for turn in turns if turn.number]):
            found.append(Extract(journal.ref, None, journal.events))
        else:
            events = tuple(event for turn in turns if turn.number in numbers for event in turn.events)
            found.append(Extract(journal.ref, frozenset(numbers), events))
    return found[::-1]
