"""Making room: what is least recently used goes first, and only until there is enough.

What was built goes before workdirs, and workdirs before caches. A workdir in which a run or a process is at work,
unsaved work, and what lies in quarantine stay, even if there is too little room then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from everturn.errors import EverturnError, NotFound
from everturn.housekeeping.disk import Measurer, Record, Space, measure, space_of, usage
from everturn.housekeeping.removal import Fate, Removal
from everturn.telemetry import get_logger
from everturn.workdirs.records import CacheRecord, WorkdirRecord
from everturn.workdirs.root import Root


@dataclass(frozen=True, slots=True)
class Eviction:
    """What was done to make room or, in a dry run, what would be done.

    Attributes:
        fates: What became of each thing that was considered, in order.
        freed_bytes: How much room that gave.
        missing_bytes: How much more would have to be freed; 0: there is enough room.
        reasons: Why it could not be freed.
    """

    fates: tuple[Fate, ...] = ()
    freed_bytes: int = 0
    missing_bytes: int = 0
    reasons: tuple[str, ...] = ()


class Evictor:
    """Frees room until workdirs and caches take no more than their quota, and enough of the disk is free.

    Args:
        root: Where they are.
        removal: Removes them.
        measurer: Measures them.
        quota_bytes: How much room they may take together; `None`: no limit.
        free_bytes: How much of the disk is to be free.
        space: Tells how much of the disk is free now.
    """

    def __init__(
        self,
        root: Root,
        removal: Removal,
        measurer: Measurer,
        *,
        quota_bytes: int | None,
        free_bytes: int,
        space: Callable[[Path], Space] = space_of,
    ) -> None:
        self._root = root
        self._removal = removal
        self._measurer = measurer
        self._quota_bytes = quota_bytes
        self._free_bytes = free_bytes
        self._space = space
        self._log = get_logger()

    def evict(self, *, dry_run: bool = False, after: Iterable[Fate] = ()) -> Eviction:
        """Make room, if there is too little. Blocks, also for the deletion of what was removed.

        Args:
            dry_run: Only say what would be done. Caches that would be without workdirs only then are passed over.
            after: What is taken to have been done before, in a dry run.

        Returns:
            What was done. What could not be freed is reported, not raised.

        Raises:
            Denied: Nothing can be written there.
        """
        if not self._root.is_there:
            return Eviction()
        fates: list[Fate] = []
        freed_bytes = 0
        taken = [fate for fate in after if dry_run and fate.is_gone and fate.kind in ("workdir", "cache")]
        gone = {fate.name: fate.freed_bytes for fate in taken}
        measured: dict[Path, int] = {}
        missing_bytes = self._missing(sum(gone.values()), measured)
        for fate in self._taken(gone, dry_run=dry_run) if missing_bytes else ():
            fates.append(fate)
            if fate.freed_bytes:
                freed_bytes += fate.freed_bytes
                missing_bytes = self._missing(freed_bytes + sum(gone.values()) if dry_run else 0, measured)
            if not missing_bytes:
                break
        reasons = tuple(self._reasons(fates)) if missing_bytes else ()
        if reasons:
            self._log.warning("workdirs_need_room", missing_bytes=missing_bytes, reasons=reasons)
        return Eviction(tuple(fates), freed_bytes, missing_bytes, reasons)

    def _missing(self, pretended_bytes: int, measured: dict[Path, int]) -> int:
        """Return how much more has to be freed, if that much had been."""
        over_bytes = 0 if self._quota_bytes is None else self._total_bytes(measured) - self._quota_bytes
        lacking_bytes = self._free_bytes - self._space(self._root.path).free_bytes
        return max(over_bytes - pretended_bytes, lacking_bytes - pretended_bytes, 0)

    def _total_bytes(self, measured: dict[Path, int]) -> int:
        """Return what is noted; what is not noted, as it is in use, is measured once."""
        total_bytes = 0
        for record, path in (
            *((each, each.tree(self._root)) for each in WorkdirRecord.all(self._root)),
            *((each, each.repository(self._root).parent) for each in CacheRecord.all(self._root)),
        ):
            if record.size_bytes is None and path not in measured:
                measured[path] = measure(path).bytes
            total_bytes += measured[path] if record.size_bytes is None else record.size_bytes
        return total_bytes

    def _reasons(self, fates: Iterable[Fate]) -> Iterator[str]:
        kept = Counter(fate.kind for fate in fates if fate.action == "kept")
        if kept["workdir"]:
            yield f"workdirs in use, or with unsaved work: {kept['workdir']}"
        if kept["cache"]:
            yield f"caches that are needed: {kept['cache']}"
        quarantine_bytes = usage(self._root, self._space).quarantine_bytes
        if quarantine_bytes:
            yield f"what lies in quarantine takes {quarantine_bytes} bytes, and is never removed"
        yield "there is nothing else that may go"

    # --- What may go, in order ------------------------------------------------------------------------------------

    def _taken(self, gone: Container[str], *, dry_run: bool) -> Iterator[Fate]:
        """Take one thing after the other, for as long as the caller asks for more."""
        shrunk: dict[str, int] = {}
        for name in self._oldest_first(WorkdirRecord, gone):
            fate = self._tried("workdir", name, self._removal.shrink, dry_run=dry_run)
            if fate.freed_bytes:  # the others come again below
                shrunk[name] = fate.freed_bytes
                yield fate
        for name in self._oldest_first(WorkdirRecord, gone):
            self._measure(self._measurer.workdir, name)
            fate = self._tried("workdir", name, self._removal.remove, "evicted", dry_run=dry_run)
            yield replace(fate, freed_bytes=max(fate.freed_bytes - shrunk.get(name, 0), 0)) if dry_run else fate
        for name in self._oldest_first(CacheRecord, gone):
            self._measure(self._measurer.cache, name)
            yield self._tried("cache", name, self._removal.remove_cache, "evicted", dry_run=dry_run)

    def _oldest_first(self, kind: type[Record], gone: Container[str]) -> list[str]:
        records = sorted(kind.all(self._root), key=lambda each: (each.last_used_at, each.name))
        return [record.name for record in records if record.name not in gone]

    def _measure(self, measure_one: Callable[[str], object], name: str) -> None:
        with suppress(EverturnError, OSError):  # what cannot be looked at is kept a moment later, and that says why
            measure_one(name)

    def _tried(
        self, kind: Literal["workdir", "cache"], name: str, take: Callable[..., Fate], *reason: str, dry_run: bool
    ) -> Fate:
        """One that fails does not keep the others from being tried."""
        try:
            fate = take(name, *reason, dry_run=dry_run)
        except NotFound:  # somebody else was faster
            return Fate(kind, name, "dropped")
        except EverturnError as error:
            return Fate(kind, name, "kept", (error.message,))
        except OSError as error:
            return Fate(kind, name, "kept", (f"it cannot be removed: {error.strerror or error}",))
        if fate.is_gone and not dry_run:
            self._root.empty_trash()  # room that is not there yet must not cost the next one its place
        return fate
