"""A machine that dies: a worker with all its children, killed at once with SIGKILL, as when the power goes."""

from __future__ import annotations

import contextlib

import psutil

GONE_TIMEOUT_S = 10.0


def kill_machine(pid: int) -> list[int]:
    """Kill a process and everything below it, and wait until they are gone.

    Everything is stopped first, so that nothing can start something new or notice that something else has died.

    Args:
        pid: The worker's process.

    Returns:
        The ids of the processes that were killed.

    Raises:
        TimeoutError: Something is still there after ten seconds.
    """
    frozen: dict[int, psutil.Process] = {}
    while fresh := [process for process in _tree(pid) if process.pid not in frozen]:
        for process in fresh:
            frozen[process.pid] = process
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
    for process in frozen.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _, alive = psutil.wait_procs(list(frozen.values()), timeout=GONE_TIMEOUT_S)
    left = [process.pid for process in alive if _is_left(process)]
    if left:
        raise TimeoutError(f"processes {left} are still there")
    return sorted(frozen)


def _is_left(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it was still there a moment ago
        return False


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
