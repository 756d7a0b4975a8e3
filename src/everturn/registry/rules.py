"""Who gets a claim, who has lost one, and which session is too old: the rules of every registry, as pure functions.

A registry reads a row, asks a rule for the row that is to be in its place, and writes that, all in one step or not at
all. The rules know no clock: a row says how long ago and for how long, and it is up to the registry by which clock
it measures that. The times of day in the records are for people.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import isfinite

from everturn.errors import Fenced, Held, Invalid
from everturn.model import Claim, Holder, SessionRecord, WorkItem


@dataclass(frozen=True, slots=True)
class Row:
    """What a registry holds of one work item, as it was when it was read.

    Attributes:
        record: What everybody may know.
        token: The `Claim.token` of the latest claim.
        in_use: Whether the holder of the latest claim has confirmed it.
        unused_s: How long ago the session was last used.
        left_s: How long the latest claim still lasts, negative if its time is up; `None`: it was released.
    """

    record: SessionRecord
    token: str
    in_use: bool
    unused_s: float
    left_s: float | None

    @property
    def is_live(self) -> bool:
        """Whether somebody holds it."""
        return self.left_s is not None and self.left_s > 0


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody who claims a work item asks for.

    Attributes:
        work: The work item.
        holder: Who asks.
        store: Where a new session's transcript goes.
        ttl_s: How long the claim is to last.
        instead_of: See `Registry.claim`.
        session_id: The id of the session, if it is to be a new one.
        token: The `Claim.token`.
    """

    work: WorkItem
    holder: Holder
    store: str
    ttl_s: float
    instead_of: Held | None
    session_id: str
    token: str


def check_ttl(ttl_s: float) -> None:
    """Refuse a claim that would not last, or would last for ever.

    Raises:
        Invalid: The time is not a positive number.
    """
    if not (isfinite(ttl_s) and ttl_s > 0):
        raise Invalid(f"a claim cannot last {ttl_s} s", hint="give a positive number of seconds")


def is_stale(row: Row, limit_s: float | None) -> bool:
    """Tell whether nobody holds a session and it was last used longer ago than its limit; no limit: never."""
    return limit_s is not None and not row.is_live and row.unused_s > limit_s


def take(row: Row | None, wish: Wish, now: float, limit_s: float | None) -> tuple[Row, Claim]:
    """Return the row after a claim, and the claim.

    Args:
        row: What is there.
        wish: What is asked for.
        now: The time of day.
        limit_s: How old the session may be.

    Raises:
        Held: Somebody else has a live claim.
    """
    if row is not None and row.is_live and not (_is_own(row, wish) or _is_meant(row, wish.instead_of)):
        raise held(row.record)
    if row is None or is_stale(row, limit_s):
        return _begin(row, wish, now)
    return _go_on(row, wish, now)


def _is_own(row: Row, wish: Wish) -> bool:
    """A claim whose answer was lost is asked for again."""
    return bool(wish.holder.run_id) and row.record.run_id == wish.holder.run_id


def _is_meant(row: Row, refusal: Held | None) -> bool:
    """Epochs begin at 1 again when a row was dropped, so the run has to be the same, too."""
    return refusal is not None and (row.record.epoch, row.record.run_id) == (refusal.epoch, refusal.run_id)


def _begin(stale: Row | None, wish: Wish, now: float) -> tuple[Row, Claim]:
    record = SessionRecord(
        work_key=wish.work.key,
        session_id=wish.session_id,
        epoch=stale.record.epoch + 1 if stale else 1,
        worker=wish.holder.worker,
        store=wish.store,
        cwd=None,
        created_at=now,
        last_used_at=now,
        agent=wish.work.agent,
        run_id=wish.holder.run_id,
        host=wish.holder.host,
        held_until=now + wish.ttl_s,
    )
    row = Row(record, wish.token, in_use=False, unused_s=0, left_s=wish.ttl_s)
    return row, replace(_claim_of(row, wish), is_new=True, stale=stale.record if stale else None)


def _go_on(before: Row, wish: Wish, now: float) -> tuple[Row, Claim]:
    record = replace(
        before.record,
        epoch=before.record.epoch + 1,
        worker=wish.holder.worker,
        agent=wish.work.agent or before.record.agent,
        run_id=wish.holder.run_id,
        host=wish.holder.host,
        held_until=now + wish.ttl_s,
    )
    row = Row(record, wish.token, in_use=False, unused_s=before.unused_s, left_s=wish.ttl_s)
    took_over = before.left_s is not None and not _is_own(before, wish)
    return row, replace(_claim_of(row, wish), previous=before.record, took_over=took_over)


def _claim_of(row: Row, wish: Wish) -> Claim:
    record = row.record
    return Claim(
        wish.work,
        record.session_id,
        record.epoch,
        is_new=False,
        store=record.store,
        run_id=record.run_id,
        token=row.token,
        until=record.held_until or 0.0,
        ttl_s=wish.ttl_s,
        tainted=record.tainted,
    )


def renew(row: Row | None, claim: Claim, ttl_s: float, now: float) -> tuple[Row, Claim]:
    """Return the row after a claim was renewed, and the claim. Raises `Fenced` if it was lost."""
    row = _used(_own(row, claim), now)
    row = replace(row, record=replace(row.record, held_until=now + ttl_s), left_s=ttl_s)
    return row, replace(claim, until=now + ttl_s, ttl_s=ttl_s)


def release(row: Row | None, claim: Claim, now: float) -> Row:
    """Return the row after a claim was released, for the second time perhaps. Raises `Fenced` if it was lost."""
    if row is not None and row.left_s is None and _is_latest(row, claim):
        return row
    row = _used(_own(row, claim), now)
    return replace(row, record=replace(row.record, held_until=None), left_s=None)


def begin_anew(row: Row | None, claim: Claim, session_id: str, now: float) -> tuple[Row, Claim]:
    """Return the row with a fresh session id, and the claim to it. Raises `Fenced` if the claim was lost.

    The token stays. So it can be told when the answer was lost and the same is asked for again.
    """
    if row is None or not _has_begun_anew(row, claim):
        row = _own(row, claim)
        record = replace(
            row.record,
            session_id=session_id,
            epoch=claim.epoch + 1,
            store=claim.store,
            cwd=None,
            last_used_at=now,
            tainted=None,
        )
        row = replace(row, record=record, in_use=False, unused_s=0)
    fresh = replace(
        claim, session_id=row.record.session_id, epoch=row.record.epoch, is_new=True, store=row.record.store
    )
    return row, replace(fresh, tainted=None)


def _has_begun_anew(row: Row, claim: Claim) -> bool:
    """Tell whether a claim is the latest but for having begun anew already."""
    return row.left_s is not None and row.token == claim.token and row.record.epoch == claim.epoch + 1


def confirm(row: Row | None, claim: Claim, cwd: str, now: float) -> Row:
    """Return the row after a use of the session. Raises `Fenced` if the claim was lost."""
    row = _own(row, claim)
    return _used(replace(row, record=replace(row.record, cwd=cwd, store=claim.store), in_use=True), now)


def taint(row: Row | None, claim: Claim, reason: str | None) -> Row:
    """Return the row with what is missing of the transcript. Raises `Fenced` if the claim was lost."""
    row = _own(row, claim)
    return replace(row, record=replace(row.record, tainted=reason))


def drop(row: Row | None, session_id: str, *, unless_held: bool) -> tuple[Row | None, bool]:
    """Return the row after a session was dropped, and whether it was there. Raises `Held` if somebody has a live
    claim and is not to lose it."""
    if row is None or row.record.session_id != session_id:
        return row, False
    if unless_held and row.is_live:
        raise held(row.record)
    return None, True


def _used(row: Row, now: float) -> Row:
    """A session is in use while the run that has confirmed it holds its claim, however long one turn takes."""
    return replace(row, record=replace(row.record, last_used_at=now), unused_s=0) if row.in_use else row


def _own(row: Row | None, claim: Claim) -> Row:
    if row is not None and row.left_s is not None and _is_latest(row, claim):
        return row
    if row is None:
        what = "was dropped"
    elif _is_latest(row, claim):
        what = "was released"
    else:
        what = f"was claimed again, by {row.record.worker} with epoch {row.record.epoch},"
    raise Fenced(
        f"{claim.work.key} {what} while epoch {claim.epoch} was running", hint="stop; the work goes on elsewhere"
    )


def _is_latest(row: Row, claim: Claim) -> bool:
    latest = (row.record.session_id, row.record.epoch, row.token)
    return latest == (claim.session_id, claim.epoch, claim.token)


def held(record: SessionRecord) -> Held:
    """Return the error that says who holds a work item."""
    until = record.held_until or 0.0
    run = f" (run {record.run_id})" if record.run_id else ""
    return Held(
        f"{record.work_key} is held by {record.worker}{run} until {_utc(until)}",
        hint="wait until then, or stop that worker; a claim that is not renewed ends by itself",
        holder=record.worker,
        run_id=record.run_id,
        epoch=record.epoch,
        until=until,
    )


def _utc(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError):  # a clock that is far off, or a time to live of centuries
        return f"{seconds:.0f} s after 1970 UTC"
