"""A program that resets a workdir and sweeps all others, and kills itself when it is about to change their state.

    python -m housekeeping.dying housekeeping.sweep_once < orders > answers

It dies before its change number `changes`, or ends and returns how many there were.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from everturn.clock import ManualClock
from housekeeping.ground import Ground


class Killer:
    """Counts what changes the state of things: renames, and records that are removed. Dies in time."""

    def __init__(self, changes: int) -> None:
        self._changes = changes
        self.count = 0

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.rename" or (event == "os.remove" and str(arguments[0]).endswith(".json")):
            self.count += 1
            if self.count == self._changes:
                os.kill(os.getpid(), signal.SIGKILL)


def main(folder: str, origin: str, now: str, changes: str) -> int:
    ground = Ground(Path(folder), Path(origin), clock=ManualClock(float(now)))
    reset = next(record.name for record in ground.all() if record.agent == "reset")
    killer = Killer(int(changes))
    sys.addaudithook(killer)
    ground.removal().remove(reset, "reset")
    ground.sweeper(quota_bytes=0).sweep()
    return killer.count
