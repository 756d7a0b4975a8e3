"""Locks that the kernel frees when everybody who holds them is gone: this process, and the git that it has started.

A git that is orphaned goes on writing for a while. It has been given the lock, so nobody begins until it is done.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

from everturn.clock import Clock
from everturn.errors import Unavailable

PAUSE_S = 0.02


class Lock:
    """A lock that is held.

    Attributes:
        descriptor: The open file. A child that inherits it holds the lock, too.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def release(self) -> None:
        """Let go of it, for children as well. A second time does nothing."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def take(path: Path, *, clock: Clock, timeout_s: float = 0, stop: threading.Event | None = None) -> Lock | None:
    """Take a lock.

    Args:
        path: Its file; it is made, and stays.
        clock: Tells the time, and waits.
        timeout_s: How long to wait for whoever has it; 0: not at all.
        stop: Once it is set, the waiting ends.

    Returns:
        The lock, or `None`: somebody has it, in this process or in another one.

    Raises:
        OSError: The file cannot be made, or the file system has no locks.
        Unavailable: The waiting was ended.
    """
    deadline = clock.elapsed() + timeout_s
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            is_ours = _wait(descriptor, clock, deadline, stop)
            if is_ours and _is_at(descriptor, path):
                return Lock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if not is_ours:
            return None


def _is_at(descriptor: int, path: Path) -> bool:
    """Tell whether the file has not been deleted meanwhile: then others lock the one that is there now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _wait(descriptor: int, clock: Clock, deadline: float, stop: threading.Event | None) -> bool:
    while not _try(descriptor):
        if stop is not None and stop.is_set():
            raise Unavailable("the wait for a lock was stopped", hint="run it again")
        if clock.elapsed() >= deadline:
            return False
        clock.sleep(PAUSE_S)
    return True


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
