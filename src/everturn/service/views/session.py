"""The values of a session's page: its runs, its turns, what marks its timeline, and its cost over time.

Times are seconds since the Unix epoch, costs US dollars. Turns are those of `everturn.conversations.conversation`,
with long texts cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from everturn.conversations.conversation import Turn, Usage
from everturn.conversations.story import End
from everturn.service.views.values import ClaimView, SessionView

MarkKind = Literal[
    "started", "resumed", "took_over", "began_anew", "turn", "compacted", "shutdown", "ended", "failed", "died"
]


@dataclass(frozen=True, slots=True)
class Mark:
    """Something on the timeline.

    Attributes:
        kind: What it is. `started`: a conversation began with this run; `resumed`: the run goes on with it;
            `took_over`: so it does, from a run that had died; `began_anew`: what it was to go on with was lost;
            `turn`: a prompt, and all that came of it; `compacted`: the agent summed up what came before; `shutdown`:
            the run was asked to end; `ended`, `failed`: it did; `died`: its worker was killed, as far as is known.
        at: When.
        text: The same for people; one sentence without a final stop.
        run_id: The run; `None`: there are no journals.
        until: When it was over, of a turn; `None`: it goes on, or nobody knows.
        position: The place of the turn in the conversation, from 1; `None`: it is about no turn.
        calls: How many tools were called in the turn.
    """

    kind: MarkKind
    at: float
    text: str
    run_id: str | None = None
    until: float | None = None
    position: int | None = None
    calls: int = 0


@dataclass(frozen=True, slots=True)
class CostPoint:
    """What had been spent at a time, the end of a turn.

    Attributes:
        at: When.
        cost_usd: What all had cost until then; `None`: nobody said.
        tokens: All tokens until then.
        turn_cost_usd: What the turn has cost; `None`: nobody said.
        turn_tokens: Its tokens.
        run_id: The run; `None`: there are no journals.
        position: The place of the turn in the conversation, from 1.
    """

    at: float
    cost_usd: float | None
    tokens: int
    turn_cost_usd: float | None
    turn_tokens: int
    run_id: str | None
    position: int


@dataclass(frozen=True, slots=True)
class RunView:
    """A run of the session.

    Attributes:
        run_id: The run.
        epoch: Its claim's number; `None`: its beginning is missing. So with the others below.
        worker: Who that was.
        started_at: When its first event was written.
        last_at: When its last was.
        end: See `RunStory`.
        outcome: How it ended, as it said itself; `None`: it did not.
        error: Why it failed, if it did.
        resumed: Whether it goes on from an earlier run.
        took_over: Whether that run's worker had died.
        began_anew: Whether what it was to go on with was lost.
        shutdown_reason: Why it was asked to end before its time, if it was.
        successor: The run that followed, if one did.
        turns: How many prompts it had.
        cost_usd: What it has cost.
        cost_is_partial: Whether it has cost more than is known.
        missing: How many events are missing.
        unreadable: How many lines of its journal are no events.
        problem: Why its journal could not be read; `None`: it could.
    """

    run_id: str
    epoch: int | None
    worker: str | None
    started_at: float | None
    last_at: float | None
    end: End
    outcome: str | None = None
    error: str | None = None
    resumed: bool = False
    took_over: bool = False
    began_anew: bool = False
    shutdown_reason: str | None = None
    successor: str | None = None
    turns: int = 0
    cost_usd: float | None = None
    cost_is_partial: bool = False
    missing: int = 0
    unreadable: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class PlacedTurn:
    """A turn, and where it stands.

    Attributes:
        position: Its place in the conversation, from 1, over all runs. Its own number counts in its run.
        run_id: Its run; `None`: there are no journals.
        turn: The turn, long texts cut.
        left_out: How many characters were cut from it.
        cost_usd: What it has cost; `None`: nobody said.
    """

    position: int
    run_id: str | None
    turn: Turn
    left_out: int = 0
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class SessionPage:
    """All that is shown of a session.

    Attributes:
        session: The line that it has in the list.
        source: What its turns were read from: the `journals` of its runs, its `transcript`, or `nothing`: there is
            neither.
        at: When it was read.
        claim: Who holds it, if somebody does, or did until they died.
        branch: What its last run was asked to work on in the repository.
        cwd: Where its last run worked.
        store: The URL of the store that it is in.
        models: The models that answered.
        runs: Its runs, in order.
        marks: What is on its timeline, in the order of time.
        costs: What it had cost at the end of each turn, in order. At most `MAX_POINTS`, evenly chosen.
        usage: All tokens, those of subagents too.
        turns: A page of its turns, in order.
        offset: How many turns come before those.
        total: How many there are in all.
        problems: What is missing or cannot be read, for people; one sentence each.
        command: The command that shows all of it.
    """

    session: SessionView
    source: Literal["journals", "transcript", "nothing"]
    at: float
    claim: ClaimView | None = None
    branch: str | None = None
    cwd: str | None = None
    store: str = ""
    models: tuple[str, ...] = ()
    runs: tuple[RunView, ...] = ()
    marks: tuple[Mark, ...] = ()
    costs: tuple[CostPoint, ...] = ()
    usage: Usage = field(default_factory=Usage)
    turns: tuple[PlacedTurn, ...] = ()
    offset: int = 0
    total: int = 0
    problems: tuple[str, ...] = ()
    command: str = ""
