"""One seed, one scenario: who is there, in what weather, and what is checked when all is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from simulation.actors import Crew, Protocol, Tempo

from simulation.world import Actor, World

MAX_SUCCESSORS = 4


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
    """

    def __init__(self, seed: int, protocol: Protocol) -> None:
        self.world = World(seed)
        self._protocol = protocol
        rng = self.world.rng
        tempo = Tempo(rng.choice((0.5, 3.0, 20.0)), rng.choice((0.0, 0.05, 0.15, 0.3)))
        self._crew = Crew(protocol, tempo, rng.choice((4, 8, 16)))
        self._epoch = 0
        self._successors = 0
        self._numbers: Counter[str] = Counter()
        self.rots = rng.random() < 0.15

    def play(self) -> Result:
        """Play the scenario to its end.

        Raises:
            Violation: A promise was broken.
        """
        self._enter()
        self.world.run()
        self._look_back()
        return Result(self.world.seed, self.world.operations, self.world.counts, self.world.now)

    def _enter(self) -> None:
        rng = self.world.rng
        spread_s = rng.choice((1.0, 60.0, 2000.0))
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            self._guest(rng.uniform(0, spread_s))
        for _ in range(rng.choice((0, 1, 2, 3, 4)) if self._numbers["guest"] else rng.choice((2, 3, 4))):
            self._claim(rng.uniform(0, spread_s))
        for _ in range(rng.choice((1, 2))):
            actor = self._actor("reader")
            actor.live(self._crew.reader(actor, rng.choice((5, 15))), rng.uniform(0, spread_s))
        for _ in range(rng.choice((0, 0, 1, 2))):
            actor = self._actor("deleter")
            actor.live(self._crew.deleter(actor, rng.choice((1, 2, 3))), rng.uniform(0, spread_s))
        for _ in range(rng.choice((0, 1, 1, 2))):
            actor = self._actor("compactor")
            actor.live(self._crew.compactor(actor, rng.choice((5, 20))), rng.uniform(0, spread_s))

    def _actor(self, kind: str, after_crash: Callable[[], None] | None = None) -> Actor:
        self._numbers[kind] += 1
        return Actor(self.world, f"{kind} {self._numbers[kind]}", after_crash=after_crash)

    def _guest(self, delay_s: float) -> None:
        actor = self._actor("guest", self._succeed(self._guest))
        actor.live(self._crew.guest(actor), delay_s)

    def _claim(self, delay_s: float) -> None:
        """Let a worker claim the next epoch when it comes, and stall, now and then, before it opens the log."""
        self.world.later(delay_s, self._claim_now)

    def _claim_now(self) -> None:
        self._epoch += 1
        actor = self._actor("claim", self._succeed(self._claim))
        rng = self.world.rng
        stall_s = rng.uniform(0, 0.2) if rng.random() < 0.7 else rng.uniform(0, 600)
        actor.live(self._crew.claimed(actor, self._epoch), stall_s)

    def _succeed(self, how: Callable[[float], None]) -> Callable[[], None]:
        def start() -> None:
            self._successors += 1
            if self._successors <= MAX_SUCCESSORS:
                how(self.world.rng.uniform(0, 60))

        return start

    # --- When all is over -----------------------------------------------------------------------------------------

    def _look_back(self) -> None:
        """Read once more in calm weather; then damage something, and read again."""
        self.world.clear_up()
        self.world.actors.clear()
        self._read_once()
        if self.rots:
            self._rot()
            self._read_once()

    def _read_once(self) -> None:
        actor = self._actor("last reader")
        actor.live(self._crew.reader(actor, 1))
        self.world.run()

    def _rot(self) -> None:
        world = self.world
        keys = world.oracle.noticeable()
        if not keys:
            return
        key = world.rng.choice(keys)
        world.oracle.rotted()
        if world.rng.random() < 0.5:
            world.store.remove(key)
            world.note("rot", "loses", key, "")
        else:
            data = bytearray(world.store.blobs[key].data)
            data[world.rng.randrange(len(data))] ^= 1 << world.rng.randrange(8)
            world.store.put(key, bytes(data), world.now)
            world.note("rot", "flips", key, "")
        world.happened("rot")


def play(seed: int, protocol: Protocol | None = None) -> Result:
    """Play one seed.

    Raises:
        Violation: A promise was broken.
    """
    return Scenario(seed, protocol or Protocol()).play()
