"""What an admin may have done. Each act is noted in the logbook, before it is done and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, TypeVar

from everturn.errors import Conflict, EverturnError, Invalid, NotFound
from everturn.housekeeping.freeing import Freed, Selection
from everturn.log.objects import run as run_blocking
from everturn.opening import open_archive
from everturn.service.parts import Parts
from everturn.service.sweeping import DailySweep, SweepResult
from everturn.telemetry import get_logger
from everturn.upkeep.tending import Compacted, Upkeep

DROPPED = "an admin has dropped it"


@dataclass(frozen=True, slots=True)
class Dropped:
    """A session that is forgotten.

    Attributes:
        session_id: Its id.
        work: The key of its work item, whose next run begins a new one.
    """

    session_id: str
    work: str

    def facts(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)

    def details(self) -> tuple[str, ...]:
        """Return what was done, for people."""
        return (f"session {self.work} dropped: {self.session_id}",)


@dataclass(frozen=True, slots=True)
class Compaction:
    """A session whose transcript was compacted.

    Attributes:
        session_id: Its id.
        work: Its scope, which is the key of its work item.
        objects_before: How many parts and segments it had.
        objects_after: How many it has now.
        segments: How many segments were written.
        freed: How many objects were deleted.
        waiting: How many can be deleted two minutes later.
    """

    session_id: str
    work: str
    objects_before: int
    objects_after: int
    segments: int
    freed: int
    waiting: int

    def facts(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)

    def details(self) -> tuple[str, ...]:
        """Return what was done, for people."""
        numbers = f"{self.objects_before} objects are {self.objects_after} now, {self.waiting} can go in two minutes"
        return (f"session {self.session_id} of {self.work} compacted: {numbers}",)


class _Told(Protocol):
    def details(self) -> Sequence[str]: ...


Value = TypeVar("Value", bound=_Told)


class Admin:
    """Does what admins ask for. Its methods block; call them in a thread. Any number may be under way at once.

    No act is done that cannot be noted. What is noted is who asked for what and what came of it: names and reasons,
    never text of a transcript, and no token.

    Args:
        parts: What the service works with.
        sweeps: Sweeps.
    """

    def __init__(self, parts: Parts, sweeps: DailySweep) -> None:
        self._parts = parts
        self._sweeps = sweeps
        self._log = get_logger()

    def reset(self, selection: Selection, *, dry_run: bool = False, force: bool = False, who: str) -> Freed:
        """Remove workdirs of this machine, and end their sessions, those that have no workdir here too.

        Args:
            selection: Which.
            dry_run: Only say what would be done.
            force: With whatever is unsaved in the workdirs.
            who: The address that asks. So for the others.

        Raises:
            EverturnError: The registry does not answer, or the act cannot be noted. So for the others.
        """
        asked = {**selection.facts(), "dry_run": dry_run, "force": force}
        freeing = self._parts.workshop.freeing
        return self._noted(who, "reset", asked, lambda: freeing.reset(selection, dry_run=dry_run, force=force))

    def sweep(self, *, dry_run: bool = False, who: str) -> SweepResult:
        """Drop stale sessions, and sweep the workdirs, now.

        Raises:
            Conflict: Another sweep is under way.
        """
        return self._noted(who, "sweep", {"dry_run": dry_run}, lambda: self._sweeps.now(dry_run=dry_run))

    def drop(self, session_id: str, *, force: bool = False, who: str) -> Dropped:
        """Forget a session, so that its work item begins a new one. Its transcript stays.

        Args:
            session_id: Its whole id.
            force: Also if somebody holds it. They stop when they next renew their claim.
            who: The address that asks.

        Raises:
            NotFound: The registry does not know it, or not any more.
            Held: A live worker has it.
        """
        asked = {"session_id": session_id, "force": force}
        return self._noted(who, "drop", asked, lambda: self._drop(session_id, force=force))

    def compact(self, session_id: str, *, who: str) -> Compaction:
        """Merge the parts of a session's transcript. It may run beside writers and readers.

        Args:
            session_id: Its whole id.
            who: The address that asks.

        Raises:
            NotFound: The store does not have it.
            Conflict: It has several of this id.
        """
        return self._noted(who, "compact", {"session_id": session_id}, lambda: self._compact(session_id))

    def _drop(self, session_id: str, *, force: bool) -> Dropped:
        registry = self._parts.registry
        record = registry.find(session_id)
        if record is None or not registry.drop(record.work_key, session_id, DROPPED, unless_held=not force):
            raise NotFound(f"the registry knows no session {session_id}", hint="it may have been too old")
        return Dropped(session_id, record.work_key)

    def _compact(self, session_id: str) -> Compaction:
        parts = self._parts
        archive = open_archive(parts.settings)
        ref = run_blocking(archive.find(session_id))
        if ref.session_id != session_id:  # it is the beginning of an id, or the name of a scope
            raise NotFound(f"there is no session {session_id} in the store", hint="give the whole id")
        done: Compacted = run_blocking(Upkeep(archive, parts.settings, parts.clock, parts.ids).compact(ref))
        counts = {name: value for name, value in asdict(done).items() if name != "ref"}
        return Compaction(session_id, ref.scope, **counts)

    def _noted(self, who: str, action: str, asked: Mapping[str, Any], act: Callable[[], Value]) -> Value:
        number = self._parts.logbook.acts.add(who, action, asked).result()
        try:
            done = act()
        except EverturnError as error:
            refused = isinstance(error, Invalid | NotFound | Conflict)
            self._end(number, "refused" if refused else "failed", (error.message,))
            raise
        except BaseException as error:
            self._end(number, "failed", (f"{type(error).__name__} was raised",))  # its message may hold anything
            raise
        self._end(number, "done", done.details())
        return done

    def _end(self, number: int, outcome: Literal["done", "refused", "failed"], details: Sequence[str]) -> None:
        """What was done is done, also if that cannot be noted: then the act looks as if it went on."""
        self._parts.metrics.admin_calls.labels(outcome).inc()
        try:
            self._parts.logbook.acts.end(number, outcome, details).result()
        except EverturnError as error:
            self._log.error("act_not_noted", act=number, outcome=outcome, error=str(error))
