"""What of a run's work is broken off when the run is asked to end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import anyio

from everturn.runner.stopping import Stop
from everturn.runner.tasks import Loop


class Interruption:
    """Breaks work off when a run is asked to end, or to hurry. To be made in the run's own task.

    Args:
        stop: The wish.
    """

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._ordinary: list[anyio.CancelScope] = []
        self._urgent: list[anyio.CancelScope] = []
        stop.listen(partial(Loop().call, self._tell))

    @contextmanager
    def unless_stopped(self) -> Iterator[None]:
        """Do something as long as nobody wants the run to end. Afterwards `Stop.reason` tells."""
        with _listed(self._ordinary) as scope:
            if self._stop.reason is not None:
                scope.cancel()
            yield

    @contextmanager
    def unless_hurried(self, timeout_s: float) -> Iterator[None]:
        """Do something that belongs to the end, for so long at most. Nothing else cuts it short."""
        with _listed(self._urgent) as scope:
            scope.shield = True
            scope.deadline = anyio.current_time() + timeout_s
            if self._stop.hurry:
                scope.cancel()
            yield

    def _tell(self) -> None:
        broken_off = [*self._ordinary, *(self._urgent if self._stop.hurry else ())]
        for scope in broken_off:
            scope.cancel()


@contextmanager
def _listed(scopes: list[anyio.CancelScope]) -> Iterator[anyio.CancelScope]:
    with anyio.CancelScope() as scope:
        scopes.append(scope)
        try:
            yield scope
        finally:
            scopes.remove(scope)
