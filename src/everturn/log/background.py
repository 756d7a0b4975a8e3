"""Threads in the background of a writer. They may die with the process at any moment."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

from everturn.telemetry import carrying_run


def start_thread(work: Callable[[], None], name: str) -> Thread | None:
    """Start a thread that does not keep the process alive, or return `None` if there is none to be had.

    It logs as the run that started it. From Python 3.12 on, an interpreter that is shutting down starts no threads.
    What is stored at exit must not fail for that.
    """
    thread = Thread(target=carrying_run(work), name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread
