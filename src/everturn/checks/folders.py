"""Folders on this machine: can be written, have room, lock, and let programs start."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

import psutil

from everturn.checks.findings import Finding, Status, failed, passed, warned
from everturn.errors import Denied

MIB = 1 << 20
GIB = 1 << 30
LITTLE_BYTES = GIB
LEAST_BYTES = 100 * MIB
LITTLE_INODES = 10_000
LEAST_INODES = 100
LOCK_TIMEOUT_S = 10.0
SHARED = ("nfs", "cifs", "smb", "fuse.", "9p", "lustre", "ceph", "glusterfs", "gpfs", "afs")

# Another process: within one, locks of the POSIX kind never meet.
_TAKE_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(0)
sys.exit(3)
"""
_BOTH_HOLD_IT = 3


def space(name: str, folder: Path, *, little: int = LITTLE_BYTES, least: int = LEAST_BYTES) -> Finding:
    """Look how much room there is.

    Args:
        name: What to call it.
        folder: Where; it need not exist.
        little: Fewer bytes than this are a warning.
        least: Fewer bytes than this are a failure.
    """
    room = os.statvfs(nearest(folder))
    free = room.f_bavail * room.f_frsize
    message = f"{_bytes(free)} free"
    status: Status = "fail" if free < least else "warn" if free < little else "pass"
    if room.f_files:  # some file systems make inodes as they go
        message += f", {room.f_favail:,} inodes"
        few: Status = "fail" if room.f_favail < LEAST_INODES else "warn" if room.f_favail < LITTLE_INODES else "pass"
        status = few if status == "pass" or few == "fail" else status
    mend = "" if status == "pass" else f"free some room on the disk of {folder}, or name a folder on another one"
    return Finding(name, status, message, mend)


def folder(name: str, path: Path, mend: str, *, must_execute: bool) -> Iterator[Finding]:
    """Look at a folder that runs work in.

    Args:
        name: The group of the findings.
        path: The folder; it need not exist.
        mend: Which setting names another one.
        must_execute: Whether programs that cannot be started from it are a failure, and not just a warning.
    """
    yield space(f"{name}.space", path)
    with scratch(path) as place:
        (place / "probe").write_bytes(bytes(4096))
        made = "can be written" if path.is_dir() else "will be made when it is needed"
        yield passed(f"{name}.folder", f"{path} {made}")
        yield locks(f"{name}.locks", place, mend)
        yield _execution(f"{name}.programs", place, mend, must_execute=must_execute)


def locks(
    name: str, place: Path, mend: str, flock: Callable[[Any, int], None] = fcntl.flock, kind: str | None = None
) -> Finding:
    """Look whether files can be locked.

    Args:
        name: What to call it.
        place: A folder to try it in.
        mend: Which setting names another one.
        flock: For tests.
        kind: For tests: the type of the file system.
    """
    kind = kind or file_system(place)
    file = place / "lock"
    file.touch()
    try:
        refused = _locks_twice(file, flock)
    except OSError as error:
        refused = os.strerror(error.errno or errno.EINVAL)
    if refused:
        return failed(name, f"files cannot be locked here ({kind}): {refused}", mend)
    if kind.startswith(SHARED):
        message = f"they work, but {kind} may be shared: other machines may not see them, nor what SQLite maps"
        return warned(name, message, mend)
    return passed(name, f"work ({kind})")


def _locks_twice(file: Path, flock: Callable[[Any, int], None]) -> str:
    """Return what is wrong with locks, or nothing."""
    with file.open("r+b") as one, file.open("r+b") as two:
        flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.lockf(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            return "two hold the same lock (flock)"
        command = [sys.executable, "-I", "-S", "-c", _TAKE_LOCK, str(file)]
        try:
            other = subprocess.run(command, env={}, timeout=LOCK_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            return f"a process that asks for a lock had no answer in {LOCK_TIMEOUT_S:g} s"
    if other.returncode == _BOTH_HOLD_IT:
        return "two processes hold the same lock (fcntl)"
    return f"{sys.executable} could not be started to try it" if other.returncode else ""


def _execution(name: str, place: Path, mend: str, *, must_execute: bool) -> Finding:
    program = place / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    if os.access(program, os.X_OK):  # on Linux it is not, on a noexec mount, for root neither
        return passed(name, "can be started from it")
    tell = failed if must_execute else warned
    return tell(name, "cannot be started from it: it is mounted noexec", mend)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Make a folder to try things in where another one is, or will be, and take it away again.

    Raises:
        Denied: It cannot be made.
    """
    there = nearest(folder)
    try:
        place = Path(tempfile.mkdtemp(prefix=".everturn-doctor-", dir=there))
    except OSError as error:
        if error.errno == errno.EROFS:
            hint = "mount it writable, or name another folder"
        elif error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some room, or name another folder"
        else:
            hint = "give this user the right to write there, or name another folder"
        raise Denied(f"cannot write in {there}: {error.strerror}", hint=hint) from error
    try:
        yield place
    finally:
        rmtree(place, ignore_errors=True)


def nearest(path: Path) -> Path:
    """Return a folder, or the nearest above it that exists.

    Raises:
        Denied: There is a file where the folder should be.
    """
    found = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not found.is_dir():
        raise Denied(f"{found} is no folder", hint="name a folder, or move the file away")
    return found


def file_system(path: Path) -> str:
    """Return the type of the file system that holds a path."""
    resolved = path.resolve()
    mounts = [mount for mount in psutil.disk_partitions(all=True) if resolved.is_relative_to(mount.mountpoint)]
    return max(mounts, key=lambda mount: len(mount.mountpoint)).fstype if mounts else "unknown"


def _bytes(count: int) -> str:
    return f"{count / GIB:,.1f} GiB" if count >= GIB else f"{count / MIB:,.0f} MiB"
