"""One seed, one scenario: who is there, in what weather, and what is checked when all is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from simulation.actors import Crew, Protocol
from simulation.oracle import Violation
from simulation.themes import THEMES, Theme
from simulation.weather import Weather
from simulation.world import Actor, World

MAX_SUCCESSORS = 4
READS, COMPACTIONS = (5, 15), (5, 20)
MISHAPS = ("crashes", "late", "compactions given up", "deletions given up", "freed numbers taken", "rot")


@dataclass(frozen=True)
class Result:
    """What one seed came to.

    Attributes:
        seed: The seed.
        operations: How many requests were made.
        counts: What happened.
        simulated_s: How long it took, in simulated time.
        history: A digest of everything that happened at the store.
    """

    seed: int
    operations: int
    counts: Counter[str] = field(repr=False)
    simulated_s: float = 0.0


class Scenario:
    """Sets the scene of one seed.

    Args:
        seed: Decides everything.
        protocol: The code under test.
        theme: What it is about; drawn if it is not given.
    """

    def __init__(self, seed: int, protocol: Protocol, theme: Theme | None = None) -> None:
        self.world = World(seed)
        rng = self.world.rng
        self._theme = theme or rng.choice(THEMES)
        self.world.weather = Weather.draw(rng, self._theme.strengths, self._theme.trouble)
        self._crew = Crew(protocol, self._theme, rng)
        self._epoch = 0
        self._successors = 0
        self._numbers: Counter[str] = Counter()
        self._rots = rng.choice((*["never"] * 8, "at work", "at last"))

    def play(self) -> Result:
        """Play the scenario to its end.

        Raises:
            Violation: A promise was broken. It tells the seed and what came before.
        """
        world = self.world
        try:
            self._enter()
            world.run()
            self._look_back()
        except Violation as violation:
            raise violation.told(world.seed, world.operations, list(world.trace)) from violation
        return Result(self.world.seed, self.world.operations, self.world.counts, self.world.now)

    def _enter(self) -> None:
        rng, theme, crew = self.world.rng, self._theme, self._crew
        spread_s = rng.choice(theme.spread_s)
        guests, claims = rng.choice(theme.guests), rng.choice(theme.claims)
        for _ in range(guests):
            self._guest(rng.uniform(0, spread_s))
        for _ in range(claims if guests else max(claims, 2)):
            self._claim(rng.uniform(0, spread_s))
        for kind, numbers, life, times in (
            ("reader", theme.readers, crew.reader, READS),
            ("deleter", theme.deleters, crew.deleter, theme.deletes),
            ("compactor", theme.compactors, crew.compactor, COMPACTIONS),
        ):
            for _ in range(rng.choice(numbers)):
                actor = self._actor(kind)
                actor.live(life(actor, rng.choice(times)), rng.uniform(0, spread_s))
        if self._rots == "at work":
            self.world.later(rng.uniform(0, 3 * spread_s), self._rot_now)

    def _actor(self, kind: str, after_crash: Callable[[], None] | None = None) -> Actor:
        self._numbers[kind] += 1
        return Actor(self.world, f"{kind} {self._numbers[kind]}", after_crash=after_crash)

    def _guest(self, delay_s: float) -> None:
        actor = self._actor("guest", self._succeed(self._guest))
        actor.live(self._crew.guest(actor), delay_s)

    def _claim(self, delay_s: float) -> None:
        """Let a worker claim the next epoch, or that of the last claim again, when it comes, and stall, now and then,
        before it opens the log."""
        self.world.later(delay_s, self._claim_now)

    def _claim_now(self) -> None:
        actor = self._actor("claim", self._succeed(self._claim))
        rng = self.world.rng
        repeats = self._theme.repeats and self._epoch and rng.random() < self._theme.repeats
        self._epoch += not repeats
        stall_s = rng.uniform(0, 600) if rng.random() < self._theme.stalls else rng.uniform(0, 0.2)
        actor.live(self._crew.claimed(actor, self._epoch), stall_s)

    def _succeed(self, how: Callable[[float], None]) -> Callable[[], None]:
        def start() -> None:
            self._successors += 1
            if self._successors <= MAX_SUCCESSORS:
                how(self.world.rng.uniform(0, 60))

        return start

    # --- Rot ------------------------------------------------------------------------------------------------------

    def _rot_now(self) -> None:
        """While all are at work: damage any object, or lose a segment whose parts are still there."""
        world = self.world
        keys = world.oracle.spare()
        if keys and world.rng.random() < 0.5:
            self._lose(world.rng.choice(keys))
        elif world.store.blobs:
            self._flip(world.rng.choice(sorted(world.store.blobs)))

    def _rot_at_last(self) -> None:
        """When all is quiet: damage or lose something that a read needs, and can notice."""
        keys = self.world.oracle.noticeable()
        if keys:
            how = self._lose if self.world.rng.random() < 0.5 else self._flip
            how(self.world.rng.choice(keys))

    def _lose(self, key: str) -> None:
        self.world.store.remove(key)
        self._rotted(key, "loses")

    def _flip(self, key: str) -> None:
        data = bytearray(self.world.store.blobs[key].data)
        data[self.world.rng.randrange(len(data))] ^= 1 << self.world.rng.randrange(8)
        self.world.store.blobs[key] = replace(self.world.store.blobs[key], data=bytes(data))
        self._rotted(key, "flips")

    def _rotted(self, key: str, how: str) -> None:
        self.world.note("rot", how, key, "")
        self.world.happened("rot")
        self.world.oracle.rotted()

    # --- When all is over -----------------------------------------------------------------------------------------

    def _look_back(self) -> None:
        """Read once more in calm weather; then, in some worlds, damage something and read again."""
        self.world.clear_up()
        self.world.actors.clear()
        if not any(self.world.counts[mishap] for mishap in MISHAPS):
            self.world.oracle.at_rest()
            self.world.happened("worlds at rest")
        self._read_once()
        if self._rots == "at last":
            self._rot_at_last()
            self._read_once()

    def _read_once(self) -> None:
        actor = self._actor("last reader")
        actor.live(self._crew.reader(actor, 1))
        self.world.run()


def play(seed: int, protocol: Protocol | None = None, theme: Theme | None = None) -> Result:
    """Play one seed.

    Raises:
        Violation: A promise was broken.
    """
    return Scenario(seed, protocol or Protocol(), theme).play()
