"""What the desk knows: the registry and the mirror as they were when they were last looked at."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from everturn.errors import EverturnError
from everturn.journal.reading import RunRef
from everturn.logbook.entries import DeliveryEntry, SweepEntry, Waiting
from everturn.model import SessionRecord
from everturn.service.parts import Parts
from everturn.service.views import facts
from everturn.service.views.facts import RunFacts, SessionFacts
from everturn.service.views.fleet import Snapshot, holders, put_together
from everturn.service.views.upkeep import Upkeep
from everturn.service.views.values import FleetView, WatchdogView
from everturn.service.views.watchdog import PERIOD_S, Incidents, Reach, Seen, incidents, judge
from everturn.telemetry import get_logger

DAY_S = 86_400.0
LATEST_DELIVERIES = 200

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class _OfMirror:
    sessions: dict[str, SessionFacts] = field(default_factory=dict)
    runs: dict[str, RunFacts] = field(default_factory=dict)
    cost_today_usd: float | None = None
    incidents: Incidents | None = None


@dataclass(frozen=True, slots=True)
class _OfLogbook:
    waiting: Waiting = field(default_factory=Waiting)
    latest: tuple[DeliveryEntry, ...] = ()
    sweep: SweepEntry | None = None
    newest_sweep: SweepEntry | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known.

    Attributes:
        snapshot: The fleet.
        watchdog: How it is.
    """

    snapshot: Snapshot
    watchdog: WatchdogView


class Watch:
    """Looks, and keeps what it saw. What does not answer is shown as it was when it last did.

    Args:
        parts: What the service works with.
        upkeep: Keeps the mirror up to date, and asks it.
    """

    def __init__(self, parts: Parts, upkeep: Upkeep) -> None:
        self._parts = parts
        self._upkeep = upkeep
        self._records: list[SessionRecord] = []
        self._at = parts.clock.now()
        self._registry = Reach()
        self._mirror = _OfMirror()
        self._book = _OfLogbook()
        self._problems: dict[str, str] = {}
        self._log = get_logger()
        self.known = Known(Snapshot(FleetView(self._at)), WatchdogView("green", (), self._at - PERIOD_S))

    def look(self) -> Known:
        """Look, and return what is known then. Raises nothing."""
        now = self._parts.clock.now()
        records = self._try("registry", self._parts.registry.records)
        if records is not None:
            self._records, self._at, self._registry = records, now, Reach()
        else:
            since = self._registry.failing_since or now
            self._registry = Reach(self._problems["registry"], since)
        run_ids = [each.run_id for each in holders(self._records)]
        mirror = self._try("mirror", lambda: self._upkeep.look(self._asking(run_ids, now)))
        self._mirror = mirror or self._mirror
        self._book = self._try("logbook", self._read_book) or self._book
        snapshot = put_together(
            self._records,
            self._mirror.sessions,
            self._mirror.runs,
            at=self._at,
            cost_today_usd=self._mirror.cost_today_usd,
            problem=self._problem(),
            before=self.known.snapshot,
        )
        self.known = Known(snapshot, judge(self._seen(snapshot, now)))
        return self.known

    def live(self) -> list[RunRef]:
        """Return the runs that may be at work."""
        return [RunRef(each.work_key, each.run_id) for each in holders(self._records) if each.run_id]

    def shown(self) -> tuple[object, ...]:
        """Return what else is shown, to tell whether it has changed: the signs, and what stands in the logbook."""
        signs = tuple((each.name, each.light, each.count) for each in self.known.watchdog.signs)
        deliveries = tuple((each.number, each.state) for each in self._book.latest)
        return (signs, deliveries, self._book.newest_sweep)

    def _try(self, what: str, ask: Callable[[], Answer]) -> Answer | None:
        """Ask, and note why there is no answer."""
        try:
            found = ask()
        except EverturnError as error:
            self._problems[what] = error.message
        except Exception as error:  # noqa: BLE001  # the page shows what was known, and says so
            self._log.warning("dashboard_not_refreshed", what=what, error=type(error).__name__)
            self._problems[what] = f"it failed ({type(error).__name__})"
        else:
            self._problems.pop(what, None)
            return found
        return None

    def _problem(self) -> str | None:
        state = self._upkeep.state
        found = [f"the {what} cannot be read: {why}" for what, why in self._problems.items()]
        if state.building is not None:
            found.append(state.building)
        if state.problem is not None:
            found.append(f"the store cannot be read: {state.problem}")
        return "; ".join(found) or None

    def _asking(self, run_ids: list[str], now: float) -> Callable[[sqlite3.Connection], _OfMirror]:
        def ask(database: sqlite3.Connection) -> _OfMirror:
            return _OfMirror(
                sessions=facts.sessions(database, self._mirror.sessions),
                runs=facts.runs(database, run_ids),
                cost_today_usd=facts.cost_since(database, now - now % DAY_S),
                incidents=incidents(database, now - PERIOD_S),
            )

        return ask

    def _read_book(self) -> _OfLogbook:
        book = self._parts.logbook
        return _OfLogbook(
            waiting=book.deliveries.waiting(),
            latest=tuple(book.deliveries.page(LATEST_DELIVERIES)),
            sweep=book.sweeps.last(),
            newest_sweep=next(iter(book.sweeps.page(1)), None),
        )

    def _seen(self, snapshot: Snapshot, now: float) -> Seen:
        state, book = self._upkeep.state, self._book
        failed = [each.accepted_at for each in book.latest if each.state == "failed"]
        newest = book.newest_sweep
        return Seen(
            now=now,
            incidents=self._mirror.incidents,
            stale=snapshot.fleet.stale,
            tainted=[each for each in snapshot.sessions if each.tainted is not None],
            store=Reach(state.problem, state.failing_since),
            registry=self._registry,
            sweep=book.sweep,
            sweep_failed=newest is not None and newest.state == "failed",
            sweep_interval_s=self._parts.settings.workdirs_sweep_s,
            waiting=book.waiting,
            failed_deliveries=[at for at in failed if at > now - PERIOD_S],
        )
