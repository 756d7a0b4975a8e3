"""Where a run works: a directory of its caller's, or a workdir that is this run's alone until it lets go of it."""

from __future__ import annotations

import threading
from functools import partial

from everturn.host.agents import END_AGENTS_S, end_agents_of_run
from everturn.model import WorkItem
from everturn.workdirs import Workdir, Workdirs


class Place:
    """A workdir that is opened in one thread, and let go of in another, whichever comes first.

    Opening may take minutes, and is left to itself when the run is to stop. What it opens after that is closed at
    once: nobody else could get at it as long as this process lives.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workdir: Workdir | None = None
        self._is_over = False

    def open(  # what to open, and until when
        self,
        workdirs: Workdirs,
        work: WorkItem,
        branch: str | None,
        *,
        keep: bool,
        run_id: str,
        stop: threading.Event,
    ) -> Workdir:
        """Open a workdir for a run that has its work item's claim. Blocks.

        Raises:
            EverturnError: As `Workdirs.open`.
        """
        vacate = partial(end_agents_of_run, timeout_s=END_AGENTS_S)
        workdir = workdirs.open(work, branch, keep=keep, run_id=run_id, vacate=vacate, overtake=True, stop=stop)
        with self._lock:
            if not self._is_over:
                self._workdir = workdir
                return workdir
        workdir.close()
        return workdir

    def close(self) -> None:
        """Let go of the workdir, if there is one, and of one that comes later."""
        with self._lock:
            self._is_over = True
            workdir, self._workdir = self._workdir, None
        if workdir is not None:
            workdir.close()
