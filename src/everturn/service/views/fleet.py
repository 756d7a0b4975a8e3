"""The fleet at a moment: what the registry and the mirror say, put together once for everybody who asks."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from everturn.errors import Invalid
from everturn.model import SessionRecord
from everturn.service.views.facts import RunFacts, SessionFacts
from everturn.service.views.values import ClaimView, FleetView, Listed, SessionView

COARSE_S = 60.0  # times are shown as ages; they are news once they differ by this

STATES = ("live", "stale", "idle", "over")
_NOTHING = SessionFacts("", "", None, None, None, 0, 0, None, False, None)

State = Literal["live", "stale", "idle", "over"]


@dataclass(frozen=True, slots=True)
class Line:
    """A session in the list, and what it was made of: of ten thousand, few change from one look to the next.

    Attributes:
        record: What the registry says of it.
        facts: What the mirror says.
        state: Its state.
        view: The session.
        shown: The same, its time made coarse.
        text: What it is found by.
    """

    record: SessionRecord | None
    facts: SessionFacts | None
    state: State
    view: SessionView
    shown: SessionView
    text: str


@dataclass(frozen=True)
class Snapshot:
    """What is known at a moment.

    Attributes:
        fleet: The fleet.
        sessions: All sessions, those used last first.
        records: What the registry knows, by session.
        runs: What is known of the runs that hold claims, or held them until they died.
        lines: What the sessions were made of.
    """

    fleet: FleetView
    sessions: tuple[SessionView, ...] = ()
    records: Mapping[str, SessionRecord] = field(default_factory=dict)
    runs: Mapping[str, RunFacts] = field(default_factory=dict)
    lines: Mapping[str, Line] = field(default_factory=dict)

    @cached_property
    def by_id(self) -> dict[str, SessionView]:
        """All sessions, by id."""
        return {each.session_id: each for each in self.sessions}

    @cached_property
    def by_work(self) -> dict[str, str]:
        """The session of each work item: the registry's, or the one that was used last."""
        found: dict[str, str] = {}
        for each in self.sessions:
            if each.session_id in self.records or each.work not in found:
                found[each.work] = each.session_id
        return found

    @cached_property
    def claims(self) -> dict[str, ClaimView]:
        """The claims, by session."""
        return {each.session_id: each for each in (*self.fleet.live, *self.fleet.stale)}

    def listed(self, query: str | None, agent: str | None, state: str | None, offset: int, limit: int) -> Listed:
        """Return a page of sessions; see `Desk.sessions`."""
        if state is not None and state not in STATES:
            raise Invalid(f"there is no state {state!r}", hint=f"it is one of {', '.join(STATES)}")
        words = (query or "").casefold().split()
        found = [
            each
            for each in self.sessions
            if (agent is None or each.agent == agent)
            and (state is None or each.state == state)
            and all(word in self.lines[each.session_id].text for word in words)
        ]
        return Listed(tuple(found[offset : offset + limit]), len(found), offset)

    def prints(self) -> dict[str | None, Hashable]:
        """Return what is shown, of the fleet and of each session, without times that only grow."""
        claims = {each: _claim_print(self.claims[each]) for each in self.claims}
        fleet = self.fleet
        found: dict[str | None, Hashable] = {
            each.session_id: self.lines[each.session_id].shown for each in self.sessions
        }
        known = (tuple(found.values()), tuple(claims.values()))
        for session_id, claim in claims.items():
            facts = self.runs.get(claim.run_id)
            found[session_id] = (found.get(session_id), claim, None if facts is None else facts.events)
        found[None] = (*known, fleet.sessions, fleet.cost_today_usd, fleet.problem)
        return found


def _text(view: SessionView) -> str:
    pieces = (view.session_id, view.work, view.agent, view.repo, view.worker)
    return "\n".join(piece for piece in pieces if piece).casefold()


def _claim_print(claim: ClaimView) -> ClaimView:
    last = None if claim.last_event_at is None else claim.last_event_at // COARSE_S
    return replace(claim, held_until=0.0, last_event_at=last)


def put_together(
    records: Sequence[SessionRecord],
    known: Mapping[str, SessionFacts],
    runs: Mapping[str, RunFacts],
    *,
    at: float,
    cost_today_usd: float | None = None,
    problem: str | None = None,
    before: Snapshot | None = None,
) -> Snapshot:
    """Return the fleet.

    Args:
        records: What the registry knows.
        known: Sessions that have journals.
        runs: Runs that hold claims, or held them until they died.
        at: When the registry was asked.
        cost_today_usd: See `FleetView`.
        problem: See `FleetView`.
        before: How it was: what has not changed is taken from there.
    """
    claims = [_claim(each, runs.get(each.run_id), at) for each in records if each.held_until is not None]
    by_session = {each.session_id: each for each in records}
    states: dict[str, State] = {each.session_id: each.state for each in claims}
    old = {} if before is None else before.lines
    lines: dict[str, Line] = {}
    for name in {**by_session, **known}:
        record, facts = by_session.get(name), known.get(name)
        state: State = "over" if record is None else states.get(name, "idle")
        lines[name] = _line(old.get(name), record, facts, state)
    views = sorted((line.view for line in lines.values()), key=lambda each: each.last_used_at, reverse=True)
    fleet = FleetView(
        at=at,
        live=_in_order(claims, "live"),
        stale=_in_order(claims, "stale"),
        sessions=len(records),
        cost_today_usd=cost_today_usd,
        problem=problem,
    )
    return Snapshot(fleet, tuple(views), by_session, dict(runs), lines)


def holders(records: Iterable[SessionRecord]) -> list[SessionRecord]:
    """Return what the registry knows of claims that were never released."""
    return [each for each in records if each.held_until is not None]


def repo_of(work_key: str) -> str | None:
    """Return the repository that a work item's key names."""
    if work_key.startswith("task:") or "@" not in work_key:
        return None
    return work_key.partition("@")[2].rpartition("#")[0] or None


def _in_order(claims: Collection[ClaimView], state: str) -> tuple[ClaimView, ...]:
    """Those that began last come first; those of which nothing is known yet before them."""
    found = [each for each in claims if each.state == state]
    key = {each.run_id: each.started_at if each.started_at is not None else float("inf") for each in found}
    return tuple(sorted(found, key=lambda each: (-key[each.run_id], each.work)))


def _claim(record: SessionRecord, run: RunFacts | None, at: float) -> ClaimView:
    until = record.held_until or 0.0
    view = ClaimView(
        work=record.work_key,
        agent=record.agent,
        session_id=record.session_id,
        run_id=record.run_id,
        worker=record.worker,
        epoch=record.epoch,
        state="live" if until > at else "stale",
        held_until=until,
        tainted=record.tainted,
    )
    if run is None:
        return view
    return replace(
        view,
        started_at=run.started_at,
        last_event_at=run.last_event_at,
        turn=run.turns or None,
        tool=run.tool,
        model=run.model,
        cost_usd=run.cost_usd,
        cost_is_partial=run.cost_is_partial or (run.cost_usd is None and bool(run.tokens)),
        tokens=run.tokens,
        resumed=run.resumed,
        took_over=run.took_over,
    )


def _line(old: Line | None, record: SessionRecord | None, facts: SessionFacts | None, state: State) -> Line:
    if old is not None and old.facts is facts and old.state == state and old.record == record:
        return old
    view = _session(record, facts, state)
    shown = replace(view, last_used_at=view.last_used_at // COARSE_S)
    return Line(record, facts, state, view, shown, _text(view))


def _session(record: SessionRecord | None, facts: SessionFacts | None, state: State) -> SessionView:
    """What the registry says goes before what journals say."""
    told = facts or _NOTHING
    work = told.work if record is None else record.work_key
    return SessionView(
        session_id=record.session_id if record is not None else told.session_id,
        work=work,
        agent=told.agent if record is None else record.agent,
        repo=told.repo if record is None else repo_of(work) or told.repo,
        worker=(told.worker or "") if record is None else record.worker,
        state=state,
        last_used_at=(told.last_at or 0.0) if record is None else record.last_used_at,
        runs=told.runs if facts is not None else None,
        turns=told.turns if facts is not None else None,
        cost_usd=told.cost_usd,
        cost_is_partial=told.cost_is_partial,
        tainted=None if record is None else record.tainted,
    )
