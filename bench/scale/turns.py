"""Threads of the library that wait by a clock that is turned by hand, one at a time and always in the same order.

Whatever lingers, ships, beats or sums up in the background has a thread of its own, which waits for a time or to be
told. Here they are real threads with their real code, but where they wait, they wait for their turn: the one that is
due next goes on, everybody else stands still. So an hour takes seconds, and every hour is the same.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from unittest.mock import patch

import everturn.journal.shipping
import everturn.log.compactor
import everturn.runner.lease
import everturn.transcripts.backlog
import everturn.transcripts.linger
import everturn.transcripts.summaries
from everturn.clock import ManualClock
from everturn.telemetry import carrying_run

_WAITING = (
    everturn.journal.shipping,
    everturn.log.compactor,
    everturn.runner.lease,
    everturn.transcripts.backlog,
    everturn.transcripts.linger,
    everturn.transcripts.summaries,
)


@dataclass
class Waiter:
    """Whoever waits, and whether it was told to go on."""

    told: bool = False


@dataclass
class Task:
    """A thread in the background.

    Attributes:
        name: What it is called.
        number: Which one it is; among those that are due at once, the older one goes first.
        due_s: When it goes on by itself.
        waiter: Tells whether it may go on at once.
        turn: Released when it may.
    """

    name: str
    number: int
    turns: Turns
    due_s: float = -math.inf
    waiter: Waiter = field(default_factory=Waiter)
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    ended: bool = False

    def join(self) -> None:
        """Let time go on until it has ended."""
        self.turns.go_on(is_over=lambda: self.ended)


class Turns:
    """Gives threads their turns.

    Args:
        clock: The time they wait by.
    """

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._tasks: list[Task] = []
        self._by_thread: dict[int, Task] = {}
        self._count = 0
        self._stopped = threading.Semaphore(0)
        self._failure: BaseException | None = None

    @property
    def current(self) -> str:
        """The name of the calling thread, if it is one of ours, or nothing."""
        task = self._by_thread.get(threading.get_ident())
        return "" if task is None else task.name

    @property
    def running(self) -> list[str]:
        """What has not ended."""
        return [task.name for task in self._tasks]

    def start(self, work: Callable[[], None], name: str) -> Task:
        """Start a thread. It takes its first turn when time goes on."""
        self._count += 1
        task = Task(name, self._count, self)
        self._tasks.append(task)
        carried = carrying_run(work)

        def run() -> None:
            task.turn.acquire()
            self._by_thread[threading.get_ident()] = task
            try:
                carried()
            except BaseException as failure:  # noqa: BLE001  # raised where time goes on
                self._failure = failure
            del self._by_thread[threading.get_ident()]
            task.ended = True
            self._tasks.remove(task)
            self._stopped.release()

        threading.Thread(target=run, name=name, daemon=True).start()
        return task

    def wait(self, waiter: Waiter, timeout_s: float | None) -> None:
        """Wait until told, or for a time. The caller lets others go on, whoever it is."""
        until_s = math.inf if timeout_s is None else self._clock.elapsed() + max(timeout_s, 0.0)
        task = self._by_thread.get(threading.get_ident())
        if task is None:
            self.go_on(until_s, lambda: waiter.told)
            return
        task.due_s, task.waiter = until_s, waiter
        self._stopped.release()
        task.turn.acquire()

    def go_on(self, until_s: float = math.inf, is_over: Callable[[], bool] = lambda: False) -> None:
        """Let time go on, and everybody do what is due.

        Args:
            until_s: Until when, by `Clock.elapsed`. What is due then is done as well.
            is_over: Tells whether to stop before.
        """
        while not is_over():
            task = min(self._tasks, key=self._due, default=None)
            if task is None or self._due(task)[0] > until_s:
                if math.isinf(until_s):
                    raise RuntimeError("everybody waits for somebody else")
                self._set(until_s)
                return
            self._set(self._due(task)[0])
            task.turn.release()
            self._stopped.acquire()
            if self._failure is not None:
                raise self._failure

    def _due(self, task: Task) -> tuple[float, int]:
        now_s = self._clock.elapsed()
        return (now_s if task.waiter.told else max(task.due_s, now_s)), task.number

    def _set(self, now_s: float) -> None:
        if now_s > self._clock.elapsed():
            self._clock.advance(now_s - self._clock.elapsed())

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Have the library's threads take turns while this lasts."""
        stand_in = SimpleNamespace(
            Condition=lambda: _Condition(self, self._clock),
            Event=lambda: _Event(self, self._clock),
            Lock=threading.Lock,
            Thread=threading.Thread,
        )
        with ExitStack() as patches:
            for module in _WAITING:
                patches.enter_context(patch.object(module, "threading", stand_in))
                if hasattr(module, "start_thread"):
                    patches.enter_context(patch.object(module, "start_thread", self.start))
            yield


class _Condition:
    """A `threading.Condition` whose time is that of a clock."""

    def __init__(self, turns: Turns, clock: ManualClock) -> None:
        self._turns = turns
        self._clock = clock
        self._lock = threading.RLock()
        self._waiters: list[Waiter] = []

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        waiter = Waiter()
        self._waiters.append(waiter)
        self._lock.release()
        try:
            self._turns.wait(waiter, timeout)
        finally:
            self._lock.acquire()
            self._waiters.remove(waiter)
        return waiter.told

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        end_s = math.inf if timeout is None else self._clock.elapsed() + timeout
        while not predicate() and self._clock.elapsed() < end_s:
            self.wait(None if timeout is None else end_s - self._clock.elapsed())
        return predicate()

    def notify_all(self) -> None:
        for waiter in self._waiters:
            waiter.told = True


class _Event:
    """A `threading.Event` whose time is that of a clock."""

    def __init__(self, turns: Turns, clock: ManualClock) -> None:
        self._condition = _Condition(turns, clock)
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        with self._condition:
            self._is_set = True
            self._condition.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        with self._condition:
            return self._condition.wait_for(self.is_set, timeout)
