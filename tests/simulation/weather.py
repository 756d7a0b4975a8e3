"""What can go wrong with a request or an actor, how often, and for how long.

Every scenario draws its own weather, so that some are calm, some are rough in one way, and some in all.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

HOUR_S = 3600.0

FATES = ("throttled", "failed", "lost reply", "late", "busy", "slow", "suspended before", "suspended after")
"""What becomes of a request that does not simply go well.

| fate | takes effect | the actor is told |
|---|---|---|
| throttled | no | `Unavailable`, at once |
| failed | no | `Unavailable`, after a while |
| lost reply | yes | `Unavailable` |
| late | long after the actor was told, or even died | `Unavailable` |
| busy | no | `False`, though nothing is there (S3's 409); for `create` only |
| slow | after seconds | the truth |
| suspended before | after the actor's machine has slept, up to hours | the truth |
| suspended after | soon | the truth, after its machine has slept, up to hours |
"""

_RATES = (0.01, 0.01, 0.02, 0.012, 0.01, 0.02, 0.003, 0.003)


@dataclass(frozen=True)
class Weather:
    """Rates of trouble, all per request.

    Attributes:
        thresholds: The cumulated rates of `FATES`.
        crash: How often an actor dies when it should go on.
    """

    thresholds: tuple[float, ...]
    crash: float

    @classmethod
    def draw(cls, rng: random.Random, strengths: Sequence[float], trouble: Sequence[str]) -> Weather:
        """Draw the weather of one scenario, of one of these strengths. Some kinds of trouble can be asked for."""
        strength = rng.choice(strengths)
        if not strength:
            return CALM
        rates = [rate * strength for rate in _RATES]
        if rng.random() < 0.5:  # one kind of trouble far above the others
            special = rng.randrange(len(rates))
            rates[special] = max(rates[special], _RATES[special]) * rng.choice((2.0, 6.0))
        for fate in trouble:
            rates[FATES.index(fate)] = max(0.02, 5 * _RATES[FATES.index(fate)])
        return cls(tuple(accumulate(rates)), rng.choice((0.0, 0.0005, 0.003)))

    @property
    def trouble(self) -> float:
        """How often anything at all goes wrong."""
        return self.thresholds[-1]

    def fate(self, chance: float) -> str:
        """Return the fate of a request for a number below `trouble`."""
        return FATES[bisect_right(self.thresholds, chance)]


CALM = Weather((0.0,) * len(FATES), 0.0)


def latency_s(rng: random.Random) -> float:
    """How long a message travels: 5 to 80 ms, mostly short."""
    return 0.005 + 0.075 * rng.random() ** 3


def long_s(rng: random.Random) -> float:
    """How long something hangs: seconds, minutes, or hours."""
    chance = rng.random()
    if chance < 0.4:
        return rng.uniform(1, 60)
    return rng.uniform(60, 900) if chance < 0.85 else rng.uniform(900, 6 * HOUR_S)


def timeout_s(rng: random.Random) -> float:
    """How long a client waits before it gives a request up."""
    return rng.uniform(2, 35)
