"""The demo's fleet: a dozen runs by worker processes, with kills and takeovers, and the service to watch.

Crews play the parts, as many at a time as there are crews. What has died is gone on with by another worker; what was
merged is freed by a webhook. When all have been played, their issues are closed, and it begins anew with others: so
what lies on the disk hardly grows.
"""

from __future__ import annotations

import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from everturn.demo.fleet_ground import Ground, set_up
from everturn.demo.fleet_story import Part
from everturn.demo.machine import Event, Machine
from everturn.demo.stage import TURN_TIMEOUT_S, Tell, has_spoken_since_the_tool, has_used_a_tool
from everturn.errors import EverturnError, Unavailable

_TOLD = ("started", "tool", "result", "error")


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """What may differ from one fleet to the next.

    Attributes:
        port: The service's, on loopback; 0: any free one.
        runs: How many parts are played before it begins anew.
        once: Whether it ends then.
        crews: How many agents are at work at a time; each takes 300 MB.
    """

    port: int = 0
    runs: int = 12
    once: bool = False
    crews: int = 4


@dataclass(frozen=True, slots=True)
class FleetReport:
    """What came of it.

    Attributes:
        runs: How many runs there were, those that died among them.
        finished: How many parts were played as planned.
        killed: How many workers were killed.
        failed: How many parts were not.
    """

    runs: int
    finished: int
    killed: int
    failed: int


class Fleet:
    """Plays the parts.

    Args:
        ground: What it stands on.
        tell: Called with who acts (`demo`, or a worker) and each event, as it happens, from several threads.
        crews: How many parts are played at a time.
    """

    def __init__(self, ground: Ground, tell: Tell, crews: int) -> None:
        self._ground = ground
        self._tell = tell
        self._crews = crews
        self._lock = threading.Lock()
        self._over = False
        self._machines: set[Machine] = set()
        self._counts = {"runs": 0, "finished": 0, "killed": 0, "failed": 0}
        self._asked = False

    @property
    def report(self) -> FleetReport:
        """What has come of it so far."""
        with self._lock:
            return FleetReport(**self._counts)

    def play(self, parts: Iterable[Part]) -> None:
        """Play parts, and return when all have been played."""
        waiting = deque(parts)
        crews = [threading.Thread(target=self._work, args=(waiting,), name=f"crew-{n}") for n in range(self._crews)]
        try:
            for crew in crews:
                crew.start()
            for crew in crews:
                crew.join()
        except BaseException:
            self._tell("demo", {"event": "stopping"})
            self._stop()
            for crew in crews:
                if crew.ident is not None:
                    crew.join()
            raise

    def _stop(self) -> None:
        with self._lock:
            self._over = True
            machines = list(self._machines)
        for machine in machines:
            if machine.running:
                machine.kill()

    def _work(self, waiting: deque[Part]) -> None:
        while waiting and not self._over:
            try:
                part = waiting.popleft()
            except IndexError:
                return
            self._try(part)

    def _try(self, part: Part) -> None:
        try:
            self._play(part)
        except EverturnError as error:
            if self._over:
                return
            self._count("failed")
            self._tell("demo", {"event": "failed", "issue": part.number, "message": str(error)})
        else:
            self._count("finished")
            self._tell("demo", {"event": "finished", "issue": part.number, "kind": part.kind})

    def _play(self, part: Part) -> None:
        if part.kind in ("killed", "abandoned"):
            self._run(part, self._kill_in_the_middle)
        if part.kind == "abandoned":
            return
        self._run(part, self._await_the_end)
        if part.kind == "resumed":
            self._run(part, self._await_the_end)
        if part.kind == "merged":
            self._ground.merge(part)
            self._tell("demo", {"event": "merged", "issue": part.number, "repo": part.project.url})
        self._ask_once()

    def _run(self, part: Part, watch: Callable[[Part, str, Machine], None]) -> None:
        """Have a worker run a part, and watch it."""
        with self._lock:
            if self._over:
                raise Unavailable("the demo is over", hint="run it again")
            self._counts["runs"] += 1
            worker = f"worker-{self._counts['runs']}"
            ground = self._ground
            machine = Machine(
                ground.machine(worker),
                ground.environment,
                ground.plan(part, worker),
                partial(self._hear, worker, part),
            )
            self._machines.add(machine)
        try:
            with machine:
                watch(part, worker, machine)
        finally:
            with self._lock:
                self._machines.discard(machine)
            shutil.rmtree(ground.machine(worker), ignore_errors=True)

    def _kill_in_the_middle(self, part: Part, worker: str, machine: Machine) -> None:
        machine.wait_for(has_used_a_tool, TURN_TIMEOUT_S)
        machine.wait_for(has_spoken_since_the_tool, TURN_TIMEOUT_S)
        killed = machine.kill()
        self._count("killed")
        self._tell("demo", {"event": "killed", "issue": part.number, "worker": worker, "processes": len(killed)})

    def _await_the_end(self, _part: Part, _worker: str, machine: Machine) -> None:
        machine.wait(TURN_TIMEOUT_S * 2)

    def _ask_once(self) -> None:
        with self._lock:
            asked, self._asked = self._asked, True
        if not asked:
            self._ground.try_a_reset()
            self._tell("demo", {"event": "asked", "what": "what a reset of everything would do"})

    def _hear(self, worker: str, part: Part, event: Event) -> None:
        if event["event"] in _TOLD and not self._over:
            self._tell(worker, {**event, "issue": part.number, "repo": part.project.name})

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1


def perform_fleet(options: FleetOptions, tell: Tell) -> FleetReport:
    """Start the service and play, until all parts have been played or, if it is not to be once, for ever.

    Whatever ends it, all that was started is stopped, and all that was made is removed.

    Args:
        options: What may differ.
        tell: Called with who acts (`demo`, or a worker) and each event, as it happens, from several threads; first
            with the service's address.

    Raises:
        EverturnError: The service did not start, or something that was asked of it was refused.
    """
    with set_up(options.port) as ground:
        tell("demo", {"event": "serving", "url": ground.service.url, "folder": str(ground.folder)})
        fleet = Fleet(ground, tell, options.crews)
        first = 1
        while True:
            parts = [Part(number) for number in range(first, first + options.runs)]
            fleet.play(parts)
            tell("demo", {"event": "played", "first": first, "last": parts[-1].number})
            if options.once:
                return fleet.report
            for part in parts:
                ground.close(part)
            first += options.runs
