"""The journals of a work item as one story: its runs in order, each as a conversation (docs/journal.md, Reading)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Literal

from everturn.conversations.conversation import Conversation, Turn, Usage
from everturn.conversations.reading import read_conversation
from everturn.conversations.retelling import Retelling, readable
from everturn.conversations.threads import Entry
from everturn.conversations.turns import Taken
from everturn.journal.events import BeganAnew, Ended, Event, Prompt, Resumed, Shutdown, Started, ToolUse
from everturn.journal.lines import Recorded
from everturn.journal.reading import RunJournal, RunRef
from everturn.transcripts.marks import METADATA

End = Literal["ended", "died", "silent", "open"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the events around a run's conversation say of it.

    Attributes:
        started: How it began; `None`: that event is missing, or not there yet.
        resumed: What it went on from, if it did.
        began_anew: Which conversation it could not find, if that is so.
        shutdown: Why it was asked to end before its time, if it was.
        ended: How it ended, if it did.
        prompted: Whether its first prompt went to a conversation that had begun before; `None`: there was none.
        first_at_ms: When its first event was written; `None`: there is none.
        last_at_ms: The same of the last.
        events: How many events there are.
    """

    started: Started | None = None
    resumed: Resumed | None = None
    began_anew: BeganAnew | None = None
    shutdown: Shutdown | None = None
    ended: Ended | None = None
    prompted: bool | None = None
    first_at_ms: int | None = None
    last_at_ms: int | None = None
    events: int = 0

    def after(self, recorded: Recorded) -> Facts:
        """Return the facts with those of one more event."""
        event = recorded.event
        changed: dict[str, Any] = {"last_at_ms": recorded.at_ms, "events": self.events + 1}
        if self.first_at_ms is None:
            changed["first_at_ms"] = recorded.at_ms
        if type(event) in _NAMES:
            changed[_NAMES[type(event)]] = event
        elif isinstance(event, Prompt) and self.prompted is None:
            changed["prompted"] = event.resumed
        return replace(self, **changed)


_NAMES: dict[type | None, str] = {
    Started: "started",
    Resumed: "resumed",
    BeganAnew: "began_anew",
    Shutdown: "shutdown",
    Ended: "ended",
}
_TELLING = {Prompt, *_NAMES}


def facts_of(events: Sequence[Recorded]) -> Facts:
    """Return what events say of their run."""
    telling = (readable(recorded) for recorded in events if type(recorded.event) in _TELLING)
    found = reduce(Facts.after, telling, Facts())
    if not events:
        return found
    return replace(found, first_at_ms=events[0].at_ms, last_at_ms=events[-1].at_ms, events=len(events))


@dataclass(frozen=True, slots=True)
class RunStory:
    """What happened in a run.

    Attributes:
        ref: The run.
        facts: How it began and ended.
        end: `ended`: in good order; `died`: another run took the work item from it; `silent`: another run followed,
            but nothing tells how this one ended; `open`: it goes on, or its worker has died and nobody followed.
        successor: The run that followed, if one did.
        conversation: What was said and done.
        missing: The numbers of events that should be there and are not: the first and the last of each gap.
        unreadable: How many lines are no events.
        parts: How many parts its journal has.
        problem: Why its journal could not be read; `None`: it could.
    """

    ref: RunRef
    facts: Facts
    end: End
    successor: str | None = None
    conversation: Conversation = field(default_factory=Conversation)
    missing: tuple[tuple[int, int], ...] = ()
    unreadable: int = 0
    parts: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """What happened to a work item, run by run.

    Attributes:
        work_key: The work item.
        runs: Its runs, in the order in which they claimed it.
    """

    work_key: str
    runs: tuple[RunStory, ...]

    def conversation(self) -> Conversation:
        """Return all runs as one conversation; turns keep the numbers that they have in their run."""
        told = [run.conversation for run in self.runs]
        costs = [each.cost_usd for each in told if each.cost_usd is not None]
        unknown: dict[str, int] = {}
        for each in told:
            for kind, count in each.unknown.items():
                unknown[kind] = unknown.get(kind, 0) + count
        return Conversation(
            turns=tuple(turn for each in told for turn in each.turns),
            agents=tuple(agent for each in told for agent in each.agents),
            usage=sum((each.usage for each in told), Usage()),
            cost_usd=sum(costs) if costs else None,
            cost_is_partial=any(each.cost_is_partial or _is_unpaid(each) for each in told),
            first_at=next((each.first_at for each in told if each.first_at), None),
            last_at=next((each.last_at for each in reversed(told) if each.last_at), None),
            unknown=unknown,
        )


def tell(work_key: str, journals: Sequence[RunJournal], problems: Mapping[RunRef, str] | None = None) -> Story:
    """Return the story that journals tell. Whatever they hold, nothing is raised.

    Args:
        work_key: The work item.
        journals: Those of its runs, in any order.
        problems: Why some of them could not be read; they stand for themselves, with no events.
    """
    facts = {journal.ref: facts_of(journal.events) for journal in journals}
    by_ref = {journal.ref: journal for journal in journals}
    order = in_order(facts)
    told = []
    for ref, successor in with_successors(order):
        journal = by_ref[ref]
        told.append(
            RunStory(
                ref=ref,
                facts=facts[ref],
                end=end_of(facts[ref], None if successor is None else facts[successor]),
                successor=None if successor is None else successor.run_id,
                conversation=conversation_of(journal, facts[ref]),
                missing=journal.missing,
                unreadable=journal.unreadable,
                parts=journal.tail,
                problem=(problems or {}).get(ref),
            )
        )
    return Story(work_key, tuple(told))


def in_order(facts: Mapping[RunRef, Facts]) -> list[RunRef]:
    """Return runs in the order in which they claimed their work item.

    Claims are numbered; from 1 again when the registry has lost the work item, and then the time tells. Where the
    beginning of a journal is missing, the run that names it as the one before, and then the time, have to do.
    """
    named = {run.run_id: run for run in facts}
    before = {run: named.get(_previous(facts[run]) or "") for run in facts}
    epochs = {run: each.started.epoch for run, each in facts.items() if each.started is not None}
    for run, earlier in before.items():
        if earlier is not None and earlier not in epochs and run in epochs:
            epochs[earlier] = epochs[run] - 1
    last = max(epochs.values(), default=0)
    counts = _counts(facts, before)
    rough = sorted(
        facts, key=lambda run: (counts[run], epochs.get(run, last), facts[run].first_at_ms or 0, run.run_id)
    )
    order: dict[RunRef, None] = {}
    for run in rough:
        chain: list[RunRef] = []
        at: RunRef | None = run
        while at is not None and at not in order and at not in chain:
            chain.append(at)
            earlier = before[at]
            at = earlier if earlier is not None and epochs.get(earlier, last) == epochs.get(at, last) else None
        order.update(dict.fromkeys(reversed(chain)))
    return list(order)


def _counts(facts: Mapping[RunRef, Facts], before: Mapping[RunRef, RunRef | None]) -> dict[RunRef, int]:
    """Return for each run how many times its work item's claims had been counted from 1 before."""
    began = sorted(each.first_at_ms or 0 for each in facts.values() if each.started and each.started.epoch == 1)
    found: dict[RunRef, int] = {}
    for run in facts:
        chain: list[RunRef] = [run]
        while (earlier := before[chain[-1]]) is not None and earlier not in chain and chain[-1] not in found:
            chain.append(earlier)
        first = chain[-1]
        count = found.get(first, max(bisect_right(began, facts[first].first_at_ms or 0) - 1, 0))
        found.update(dict.fromkeys(chain, count))
    return found


def with_successors(order: Sequence[RunRef]) -> Iterable[tuple[RunRef, RunRef | None]]:
    """Return runs, each with the one that followed."""
    return zip(order, [*order[1:], None], strict=False)


def end_of(facts: Facts, successor: Facts | None) -> End:
    """Tell how a run ended, by what it says and what the run after it says."""
    if facts.ended is not None:
        return "ended"
    if successor is None:
        return "open"
    return "died" if successor.resumed is not None and successor.resumed.took_over else "silent"


def conversation_of(journal: RunJournal, facts: Facts) -> Conversation:
    """Return what was said and done in a run."""
    main, agents = _entries(journal)
    claims = [Taken(facts.started.epoch, 0)] if facts.started is not None else []
    found = read_conversation(main, agents, claims)
    return replace(found, turns=tuple(numbered(found.turns, resumed=bool(facts.prompted))))


def numbered(turns: Sequence[Turn], *, resumed: bool) -> Iterable[Turn]:
    """Return turns with the numbers of their prompts; what came before the first prompt has the number 0."""
    shift = 1 if turns and turns[0].origin == "start" else 0
    for turn in turns:
        number = turn.number - shift
        yield replace(turn, number=number, resumed=turn.resumed or (resumed and number == 1))


def _entries(journal: RunJournal) -> tuple[list[Entry], dict[str, list[Entry]]]:
    """Return the entries that a transcript would have: the agent's, and each subagent's by the call that began it."""
    threads: dict[str | None, Retelling] = {None: Retelling()}
    about: dict[str, str] = {}
    gaps = dict(_before(journal.missing))
    for recorded in map(readable, journal.events):
        parent = parent_of(recorded.event)
        if isinstance(recorded.event, ToolUse):
            about[recorded.event.call_id] = description_of(recorded.event)
        if recorded.seq in gaps:
            threads[None].tell_gap(*gaps[recorded.seq], recorded.at_ms)
        if parent not in threads:
            threads[parent] = Retelling()
        threads[parent].add(recorded)
    for thread in threads.values():
        thread.close()
    told = {parent: thread.entries() for parent, thread in threads.items()}
    main = told.pop(None)
    return main, {
        str(parent): [metadata(str(parent), about.get(str(parent), "")), *entries] for parent, entries in told.items()
    }


def parent_of(event: Event | None) -> str | None:
    """Return the tool call of the subagent that an event belongs to; `None`: it belongs to the agent itself."""
    parent = getattr(event, "parent", None)
    return parent if isinstance(parent, str) and parent else None


def description_of(call: ToolUse) -> str:
    """Return what a subagent is called on for."""
    given = call.input if isinstance(call.input, dict) else {}
    names = ("description", "subagent_type")
    return next((given[name] for name in names if isinstance(given.get(name), str) and given[name]), "")


def metadata(call_id: str, description: str) -> Entry:
    """Return the entry that says which call began a subagent, and what for."""
    return {"type": METADATA, "toolUseId": call_id, "description": description}


def _before(missing: Iterable[tuple[int, int]]) -> Iterable[tuple[int, tuple[int, int]]]:
    for first, last in missing:
        yield last + 1, (first, last)


def _previous(facts: Facts) -> str | None:
    return facts.started.previous_run_id if facts.started is not None else None


def _is_unpaid(found: Conversation) -> bool:
    """Tell whether something was used whose cost nobody noted."""
    return found.cost_usd is None and found.usage_with_agents.total_tokens > 0
