"""A program that is at work in the workdir of an issue until it is told to end, or is killed.

    python -m housekeeping.at_work FOLDER ORIGIN NOW BRANCH

It claims the issue, unless it finds it claimed, opens its workdir and prints a line; on the end of its input it lets
go of both.
"""

from __future__ import annotations

import sys
from pathlib import Path

from everturn.clock import ManualClock
from everturn.errors import Held
from everturn.model import Holder
from housekeeping.ground import Ground, issue


def main(folder: str, origin: str, now: str, branch: str) -> None:
    ground = Ground(Path(folder), Path(origin), clock=ManualClock(float(now)))
    work = issue(ground)
    try:
        claim = ground.registry.claim(work, Holder("w2", "run-2", "manual"), ttl_s=3600)
    except Held:
        claim = None
    workdir = ground.workdirs.open(work, branch or None, run_id="run-2")
    if claim is not None:
        ground.registry.confirm(claim, str(workdir.path))
    sys.stdout.write("at work\n")
    sys.stdout.flush()
    sys.stdin.read()
    workdir.close()
    if claim is not None:
        ground.registry.release(claim)


if __name__ == "__main__":
    main(*sys.argv[1:])
