"""Signals that would end the program end its runs first.

Only where the program has left a signal to its default: what it handles itself stays as it is, and so does everything
once the last run has ended. Then the signal is raised again, and does what it would have done. An event loop that
turns Ctrl-C into a cancellation, as that of `asyncio.run` and `trio.run` does, goes on doing so, and the run with it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from everturn.runner.stopping import Stop

ENDING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)  # Windows has no SIGHUP
_DEFAULTS: tuple[Any, ...] = (signal.SIG_DFL, signal.default_int_handler)


class Signals:
    """What the process does about signals while runs are in progress. There is one for the process."""

    def __init__(self) -> None:
        self._stops: list[Stop] = []
        self._before: dict[int, Any] = {}
        self._received: list[int] = []

    def watch(self, stop: Stop) -> Callable[[], None]:
        """End a run when a signal comes.

        Signals belong to the main thread; in another one this does nothing.

        Returns:
            What to call when the run has ended. If a signal came and this was the last run, it does not return.
        """
        if threading.current_thread() is not threading.main_thread():
            return _nothing
        if not self._stops:
            for number in ENDING:
                if signal.getsignal(number) in _DEFAULTS:
                    self._before[number] = signal.signal(number, self._receive)
        self._stops.append(stop)
        return lambda: self._forget(stop)

    def _receive(self, number: int, _: FrameType | None) -> None:
        self._received.append(number)
        for stop in self._stops:
            stop.request(signal.Signals(number).name)

    def _forget(self, stop: Stop) -> None:
        self._stops.remove(stop)
        if self._stops:
            return
        received = self._received
        self.let_be()
        if received:
            signal.raise_signal(received[0])

    def let_be(self) -> None:
        """Leave signals as they were before. In a child made by `fork`, too: it has none of our runs, and is to end
        when it is told to."""
        for number, before in self._before.items():
            if signal.getsignal(number) == self._receive:
                signal.signal(number, before)
        self._stops, self._received, self._before = [], [], {}


def _nothing() -> None:
    """Nothing was watched."""


process_signals = Signals()
if hasattr(os, "register_at_fork"):  # Windows has none
    os.register_at_fork(after_in_child=process_signals.let_be)
