"""What is marked on a session's timeline: how its runs began and ended, its turns, and compactions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from everturn.conversations.story import RunStory
from everturn.conversations.wording import plural, turn_line
from everturn.journal.events import System
from everturn.journal.reading import RunJournal
from everturn.service.views.facts import seconds
from everturn.service.views.session import Mark, PlacedTurn
from everturn.service.views.spending import TurnCost

COMPACTED = "compact_boundary"
SHORT = 8


def run_marks(
    told: RunStory,
    journal: RunJournal,
    costs: Mapping[int, TurnCost],
    positions: Mapping[tuple[str | None, int], int],
) -> Iterator[Mark]:
    """Return the marks of a run.

    Args:
        told: What happened in it.
        journal: Its journal.
        costs: Its turns, by their numbers.
        positions: Where turns stand in the conversation, by their run and their number in it.
    """
    yield from _beginning(told)
    for turn in told.conversation.turns:
        at = seconds(turn.started)
        if at is None:
            continue
        known = costs.get(turn.number)
        yield Mark(
            kind="turn",
            at=at,
            text=turn_line(turn),
            run_id=told.ref.run_id,
            until=None if known is None else known.ended_at,
            position=positions.get((told.ref.run_id, turn.number)),
            calls=len(turn.calls) if known is None else known.calls,
        )
    for recorded in journal.events:
        if isinstance(recorded.event, System) and recorded.event.subtype == COMPACTED:
            text = "what came before was summed up for the agent"
            yield Mark("compacted", recorded.at_ms / 1000, text, told.ref.run_id)
    yield from _ending(told, journal)


def _beginning(told: RunStory) -> Iterator[Mark]:
    facts, run_id = told.facts, told.ref.run_id
    if facts.first_at_ms is None:
        return
    at = facts.first_at_ms / 1000
    worker = "an unknown worker" if facts.started is None else facts.started.worker
    claim = "" if facts.started is None else f" with claim {facts.started.epoch}"
    if facts.began_anew is not None:
        lost = facts.began_anew.instead_of[:SHORT]
        yield Mark("began_anew", at, f"{worker} began anew{claim}, as session {lost} was not found", run_id)
    elif facts.resumed is None:
        yield Mark("started", at, f"{worker} began{claim}", run_id)
    else:
        before = facts.resumed.previous_run_id
        run = "" if before is None else f" from run {before[:SHORT]}"
        if facts.resumed.took_over:
            yield Mark("took_over", at, f"{worker} took over{run}{claim}", run_id)
        else:
            yield Mark("resumed", at, f"{worker} went on{run}{claim}", run_id)


def _ending(told: RunStory, journal: RunJournal) -> Iterator[Mark]:
    facts, run_id = told.facts, told.ref.run_id
    if facts.shutdown is not None:
        at_ms = next((each.at_ms for each in journal.events if each.event is facts.shutdown), facts.last_at_ms)
        yield Mark("shutdown", (at_ms or 0) / 1000, f"asked to end: {facts.shutdown.reason}", run_id)
    if facts.last_at_ms is None:
        return
    at = facts.last_at_ms / 1000
    if facts.ended is not None:
        error, outcome = facts.ended.error, facts.ended.outcome
        yield Mark("failed" if error else "ended", at, f"{outcome}: {error}" if error else outcome, run_id)
    elif told.end in {"died", "silent"}:
        follower = "another run" if told.successor is None else f"run {told.successor[:SHORT]}"
        how = "died, or lost its claim" if told.end == "died" else "said nothing more"
        yield Mark("died", at, f"{how}; {follower} came after it", run_id)


def transcript_marks(placed: Sequence[PlacedTurn]) -> Iterator[Mark]:
    """Return the marks of a conversation of which there are no journals."""
    for each in placed:
        turn, at = each.turn, seconds(each.turn.started)
        if at is None:
            continue
        if turn.claim is not None or turn.resumed or each.position == 1:
            claim = "" if turn.claim is None else f" with claim {turn.claim}"
            is_resumed = turn.resumed or each.position > 1
            yield Mark("resumed" if is_resumed else "started", at, f"{'went on' if is_resumed else 'began'}{claim}")
        if turn.origin == "compaction":
            yield Mark("compacted", at, "what came before was summed up for the agent", position=each.position)
            continue
        text, calls = turn_line(turn), len(turn.calls)
        until = seconds(turn.ended)
        yield Mark("turn", at, text or plural(calls, "tool call"), None, until, each.position, calls)
