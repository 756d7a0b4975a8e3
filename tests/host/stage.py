"""Workers and agents that are no real ones, in folders with difficult names, and a way to see all their processes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from everturn.host import guard
from polling import wait_until

# Agents are found on the whole host, and tests run in several processes.
SESSION = str(uuid.uuid4())
RUN = f"run-{SESSION[:8]}"
TESTS = str(Path(__file__).parents[1])
QUOTED = """it's a "state" $HOME folder"""
# A loop of short steps, as a tool that works for long.
LOOP = "while :; do sleep 0.05; done"
# What an agent may start: in the background, in a session of its own, orphaned, without an environment, deaf.
TOOLS = f"""
here=$(dirname "$0")
sh -c '{LOOP}' "$here" background &
nohup sh -c '{LOOP}' "$here" nohup >/dev/null 2>&1 &
setsid sh -c '{LOOP}' "$here" setsid &
(setsid sh -c '{LOOP}' "$here" orphan &)
(setsid env -i /bin/sh -c 'PATH=/bin:/usr/bin; {LOOP}' "$here" bare &)
(setsid sh -c 'trap "" TERM HUP INT; {LOOP}' "$here" deaf &)
"""
LEASE_S = 600.0
TOOL_COUNT = 6


def say(**values: Any) -> None:
    """Tell the test something, from a worker's process."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


class Stage:
    """A folder with a worker, its runs, an agent and the agent's home.

    Args:
        folder: Where all of it is. What has this in its command line is ours.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / QUOTED / "runs"
        self.config_dir = folder / "config dir"
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)

    def agent(self, body: str) -> Path:
        """Write an agent command: a shell script that says `ready` when it has begun."""
        path = self.folder / QUOTED / "the agent"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o700)
        return path

    def busy_agent(self, then: str = LOOP) -> Path:
        """Write an agent that starts all kinds of tools, and then does something."""
        return self.agent(f"trap '' TERM\n{TOOLS}\necho ready\n{then}")

    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "TMPDIR": str(self.temporary),
            "CLAUDE_CONFIG_DIR": str(self.config_dir),
            "LANG": "C.UTF-8",
        }

    @contextlib.contextmanager
    def worker(self, agent: Path, *arguments: str, **plan: Any) -> Iterator[Worker]:
        """Start a worker with an agent. At the end of the block nothing of them may be left; what is, is killed."""
        defaults = {"run_id": RUN, "session_id": SESSION, "epoch": 1, "portable": False}
        whole = {**defaults, "runs": str(self.runs), "agent": str(agent), "arguments": arguments, **plan}
        environment = {**self.environment(), **whole.pop("environment", {})}
        program = Path(__file__).with_name(whole.pop("program", "worker.py"))
        apart = whole.pop("start_new_session", False)
        process = subprocess.Popen(
            [sys.executable, str(program), json.dumps(whole)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**{name: value for name, value in environment.items() if value}, "PYTHONPATH": TESTS},
            start_new_session=apart,
            text=True,
        )
        try:
            yield Worker(process)
            process.kill()
            process.wait()
            self.wait_until_empty()
        finally:
            for left in [process, *self.processes()]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    left.kill()
            process.communicate()

    def processes(self) -> list[psutil.Process]:
        """Return all processes that have this folder in their command line, and are alive."""
        return [process for process, _ in self._command_lines()]

    def tools(self) -> list[str]:
        """Return the kinds of tools that are alive. What one has just forked is called as it is."""
        return sorted({line[-1] for _, line in self._command_lines() if line[1:2] == ["-c"]})

    def _command_lines(self) -> Iterator[tuple[psutil.Process, list[str]]]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess):
                line = process.cmdline()
                if str(self.folder) in " ".join(line) and process.status() != psutil.STATUS_ZOMBIE:
                    yield process, line

    def end_lease(self, run_id: str = RUN) -> None:
        """Write down that the lease has run out, as its worker cannot."""
        (self.runs / run_id / "lease").write_bytes(guard.lease_text(guard.elapsed_s()))

    def wait_until_empty(self, timeout_s: float = 5.0) -> None:
        wait_until(lambda: not self.processes(), "all processes are gone", timeout_s)

    def notes(self, run_id: str = RUN) -> dict[str, Any]:
        """Return what the guard has noted so far."""
        path = self.runs / run_id / "agent.json"
        found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        return found


class Worker:
    """A worker that runs.

    Args:
        process: It.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._passed: list[str] = []

    def wait_for(self, wanted: str) -> str:
        """Return the first line that holds some text, each line once. Worker and agent share the standard output, so
        their lines come in any order."""
        assert self.process.stdout is not None
        for line in self._passed:
            if wanted in line:
                self._passed.remove(line)
                return line
        while wanted not in (line := self.process.stdout.readline().strip()):
            assert line or self.process.poll() is None, self.process.communicate()[1]
            self._passed.append(line)
        return line

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
