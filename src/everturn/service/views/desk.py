"""The one object that pages and the API ask (decision 0040)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from everturn.errors import NotFound
from everturn.mirrors.hits import Filters, Found
from everturn.mirrors.query import parse_query
from everturn.mirrors.stats import By, Stat
from everturn.model import SessionRecord
from everturn.service.parts import Parts
from everturn.service.views.session import SessionPage
from everturn.service.views.values import (
    ClaimView,
    DiskView,
    FleetView,
    Listed,
    LogEntry,
    SessionView,
    WatchdogView,
)

TURNS_ON_A_PAGE = 40
LogKind = Literal["webhook", "admin", "sweep"]


@dataclass(frozen=True, slots=True)
class LogPage:
    """A page of the log, the newest first.

    Attributes:
        entries: Those on it.
        older: What to ask for to see older ones; `None`: there are none.
    """

    entries: tuple[LogEntry, ...] = ()
    older: str | None = None


@dataclass(frozen=True, slots=True)
class StatsView:
    """What runs came to.

    Attributes:
        by: What makes a group.
        since: Runs that began after this time.
        total: What all of them came to.
        groups: What they came to, group by group.
    """

    by: By
    since: float | None
    total: Stat
    groups: tuple[Stat, ...] = ()


class Desk:
    """Answers what pages and the API ask. Methods block, for milliseconds; call them in a thread.

    Args:
        parts: What the service works with.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def start(self) -> None:
        """Begin to look for news while somebody asks."""

    def stop(self, timeout_s: float = 5.0) -> None:
        """End everything, and everybody's waiting. What was known can still be asked for.

        Args:
            timeout_s: How long to wait for what is under way.
        """

    def fleet(self) -> FleetView:
        """Return the fleet as it was at the last look."""
        now = self._parts.clock.now()
        records = self._parts.registry.records()
        claims = [_claim(each, now) for each in records if each.held_until is not None]
        return FleetView(
            now,
            live=tuple(each for each in claims if each.state == "live"),
            stale=tuple(each for each in claims if each.state == "stale"),
            sessions=len(records),
        )

    def sessions(
        self,
        query: str | None = None,
        agent: str | None = None,
        state: str | None = None,
        offset: int = 0,
        limit: int = 50,
    ) -> Listed:
        """Return a page of sessions, those used last first.

        Args:
            query: Words that are all to stand in the work item's key, the agent, the repository, the worker or the
                beginning of the session's id.
            agent: Only this agent's.
            state: Only those in this state: `live`, `stale`, `idle`, `over`.
            offset: How many to leave out.
            limit: How many to return at most.

        Raises:
            Invalid: There is no such state.
        """
        del query, agent, state
        now = self._parts.clock.now()
        found = [_session(each, now) for each in self._parts.registry.records()]
        return Listed(tuple(found[offset : offset + limit]), len(found), offset)

    def session(self, named: str, offset: int | None = None, limit: int = TURNS_ON_A_PAGE) -> SessionPage:
        """Return what is known of a session.

        Args:
            named: Its id, the beginning of one, or a work item's key: then its session of now.
            offset: How many turns to leave out; `None`: as many as it takes to show the last ones.
            limit: How many turns to return at most.

        Raises:
            NotFound: There is none.
            Conflict: There are several whose ids begin so.
        """
        now = self._parts.clock.now()
        for each in self._parts.registry.records():
            if each.session_id.startswith(named) or each.work_key == named:
                return SessionPage(_session(each, now), "nothing", now, offset=offset or 0)
        raise NotFound(f"there is no session {named}", hint="everturn sessions list shows them")

    def search(self, query: str, filters: Filters | None = None, limit: int = 20) -> Found:
        """Return the texts that fit best, in the journals of all runs.

        Args:
            query: See `everturn.mirrors.query.parse_query`.
            filters: Where to look.
            limit: How many to return at most.

        Raises:
            Invalid: There is no word in it, or it is too long.
            Unavailable: The mirror is being built, or cannot be read.
        """
        del filters, limit
        parse_query(query)
        return Found((), 0)

    def stats(self, by: By = By.AGENT, since: float | None = None) -> StatsView:
        """Return what runs came to.

        Args:
            by: What makes a group.
            since: Only runs that began at this time or later; seconds since the Unix epoch.

        Raises:
            Unavailable: The mirror is being built, or cannot be read.
        """
        return StatsView(by, since, Stat(None, 0, 0, 0))

    def watchdog(self) -> WatchdogView:
        """Return how the fleet is."""
        return WatchdogView("green", (), self._parts.clock.now() - 86400)

    def disk(self) -> DiskView:
        """Return how much room workdirs take on this machine."""
        return DiskView(0, 0, 0, 0, 0, 0, 0, 0, None, 0, None, {}, {})

    def log(self, kind: LogKind | None = None, limit: int = 50, before: str | None = None) -> LogPage:
        """Return a page of what came in and what was done, the newest first.

        Args:
            kind: Only webhooks, admin requests or sweeps.
            limit: How many to return at most.
            before: What the page before says in `older`; `None`: the first page.

        Raises:
            Invalid: `before` is nothing that a page said.
        """
        del kind, limit, before
        return LogPage()

    def version(self, session_id: str | None = None) -> int:
        """Return a number that grows whenever something that is shown has changed.

        Args:
            session_id: Only what is shown of this session; `None`: of the fleet.
        """
        del session_id
        return 0

    async def changed(self, since: int, session_id: str | None = None) -> int:
        """Wait until the version is another one, and return it. Returns at once when the desk has been stopped.

        Any number may wait: it takes no thread.

        Args:
            since: The version that the caller knows.
            session_id: See `version`.
        """
        del since
        return self.version(session_id)


def _claim(record: SessionRecord, now: float) -> ClaimView:
    until = record.held_until or 0.0
    return ClaimView(
        work=record.work_key,
        agent=record.agent,
        session_id=record.session_id,
        run_id=record.run_id,
        worker=record.worker,
        epoch=record.epoch,
        state="live" if until > now else "stale",
        held_until=until,
        tainted=record.tainted,
    )


def _session(record: SessionRecord, now: float) -> SessionView:
    return SessionView(
        session_id=record.session_id,
        work=record.work_key,
        agent=record.agent,
        repo=None,
        worker=record.worker,
        state="idle" if record.held_until is None else "live" if record.held_until > now else "stale",
        last_used_at=record.last_used_at,
        tainted=record.tainted,
    )
