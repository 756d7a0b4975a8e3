"""Where a mirror's file is, and how another one takes its place.

SQLite keeps more files beside a database, by its name, and whoever closes an old one last deletes them by that name.
That is why no database ever has the name that another one had. A link that everybody opens points to the one that
counts (docs/decisions/0033-mirrors-by-run.md).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from everturn.clock import Clock, Ids
from everturn.databases import is_full
from everturn.errors import Unavailable
from everturn.git import locks
from everturn.mirrors.database import explained

LOCK_TIMEOUT_S = 3600.0


class Place:
    """The files of one mirror.

    Args:
        folder: Their folder; it is made when it is needed.
        clock: Waits for locks.
        ids: Makes names.
        name: How their names begin.
        suffix: How the name of the file, or the folder, that counts ends.
    """

    def __init__(self, folder: Path, clock: Clock, ids: Ids, name: str = "sqlite", suffix: str = ".db") -> None:
        self.folder = folder
        self.current = folder / f"{name}{suffix}"
        self.coming = folder / f"{name}.new"
        self.first = folder / f"{name}.first"
        self._clock = clock
        self._ids = ids
        self._name = name
        self._suffix = suffix
        self._ours = re.compile(rf"({name}-[0-9a-f]{{16}}{re.escape(suffix)})(?:-wal|-shm|-journal)?")

    @contextmanager
    def locked(self, *, wait: bool = True) -> Iterator[bool]:
        """Be the only one to change which file counts, or to rebuild it.

        Args:
            wait: Wait for whoever does so now; if not, the block is entered all the same.

        Yields:
            Whether it is ours.

        Raises:
            Denied: The folder cannot be used.
            Unavailable: It took too long.
        """
        timeout_s = LOCK_TIMEOUT_S if wait else 0
        with explained(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = locks.take(self.folder / f"{self._name}.lock", clock=self._clock, timeout_s=timeout_s)
        if lock is None and wait:
            raise Unavailable(f"the mirror {self.folder} has been locked for an hour", hint="try again later")
        try:
            yield lock is not None
        finally:
            if lock is not None:
                lock.release()

    def target(self, link: Path) -> Path | None:
        """Return what a link points to, or `None` if it is no link of ours, or nothing is there."""
        while True:
            name = self._named(link)
            if name is None:
                return None
            file = self.folder / name
            if file.exists() and not file.is_symlink():
                return file
            if self._named(link) == name:  # if not, it has been replaced while we looked
                return None

    def is_foreign(self, link: Path) -> bool:
        """Tell whether something else stands in the place of a link of ours."""
        return os.path.lexists(link) and self._named(link) is None

    def _named(self, link: Path) -> str | None:
        try:
            name = str(link.readlink())
        except OSError:
            return None
        found = self._ours.fullmatch(name)
        return name if found is not None and found[1] == name else None

    def point(self, link: Path) -> Path:
        """Have a link point to something that is still to be made, and return that. For whoever holds the lock."""
        file = self.folder / f"{self._name}-{self._ids.token()}{self._suffix}"
        _remove(link)
        link.symlink_to(file.name)
        return file

    @contextmanager
    def turn_to_rebuild(self, path: Path, is_usable: Callable[[], bool]) -> Iterator[bool]:
        """Enter when nobody else is rebuilding. What was begun goes if there is no room: that is needed most.

        Args:
            path: The link that is to lead to the new file.
            is_usable: Tells whether what it leads to will do.

        Yields:
            `False`: there is nothing to do, as somebody else has rebuilt it while we waited.
        """
        before = self.target(path)
        with self.locked():
            if self.target(path) != before and is_usable():
                yield False
                return
            try:
                yield True
            except Unavailable as error:
                if is_full(error.__cause__):
                    self.drop(self.coming)
                raise

    def publish(self, link: Path) -> None:
        """Let the file that a link points to be the one that counts. Whoever reads the old one can go on to do so."""
        if self.current.is_dir() and not self.current.is_symlink():
            _remove(self.current)
        link.replace(self.current)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.tidy()

    def drop(self, link: Path) -> None:
        """Throw away what a link points to. For whoever holds the lock."""
        _remove(link)
        self.tidy()

    def tidy(self) -> None:
        """Delete what no link points to. For whoever holds the lock."""
        kept = {str(link.readlink()) for link in (self.current, self.coming) if link.is_symlink()}
        for path in sorted(self.folder.iterdir()):  # the database comes before the files beside it
            found = self._ours.fullmatch(path.name)
            if found is not None and found[1] not in kept:
                _remove(path)


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        if not path.is_dir() or path.is_symlink():
            raise
        shutil.rmtree(path)
