"""A second wish that a run ends cuts short what belongs to the end, whoever makes it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import anyio
import pytest

from everturn.clock import ManualClock
from everturn.runner.interruption import Interruption
from everturn.runner.stopping import Stop
from polling import WAIT_S, let_others_run


def from_a_thread(wish: Callable[[], None]) -> None:
    thread = threading.Thread(target=wish)
    thread.start()
    thread.join()


def from_the_loop(wish: Callable[[], None]) -> None:
    wish()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("ask", [from_a_thread, from_the_loop])
def test_a_second_wish_cuts_short_what_belongs_to_the_end(ask: Callable[..., None], backend: str) -> None:
    stop = Stop(ManualClock(), 20.0)

    async def main() -> bool:
        interruption = Interruption(stop)
        stop.request("SIGTERM")
        with anyio.fail_after(WAIT_S), interruption.unless_hurried(10 * WAIT_S) as scope:
            ask(lambda: stop.request("SIGTERM"))
            await anyio.sleep_forever()
        return scope.cancelled_caught

    assert anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_first_wish_does_not(backend: str) -> None:
    stop = Stop(ManualClock(), 20.0)

    async def main() -> bool:
        with Interruption(stop).unless_hurried(WAIT_S) as scope:
            stop.request("SIGTERM")
            await let_others_run()
        return scope.cancelled_caught

    assert not anyio.run(main, backend=backend)
