"""The time for which a claim is ours, as its holder reckons it, and the heartbeat that prolongs it.

Who holds a claim must let go before anybody else can take it. So the holder reckons from the moment *before* it asked
for the claim, by a clock that counts while the machine is suspended, and stops its agent some time before the end.
The heartbeat has a thread of its own: a program that keeps its event loop busy does not lose its claims for that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from everturn.clock import Clock
from everturn.errors import EverturnError, Fenced, Unavailable
from everturn.log.background import start_thread
from everturn.model import Claim
from everturn.registry import Registry
from everturn.telemetry import Metrics, get_logger

BEATS = 3  # so many heartbeats in the time a claim lasts
MARGIN = 0.25  # the part of that time that is kept for letting go
MARGIN_S = 5.0  # the most of it
LOOK_S = 1.0


class Lease:
    """A claim that is being kept.

    Args:
        registry: Where it is renewed.
        claim: The claim.
        asked_at: `clock.elapsed()` before it was asked for.
        clock: Tells how long it lasts.
        lost: Called once, from any thread, when it is lost, is about to run out, or cannot be kept at all.
        renewed: Called with the new end, in `clock.elapsed()` seconds, at each renewal.
        metrics: Where failures are counted.
    """

    def __init__(
        self,
        registry: Registry,
        claim: Claim,
        *,
        asked_at: float,
        clock: Clock,
        lost: Callable[[EverturnError], None],
        renewed: Callable[[float], None],
        metrics: Metrics,
    ) -> None:
        self.claim = claim
        self.until = asked_at + claim.ttl_s
        self._registry = registry
        self._clock = clock
        self._lost = lost
        self._renewed = renewed
        self._metrics = metrics
        self._over = threading.Event()
        self._lock = threading.Lock()  # one of us talks to the registry at a time
        self._ending = threading.Lock()
        self._log = get_logger()
        threads = (start_thread(self._beat, "everturn-heartbeat"), start_thread(self._watch, "everturn-lease"))
        self._threads = [thread for thread in threads if thread is not None]
        if len(self._threads) < len(threads):
            self._give_up(
                Unavailable(
                    f"there is no thread to keep the claim on {claim.work.key} with",
                    hint="let this user have more processes and threads (ulimit -u), or run fewer at once",
                )
            )

    @property
    def margin_s(self) -> float:
        """How long before the end letting go begins."""
        return min(MARGIN_S, MARGIN * self.claim.ttl_s)

    @property
    def ttl_left_s(self) -> float:
        """How long it may still be used: until letting go begins."""
        return self.until - self.margin_s - self._clock.elapsed()

    def replace(self, change: Callable[[Claim], Claim]) -> Claim:
        """Exchange the claim for another one of the same work item, without a heartbeat in between. Blocks."""
        with self._lock:
            self.claim = change(self.claim)
            return self.claim

    def check(self) -> None:
        """Make sure, now, that the claim is still ours. Blocks.

        Raises:
            Fenced: It is not.
            EverturnError: The registry does not say.
        """
        try:
            self._renew()
        except Fenced as error:
            self._give_up(error)
            raise

    def end(self) -> None:
        """Send no more heartbeats. Blocks until one that is under way has come back."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _watch(self) -> None:
        """Wait until the claim is about to run out, and then say that it is lost. A heartbeat may be hanging."""
        left_s = self.ttl_left_s
        while left_s > 0 and not self._over.wait(min(LOOK_S, left_s)):
            left_s = self.ttl_left_s  # looked at often, as it goes on while the machine is suspended
        self._give_up(
            Unavailable(
                f"the claim on {self.claim.work.key} could not be renewed in time",
                hint="the run was ended before anybody else could begin one; run it again to go on",
            )
        )

    def _beat(self) -> None:
        pause_s = self.claim.ttl_s / BEATS
        while not self._over.wait(pause_s):
            try:
                self._renew()
                pause_s = self.claim.ttl_s / BEATS
            except Fenced as error:
                self._give_up(error)
            except EverturnError as error:
                self._metrics.claim_renewal_failures.inc()
                self._log.warning("claim_not_renewed", work=self.claim.work.key, error=str(error))
                pause_s = min(LOOK_S, self.claim.ttl_s / BEATS / 3)

    def _renew(self) -> None:
        with self._lock:
            asked_at = self._clock.elapsed()
            self.claim = self._registry.renew(self.claim, self.claim.ttl_s)
            self.until = asked_at + self.claim.ttl_s
        self._renewed(self.until)

    def _give_up(self, error: EverturnError) -> None:
        with self._ending:
            if self._over.is_set():
                return
            self._over.set()
        self._metrics.claims_lost.inc()
        self._log.error("claim_lost", work=self.claim.work.key, error=str(error))
        self._lost(error)
