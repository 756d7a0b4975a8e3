"""A program that frees what an issue held, and kills itself when it is about to change the state of things.

    python -m housekeeping.dying housekeeping.free_once < orders > answers

It dies before its change number `changes`, or ends and returns how many there were. The end of a session is a change.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from everturn.clock import ManualClock
from everturn.registry import SqliteRegistry
from housekeeping.ground import Ground, freeing, issue_closed
from housekeeping.sweep_once import Killer


class Mortal(SqliteRegistry):
    """A registry whose worker may die before it drops a session."""

    killer: Killer

    def drop(self, *arguments: Any, **more: Any) -> bool:
        self.killer("os.rename", ())
        return super().drop(*arguments, **more)


def main(folder: str, origin: str, now: str, changes: str) -> int:
    ground = Ground(Path(folder), Path(origin), clock=ManualClock(float(now)))
    registry = Mortal(ground.folder / "registry.db", clock=ground.clock)
    registry.killer = Killer(int(changes))
    ground.registry = registry
    free = freeing(ground)
    holdings = free.look()
    sys.addaudithook(registry.killer)
    free.free(issue_closed(ground), holdings)
    return registry.killer.count
