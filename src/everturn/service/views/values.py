"""The values that pages and the API show. Times are seconds since the Unix epoch, sizes bytes, costs US dollars."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Light = Literal["green", "amber", "red"]


@dataclass(frozen=True, slots=True)
class ClaimView:
    """A claim, and the run that holds it, or held it.

    Attributes:
        work: The work item's key.
        agent: Its agent, if it has one.
        session_id: The conversation.
        run_id: The run that claimed it last.
        worker: Who that is.
        epoch: The claim's number.
        state: `live`: its time is not up. `stale`: its time is up, it was never released, and nobody has taken over.
        held_until: When its time is, or was, up.
        started_at: When the run began; `None`: nothing is known of it yet. So with the others below.
        last_event_at: When it last said something.
        turn: The turn it is in, from 1.
        tool: The tool that it has called and that has not answered yet.
        model: The model.
        cost_usd: What it has cost so far, as the agent command reckons.
        cost_is_partial: Whether it has cost more than is known.
        tokens: All tokens so far.
        resumed: Whether it goes on from an earlier run.
        took_over: Whether that run's worker had died.
        tainted: What of the transcript is missing.
    """

    work: str
    agent: str | None
    session_id: str
    run_id: str
    worker: str
    epoch: int
    state: Literal["live", "stale"]
    held_until: float
    started_at: float | None = None
    last_event_at: float | None = None
    turn: int | None = None
    tool: str | None = None
    model: str | None = None
    cost_usd: float | None = None
    cost_is_partial: bool = False
    tokens: int | None = None
    resumed: bool = False
    took_over: bool = False
    tainted: str | None = None


@dataclass(frozen=True, slots=True)
class SessionView:
    """A conversation in a list.

    Attributes:
        session_id: Its id.
        work: Its work item's key.
        agent: The agent, if there is one.
        repo: The repository, if there is one.
        worker: Who had it last.
        state: `live`, `stale`: see `ClaimView`. `idle`: it can be resumed. `over`: the registry does not know it any
            more.
        last_used_at: When it was last used.
        runs: How many runs it had; `None`: nothing is known of them. So with the others below.
        turns: How many prompts.
        cost_usd: What they cost.
        cost_is_partial: Whether they cost more than is known.
        tainted: What of the transcript is missing.
    """

    session_id: str
    work: str
    agent: str | None
    repo: str | None
    worker: str
    state: Literal["live", "stale", "idle", "over"]
    last_used_at: float
    runs: int | None = None
    turns: int | None = None
    cost_usd: float | None = None
    cost_is_partial: bool = False
    tainted: str | None = None


@dataclass(frozen=True, slots=True)
class Sign:
    """One thing that the watchdog looks at.

    Attributes:
        name: What it is: `resume_failures`, `mirror_failures`, `fenced_writers`, `tainted_sessions`, `sweeper`,
            `stale_claims`, `webhooks`, `store`, `registry`.
        title: The same for people.
        light: How it is.
        count: How many there were; `None`: it is not counted.
        reason: Why it is so, for people; one sentence.
        help: The place in the documentation that says what to do, as `alarms.md#…`.
    """

    name: str
    title: str
    light: Light
    count: int | None
    reason: str
    help: str


@dataclass(frozen=True, slots=True)
class WatchdogView:
    """How the fleet is.

    Attributes:
        light: The worst of all signs.
        signs: Each of them.
        since: What was counted happened after this time.
    """

    light: Light
    signs: tuple[Sign, ...]
    since: float


@dataclass(frozen=True, slots=True)
class Sample:
    """How much room everything took at a time."""

    at: float
    trees_bytes: int
    caches_bytes: int
    quarantine_bytes: int
    disk_free_bytes: int


@dataclass(frozen=True, slots=True)
class WorkdirView:
    """A workdir.

    Attributes:
        name: Its name.
        repo: The repository.
        agent: Its agent, if it has one.
        branch: What was asked for; `None`: the default branch.
        work: The work item whose run was in it last.
        size_bytes: How much room it takes; `None`: it was never measured.
        last_used_at: When a run last began or ended in it.
    """

    name: str
    repo: str
    agent: str | None
    branch: str | None
    work: str
    size_bytes: int | None
    last_used_at: float


@dataclass(frozen=True, slots=True)
class DiskView:
    """How much room workdirs take on the service's machine.

    Attributes:
        trees_bytes: All workdirs.
        ignored_bytes: How much of that are files that git ignores.
        caches_bytes: All caches.
        quarantine_bytes: What lies in quarantine.
        trash_bytes: What is still to be deleted.
        disk_total_bytes: The size of the disk.
        disk_free_bytes: What is free of it.
        wanted_free_bytes: What should be.
        quota_bytes: How much workdirs and caches may take; `None`: no limit.
        unmeasured: How many of them were never measured.
        measured_at: When the oldest measurement was made; `None`: nothing was measured.
        by_repo: Workdirs and caches, by repository.
        by_agent: Workdirs, by agent; those of none under the empty name.
        workdirs: Each of them, the largest first.
        trend: How it was before, the oldest first, and how it is.
        sweep_frees_bytes: What a sweep would free now; `None`: it was not tried yet.
        sweep_removes: How many things it would remove.
        sweep_tried_at: When that was tried.
    """

    trees_bytes: int
    ignored_bytes: int
    caches_bytes: int
    quarantine_bytes: int
    trash_bytes: int
    disk_total_bytes: int
    disk_free_bytes: int
    wanted_free_bytes: int
    quota_bytes: int | None
    unmeasured: int
    measured_at: float | None
    by_repo: dict[str, int]
    by_agent: dict[str, int]
    workdirs: tuple[WorkdirView, ...] = ()
    trend: tuple[Sample, ...] = ()
    sweep_frees_bytes: int | None = None
    sweep_removes: int | None = None
    sweep_tried_at: float | None = None


@dataclass(frozen=True, slots=True)
class FleetView:
    """The fleet at a moment.

    Attributes:
        at: When it was looked at.
        live: The live claims, the one that began last first.
        stale: The stale claims.
        sessions: How many sessions the registry knows.
        cost_today_usd: What all runs that began today (UTC) have cost.
        problem: Why it could not be looked at anew; `None`: it could.
    """

    at: float
    live: tuple[ClaimView, ...] = ()
    stale: tuple[ClaimView, ...] = ()
    sessions: int = 0
    cost_today_usd: float | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of sessions.

    Attributes:
        sessions: Those on it.
        total: How many there are in all, as they were narrowed down.
        offset: How many come before them.
    """

    sessions: tuple[SessionView, ...] = ()
    total: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A webhook, an admin request or a sweep, in the log.

    Attributes:
        number: Its place among those of its kind.
        kind: What it is.
        at: When it came.
        title: What it was, for people.
        state: `queued`, `waiting`, `done`, `failed`, `ignored`, `refused`.
        details: What came of it, for people; one sentence each.
        done_at: When it was done.
        source: Who it came from: a forge, an address, `daily`, `start`.
    """

    number: int
    kind: Literal["webhook", "admin", "sweep"]
    at: float
    title: str
    state: str
    details: tuple[str, ...] = field(default=())
    done_at: float | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class LogPage:
    """A page of the log, the newest first.

    Attributes:
        entries: Those on it.
        older: What to ask for to see older ones; `None`: there are none.
    """

    entries: tuple[LogEntry, ...] = ()
    older: str | None = None
