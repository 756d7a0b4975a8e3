"""What registries have in common: each method reads a row, asks a rule, and writes what that says, in one step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from everturn.clock import Clock, Ids, SystemClock
from everturn.errors import Held, Invalid
from everturn.model import Claim, Holder, SessionAges, SessionRecord, WorkItem
from everturn.registry import rules
from everturn.registry.rules import Row, Wish
from everturn.telemetry import Metrics, default_metrics, get_logger

Result = TypeVar("Result")
Decide = Callable[[Row | None, float], tuple[Row | None, Result]]


class RowRegistry(ABC):
    """A `Registry`, but for the place where the rows are.

    Args:
        ages: How old sessions may get; for ever if not given.
        clock: Tells when.
        ids: Makes session ids and tokens.
        metrics: Where dropped sessions are counted.
    """

    def __init__(
        self,
        *,
        ages: SessionAges | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._ages = ages or SessionAges()
        self._clock = clock or SystemClock()
        self._ids = ids or Ids()
        self._metrics = metrics or default_metrics()
        self._log = get_logger()

    @abstractmethod
    def _change(self, key: str, decide: Decide[Result]) -> Result:
        """Put the row that `decide` returns in the place of a work item's row, unless that has changed meanwhile.

        Args:
            key: `WorkItem.key`.
            decide: Called with the row, or `None`, and the time of day; often enough until nobody comes in between.
                Returns the row that is to be there, or `None`, and what this method returns. What it raises comes
                through, and nothing is changed.
        """

    def _change_all(self, keys: list[str], decide: Decide[Result]) -> list[Result]:
        """Do the same to many rows, each of them by itself."""
        return [self._change(key, decide) for key in keys]

    @abstractmethod
    def _rows(self) -> list[Row]:
        """Return all rows, in the order of their keys."""

    @abstractmethod
    def _key_of(self, session_id: str) -> str | None:
        """Return the key of the work item that has a session."""

    def claim(
        self, work: WorkItem, holder: Holder, store: str = "", *, ttl_s: float, instead_of: Held | None = None
    ) -> Claim:
        """See `Registry.claim`."""
        rules.check_ttl(ttl_s)
        wish = Wish(work, holder, store, ttl_s, instead_of, self._ids.session_id(), self._ids.token())

        def decide(row: Row | None, now: float) -> tuple[Row, tuple[Claim, Row | None]]:
            taken, claim = rules.take(row, wish, now, self._limit_s(row))
            return taken, (claim, row)

        try:
            claim, before = self._change(work.key, decide)
        except Held as held:
            self._log.info(
                "claim_refused", work=work.key, worker=holder.worker, holder=held.holder, holder_epoch=held.epoch
            )
            raise
        if claim.stale is not None and before is not None:
            self._note_stale(before)
        self._log.info(
            "claimed",
            work=work.key,
            session_id=claim.session_id,
            epoch=claim.epoch,
            worker=holder.worker,
            new=claim.is_new,
            took_over=claim.took_over,
        )
        return claim

    def renew(self, claim: Claim, ttl_s: float) -> Claim:
        """See `Registry.renew`."""
        rules.check_ttl(ttl_s)
        return self._change(claim.work.key, lambda row, now: rules.renew(row, claim, ttl_s, now))

    def release(self, claim: Claim) -> None:
        """See `Registry.release`."""
        self._change(claim.work.key, lambda row, now: (rules.release(row, claim, now), None))
        self._log.info("released", work=claim.work.key, session_id=claim.session_id, epoch=claim.epoch)

    def begin_anew(self, claim: Claim, reason: str = "nothing was stored under the old id") -> Claim:
        """See `Registry.begin_anew`."""
        session_id = self._ids.session_id()
        fresh = self._change(claim.work.key, lambda row, now: rules.begin_anew(row, claim, session_id, now))
        self._log.info(
            "began_anew",
            work=claim.work.key,
            session_id=fresh.session_id,
            instead_of=claim.session_id,
            epoch=fresh.epoch,
            reason=reason,
        )
        return fresh

    def confirm(self, claim: Claim, cwd: str) -> None:
        """See `Registry.confirm`."""
        self._change(claim.work.key, lambda row, now: (rules.confirm(row, claim, cwd, now), None))

    def taint(self, claim: Claim, reason: str | None) -> None:
        """See `Registry.taint`."""
        self._change(claim.work.key, lambda row, _: (rules.taint(row, claim, reason), None))

    def get(self, work: WorkItem | str) -> SessionRecord | None:
        """See `Registry.get`."""
        return self._look(work if isinstance(work, str) else work.key)

    def find(self, session_id: str) -> SessionRecord | None:
        """See `Registry.find`."""
        key = self._key_of(session_id)
        record = None if key is None else self._look(key)
        return record if record is not None and record.session_id == session_id else None

    def records(self) -> list[SessionRecord]:
        """See `Registry.records`."""
        return [row.record for row in self._rows()]

    def drop(self, work: WorkItem | str, session_id: str, reason: str, *, unless_held: bool = False) -> bool:
        """See `Registry.drop`."""
        key = work if isinstance(work, str) else work.key
        found = self._change(key, lambda row, _: rules.drop(row, session_id, unless_held=unless_held))
        self._log.info("dropped", work=key, session_id=session_id, reason=reason, found=found)
        return found

    def sweep(self, *, dry_run: bool = False) -> list[SessionRecord]:
        """See `Registry.sweep`."""
        stale = [row for row in self._rows() if rules.is_stale(row, self._limit_s(row))]
        if dry_run:
            return [row.record for row in stale]
        looked = self._change_all([row.record.work_key for row in stale], self._sifted)
        dropped = [row for _, row in looked if row is not None]
        for row in dropped:
            self._note_stale(row)
        return [row.record for row in dropped]

    def _look(self, key: str) -> SessionRecord | None:
        kept, dropped = self._change(key, self._sifted)
        if dropped is not None:
            self._note_stale(dropped)
        return None if kept is None else kept.record

    def _sifted(self, row: Row | None, _: float) -> tuple[Row | None, tuple[Row | None, Row | None]]:
        """Drop a row that is stale. Return it apart from those that may be used."""
        if row is not None and rules.is_stale(row, self._limit_s(row)):
            return None, (None, row)
        return row, (row, None)

    def _limit_s(self, row: Row | None) -> float | None:
        return None if row is None else self._ages.limit_s(row.record.agent)

    def _note_stale(self, row: Row) -> None:
        self._metrics.stale_sessions.inc()
        self._log.info(
            "stale_session_dropped",
            work=row.record.work_key,
            session_id=row.record.session_id,
            age_ms=round(row.unused_s * 1000),
        )


def no_unicode(error: UnicodeEncodeError) -> Invalid:
    """Return the error for a text, a path most likely, that no registry can keep."""
    return Invalid(f"{error.object!r} is not valid Unicode", hint="rename it, so that it can be stored")
