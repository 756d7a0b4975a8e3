"""A worker for tests: it opens a run folder and starts an agent under a guard, as a process of its own.

`python worker.py PLAN`. It says on standard output what it has done, one JSON object a line. Then it waits for words
on its standard input: `close` closes that of the agent, `lease 600` gives it ten more minutes, `end` ends the run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from everturn.clock import SystemClock
from everturn.host.folders import RunFolders
from host.stage import LEASE_S, say


def main() -> None:
    plan = json.loads(sys.argv[1])
    clock = SystemClock()
    folder = RunFolders(Path(plan["runs"]), clock=clock).open(plan["run_id"])
    folder.note(work=plan["run_id"])
    folder.extend_lease(clock.elapsed() + LEASE_S)
    launcher = folder.launcher(
        Path(plan["agent"]), session_id=plan["session_id"], epoch=plan["epoch"], portable=plan["portable"]
    )
    agent = subprocess.Popen([str(launcher), *plan["arguments"]], stdin=subprocess.PIPE)
    say(event="started", pid=agent.pid)
    for line in sys.stdin:
        word, _, seconds = line.strip().partition(" ")
        if word == "close":
            assert agent.stdin is not None
            agent.stdin.close()
            say(event="closed", code=agent.wait())
        elif word == "lease":
            folder.extend_lease(clock.elapsed() + float(seconds))
            say(event="extended")
        else:
            break
    folder.end_agent(timeout_s=10)
    agent.wait()
    say(event="ended", kept=sorted(str(path.relative_to(folder.path)) for path in folder.transcript.rglob("*.jsonl")))
    folder.close()


if __name__ == "__main__":
    main()
