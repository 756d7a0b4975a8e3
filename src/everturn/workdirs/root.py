"""The one folder in which everything of ours about repositories lies, and what lies where in it.

    everturn-workdirs.json     says that the folder is ours
    sweep.json, measured.json  when it was last swept, and what was measured that has no record
    caches/<name>/repo.git     what a remote has; caches/<name>.json is its record
    trees/<name>/              a workdir, where an agent works; records/<name>.json is its record, and
                               records/<name>.index git's index as it was when the agent was let in
    locks/                     locks; the kernel frees those of a process that dies
    unfinished/<token>/        what is being made; a name in the folders above appears by a rename, whole
    trash/<token>/             what is being deleted
    quarantine/<name>-<time>/  what could not be deleted, with a note that says why

Who holds the lock of a cache only tries those of workdirs; who waits for both takes the workdir's first.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from everturn.clock import Clock, Ids
from everturn.errors import Conflict, Denied, EverturnError, Unavailable
from everturn.git import locks
from everturn.git.deleting import move, remove
from everturn.git.locks import Lock

MARKER = "everturn-workdirs.json"
SWEPT = "sweep.json"
MEASURED = "measured.json"
VERSION = 1
LOCK = "lock"
OUR_FILES = (MARKER, SWEPT, MEASURED)
OUR_FOLDERS = ("caches", "trees", "records", "locks", "unfinished", "trash", "quarantine")

_CONTENT = {"everturn": "workdirs", "version": VERSION}


class Root:
    """The folder.

    Args:
        path: Where it is, absolute; it need not be there. It must be on a file system with working locks.
        clock: Tells the time.
        ids: Makes names that nobody else uses.
    """

    def __init__(self, path: Path, clock: Clock, ids: Ids) -> None:
        self.path = path
        self.clock = clock
        self.ids = ids
        self.caches = path / "caches"
        self.trees = path / "trees"
        self.records = path / "records"
        self.quarantine = path / "quarantine"

    @property
    def is_there(self) -> bool:
        """Whether anything was ever made here.

        Raises:
            Denied: It may not be looked into.
        """
        try:
            return stat.S_ISREG((self.path / MARKER).stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise self.closed(error) from error

    def prepare(self) -> None:
        """Make the folder, if it is not there, and make sure that it is ours.

        Raises:
            Conflict: It is a folder of somebody else, or of a newer release.
            Denied: It cannot be made.
        """
        try:
            self._check()
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)  # what agents work on is nobody else's business
            for name in OUR_FOLDERS:
                (self.path / name).mkdir(parents=True, exist_ok=True)
            if read_json(self.path / MARKER) is None:  # a machine that lost its power may have left it empty
                self._write(self.path / MARKER, _CONTENT)
        except OSError as error:
            raise self.denied(error) from error

    def _check(self) -> None:
        found = read_json(self.path / MARKER)
        if found is None:
            ours = {*OUR_FILES, *OUR_FOLDERS}  # a start of ours that was killed, or one beside us
            begun = tuple(f".{name}." for name in OUR_FILES)
            names = [item.name for item in self.path.iterdir()] if self.path.exists() else []
            if any(name not in ours and not name.startswith(begun) for name in names):
                raise Conflict(
                    f"the folder {self.path} holds files that are not ours", hint="name an empty folder, or a new one"
                )
            return
        if found.get("version") != VERSION:
            raise Conflict(
                f"the folder {self.path} has version {found.get('version')}, this release knows version {VERSION}",
                hint="use a newer release of Everturn, or another folder",
            )

    def denied(self, error: OSError, path: Path | None = None) -> EverturnError:
        """Return an error that says what the file system would not do, and where."""
        text = f"cannot write to {path or error.filename or self.path}: {error.strerror or error}"
        return Denied(text, hint="check its permissions and the room on its disk, or name another folder")

    def closed(self, error: OSError) -> EverturnError:
        """Return an error that says what the file system does not let us look at."""
        text = f"cannot look at {error.filename or self.path}: {error.strerror or error}"
        return Denied(text, hint="ask as the user whose folder it is, or name another folder")

    def index_of(self, name: str) -> Path:
        """Return where the index of a workdir is kept as it was when an agent was let in."""
        return self.records / f"{name}.index"

    # --- Locks ----------------------------------------------------------------------------------------------------

    @contextmanager
    def locked_cache(self, name: str, timeout_s: float, stop: threading.Event | None = None) -> Iterator[Lock]:
        """Be the only one to change a cache.

        Args:
            name: The cache.
            timeout_s: How long to wait for others; 0: not at all.
            stop: Once it is set, the waiting ends.

        Raises:
            Unavailable: Another process, or thread, has it.
        """
        lock = self._take(f"cache-{name}", timeout_s, stop)
        if lock is None:
            raise Unavailable(
                f"another process has been at work on the cache {name} for {timeout_s:g} s",
                hint="wait for it, or look what it is doing",
            )
        try:
            yield lock
        finally:
            lock.release()

    def try_workdir(
        self, name: str, timeout_s: float = 0, stop: threading.Event | None = None, *, run_id: str = ""
    ) -> Lock | None:
        """Take a workdir for a run, or for its removal; whoever gets the lock releases it.

        Args:
            name: The workdir.
            timeout_s: How long to wait for whoever has it.
            stop: Once it is set, the waiting ends.
            run_id: The run that it is taken for; none if it is not for a run.

        Returns:
            The lock, or `None`: a run is at work in it.
        """
        lock = self._take(name, timeout_s, stop)
        if lock is not None:
            try:
                os.ftruncate(lock.descriptor, 0)
                os.pwrite(lock.descriptor, run_id.encode(), 0)
            except OSError as error:
                lock.release()
                raise self.denied(error) from error
        return lock

    def run_in(self, name: str) -> str:
        """Return the run that had a workdir's lock last, if it was taken for a run."""
        try:
            return (self.path / "locks" / f"{name}.lock").read_text(encoding="utf-8")
        except (OSError, ValueError):
            return ""

    def overtake(self, name: str) -> None:
        """Have the lock of a workdir be free, whoever holds it. They are not told."""
        (self.path / "locks" / f"{name}.lock").unlink(missing_ok=True)

    def _take(self, name: str, timeout_s: float, stop: threading.Event | None) -> Lock | None:
        path = self.path / "locks" / f"{name}.lock"
        try:
            return locks.take(path, clock=self.clock, timeout_s=timeout_s, stop=stop)
        except OSError as error:
            raise self.denied(error) from error

    # --- Coming and going -----------------------------------------------------------------------------------------

    @contextmanager
    def unfinished(self) -> Iterator[Path]:
        """Give a folder to make something in. What is still in it afterwards is deleted.

        The file `lock` in it is locked meanwhile: so the sweep can tell one whose maker has died.
        """
        folder = self.path / "unfinished" / self.ids.token()
        folder.mkdir(parents=True)
        lock = locks.take(folder / LOCK, clock=self.clock)
        try:
            yield folder
        finally:
            remove(folder)
            if lock is not None:
                lock.release()

    def discard(self, path: Path) -> None:
        """Have a folder or file disappear at once; `empty_trash` deletes it. One that is not there is no matter."""
        trash = self.path / "trash"
        with suppress(FileNotFoundError):
            trash.mkdir(exist_ok=True)  # somebody who needed room may have deleted it
            move(path, trash / self.ids.token())

    def empty_trash(self) -> None:
        """Delete what was discarded. Blocks; several may do it at once."""
        for path in listed(self.path / "trash"):
            remove(path)

    # --- Records --------------------------------------------------------------------------------------------------

    def write_record(self, path: Path, facts: dict[str, Any]) -> None:
        """Write a record; whoever reads sees the old one or the new one. On return it survives the process."""
        try:
            self._write(path, facts)
        except OSError as error:
            raise self.denied(error, path) from error

    def _write(self, path: Path, facts: dict[str, Any]) -> None:
        new = path.with_name(f".{path.name}.{self.ids.token()}")
        try:
            new.write_text(json.dumps(facts, indent=1), encoding="utf-8")
            new.rename(path)
        finally:
            new.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a file; `None` if there is none, or none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def listed(folder: Path) -> list[Path]:
    """Return what is in a folder, in the order of the names; nothing if it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
