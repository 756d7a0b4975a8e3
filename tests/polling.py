"""Waiting for what happens in other threads and processes: look again and again, up to a deadline."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.lowlevel
import psutil

WAIT_S = 20.0
PAUSE_S = 0.01

Result = TypeVar("Result")
Started = Callable[[], list[psutil.Process]]


def wait_until(
    look: Callable[[], Result], what: str, timeout_s: float = WAIT_S, *, pause_s: float = PAUSE_S
) -> Result:
    """Look until there is something true to see, and return it."""
    deadline_s = time.monotonic() + timeout_s
    pause = threading.Event()
    while not (seen := look()):
        _check(deadline_s, what, timeout_s)
        pause.wait(pause_s)
    return seen


async def until(look: Callable[[], Result], what: str, timeout_s: float = WAIT_S) -> Result:
    """The same in an event loop, which goes on meanwhile."""
    deadline_s = time.monotonic() + timeout_s
    while not (seen := look()):
        _check(deadline_s, what, timeout_s)
        await anyio.sleep(PAUSE_S)
    return seen


def _check(deadline_s: float, what: str, timeout_s: float) -> None:
    if time.monotonic() > deadline_s:
        raise AssertionError(f"after {timeout_s:g} s there was still no sign of this: {what}")


async def let_others_run(turns: int = 20) -> None:
    """Let whatever else an event loop has to do come to its end, as long as it waits for nothing outside."""
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()


def is_alive(pid: int) -> bool:
    """Tell whether a process is there and not just waiting to be reaped."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def children(shared: Sequence[psutil.Process] = ()) -> list[psutil.Process]:
    """Return the processes below this one that are alive, but for those that are shared and what is below them."""
    passed_over = set(shared)
    for process in shared:
        with contextlib.suppress(psutil.NoSuchProcess):
            passed_over.update(process.children(recursive=True))
    found = psutil.Process().children(recursive=True)
    return [process for process in found if process not in passed_over and is_alive(process.pid)]


def processes_below(folder: Path) -> list[int]:
    """Find processes by the folder for temporary files that they have inherited."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if f"{folder}/" in process.environ().get("TMPDIR", "") and is_alive(process.pid):
                found.append(process.pid)
    return found
