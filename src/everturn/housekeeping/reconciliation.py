"""Three views of one thing: what the registry knows, what git has linked and we have noted, what lies on the disk.

Where they differ, what is only noted is dropped, what is only there is noted again if it is one of ours, and whatever
somebody may still want is kept and reported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from everturn.errors import EverturnError, NotFound
from everturn.git.locks import take
from everturn.git.runner import NOWHERE, Git
from everturn.git.untrusted import Damaged, is_folder, read_plain
from everturn.housekeeping.borrowing import cache_of, linked_trees
from everturn.housekeeping.disk import folders_in, measure, newest_change, usage
from everturn.housekeeping.removal import IN_USE, Fate, Kind, Removal
from everturn.model import SessionRecord
from everturn.registry import Registry
from everturn.workdirs.records import NAME, CacheRecord, WorkdirRecord
from everturn.workdirs.root import LOCK, Root, listed

LEFTOVER_AGE_S = 3600.0

_RECORD = re.compile(r"^[^.].*\.json$|^\..*\.json\.")  # or one that is being written
_BRANCH = re.compile(rb"ref: refs/heads/(\S+)\s*")


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions that can still be resumed.

    Attributes:
        by_cwd: Each that has a working directory, with it: an absolute path without links.
        failure: Why the registry did not say; `None`: it did.
    """

    by_cwd: tuple[tuple[Path, SessionRecord], ...] = ()
    failure: str | None = None

    @classmethod
    def of(cls, registry: Registry) -> Sessions:
        """Ask a registry. Blocks."""
        try:
            stale = {record.session_id for record in registry.sweep(dry_run=True)}
            wanted = [each for each in registry.records() if each.session_id not in stale and _is_path(each.cwd)]
        except EverturnError as error:
            return cls(failure=error.message)
        return cls(tuple((Path(os.path.realpath(each.cwd or "")), each) for each in wanted))

    def inside(self, *folders: Path) -> list[SessionRecord]:
        """Return those whose working directory is in one of these folders."""
        places = [Path(os.path.realpath(folder)) for folder in folders]
        return [session for cwd, session in self.by_cwd if any(cwd.is_relative_to(place) for place in places)]


class Reconciliation:
    """Brings the views together, once.

    Args:
        root: Where everything is.
        git: Runs git.
        sessions: What the registry knows.
        removal: Removes what has expired.
        max_age_s: How long a workdir or a cache stays that nobody uses.
        dry_run: Whether only to say what would be done.
    """

    def __init__(
        self,
        root: Root,
        git: Git,
        sessions: Sessions,
        removal: Removal,
        max_age_s: float,
        *,
        dry_run: bool,
    ) -> None:
        self._root = root
        self._git = git
        self._sessions = sessions
        self._removal = removal
        self._max_age_s = max_age_s
        self._dry_run = dry_run

    @property
    def notes(self) -> tuple[str, ...]:
        """What else has to be known."""
        failure = self._sessions.failure
        if failure is None:
            return ()
        return (f"no workdir has expired, as a session may still want it: the registry does not say ({failure})",)

    def fates(self) -> Iterator[Fate]:
        """Go through everything, in order. What fails is kept, and the rest is gone through all the same."""
        yield from self._trash()
        for path in listed(self._root.path / "unfinished"):
            yield from self._tried("leftover", path.name, self._unfinished)
        for path in self._half_written():
            name = str(path.relative_to(self._root.path))
            yield from self._tried("leftover", name, lambda name: self._discard(self._root.path / name))
        for name in self._names(self._root.records, self._root.trees):
            yield from self._tried("workdir", name, self._workdir)
        for name in self._names(self._root.caches, self._root.caches):
            yield from self._tried("cache", name, self._cache)
        yield from self._homeless_sessions()

    def _tried(self, kind: Kind, name: str, look: Callable[[str], Fate | None]) -> Iterator[Fate]:
        try:
            fate = look(name)
        except (NotFound, FileNotFoundError):  # somebody else was faster
            return
        except EverturnError as error:
            fate = Fate(kind, name, "kept", (error.message,))
        except OSError as error:
            fate = Fate(kind, name, "kept", (f"it cannot be looked at: {error.strerror or error}",))
        if fate is not None:
            yield fate

    def _names(self, records: Path, folders: Path) -> list[str]:
        noted = {path.stem for path in records.glob("[!.]*.json")}
        there = {path.name for path in listed(folders)}
        return sorted(noted | {name for name in there if not _RECORD.search(name)})

    # --- Workdirs -------------------------------------------------------------------------------------------------

    def _workdir(self, name: str) -> Fate | None:
        if not NAME.fullmatch(name):
            return Fate("workdir", name, "kept", ("it is not one of ours",))
        if not os.path.lexists(self._root.trees / name):
            return self._locked(name, self._drop)
        record = WorkdirRecord.read(self._root, name)
        if record is None:
            return self._locked(name, self._adopt)
        why = self._wanted(record)
        if why is not None:
            return Fate("workdir", name, "kept", (why,), size_bytes=record.size_bytes)
        return self._removal.remove(name, "expired", dry_run=self._dry_run, unless=self._wanted)

    def _locked(self, name: str, change: Callable[[str], Fate | None]) -> Fate | None:
        lock = self._root.try_workdir(name)
        if lock is None:
            return Fate("workdir", name, "kept", (IN_USE,))
        try:
            return change(name)
        finally:
            lock.release()

    def _wanted(self, record: WorkdirRecord) -> str | None:
        """Say why a workdir has not expired."""
        age_s = self._root.clock.now() - record.last_used_at
        if age_s <= self._max_age_s:
            return f"it was last used {_words(age_s)} ago"
        if self._sessions.failure is not None:
            return "a session may still want it"
        tree = record.tree(self._root)
        sessions = self._sessions.inside(tree, *linked_trees(tree / ".git"))
        if sessions:
            return f"the session of {sessions[0].work_key} can still be resumed in it"
        return None

    def _drop(self, name: str) -> Fate | None:
        if os.path.lexists(self._root.trees / name):
            return None  # somebody has opened it meanwhile
        if not self._dry_run:
            WorkdirRecord.file(self._root, name).unlink()
            self._root.index_of(name).unlink(missing_ok=True)
        return Fate("record", name, "dropped", ("its folder is gone",))

    def _adopt(self, name: str) -> Fate | None:
        if WorkdirRecord.read(self._root, name) is not None:
            return None
        tree = self._root.trees / name
        cache = cache_of(self._root, tree) if is_folder(tree) else None
        known = None if cache is None else CacheRecord.read(self._root, cache)
        if cache is None or known is None:
            return Fate(
                "workdir", name, "kept", ("nothing is noted about it, and it borrows from none of our caches",)
            )
        now = self._root.clock.now()
        sessions = self._sessions.inside(tree)
        record = WorkdirRecord(
            name,
            known.repo,
            created_at=now,
            last_used_at=now,
            work_key=sessions[0].work_key if sessions else "",
            agent=sessions[0].agent if sessions else None,
            branch=_branch_of(tree),
            cache=cache,
        )
        if not self._dry_run:
            record.write(self._root)
        return Fate("workdir", name, "adopted", ("nothing was noted about it",))

    # --- Caches ---------------------------------------------------------------------------------------------------

    def _cache(self, name: str) -> Fate | None:
        if not NAME.fullmatch(name):
            return Fate("cache", name, "kept", ("it is not one of ours",))
        if not (self._root.caches / name).is_dir():
            return self._drop_cache(name)
        record = CacheRecord.read(self._root, name)
        if record is None:
            return self._adopt_cache(name)
        age_s = self._root.clock.now() - record.last_used_at
        if age_s <= self._max_age_s:
            return Fate(
                "cache", name, "kept", (f"it was last used {_words(age_s)} ago",), size_bytes=record.size_bytes
            )
        return self._removal.remove_cache(name, "expired", dry_run=self._dry_run)

    def _drop_cache(self, name: str) -> Fate | None:
        with self._root.locked_cache(name, 0):
            if (self._root.caches / name).is_dir():
                return None
            needed = [each.name for each in WorkdirRecord.all(self._root) if each.cache == name]
            if not self._dry_run:
                CacheRecord.file(self._root, name).unlink()
        healed = f"; {', '.join(needed)} get it back when they are next opened" if needed else ""
        return Fate("record", name, "dropped", (f"the cache is gone{healed}",))

    def _adopt_cache(self, name: str) -> Fate | None:
        with self._root.locked_cache(name, 0):
            if CacheRecord.read(self._root, name) is not None:
                return None
            config = CacheRecord(name).repository(self._root) / "config"
            asked = ["config", "--file", str(config), "--get", "remote.origin.url"]
            try:
                repo = self._git.run(asked, Path("/"), extra=NOWHERE).strip()
            except EverturnError:
                repo = ""
            if not repo:
                return Fate("cache", name, "kept", ("nothing says which repository it is of",))
            now = self._root.clock.now()
            if not self._dry_run:
                CacheRecord(name, repo, created_at=now, last_used_at=now).write(self._root)
        return Fate("cache", name, "adopted", ("nothing was noted about it",))

    # --- Sessions -------------------------------------------------------------------------------------------------

    def _homeless_sessions(self) -> Iterator[Fate]:
        trees = Path(os.path.realpath(self._root.trees))
        for cwd, session in self._sessions.by_cwd:
            if trees in cwd.parents and not os.path.lexists(trees / cwd.relative_to(trees).parts[0]):
                why = f"its folder {cwd} is not on this machine; the next run has it made anew"
                yield Fate("session", session.work_key, "kept", (why,))

    # --- What others have left ------------------------------------------------------------------------------------

    def _trash(self) -> Iterator[Fate]:
        found = [(path, measure(path).bytes) for path in listed(self._root.path / "trash")]
        if not self._dry_run:
            self._root.empty_trash()
        for path, size_bytes in found:
            if not self._dry_run and os.path.lexists(path):
                yield Fate("trash", path.name, "kept", ("it cannot be deleted",), size_bytes=measure(path).bytes)
            else:
                yield Fate("trash", path.name, "removed", ("somebody had no time to delete it",), size_bytes)

    def _unfinished(self, token: str) -> Fate | None:
        """Whoever is making something holds a lock in it. git may outlive who started it, so age counts as well."""
        path = self._root.path / "unfinished" / token
        age_s = self._root.clock.now() - newest_change(path)
        if age_s <= LEFTOVER_AGE_S:
            return Fate("leftover", token, "kept", (f"it was last changed {_words(age_s)} ago",))
        if not os.path.lexists(path / LOCK):  # not made here: in a dry run that would make the folder young again
            return self._discard(path)
        lock = take(path / LOCK, clock=self._root.clock)
        if lock is None:
            return Fate("leftover", token, "kept", ("somebody is at work in it",))
        try:
            return self._discard(path)
        finally:
            lock.release()

    def _discard(self, path: Path) -> Fate:
        size_bytes = measure(path).bytes
        if not self._dry_run:
            self._root.discard(path)
        return Fate("leftover", path.name, "removed", ("whoever was making it has died",), size_bytes)

    def _half_written(self) -> list[Path]:
        """Return records that were not renamed into place, and what was prepared for a quarantine and not needed."""
        folders = (self._root.path, self._root.records, self._root.caches)
        found = [path for folder in folders for path in folder.glob(".*.json.*")]
        found += [path for path in folders_in(self._root.quarantine) if not os.path.lexists(path / "tree")]
        return [path for path in found if self._root.clock.now() - newest_change(path) > LEFTOVER_AGE_S]

    def quarantined(self) -> Iterator[Fate]:
        """Say what lies in quarantine. It is never removed."""
        sizes = usage(self._root).quarantine
        for path in folders_in(self._root.quarantine):
            if not os.path.lexists(path / "tree"):
                continue
            why = ("it holds unsaved work; NOTE.md in it says how to get it back",)
            yield Fate("quarantine", path.name, "kept", why, path=str(path), size_bytes=sizes.get(path.name))


def _is_path(cwd: str | None) -> bool:
    return cwd is not None and cwd.startswith("/") and "\0" not in cwd


def _branch_of(tree: Path) -> str | None:
    with suppress(Damaged, ValueError):
        found = _BRANCH.fullmatch(read_plain(tree / ".git" / "HEAD") or b"")
        return found[1].decode() if found else None
    return None


def _words(age_s: float) -> str:
    for unit, seconds in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if age_s >= 2 * seconds:
            return f"{age_s / seconds:.0f} {unit}"
    return f"{max(age_s, 0):.0f} seconds"
