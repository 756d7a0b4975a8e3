"""The one object that pages and the API ask (decision 0040)."""

from __future__ import annotations

import shlex
import threading
from dataclasses import dataclass
from functools import partial

from everturn.errors import Conflict, EverturnError, Invalid, NotFound
from everturn.mirrors import search as mirror_search
from everturn.mirrors import stats as mirror_stats
from everturn.mirrors.hits import Filters, Found
from everturn.mirrors.query import parse_query
from everturn.mirrors.stats import By, Stat
from everturn.service.parts import Parts
from everturn.service.views import facts, log
from everturn.service.views.cutting import without_images
from everturn.service.views.disk import DiskWatch
from everturn.service.views.fleet import Snapshot
from everturn.service.views.log import LogKind
from everturn.service.views.looking import WATCHED_S, Looker
from everturn.service.views.news import News
from everturn.service.views.reading import Told, read_session
from everturn.service.views.session import SessionPage
from everturn.service.views.shelf import Shelf
from everturn.service.views.upkeep import Upkeep
from everturn.service.views.values import DiskView, FleetView, Listed, LogPage, SessionView, WatchdogView
from everturn.service.views.watch import Watch

TURNS_ON_A_PAGE = 40
FIRST_LOOK_S = 2.0  # so long a question waits for the first look
FIRST_UPKEEP_S = 1.5  # and the first look for the mirror


@dataclass(frozen=True, slots=True)
class StatsView:
    """What runs came to.

    Attributes:
        by: What makes a group.
        since: Only runs that began at this time or later; `None`: all.
        total: What all of them came to.
        groups: What they came to, group by group.
    """

    by: By
    since: float | None
    total: Stat
    groups: tuple[Stat, ...] = ()


class Desk:
    """Answers what pages and the API ask. Methods block, for milliseconds; call them in a thread.

    What they tell was looked at in the background, at most `dashboard_refresh_s` before, as long as somebody asks or
    waits; only the first question after a while waits for a look, two seconds at most. Without `start` each question
    looks by itself.

    Args:
        parts: What the service works with.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        clock, settings = parts.clock, parts.settings
        self._news = News()
        self._upkeep = Upkeep(settings, clock, parts.metrics)
        self._watch = Watch(parts, self._upkeep)
        self._shelf = Shelf(self._read, clock, self._news.touch)
        self._disk = DiskWatch(settings, parts.workshop, parts.logbook, clock, partial(self._news.touch, None))
        self._kept_up = threading.Event()
        make = partial(Looker, pause_s=settings.dashboard_refresh_s, clock=clock, is_wanted=self._is_watched)
        self._looker = make(self.look, name="everturn-desk")
        self._keeper = make(self.keep_up, name="everturn-desk-mirror")

    def start(self) -> None:
        """Begin to look for news while somebody asks, and to note how the disk is, once an hour."""
        self._keeper.start()
        self._looker.start()
        self._disk.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End everything, and everybody's waiting. What was known can still be asked for.

        Args:
            timeout_s: How long to wait for what is under way.
        """
        self._news.end()
        self._shelf.stop()
        self._kept_up.set()
        end = self._parts.clock.elapsed() + timeout_s
        for each in (self._looker, self._keeper, self._disk):
            each.stop(max(0.0, end - self._parts.clock.elapsed()))
        self._upkeep.close()

    def look(self) -> None:
        """Look at the registry and the mirror, now. Blocks; raises nothing."""
        if self._keeper.is_running:
            self._kept_up.wait(FIRST_UPKEEP_S)
        known = self._watch.look()
        prints = known.snapshot.prints()
        self._news.tell({**prints, None: (prints[None], self._watch.shown())})

    def keep_up(self) -> None:
        """Take in what is new in the store, now. Blocks, for as long as that takes; raises nothing."""
        self._upkeep.keep_up(self._watch.live())
        self._kept_up.set()

    def fleet(self) -> FleetView:
        """Return the fleet."""
        return self._snapshot().fleet

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
                session's id.
            agent: Only this agent's.
            state: Only those in this state: `live`, `stale`, `idle`, `over`.
            offset: How many to leave out.
            limit: How many to return at most.

        Raises:
            Invalid: There is no such state.
        """
        return self._snapshot().listed(query, agent, state, offset, limit)

    def session(self, named: str, offset: int | None = None, limit: int = TURNS_ON_A_PAGE) -> SessionPage:
        """Return what is known of a session. What cannot be read of it is said in `problems`.

        Args:
            named: Its id, the beginning of one, or a work item's key, or a task's id: then its session of now.
            offset: How many turns to leave out; `None`: as many as it takes to show the last ones.
            limit: How many turns to return at most.

        Raises:
            Invalid: Nothing was named.
            NotFound: There is none.
            Conflict: There are several whose ids begin so.
        """
        snapshot = self._snapshot()
        session = _find(snapshot, named)
        version = self._news.version(session.session_id)
        try:
            told = self._shelf.get(session.work, session.session_id, version)
        except EverturnError as error:
            told = Told("nothing", problems=(f"it cannot be read: {error.message}",))
        return self._page(snapshot, session, told, offset, limit)

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
        parsed = parse_query(query)
        self._ask()
        given = filters or Filters()
        return self._upkeep.ask(partial(mirror_search.search, query=parsed, filters=given, limit=limit))

    def stats(self, by: By = By.AGENT, since: float | None = None) -> StatsView:
        """Return what runs came to.

        Args:
            by: What makes a group.
            since: Only runs that began at this time or later; seconds since the Unix epoch.

        Raises:
            Unavailable: The mirror is being built, or cannot be read.
        """
        self._ask()
        filters = Filters(since_ms=None if since is None else int(since * 1000))
        total, groups = self._upkeep.ask(
            lambda database: (mirror_stats.totals(database, filters), mirror_stats.stats(database, by, filters))
        )
        return StatsView(by, since, total, tuple(groups))

    def watchdog(self) -> WatchdogView:
        """Return how the fleet is."""
        self._snapshot()
        return self._watch.known.watchdog

    def disk(self) -> DiskView:
        """Return how much room workdirs take on this machine.

        Raises:
            EverturnError: The logbook cannot be read.
        """
        self._ask()
        return self._disk.view()

    def log(self, kind: LogKind | None = None, limit: int = 50, before: str | None = None) -> LogPage:
        """Return a page of what came in and what was done, the newest first.

        Args:
            kind: Only webhooks, admin requests or sweeps.
            limit: How many to return at most.
            before: What the page before says in `older`; `None`: the first page.

        Raises:
            Invalid: There is no such kind, or `before` is nothing that a page said.
            EverturnError: The logbook cannot be read.
        """
        self._ask()
        return log.page(self._parts.logbook, kind, limit, before)

    def version(self, session_id: str | None = None) -> int:
        """Return a number that grows whenever something that is shown has changed; ages apart.

        Args:
            session_id: Only what is shown of this session, each word of it; `None`: of the fleet.
        """
        return self._news.version(session_id)

    async def changed(self, since: int, session_id: str | None = None) -> int:
        """Wait until the version is another one, and return it. Returns at once when the desk has been stopped.

        Any number may wait: it takes no thread.

        Args:
            since: The version that the caller knows.
            session_id: See `version`.
        """
        self._ask()
        return await self._news.changed(since, session_id)

    def _is_watched(self) -> bool:
        return self._news.waiting > 0

    def _ask(self) -> None:
        self._looker.ask()
        self._keeper.ask()

    def _snapshot(self) -> Snapshot:
        self._ask()
        if self._looker.is_running:
            self._looker.wait(FIRST_LOOK_S, older_s=WATCHED_S)
        else:
            self.keep_up()
            self.look()
        return self._watch.known.snapshot

    def _read(self, work: str, session_id: str) -> Told:
        known = self._upkeep.look(partial(facts.sessions_of_runs, work_key=work)) or {}
        return read_session(self._upkeep.journals(), self._upkeep.local(), work, session_id, known)

    def _page(
        self, snapshot: Snapshot, session: SessionView, told: Told, offset: int | None, limit: int
    ) -> SessionPage:
        record = snapshot.records.get(session.session_id)
        total = len(told.turns)
        begin = max(0, total - limit) if offset is None else min(offset, total)
        by_journals = told.source != "transcript"
        show = ["journal", "show", session.work] if by_journals else ["sessions", "show", session.session_id]
        return SessionPage(
            session=session,
            source=told.source,
            at=self._parts.clock.now(),
            claim=snapshot.claims.get(session.session_id),
            branch=told.branch,
            cwd=told.cwd or (record.cwd if record is not None else None),
            store=self._parts.settings.store_url() if record is None else record.store,
            models=told.models,
            runs=told.runs,
            marks=told.marks,
            costs=told.costs,
            usage=told.usage,
            turns=without_images(told.turns[begin : begin + limit]),
            offset=begin,
            total=total,
            problems=told.problems,
            command=shlex.join(["everturn", *show, "--full"]),
        )


def _find(snapshot: Snapshot, named: str) -> SessionView:
    if not named.strip():
        raise Invalid("no session was named", hint="give a session's id, or the beginning of one")
    found = snapshot.by_id.get(named)
    for key in (named, f"task:{named}"):
        if found is None and key in snapshot.by_work:
            found = snapshot.by_id[snapshot.by_work[key]]
    if found is not None:
        return found
    several = [each for each in snapshot.sessions if each.session_id.startswith(named)]
    if not several:
        raise NotFound(f"there is no session {named}", hint="everturn sessions list shows what the store has")
    if len(several) > 1:
        raise Conflict(f"{len(several)} sessions begin with {named}", hint="give more of the id")
    return several[0]
