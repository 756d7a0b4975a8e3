"""How much room everything takes. It is measured in the background and noted; whoever asks reads the notes."""

from __future__ import annotations

import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from contextvars import Context
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from everturn.errors import EverturnError, Unavailable
from everturn.git.runner import Git
from everturn.git.shadow import Shadow
from everturn.git.untrusted import Damaged, survey
from everturn.log.background import start_thread
from everturn.model import repository_name
from everturn.telemetry import Metrics, get_logger
from everturn.workdirs.records import CacheRecord, WorkdirRecord
from everturn.workdirs.rescuer import shadow_of
from everturn.workdirs.root import MEASURED, Root, read_json

BLOCK_BYTES = 512  # what st_blocks counts in, whatever the file system does

Record = TypeVar("Record", WorkdirRecord, CacheRecord)
AnyRecord = TypeVar("AnyRecord", bound=WorkdirRecord | CacheRecord)


@dataclass(frozen=True, slots=True)
class Size:
    """What a folder takes.

    Attributes:
        bytes: Room on the disk, which is less than the files' lengths if there are holes in them, and mostly more.
        files: How many there are, folders not counted.
    """

    bytes: int = 0
    files: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(self.bytes + other.bytes, self.files + other.files)


@dataclass(frozen=True, slots=True)
class Space:
    """A disk.

    Attributes:
        total_bytes: Its size.
        free_bytes: What we may still fill of it.
    """

    total_bytes: int
    free_bytes: int


def space_of(path: Path) -> Space:
    """Return the disk that a folder is on. A folder that is not there yet is on that of the next one above it."""
    while not path.exists() and path != path.parent:
        path = path.parent
    found = shutil.disk_usage(path)
    return Space(found.total, found.free)


def measure(path: Path) -> Size:
    """Measure a folder, or a file. Blocks for as long as it takes to look at every file in it.

    Each file counts once, however many names it has. No link is followed, and no other file system entered. What
    vanishes meanwhile, what may not be read, and what lies too deep for a path does not count.
    """
    try:
        top = path.lstat()
    except OSError:
        return Size()
    total_bytes, files = top.st_blocks * BLOCK_BYTES, int(not stat.S_ISDIR(top.st_mode))
    seen: set[int] = set()
    for found in _walk(path, top):
        if found.st_ino in seen:
            continue
        if not stat.S_ISDIR(found.st_mode):
            files += 1
            if found.st_nlink > 1:
                seen.add(found.st_ino)
        total_bytes += found.st_blocks * BLOCK_BYTES
    return Size(total_bytes, files)


def newest_change(path: Path) -> float:
    """Return when something in a folder, or the folder itself, was last changed: seconds since the Unix epoch, by the
    clock of its file system; 0 if it is not there."""
    try:
        top = path.lstat()
    except OSError:
        return 0.0
    return max([top.st_mtime, *(found.st_mtime for found in _walk(path, top))])


def _walk(path: Path, top: os.stat_result) -> Iterator[os.stat_result]:
    waiting = [str(path)] if stat.S_ISDIR(top.st_mode) else []
    while waiting:
        for name, found in _look_into(waiting.pop()):
            if found.st_dev != top.st_dev:
                continue
            if stat.S_ISDIR(found.st_mode):
                waiting.append(name)
            yield found


def _look_into(folder: str) -> list[tuple[str, os.stat_result]]:
    """Return what is in a folder. Nothing is left open, whatever becomes of who asks."""
    seen = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                seen.append((entry.path, entry.stat(follow_symlinks=False)))
    return seen


def ignored_in(shadow: Shadow) -> Size | None:
    """Measure the files of a workdir that git ignores; `None` if it cannot be looked at."""
    if shadow.damage is not None:
        return None
    try:
        survey(shadow.tree)
    except Damaged:
        return None
    names = shadow.run(["ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z"])
    return sum((measure(shadow.tree / name) for name in names.split("\0") if name), Size())


class Measurer:
    """Measures workdirs and caches, and notes what it finds in their records.

    A record belongs to whoever holds the lock of its workdir or cache. So sizes are noted when nobody is at work
    there; what is in use keeps those that it had.

    Args:
        root: Where they are.
        git: Runs git.
        metrics: Where the sums are shown.
    """

    def __init__(self, root: Root, git: Git, metrics: Metrics) -> None:
        self._root = root
        self._git = git
        self._metrics = metrics
        self._mutex = threading.Lock()
        self._wanted: dict[str, None] = {}
        self._busy: set[str] = set()  # of the wanted ones, those that were in use when it was their turn
        self._is_running = False
        self._log = get_logger()

    def ask(self, name: str) -> None:
        """Have a workdir and its cache measured soon, by a thread in the background. Returns at once.

        Args:
            name: The workdir. One that a run is at work in is measured after a later call.
        """
        with self._mutex:
            self._wanted[name] = None
            self._busy.clear()  # their runs may be over
            if not self._is_running:
                thread = Context().run(start_thread, self._work, "everturn-measuring")
                self._is_running = thread is not None

    def workdir(self, name: str) -> WorkdirRecord | None:
        """Measure a workdir, now. Blocks, but holds its lock for a moment only. On return its record is durable.

        Args:
            name: The workdir.

        Returns:
            Its record; `None`: there is none, or a run is at work in it.

        Raises:
            EverturnError: git failed, or nothing can be written.
        """
        record = WorkdirRecord.read(self._root, name)
        if record is None:
            return None
        size = measure(record.tree(self._root))
        with shadow_of(self._root, self._git, record) as shadow:
            ignored = ignored_in(shadow)
        lock = self._root.try_workdir(name)
        if lock is None:
            return None
        try:
            return self._note(
                WorkdirRecord.read(self._root, name),
                size_bytes=size.bytes,
                ignored_bytes=None if ignored is None else ignored.bytes,
            )
        finally:
            lock.release()

    def cache(self, name: str) -> CacheRecord | None:
        """Measure a cache, now. Blocks, but holds its lock for a moment only. On return its record is durable.

        Returns:
            Its record; `None`: there is none, or somebody is at work on it.

        Raises:
            Denied: Nothing can be written.
        """
        size = measure(self._root.caches / name)
        with suppress(Unavailable), self._root.locked_cache(name, 0):
            return self._note(CacheRecord.read(self._root, name), size_bytes=size.bytes)
        return None

    def _note(self, record: Record | None, **sizes: int | None) -> Record | None:
        if record is None:
            return None
        record = record.but(**sizes, measured_at=self._root.clock.now())
        record.write(self._root)
        return record

    def refresh(self) -> None:
        """Measure all that was never measured, or was used since, and what lies in quarantine. Blocks.

        What cannot be measured is left as it was, and the others are measured all the same.

        Raises:
            Denied: Nothing can be written.
        """
        for workdir in [each for each in WorkdirRecord.all(self._root) if _is_due(each)]:
            self._quietly(self.workdir, workdir.name)
        for cache in [each for each in CacheRecord.all(self._root) if _is_due(each)]:
            self._quietly(self.cache, cache.name)
        self._note_rest()
        self.show()

    def show(self) -> None:
        """Bring the metrics up to what is noted."""
        found = usage(self._root)
        for kind, size_bytes in (
            ("trees", found.trees_bytes),
            ("caches", found.caches_bytes),
            ("quarantine", found.quarantine_bytes),
        ):
            self._metrics.workdirs_bytes.labels(kind).set(size_bytes)

    def _work(self) -> None:
        while (name := self._next()) is not None:
            record = self._quietly(self.workdir, name)
            if record is None:
                self._forget(name, unless_there=True)
            else:
                self._forget(name)
                self._quietly(self.cache, record.cache)
        with suppress(EverturnError, OSError):
            self.show()

    def _next(self) -> str | None:
        """Return the next one, or `None`: there is none, and whoever asks from now on needs another thread."""
        with self._mutex:
            name = next((each for each in self._wanted if each not in self._busy), None)
            if name is not None:
                self._busy.add(name)
            self._is_running = name is not None
            return name

    def _forget(self, name: str, *, unless_there: bool = False) -> None:
        if not unless_there or not (self._root.trees / name).exists():
            with self._mutex:
                self._wanted.pop(name, None)
                self._busy.discard(name)

    def _quietly(self, measure_one: Callable[[str], Record | None], name: str) -> Record | None:
        """Nothing depends on it, and the next sweep tries again."""
        try:
            return measure_one(name)
        except (EverturnError, OSError) as error:
            self._log.warning("workdir_not_measured", name=name, error=str(error))
            return None

    def _note_rest(self) -> None:
        """What lies in quarantine does not change, so it is measured once."""
        old, _ = _noted(self._root)
        found = folders_in(self._root.quarantine)
        sizes = {path.name: old[path.name] if path.name in old else measure(path).bytes for path in found}
        trash_bytes = measure(self._root.path / "trash").bytes
        facts = {"quarantine": sizes, "trash_bytes": trash_bytes, "measured_at": self._root.clock.now()}
        self._root.write_record(self._root.path / MEASURED, facts)


def folders_in(folder: Path) -> list[Path]:
    """Return the folders in a folder, links to some left out, in the order of their names."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return []


def _is_due(record: WorkdirRecord | CacheRecord) -> bool:
    return record.size_bytes is None or record.measured_at is None or record.measured_at < record.last_used_at


@dataclass(frozen=True, slots=True)
class Usage:
    """How much room everything takes, as it was when it was last measured.

    Attributes:
        trees_bytes: All workdirs.
        ignored_bytes: How much of that are files that git ignores.
        caches_bytes: All caches.
        quarantine_bytes: What lies in quarantine.
        trash_bytes: What was still to be deleted.
        unmeasured: How many workdirs and caches were never measured, and are in no sum.
        measured_at: When the oldest of these measurements was made; `None`: nothing was measured.
        disk_total_bytes: The size of the disk, now.
        disk_free_bytes: What is free of it, now.
        by_repository: Workdirs and caches, by repository.
        by_agent: Workdirs, by agent; those that belong to none under the empty name.
        workdirs: Each of them; `None`: never measured. The same for caches.
        caches: Each of them.
        quarantine: Each of what lies there.
    """

    trees_bytes: int
    ignored_bytes: int
    caches_bytes: int
    quarantine_bytes: int
    trash_bytes: int
    unmeasured: int
    measured_at: float | None
    disk_total_bytes: int
    disk_free_bytes: int
    by_repository: dict[str, int]
    by_agent: dict[str, int]
    workdirs: dict[str, int | None]
    caches: dict[str, int | None]
    quarantine: dict[str, int]

    def facts(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def usage(root: Root, space: Callable[[Path], Space] = space_of) -> Usage:
    """Return how much room everything takes. Reads notes only, so it takes no longer for large workdirs.

    Args:
        root: Where everything is. There may be nothing.
        space: Tells the disk's size.
    """
    workdirs, caches = list(WorkdirRecord.all(root)), list(CacheRecord.all(root))
    quarantine, trash_bytes = _noted(root)
    disk = space(root.path)
    all_of_them: list[WorkdirRecord | CacheRecord] = [*workdirs, *caches]
    return Usage(
        trees_bytes=_sum(workdirs),
        ignored_bytes=sum(each.ignored_bytes or 0 for each in workdirs),
        caches_bytes=_sum(caches),
        quarantine_bytes=sum(quarantine.values()),
        trash_bytes=trash_bytes,
        unmeasured=sum(each.size_bytes is None for each in all_of_them),
        measured_at=min((each.measured_at for each in all_of_them if each.measured_at is not None), default=None),
        disk_total_bytes=disk.total_bytes,
        disk_free_bytes=disk.free_bytes,
        by_repository=_grouped(all_of_them, lambda each: repository_name(each.repo)),
        by_agent=_grouped(workdirs, lambda each: each.agent or ""),
        workdirs={each.name: each.size_bytes for each in workdirs},
        caches={each.name: each.size_bytes for each in caches},
        quarantine=quarantine,
    )


def _noted(root: Root) -> tuple[dict[str, int], int]:
    """Return the sizes of what lies in quarantine, and that of the trash."""
    noted = read_json(root.path / MEASURED) or {}
    sizes, trash_bytes = noted.get("quarantine"), noted.get("trash_bytes")
    return (
        {name: size for name, size in sizes.items() if isinstance(size, int)} if isinstance(sizes, dict) else {},
        trash_bytes if isinstance(trash_bytes, int) else 0,
    )


def _sum(records: Iterable[WorkdirRecord | CacheRecord]) -> int:
    return sum(each.size_bytes or 0 for each in records)


def _grouped(records: Iterable[AnyRecord], key: Callable[[AnyRecord], str]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for each in records:
        sums[key(each)] = sums.get(key(each), 0) + (each.size_bytes or 0)
    return dict(sorted(sums.items()))
