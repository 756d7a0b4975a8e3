"""A session as it was told at a moment: from the journals of its runs or, without any, from its transcript."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from everturn.conversations.conversation import Conversation, Turn, Usage
from everturn.conversations.loading import load_session
from everturn.conversations.runs import LocalJournals, Runs
from everturn.conversations.story import RunStory, Story, tell
from everturn.conversations.wording import plural
from everturn.errors import Corrupt, NotFound
from everturn.journal.reading import Journals, RunJournal, RunRef
from everturn.log.objects import run
from everturn.log.reader import list_spans
from everturn.service.views.cutting import Cutter
from everturn.service.views.facts import seconds
from everturn.service.views.session import CostPoint, Mark, PlacedTurn, RunView
from everturn.service.views.spending import RunCost, cost_of
from everturn.service.views.thinning import thinned
from everturn.service.views.timeline import run_marks, transcript_marks
from everturn.transcripts.archive import Archive

MAX_POINTS = 500


@dataclass(frozen=True)
class Told:
    """A session, told whole, its long texts cut.

    Attributes:
        source: What it was read from.
        turns: All its turns.
        runs: Its runs.
        marks: What is on its timeline.
        costs: What it had cost at the end of each turn.
        usage: All tokens.
        models: The models that answered.
        problems: What is missing or cannot be read.
        branch: What its last run was asked to work on.
        cwd: Where that worked.
        chars: How long all of it is, roughly.
    """

    source: Literal["journals", "transcript", "nothing"]
    turns: tuple[PlacedTurn, ...] = ()
    runs: tuple[RunView, ...] = ()
    marks: tuple[Mark, ...] = ()
    costs: tuple[CostPoint, ...] = ()
    usage: Usage = field(default_factory=Usage)
    models: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    branch: str | None = None
    cwd: str | None = None
    chars: int = 0


def read_session(
    journals: Journals,
    local: LocalJournals,
    work: str,
    session_id: str,
    elsewhere: Mapping[str, str | None],
) -> Told:
    """Read a session. Blocks for as long as the store takes.

    Args:
        journals: Those of the store.
        local: Those of this machine.
        work: The work item's key.
        session_id: The session.
        elsewhere: Runs of the work item that are known, with their sessions: of those of others, only the ends are
            read.

    Raises:
        Corrupt: There are no journals, and the transcript is damaged.
        Unavailable: The store did not answer.
        Denied: It may not be read.
    """
    story, found = _story(Runs(journals, local), work, session_id, elsewhere)
    if story.runs:
        return _of_journals(story, found)
    try:
        archive = Archive(journals.objects, journals.label)
        stored = run(load_session(archive, run(archive.find(session_id, work))))
    except NotFound:
        return Told("nothing", problems=("neither a journal nor a transcript of it is stored",))
    return _of_transcript(stored.conversation())


def session_of(told: RunStory) -> str | None:
    """Return the conversation that a run was about in the end."""
    facts = told.facts
    for event in (facts.began_anew, facts.resumed, facts.started):
        if event is not None:
            return event.session_id
    return None


def _story(
    runs: Runs, work: str, session_id: str, elsewhere: Mapping[str, str | None]
) -> tuple[Story, dict[RunRef, RunJournal]]:
    """Return the story of a work item, as far as it is about a session; and the journals."""
    found: dict[RunRef, RunJournal] = {}
    problems: dict[RunRef, str] = {}
    for ref in run(runs.runs(work)):
        try:
            journal = run(_read(runs, ref, is_ours=(elsewhere.get(ref.run_id) or session_id) == session_id))
        except Corrupt as error:
            found[ref], problems[ref] = RunJournal(ref, (), 0), error.message
            continue
        if not (journal.deleted or journal.is_empty):
            found[ref] = journal
    whole = tell(work, list(found.values()), problems)
    ours = tuple(each for each in whole.runs if _is_ours(each, session_id, elsewhere))
    return Story(work, ours), found


async def _read(runs: Runs, ref: RunRef, *, is_ours: bool) -> RunJournal:
    """Read a journal; of one that is about another session, how it began and ended."""
    spans = () if is_ours else await list_spans(runs.journals.objects, ref.folder)
    tail = max((span.last for span in spans), default=0)
    return await (runs.glance(ref, tail) if tail else runs.read(ref))


def _is_ours(told: RunStory, session_id: str, elsewhere: Mapping[str, str | None]) -> bool:
    """A run of which the beginning is missing, or that cannot be read, is shown where the mirror says it belongs."""
    known = session_of(told) or elsewhere.get(told.ref.run_id)
    return known == session_id if known is not None else told.problem is not None


def _of_journals(story: Story, found: Mapping[RunRef, RunJournal]) -> Told:
    costs = {told.ref: cost_of(found[told.ref]) for told in story.runs}
    cutter = Cutter()
    placed = list(_placed(story, costs, cutter))
    positions = {(each.run_id, each.turn.number): each.position for each in placed}
    marks = [
        mark for told in story.runs for mark in run_marks(told, found[told.ref], costs[told.ref].turns, positions)
    ]
    conversation = story.conversation()
    last = next((told.facts.started for told in reversed(story.runs) if told.facts.started is not None), None)
    return Told(
        source="journals",
        turns=tuple(placed),
        runs=tuple(_run(told, costs[told.ref]) for told in story.runs),
        marks=tuple(sorted(marks, key=lambda mark: mark.at)),
        costs=thinned(list(_points(story, costs, positions)), MAX_POINTS),
        usage=conversation.usage_with_agents,
        models=_models(conversation.turns),
        problems=tuple(_problems(story)),
        branch=None if last is None else last.branch,
        cwd=None if last is None else last.cwd,
        chars=cutter.kept,
    )


def _placed(story: Story, costs: Mapping[RunRef, RunCost], cutter: Cutter) -> Iterator[PlacedTurn]:
    position = 0
    for told in story.runs:
        for turn in told.conversation.turns:
            position += 1
            cost = costs[told.ref].turns.get(turn.number)
            yield _cut(position, told.ref.run_id, turn, cutter, None if cost is None else cost.cost_usd)


def _cut(position: int, run_id: str | None, turn: Turn, cutter: Cutter, cost_usd: float | None = None) -> PlacedTurn:
    before = cutter.left_out
    shown = cutter.turn(turn)
    return PlacedTurn(position, run_id, shown, cutter.left_out - before, cost_usd)


def _points(
    story: Story, costs: Mapping[RunRef, RunCost], positions: Mapping[tuple[str | None, int], int]
) -> Iterator[CostPoint]:
    """What was spent and when; a turn without an end was paid for, too, when the next one began."""
    total: float | None = None
    tokens = 0
    for told in story.runs:
        for number, turn in sorted(costs[told.ref].turns.items()):
            at = turn.ended_at or turn.started_at
            if turn.cost_usd is not None:
                total = (total or 0.0) + turn.cost_usd
            tokens += turn.tokens
            position = positions.get((told.ref.run_id, number))
            if at is not None and position is not None:
                yield CostPoint(at, total, tokens, turn.cost_usd, turn.tokens, told.ref.run_id, position)


def _run(told: RunStory, cost: RunCost) -> RunView:
    facts = told.facts
    return RunView(
        run_id=told.ref.run_id,
        epoch=None if facts.started is None else facts.started.epoch,
        worker=None if facts.started is None else facts.started.worker,
        started_at=_seconds(facts.first_at_ms),
        last_at=_seconds(facts.last_at_ms),
        end=told.end,
        outcome=None if facts.ended is None else facts.ended.outcome,
        error=None if facts.ended is None else facts.ended.error,
        resumed=facts.resumed is not None,
        took_over=facts.resumed is not None and facts.resumed.took_over,
        began_anew=facts.began_anew is not None,
        shutdown_reason=None if facts.shutdown is None else facts.shutdown.reason,
        successor=told.successor,
        turns=sum(1 for turn in told.conversation.turns if turn.number),
        cost_usd=cost.cost_usd,
        cost_is_partial=cost.is_partial,
        missing=sum(last - first + 1 for first, last in told.missing),
        unreadable=told.unreadable,
        problem=told.problem,
    )


def _problems(story: Story) -> Iterator[str]:
    for told in story.runs:
        name = f"run {told.ref.run_id[:8]}"
        if told.problem is not None:
            yield f"the journal of {name} cannot be read: {told.problem}"
        missing = sum(last - first + 1 for first, last in told.missing)
        if missing:
            yield f"{plural(missing, 'event')} of {name} {'is' if missing == 1 else 'are'} missing"
        if told.unreadable:
            yield f"{plural(told.unreadable, 'line')} in the journal of {name} cannot be read"


def _of_transcript(found: Conversation) -> Told:
    cutter = Cutter()
    placed = tuple(_cut(position, None, turn, cutter) for position, turn in enumerate(found.turns, 1))
    tokens = 0
    points = []
    for each in placed:
        at = seconds(each.turn.ended) or seconds(each.turn.started)
        used = each.turn.usage.total_tokens
        tokens += used
        if at is not None:
            is_last = each.position == len(placed)
            points.append(CostPoint(at, found.cost_usd if is_last else None, tokens, None, used, None, each.position))
    return Told(
        source="transcript",
        turns=placed,
        marks=tuple(sorted(transcript_marks(placed), key=lambda mark: mark.at)),
        costs=thinned(points, MAX_POINTS),
        usage=found.usage_with_agents,
        models=_models(found.turns),
        chars=cutter.kept,
    )


def _models(turns: Iterable[Turn]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(model for turn in turns for model in turn.models))


def _seconds(at_ms: int | None) -> float | None:
    return None if at_ms is None else at_ms / 1000
