"""Whether a workdir or a cache may go, and how it goes.

A workdir goes in this order: it is renamed into the trash, its record is removed, and some time later it is deleted.
Whoever is killed in between leaves a record without a folder, which the next sweep drops, or trash, which it empties.
Files of locks stay: somebody may be waiting for them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from everturn.errors import EverturnError, NotFound, Unavailable
from everturn.git.locks import Lock
from everturn.git.runner import Git
from everturn.git.untrusted import readable
from everturn.housekeeping.borrowing import borrowers, cache_of, kept_since, linked_trees
from everturn.housekeeping.disk import folders_in, ignored_in, measure
from everturn.log.background import start_thread
from everturn.telemetry import Metrics, get_logger
from everturn.workdirs.cache import tidy_noted
from everturn.workdirs.inspection import Unsaved
from everturn.workdirs.records import NAME, CacheRecord, WorkdirRecord
from everturn.workdirs.rescuer import Rescuer, shadow_of
from everturn.workdirs.root import Root

LATELY_S = 600.0  # longer than it takes from the fetch for a workdir until the workdir is noted
RESET_WAIT_S = 2.0  # for whoever is just measuring it
PAUSE_S = 0.05
KEPT_FOR_S = 30 * 86_400.0
NAMED_LIMIT = 3

Reason = Literal["expired", "evicted", "reset", "broken"]
Kind = Literal["workdir", "cache", "record", "leftover", "session", "quarantine", "trash"]
Action = Literal["removed", "quarantined", "pushed", "rescued", "kept", "shrunk", "dropped", "adopted"]

_HAS_TO_GO = ("reset", "broken")
IN_USE = "a run is at work in it"
PROCESSES = "processes are at work in it"
NO_CACHE = "its cache is missing, which the next run in it brings back"


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of something or, in a dry run, what would become of it.

    Attributes:
        kind: What it is. A leftover is what somebody who died was making; a record stands for nothing any more.
        name: Which one: its name, or that of the session's work item.
        action: What was done. A workdir whose work was `quarantined`, or `pushed`, is gone as well; a dry run says
            `rescued` for both. `shrunk`: only what git ignores was deleted. `dropped`: only what was noted.
            `adopted`: noted again.
        reasons: Why, for people: phrases without transcript text or contents of files.
        freed_bytes: How much room that gives, once the trash is deleted.
        path: Where it lies in quarantine.
        size_bytes: How much room it still takes, if that is known.
    """

    kind: Kind
    name: str
    action: Action
    reasons: tuple[str, ...] = ()
    freed_bytes: int = 0
    path: str | None = None
    size_bytes: int | None = None

    @property
    def is_gone(self) -> bool:
        """Whether it is not where it was any more."""
        return self.action in ("removed", "quarantined", "pushed", "rescued")

    def told(self, *, dry_run: bool = False) -> str:
        """Return what became of it, or would, for people."""
        would = "would be " if dry_run and self.action != "kept" else ""
        return f"{self.kind} {self.name} {would}{self.action}{': ' if self.reasons else ''}{'; '.join(self.reasons)}"

    @property
    def is_busy(self) -> bool:
        """Whether it was kept because somebody is at work in it, and might go once they are done."""
        return self.action == "kept" and any(why.startswith((IN_USE, PROCESSES)) for why in self.reasons)

    def facts(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "reasons": list(self.reasons)}


def processes_in(folders: Iterable[Path]) -> dict[int, str]:
    """Return the processes that are at work in some folders: ids and names.

    Those of other users are left out where they cannot be seen, and so is this one.
    """
    places = [os.path.realpath(folder) for folder in folders]
    found = {}
    for process in psutil.process_iter():
        try:
            cwd, name = process.cwd(), readable(process.name())
        except (psutil.Error, OSError):
            continue
        if process.pid != os.getpid() and any(cwd == place or cwd.startswith(f"{place}/") for place in places):
            found[process.pid] = name
    return found


class Removal:
    """Removes workdirs and caches, and nothing that cannot be had again.

    Args:
        root: Where they are.
        git: Runs git.
        rescuer: Looks what is unsaved, and keeps it.
        metrics: Where removals are counted.
        find_processes: Finds those at work in folders.
    """

    def __init__(
        self,
        root: Root,
        git: Git,
        *,
        rescuer: Rescuer,
        metrics: Metrics,
        find_processes: Callable[[Iterable[Path]], dict[int, str]] = processes_in,
    ) -> None:
        self._root = root
        self._git = git
        self._rescuer = rescuer
        self._metrics = metrics
        self._find_processes = find_processes
        self._mutex = threading.Lock()
        self._rounds = 0
        self._log = get_logger()

    # --- Workdirs -------------------------------------------------------------------------------------------------

    def remove(
        self,
        name: str,
        reason: Reason,
        *,
        force: bool = False,
        dry_run: bool = False,
        wait_s: float | None = None,
        unless: Callable[[WorkdirRecord], str | None] | None = None,
    ) -> Fate:
        """Remove a workdir. Blocks, but does not wait for a run that is at work in it. On return it is not there any
        more, or as it was; the room on the disk comes a little later.

        Unsaved work is rescued where the workdir has to go: at a reset, and if it is broken. A workdir that is
        merely old, or in the way, is kept then.

        Args:
            name: The workdir.
            reason: Why.
            force: Remove it with whatever is in it, unsaved work too, and whichever process works in it, unless that
                is a run.
            dry_run: Only say what would be done.
            wait_s: How long to wait for whoever is just looking after it; if not given, as long as the reason is
                worth it.
            unless: Asked once nobody is at work in it, and no run can begin; says why it is kept after all.

        Raises:
            NotFound: There is no such workdir.
            Denied: Nothing can be written there.
        """
        self._check(name)
        if wait_s is None:
            wait_s = RESET_WAIT_S if reason == "reset" else 0
        with self._taken(name, wait_s) as lock:
            if lock is None:
                return _kept(name, IN_USE)
            record = self._record(name)
            why = self._why_busy(record, wait_s, force=force)
            if why is None and unless is not None:
                why = unless(record) or self._why_busy(record, 0, force=force)  # asking has taken a while
            if why is not None:
                return _kept(name, why)
            return self._remove(record, reason, force=force, dry_run=dry_run)

    def shrink(self, name: str, *, dry_run: bool = False) -> Fate:
        """Delete what git ignores in a workdir: what was built, mostly. All else stays, repositories in ignored
        folders too. Blocks; on return it is deleted.

        Args:
            name: The workdir.
            dry_run: Only say what would be freed.

        Raises:
            NotFound: There is no such workdir.
            EverturnError: git failed, or nothing can be written.
        """
        self._check(name)
        with self._taken(name) as lock:
            if lock is None:
                return _kept(name, IN_USE)
            record = self._record(name)
            why = self._process_in(record)
            if why is not None:
                return _kept(name, why)
            return self._shrink(record, dry_run=dry_run)

    @contextmanager
    def _taken(self, name: str, wait_s: float = 0) -> Iterator[Lock | None]:
        lock = self._root.try_workdir(name, wait_s)
        try:
            yield lock
        finally:
            if lock is not None:
                lock.release()

    def _check(self, name: str) -> None:
        """Names come from command lines and from other machines, too."""
        is_known = NAME.fullmatch(name) and self._root.is_there
        if not is_known or not (
            os.path.lexists(self._root.trees / name) or os.path.lexists(WorkdirRecord.file(self._root, name))
        ):
            raise NotFound(f"there is no workdir {name!r}", hint="everturn workdirs list names those that there are")

    def _record(self, name: str) -> WorkdirRecord:
        """Return what is noted about a workdir or, if that is lost, what its cache says."""
        record = WorkdirRecord.read(self._root, name)
        if record is not None:
            return record
        cache = cache_of(self._root, self._root.trees / name) or ""
        known = CacheRecord.read(self._root, cache)
        return WorkdirRecord(name, known.repo if known else "", cache=cache)

    def _why_busy(self, record: WorkdirRecord, wait_s: float, *, force: bool) -> str | None:
        return None if force else self._process_in(record, wait_s)

    def _process_in(self, record: WorkdirRecord, wait_s: float = 0) -> str | None:
        deadline = self._root.clock.elapsed() + wait_s
        while (found := self._process_now(record)) is not None and self._root.clock.elapsed() < deadline:
            self._root.clock.sleep(PAUSE_S)
        return found

    def _process_now(self, record: WorkdirRecord) -> str | None:
        tree = record.tree(self._root)
        found = self._find_processes([tree, *linked_trees(tree / ".git")])
        if not found:
            return None
        named = [f"{name} ({pid})" for pid, name in sorted(found.items())]
        more = ", …" if len(named) > NAMED_LIMIT else ""
        return f"{PROCESSES}: {', '.join(named[:NAMED_LIMIT])}{more}"

    def _remove(self, record: WorkdirRecord, reason: Reason, *, force: bool, dry_run: bool) -> Fate:
        if force or not record.is_settled or not os.path.lexists(record.tree(self._root)):
            return self._discard(record, reason, dry_run=dry_run)
        has_cache = CacheRecord(record.cache).repository(self._root).is_dir()
        unsaved = self._rescuer.look(record) if has_cache else Unsaved(damage=NO_CACHE)
        reasons = unsaved.reasons()
        if unsaved and reason not in _HAS_TO_GO:
            return _kept(record.name, *reasons)
        if dry_run:
            fate = self._discard(record, reason, dry_run=True)
            return replace(fate, action="rescued", reasons=tuple(reasons)) if unsaved else fate
        try:
            done = self._saved(record, unsaved, has_cache=has_cache)
        except EverturnError as error:
            return _kept(record.name, *reasons, f"it cannot be kept: {error.message}")
        if os.path.lexists(record.tree(self._root)):
            fate = self._discard(record, reason, dry_run=False)
            return replace(fate, action="pushed", reasons=(done,)) if done and fate.is_gone else fate
        self._forget(record, reason)
        return Fate(
            "workdir", record.name, "quarantined", (done,) if done else (), path=self._newest_quarantine(record)
        )

    def _saved(self, record: WorkdirRecord, unsaved: Unsaved, *, has_cache: bool) -> str | None:
        """Bring what is unsaved to safety, and into the cache what was pushed: its branch may be merged as one commit
        and deleted at the remote. Return what was done with what was unsaved."""
        if not has_cache:
            return self._rescuer.set_aside(record, unsaved.reasons())
        return self._rescuer.make_way(record) if unsaved or unsaved.pushed_only else None

    def _newest_quarantine(self, record: WorkdirRecord) -> str | None:
        found = [path for path in folders_in(self._root.quarantine) if path.name.startswith(f"{record.name}-")]
        return str(max(found, key=lambda path: path.stat().st_ctime_ns)) if found else None

    def _discard(self, record: WorkdirRecord, reason: Reason, *, dry_run: bool) -> Fate:
        tree = record.tree(self._root)
        size_bytes = measure(tree).bytes if record.size_bytes is None else record.size_bytes
        if not dry_run:
            try:
                self._root.discard(tree)
            except OSError as error:
                return _kept(record.name, _immovable(error))
            self._forget(record, reason)
            self._log.info("workdir_removed", workdir=record.name, reason=reason, size_bytes=size_bytes)
            self._empty_soon()
        return Fate("workdir", record.name, "removed", (reason,), size_bytes)

    def _forget(self, record: WorkdirRecord, reason: Reason) -> None:
        WorkdirRecord.file(self._root, record.name).unlink(missing_ok=True)
        self._root.index_of(record.name).unlink(missing_ok=True)
        self._metrics.workdirs_removed.labels(reason).inc()

    def _shrink(self, record: WorkdirRecord, *, dry_run: bool) -> Fate:
        tree = record.tree(self._root)
        with shadow_of(self._root, self._git, record) as shadow:
            ignored = ignored_in(shadow) if (shadow.path / "index").exists() else None
            if ignored is None:
                return _kept(record.name, "it cannot be told which of its files are ignored")
            if dry_run or not ignored.files:
                return Fate("workdir", record.name, "shrunk", freed_bytes=ignored.bytes)
            before = measure(tree)
            reasons: tuple[str, ...] = ()
            try:
                # Forced once: what has a .git of its own stays, wherever it lies.
                shadow.run(["clean", "--quiet", "--force", "-d", "-X"])
            except EverturnError as error:
                reasons = (error.message,)
            left, after = ignored_in(shadow), measure(tree)
        noted = WorkdirRecord.read(self._root, record.name)
        if noted is not None:
            now = self._root.clock.now()
            sizes = noted.but(size_bytes=after.bytes, ignored_bytes=left.bytes if left else None, measured_at=now)
            sizes.write(self._root)
        freed_bytes = max(before.bytes - after.bytes, 0)
        self._log.info("workdir_shrunk", workdir=record.name, size_bytes=freed_bytes)
        return Fate("workdir", record.name, "shrunk", reasons, freed_bytes)

    # --- Quarantine -----------------------------------------------------------------------------------------------

    def remove_quarantined(self, name: str, *, force: bool = False, dry_run: bool = False) -> Fate:
        """Remove what lies in quarantine, for good. Without force it is kept: somebody's work is in it.

        Args:
            name: The name of its folder.
            force: Remove it.
            dry_run: Only say what would be done.
        """
        path = self._root.quarantine / name
        if not force:
            return Fate("quarantine", name, "kept", ("unsaved work is in it; --force removes it",), path=str(path))
        size_bytes = measure(path).bytes
        if not dry_run:
            try:
                self._root.discard(path)
            except OSError as error:
                return Fate("quarantine", name, "kept", (_immovable(error),), path=str(path))
            self._log.info("workdir_removed", workdir=name, reason="reset", size_bytes=size_bytes)
            self._empty_soon()
        return Fate("quarantine", name, "removed", ("reset",), size_bytes)

    # --- Caches ---------------------------------------------------------------------------------------------------

    def remove_cache(self, name: str, reason: Reason, *, dry_run: bool = False) -> Fate:
        """Remove a cache that nobody borrows from. Blocks, but does not wait for others who are at work on it.

        One that was used a moment ago, or has kept what workdirs had pushed less than 30 days ago, is kept.

        Args:
            name: The cache.
            reason: Why.
            dry_run: Only say what would be done.

        Raises:
            NotFound: There is no such cache.
            Denied: Nothing can be written there.
        """
        folder = self._root.caches / name
        if not NAME.fullmatch(name) or not any(map(os.path.lexists, (folder, CacheRecord.file(self._root, name)))):
            raise NotFound(f"there is no cache {name!r}", hint="everturn workdirs usage names those that there are")
        try:
            with self._root.locked_cache(name, 0):
                reasons = self._needing(name)
                if reasons:
                    return Fate("cache", name, "kept", reasons)
                return self._discard_cache(name, reason, dry_run=dry_run)
        except Unavailable as error:
            return Fate("cache", name, "kept", (error.message,))

    def _needing(self, name: str) -> tuple[str, ...]:
        found = borrowers(self._root, name)
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            return (f"it is borrowed from by {found[0]}{more}",)
        if not CacheRecord(name).repository(self._root).is_dir():
            return ()
        record, now = CacheRecord.read(self._root, name), self._root.clock.now()
        if record is not None and abs(now - record.last_used_at) < LATELY_S:
            return ("it was used a moment ago",)  # by one that is not noted yet, perhaps
        try:
            tidy_noted(self._root, name)
            kept = kept_since(self._git, self._root, name, now - KEPT_FOR_S)
        except EverturnError as error:
            return (f"it cannot be told what it keeps: {error.message}",)
        return (
            (f"it has kept what was pushed from workdirs, in {len(kept)} refs, for less than 30 days",)
            if kept
            else ()
        )

    def _discard_cache(self, name: str, reason: Reason, *, dry_run: bool) -> Fate:
        record = CacheRecord.read(self._root, name)
        folder = self._root.caches / name
        size_bytes = record.size_bytes if record and record.size_bytes is not None else measure(folder).bytes
        if not dry_run:
            try:
                self._root.discard(folder)
            except OSError as error:
                return Fate("cache", name, "kept", (_immovable(error),))
            CacheRecord.file(self._root, name).unlink(missing_ok=True)
            self._metrics.workdirs_removed.labels(reason).inc()
            self._log.info("cache_removed", cache=name, reason=reason, size_bytes=size_bytes)
            self._empty_soon()
        return Fate("cache", name, "removed", (reason,), size_bytes)

    # --- Trash ----------------------------------------------------------------------------------------------------

    def _empty_soon(self) -> None:
        """Delete what was removed, in the background. If the process ends first, the next sweep does it."""
        with self._mutex:
            self._rounds += 1
            if self._rounds == 1 and Context().run(start_thread, self._empty, "everturn-trash") is None:
                self._rounds = 0

    def _empty(self) -> None:
        rounds = 0
        while rounds != self._rounds:
            rounds = self._rounds
            self._root.empty_trash()
            with self._mutex:
                if rounds == self._rounds:
                    self._rounds = rounds = 0


def _immovable(error: OSError) -> str:
    return f"it cannot be moved: {error.strerror or error}"


def _kept(name: str, *reasons: str) -> Fate:
    return Fate("workdir", name, "kept", reasons)
