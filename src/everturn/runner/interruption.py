"""What of a run's work is broken off when the run is asked to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import anyio

from everturn.runner.stopping import Stop
from everturn.runner.tasks import Loop

_Listed = tuple[anyio.CancelScope, float]


class Interruption:
    """Breaks work off when a run is asked to end, or to hurry. To be made in the run's own task.

    Args:
        stop: The wish.
    """

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._ordinary: list[_Listed] = []
        self._urgent: list[_Listed] = []
        self._told: list[Callable[[], object]] = []
        self._loop = Loop()
        stop.listen(partial(self._loop.call, self._tell))

    @contextmanager
    def unless_stopped(self) -> Iterator[None]:
        """Do something as long as nobody wants the run to end. Afterwards `Stop.reason` tells."""
        with _listed(self._ordinary, anyio.CancelScope()) as scope:
            if self._stop.reason is not None:
                scope.cancel()
            yield

    @contextmanager
    def unless_hurried(self, timeout_s: float, hurried_s: float = 0.0) -> Iterator[anyio.CancelScope]:
        """Do something that belongs to the end. Nothing else cuts it short.

        Args:
            timeout_s: How long it may take.
            hurried_s: How long it may take once the run is to hurry.
        """
        with _listed(self._urgent, anyio.CancelScope(shield=True), hurried_s) as scope:
            scope.deadline = anyio.current_time() + (hurried_s if self._stop.hurry else timeout_s)
            yield scope

    @contextmanager
    def telling(self, tell: Callable[[], object]) -> Iterator[None]:
        """Have something called in the event loop at each wish while the block lasts; at once if there was one.

        For what goes on in threads, which no cancellation reaches.
        """
        self._told.append(tell)
        try:
            if self._stop.reason is not None:
                tell()
            yield
        finally:
            self._told.remove(tell)

    def _tell(self) -> None:
        for tell in self._told:
            tell()
        for scope, _ in self._ordinary:
            scope.cancel()
        for scope, hurried_s in self._urgent if self._stop.hurry else ():
            scope.deadline = min(scope.deadline, self._loop.now() + hurried_s)


@contextmanager
def _listed(scopes: list[_Listed], scope: anyio.CancelScope, hurried_s: float = 0.0) -> Iterator[anyio.CancelScope]:
    listed = (scope, hurried_s)
    with scope:
        scopes.append(listed)
        try:
            yield scope
        finally:
            scopes.remove(listed)
