"""A machine of the demo: a folder with a home, temporary files and checkouts of its own, and a worker in it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from everturn.demo.worker import Plan
from everturn.errors import Unavailable
from everturn.testing import kill_machine

Event = dict[str, Any]


class Machine:
    """A worker in a process of its own. Leaving the block kills whatever of it is left.

    Args:
        folder: The machine's folder; made here.
        environment: The variables every machine has. Its workdirs are its own unless they say where those are.
        plan: What its worker is to do.
        tell: Called with each event of the worker, from another thread.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], plan: Plan, tell: Callable[[Event], None]
    ) -> None:
        self._tell = tell
        self._events: list[Event] = []
        self._ended = False
        self._changed = threading.Condition()
        for name in ("home", "tmp", "desk"):
            (folder / name).mkdir(parents=True)
        self._complaints = folder / "stderr.log"
        with self._complaints.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "everturn.demo.worker", json.dumps(dataclasses.asdict(plan))],
                cwd=folder / "desk",
                env={
                    "EVERTURN_WORKDIRS": str(folder / "workdirs"),
                    **environment,
                    "HOME": str(folder / "home"),
                    "TMPDIR": str(folder / "tmp"),
                    "EVERTURN_WORKER": folder.name,
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        self._reader = threading.Thread(target=self._read, name=f"demo-{folder.name}")
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._reader.join()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the worker is still there."""
        return self._process.poll() is None

    def kill(self) -> list[int]:
        """Pull the plug, and return the ids of the processes that died."""
        return kill_machine(self._process.pid)

    def wait_for(self, wanted: Callable[[list[Event]], bool], timeout_s: float) -> list[Event]:
        """Wait until the worker's events are as wanted, and return them.

        Raises:
            Unavailable: It ended first, or took too long.
        """
        with self._changed:
            done = self._changed.wait_for(lambda: wanted(self._events) or self._ended, timeout_s)
            if not done or not wanted(self._events):
                raise Unavailable(
                    f"the demo's worker did not get on: {self._last_words()}", hint="run the demo again"
                )
            return list(self._events)

    def wait(self, timeout_s: float) -> list[Event]:
        """Wait until the worker has ended, and return its events."""
        self._reader.join(timeout_s)
        if self._reader.is_alive() or self._process.wait():
            raise Unavailable(f"the demo's worker failed: {self._last_words()}", hint="run the demo again")
        return self._events

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                event = json.loads(line)
                with self._changed:
                    self._events.append(event)
                    self._changed.notify_all()
                self._tell(event)
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _last_words(self) -> str:
        errors = [event["message"] for event in self._events if event["event"] == "error"]
        complaints = self._complaints.read_text(errors="replace").strip().splitlines()
        return (errors or complaints or ["it said nothing"])[-1]
