"""What scenarios are about: how many of whom, and how they spend their time. Each seed draws its own from these."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Tempo:
    """How long an actor thinks between two things it does: mostly at most `short_s`, sometimes minutes or hours."""

    short_s: float
    often_long: float

    def think_s(self, rng: random.Random) -> float:
        """Draw how long to think."""
        chance = rng.random()
        if chance >= self.often_long:
            return rng.uniform(0.05, self.short_s)
        return rng.uniform(20, 200) if chance >= self.often_long / 4 else rng.uniform(200, 8000)


@dataclass(frozen=True)
class Theme:
    """A kind of scenario. Tuples hold what is drawn from.

    Attributes:
        guests: How many guests there are, claims, readers and so on.
        batches: How many batches a writer is given.
        thinks_s: See `Tempo`. Drawn once for all actors.
        often_long: See `Tempo`. Drawn once for all actors.
        spread_s: Within what time the actors come.
        stalls: How often a worker stalls between its claim and its first request.
        repeats: How often a claim gets the epoch of the one before it, from a registry that has forgotten that one.
        deletes: How many times a deleter deletes.
        deletes_after_s: How long a deleter waits at most.
        compacts_every_s: How long a compactor waits at most.
        strengths: How rough the weather is: 1 is usual, 0 is calm.
        trouble: Fates that are much more frequent than usual; see `weather`.
    """

    guests: tuple[int, ...] = (0, 1, 1, 2, 3)
    claims: tuple[int, ...] = (0, 1, 2, 3, 4)
    readers: tuple[int, ...] = (1, 2)
    deleters: tuple[int, ...] = (0, 0, 1, 2)
    compactors: tuple[int, ...] = (0, 1, 1, 2)
    batches: tuple[int, ...] = (4, 8, 16)
    thinks_s: tuple[float, ...] = (0.5, 3.0, 20.0)
    often_long: tuple[float, ...] = (0.0, 0.05, 0.15, 0.3)
    spread_s: tuple[float, ...] = (1.0, 60.0, 2000.0)
    stalls: float = 0.3
    repeats: float = 0.0
    deletes: tuple[int, ...] = (1, 2, 3)
    deletes_after_s: tuple[float, ...] = (5.0, 100.0, 1000.0)
    compacts_every_s: float = 120.0
    strengths: tuple[float, ...] = (0.1, 0.3, 1.0, 2.0)
    trouble: tuple[str, ...] = ()


MIXED = Theme()
LATE_CLAIMS = Theme(  # claims that come late to a log that is deleted
    guests=(0, 1),
    claims=(3, 4, 5),
    readers=(1,),
    deleters=(1, 2, 3),
    compactors=(0, 1),
    batches=(2, 4),
    thinks_s=(0.5, 3.0),
    often_long=(0.0, 0.15),
    spread_s=(1.0, 10.0),
    stalls=0.5,
    deletes_after_s=(1.0, 5.0, 20.0),
)
SLEEPERS = Theme(  # writers and readers that sleep while numbers are freed
    guests=(2, 3, 4),
    claims=(0, 1, 2),
    deleters=(0, 0, 0, 1),
    compactors=(1, 2),
    batches=(2, 8, 16),
    thinks_s=(3.0, 20.0),
    often_long=(0.15, 0.3),
    spread_s=(60.0, 2000.0),
    compacts_every_s=60.0,
)
DOZERS = Theme(  # readers that sleep in the middle of a read
    guests=(3, 4),
    claims=(0,),
    readers=(3, 4),
    deleters=(0,),
    compactors=(2,),
    batches=(4, 8),
    thinks_s=(3.0, 20.0),
    often_long=(0.3,),
    spread_s=(60.0,),
    compacts_every_s=60.0,
    trouble=("suspended before",),
)
DEAF = Theme(  # writers that do not hear what became of their writes, and sleep over it
    guests=(3, 4),
    claims=(0, 1),
    readers=(0,),
    deleters=(0,),
    compactors=(2,),
    batches=(8, 16),
    thinks_s=(3.0, 20.0),
    often_long=(0.3,),
    spread_s=(60.0,),
    compacts_every_s=30.0,
    trouble=("lost reply", "suspended before"),
)
CLEARING = Theme(  # a log that is compacted all the time, and deleted meanwhile
    guests=(1, 2),
    claims=(0, 1),
    readers=(1,),
    deleters=(1,),
    deletes=(1,),
    compactors=(2, 3),
    batches=(8, 16),
    thinks_s=(0.5, 2.0),
    often_long=(0.0,),
    spread_s=(1.0,),
    deletes_after_s=(5.0, 20.0),
    compacts_every_s=2.0,
    strengths=(0.0, 0.0, 0.1, 1.0),
)
RESTORED = Theme(  # claims of the same epoch
    guests=(0, 1),
    claims=(3, 4, 5),
    deleters=(0, 0, 1),
    thinks_s=(0.5, 3.0),
    repeats=0.6,
)
THEMES = (MIXED, MIXED, LATE_CLAIMS, SLEEPERS, DOZERS, DEAF, CLEARING)
