"""What ends work at a forge, or an admin's wish, frees the workdirs and ends the sessions that it was about.

Whatever is freed is looked at again first, with the lock of its workdir held, so nobody can begin in it meanwhile.
The sessions that a workdir holds end before it goes: whoever dies in between leaves a workdir whose record still says
what it was about, and so the next attempt finds it. The other way round nothing would say which branch a session was
on. A session ends in one step with the look whether somebody holds it, so no run that begins meanwhile loses its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from everturn.clock import Clock, SystemClock
from everturn.errors import EverturnError, Held, NotFound
from everturn.forges.base import Happening
from everturn.housekeeping.holdings import Holdings, place, ref_of
from everturn.housekeeping.removal import Fate, Removal
from everturn.housekeeping.selection import Selection
from everturn.model import SessionRecord, split_key
from everturn.registry import Registry
from everturn.registry.rules import held
from everturn.workdirs.records import WorkdirRecord
from everturn.workdirs.root import Root

__all__ = ["Freed", "Freeing", "Holdings", "Selection"]

_WHY = {
    "issue_closed": "its issue was closed",
    "change_closed": "its change was closed",
    "branch_deleted": "its branch was deleted",
}
_RESET = "it was reset"
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Freed:
    """What was freed or, in a dry run, what would be.

    Attributes:
        fates: What became of each workdir and session that was meant; what was kept is among them, with the reasons.
        waiting: What has to end first, for people: then the same may be asked for again.
        dry_run: Whether nothing was done.
    """

    fates: tuple[Fate, ...] = ()
    waiting: tuple[str, ...] = ()
    dry_run: bool = False

    @property
    def gone(self) -> tuple[Fate, ...]:
        """What is not there any more: workdirs, and sessions."""
        return tuple(fate for fate in self.fates if fate.is_gone or fate.action == "dropped")

    @property
    def freed_bytes(self) -> int:
        """How much room was freed."""
        return sum(fate.freed_bytes for fate in self.fates)

    def details(self) -> tuple[str, ...]:
        """Return what became of each thing, for people: first what is gone, then what was kept."""
        rest = [fate for fate in self.fates if fate not in self.gone]
        return tuple(fate.told(dry_run=self.dry_run) for fate in (*self.gone, *rest))

    def facts(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "dry_run": self.dry_run,
            "freed_bytes": self.freed_bytes,
            "waiting": list(self.waiting),
            "fates": [fate.facts() for fate in self.fates],
        }


class Freeing:
    """Frees what work has held. For any number of threads and processes at once.

    Args:
        root: Where the workdirs are.
        removal: Removes them.
        registry: Knows the sessions, and who holds them.
        clock: Tells the time.
    """

    def __init__(self, root: Root, removal: Removal, registry: Registry, *, clock: Clock | None = None) -> None:
        self._root = root
        self._removal = removal
        self._registry = registry
        self._clock = clock or SystemClock()

    def look(self) -> Holdings:
        """Return what there is. Blocks: it reads a file for each workdir, and all rows of the registry.

        Raises:
            EverturnError: The registry does not say.
        """
        return Holdings.of(WorkdirRecord.all(self._root), self._registry.records())

    def free(self, happening: Happening, holdings: Holdings, *, dry_run: bool = False) -> Freed:
        """Free what was held by work that has ended. Blocks; on return it is done. A second time there is nothing.

        Nothing of a work item is touched while somebody holds it, nor while somebody is at work in its workdir.
        Unsaved work is rescued first, as at a reset.

        Args:
            happening: What has happened.
            holdings: What there was a moment ago.
            dry_run: Only say what would be done, as far as the holdings tell.

        Raises:
            EverturnError: The registry does not answer. Do it again later.
        """
        wish = _wish_of(happening, holdings)
        return self._freed(wish, holdings, dry_run=dry_run) if wish.names or wish.keys else Freed(dry_run=dry_run)

    def reset(self, selection: Selection, *, dry_run: bool = False, force: bool = False) -> Freed:
        """Remove workdirs, and end their sessions and those that have none here. Blocks; on return it is done.

        A workdir that somebody is at work in is kept, and so is a session that somebody holds.

        Args:
            selection: Which.
            dry_run: Only say what would be done.
            force: Remove workdirs with whatever is unsaved in them, and whichever processes are in them.

        Raises:
            EverturnError: The registry does not answer.
        """
        holdings = self.look()
        wish = _wish_to_reset(selection, holdings)
        return replace(self._freed(wish, holdings, dry_run=dry_run, force=force), waiting=())

    def _freed(self, wish: _Wish, holdings: Holdings, *, dry_run: bool, force: bool = False) -> Freed:
        attempt = _Attempt(self._removal, self._registry, self._clock, wish, holdings, dry_run=dry_run, force=force)
        return attempt.carry_out()


# --- What is to be freed ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is to be freed.

    Attributes:
        why: Why, for people.
        keys: The work items whose sessions end.
        names: The workdirs that go.
        ends: Returns which of the sessions in a workdir end with it; `None`: it is not meant any more.
        by_itself: Whether nobody has asked for it. Then a workdir stays if other sessions can be resumed in it,
            nobody is waited for, and what fails is raised: it is tried again later.
    """

    why: str
    keys: frozenset[str]
    names: tuple[str, ...]
    ends: Callable[[WorkdirRecord, set[str]], set[str] | None]
    by_itself: bool


def _wish_of(happening: Happening, holdings: Holdings) -> _Wish:
    places = {place(url) for url in happening.repo}
    refs = {(where, ref) for where in places for ref in happening.refs}
    if happening.branch is not None:
        refs |= {(place(url), f"refs/heads/{happening.branch}") for url in happening.branch_repo}
    number = happening.number
    keys = {key for where in places if number for key in holdings.by_number.get((where, number), ())}
    names = {name for each in refs for name in holdings.by_ref.get(each, ())}
    names |= {name for key in keys for name in holdings.by_work.get(key, ())}

    def ends(record: WorkdirRecord, inside: set[str]) -> set[str] | None:
        if (place(record.repo), ref_of(record)) in refs:
            return inside
        return {record.work_key, *(inside & keys)} if record.work_key in keys else None

    return _Wish(_WHY[happening.kind], frozenset(keys), tuple(sorted(names)), ends, by_itself=True)


def _wish_to_reset(selection: Selection, holdings: Holdings) -> _Wish:
    names = sorted(record.name for record in holdings.workdirs.values() if selection.has(record))
    keys = {key for key, session in holdings.sessions.items() if selection.has_session(session)}
    if selection.repo is not None:
        keys |= {key for name in names for key in _tasks_in(name, selection, holdings)}

    def ends(record: WorkdirRecord, inside: set[str]) -> set[str] | None:
        return inside & keys if selection.has(record) else None

    return _Wish(_RESET, frozenset(keys), tuple(names), ends, by_itself=False)


def _tasks_in(name: str, selection: Selection, holdings: Holdings) -> Iterator[str]:
    """Yield the selected tasks that work in a workdir of the repository: their keys do not say so."""
    for key in holdings.sessions_in(holdings.workdirs[name]):
        session = holdings.sessions.get(key)
        if session is not None and split_key(key) is None and selection.has_work(key, session.agent):
            yield key


# --- How it is freed ----------------------------------------------------------------------------------------------


@dataclass
class _Attempt:
    """One attempt to free something."""

    removal: Removal
    registry: Registry
    clock: Clock
    wish: _Wish
    holdings: Holdings
    dry_run: bool
    force: bool
    fates: list[Fate] = field(default_factory=list)
    waiting: dict[str, None] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    untouched: set[str] = field(default_factory=set)
    failure: EverturnError | None = None

    def carry_out(self) -> Freed:
        for name in self.wish.names:
            fate = self._tried(self.holdings.workdirs[name])
            if fate is not None:
                self.fates.append(fate)
        for key in sorted(self.wish.keys - self.untouched):
            try:
                self._end(key)
            except Held as refused:
                self._wait(refused.message)
                self.fates.append(Fate("session", key, "kept", (refused.message,)))
        return Freed(tuple(self.fates), tuple(self.waiting), self.dry_run)

    def _tried(self, known: WorkdirRecord) -> Fate | None:
        try:
            return self._free(known)
        except NotFound:  # somebody else was faster
            return None
        except (EverturnError, OSError) as error:
            if self.wish.by_itself or error is self.failure:
                raise
            why = error.message if isinstance(error, EverturnError) else error.strerror or str(error)
            return Fate("workdir", known.name, "kept", (why,))

    def _free(self, known: WorkdirRecord) -> Fate:
        fate = self.removal.remove(
            known.name,
            "reset",
            force=self.force,
            dry_run=self.dry_run,
            wait_s=0 if self.wish.by_itself else None,
            unless=self._end_sessions,
        )
        if fate.is_busy:
            self._wait(f"{known.name}: {'; '.join(fate.reasons)}")
            self.untouched |= self.holdings.sessions_in(known)
        if fate.is_gone:
            return replace(fate, reasons=(self.wish.why, *(why for why in fate.reasons if why != "reset")))
        return fate

    def _end_sessions(self, record: WorkdirRecord) -> str | None:
        """End the sessions in a workdir, in which nobody can begin now, or say why it is kept."""
        try:
            return self._why_kept(record)
        except EverturnError as error:
            self.failure = error  # of the registry: there is no point in going on
            raise

    def _why_kept(self, record: WorkdirRecord) -> str | None:
        inside = self.holdings.sessions_in(record)
        ending = self.wish.ends(record, inside)
        if ending is None:
            return "it is used for something else by now"
        for key in sorted(inside - ending) if self.wish.by_itself else ():
            if self._find(key) is not None:
                return f"the session of {key} can still be resumed in it"
        for key in sorted(ending):
            try:
                self._end(key)
            except Held as refused:
                self._wait(refused.message)
                self.untouched.add(key)
                return refused.message
        return None

    def _find(self, key: str) -> SessionRecord | None:
        """Return the session of a work item as it is now or, in a dry run, as it would be."""
        if self.dry_run:
            return None if key in self.ended else self.holdings.sessions.get(key)
        return self.registry.get(key)

    def _end(self, key: str) -> None:
        """End a session, if there is one. Raises `Held` if somebody holds it."""
        for _ in range(_ATTEMPTS):  # each time that it has become another session meanwhile
            found = self._find(key)
            if found is None:
                return
            if self._dropped(key, found):
                self.ended.add(key)
                self.fates.append(Fate("session", key, "dropped", (self.wish.why,)))
                return

    def _dropped(self, key: str, session: SessionRecord) -> bool:
        if not self.dry_run:
            return self.registry.drop(key, session.session_id, self.wish.why, unless_held=True)
        if session.held_until is not None and session.held_until > self.clock.now():
            raise held(session)
        return True

    def _wait(self, what: str) -> None:
        self.waiting[what] = None
