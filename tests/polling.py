"""Waiting for what happens in other threads and processes: look again and again, up to a deadline."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

WAIT_S = 20.0
PAUSE_S = 0.01

Result = TypeVar("Result")


def wait_until(look: Callable[[], Result], what: str, timeout_s: float = WAIT_S) -> Result:
    """Look until there is something true to see, and return it."""
    deadline_s = time.monotonic() + timeout_s
    pause = threading.Event()
    while not (seen := look()):
        if time.monotonic() > deadline_s:
            raise AssertionError(f"after {timeout_s:g} s there was still no sign of this: {what}")
        pause.wait(PAUSE_S)
    return seen


def is_alive(pid: int) -> bool:
    """Tell whether a process is there and not just waiting to be reaped."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def children() -> list[psutil.Process]:
    """Return the processes below this one that are alive."""
    return [process for process in psutil.Process().children(recursive=True) if is_alive(process.pid)]


def processes_below(folder: Path) -> list[int]:
    """Find processes by the folder for temporary files that they have inherited."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if f"{folder}/" in process.environ().get("TMPDIR", "") and is_alive(process.pid):
                found.append(process.pid)
    return found
