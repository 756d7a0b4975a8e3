"""The values of the logbook. Times are seconds since the Unix epoch; numbers grow and are never given twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Answer = Literal["queued", "duplicate", "ignored"]
DeliveryState = Literal["queued", "waiting", "done", "failed", "ignored"]
Outcome = Literal["done", "waiting", "failed"]
ActState = Literal["begun", "done", "refused", "failed"]
SweepReason = Literal["start", "daily", "admin"]
SweepState = Literal["begun", "done", "failed"]


@dataclass(frozen=True, slots=True)
class DeliveryEntry:
    """A webhook that was accepted.

    Attributes:
        number: Its place in the order in which webhooks were accepted.
        forge: Where it comes from.
        delivery_id: The forge's id of it.
        event: What the forge calls it.
        facts: What it says, as `Happening.facts` gives it; `None` if it was ignored.
        state: `queued`: nothing was done yet. `waiting`: it was tried, and will be again. `ignored`: it asks for
            nothing.
        accepted_at: When it came.
        done_at: When it was done, failed or ignored.
        attempts: How often it was tried.
        next_at: When it is tried again, if it waits.
        details: What came of it, for people; one sentence each.
        freed: How many of the first details say what was freed.
        failing_since: When the first of the attempts was that have all failed since; `None`: the last one has not.
    """

    number: int
    forge: str
    delivery_id: str
    event: str
    facts: dict[str, Any] | None
    state: DeliveryState
    accepted_at: float
    done_at: float | None = None
    attempts: int = 0
    next_at: float | None = None
    details: tuple[str, ...] = ()
    freed: int = 0
    failing_since: float | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """What came of an attempt to do what a webhook asks for.

    Attributes:
        number: Which webhook.
        state: What it is from now on.
        details: What came of all attempts so far, for people: first what was freed, then the rest.
        next_at: When it is to be tried again, if it waits.
        freed: How many of the first details say what was freed.
        failing_since: See `DeliveryEntry`.
    """

    number: int
    state: Outcome
    details: tuple[str, ...] = ()
    next_at: float | None = None
    freed: int = 0
    failing_since: float | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is still to be done.

    Attributes:
        count: How many webhooks are queued or wait.
        oldest_at: When the first of them came; `None`: there is none.
    """

    count: int = 0
    oldest_at: float | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """Something that an admin asked for.

    Attributes:
        number: Its place in the order in which acts were noted.
        at: When.
        source: Who asked: an address.
        action: What for: `reset`, `sweep`, `drop`, `compact`.
        asked: How exactly.
        state: `begun`: it is being done, or the service died meanwhile. `refused`: nothing was done.
        details: What came of it, for people; one sentence each.
        done_at: When it ended.
    """

    number: int
    at: float
    source: str
    action: str
    asked: dict[str, Any]
    state: ActState
    details: tuple[str, ...] = ()
    done_at: float | None = None


@dataclass(frozen=True, slots=True)
class SweepEntry:
    """A sweep of sessions and workdirs.

    Attributes:
        number: Its place in the order in which sweeps began.
        reason: Why it was made.
        begun_at: When it began.
        state: `begun`: it goes on, or the service died meanwhile.
        done_at: When it ended.
        facts: What came of it.
    """

    number: int
    reason: SweepReason
    begun_at: float
    state: SweepState
    done_at: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SampleEntry:
    """Sizes at a time.

    Attributes:
        at: When.
        values: How much of each.
    """

    at: float
    values: Mapping[str, int]
