"""The world: simulated time, actors that run the real code, and requests that meet a fate on their way to the store.

The protocol is written as coroutines that await nothing but an `Objects`. Here each await hands the world a wish (a
request, some requests at once, or a sleep), and the world decides when it takes effect and what the actor is told.
Between two awaits an actor runs in no time at all. One random generator makes all decisions, so the seed is the whole
history: same seed, same run, to the last byte.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from types import coroutine
from typing import Any

from everturn.clock import Ids
from everturn.errors import Unavailable
from everturn.log.objects import Item, Stored, check_listing
from simulation.oracle import Oracle
from simulation.store import FOLDER, Store
from simulation.weather import CALM, latency_s, long_s, timeout_s

TRACE_LINES = 60
DRIFT = 0.03
Reply = Callable[[Any, Exception | None], None]


@dataclass(frozen=True, slots=True)
class Request:
    """One request to the store. `key` of a page is the key after which it begins."""

    operation: str
    key: str | None
    data: bytes = b""
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sleep:
    """A wish to let time pass, by the actor's own clock."""

    seconds: float


Wish = Request | Sleep | list[Request]


@coroutine
def wish(what: Wish) -> Generator[Wish, Any, Any]:
    """Hand the world a wish and return what it answers."""
    return (yield what)


class SimObjects:
    """`Objects` for one actor: every method suspends until the world answers."""

    def __init__(self, clock: SimClock) -> None:
        self._clock = clock

    async def create(self, key: str, data: bytes) -> bool:
        """See `Objects.create`."""
        return bool(await wish(Request("create", key, data)))

    async def put(self, key: str, data: bytes) -> None:
        """See `Objects.put`."""
        await wish(Request("put", key, data))

    async def get(self, key: str) -> Stored | None:
        """See `Objects.get`."""
        found: Stored | None = await wish(Request("get", key))
        return found

    async def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        """See `Objects.get_many`: as many requests, each with its own moment."""
        if not keys:
            return []
        found: list[Stored | None] = await wish([Request("get", key) for key in keys])
        return found

    async def listing(self, folder: str) -> list[Item]:
        """See `Objects.listing`: page by page, each with its own moment."""
        began = self._clock.elapsed()
        items: list[Item] = []
        after: str | None = None
        while True:
            page, after = await wish(Request("page", after))
            items += page
            if after is None:
                check_listing(folder, self._clock.elapsed() - began)
                return items

    async def list_folders(self, folder: str) -> list[str]:
        """See `Objects.list_folders`. There is one log, and nobody asks."""
        raise NotImplementedError

    async def delete(self, keys: Sequence[str]) -> None:
        """See `Objects.delete`: one request, in which each key goes at its own moment."""
        await wish(Request("delete", None, keys=tuple(keys)))

    async def wait(self, seconds: float) -> None:
        """See `Objects.wait`."""
        await wish(Sleep(seconds))


class SimClock:
    """An actor's clock: it starts anywhere, is a few per cent fast or slow, and its calendar is wrong."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._start = world.rng.uniform(0, 1e6)
        self.rate = 1 + world.rng.uniform(-DRIFT, DRIFT)
        self._skew_s = world.rng.uniform(-1e5, 1e5)

    def now(self) -> float:
        """See `Clock.now`."""
        return self._world.now + self._skew_s

    def elapsed(self) -> float:
        """See `Clock.elapsed`."""
        return self._start + self._world.now * self.rate

    def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`. Nothing may block in a simulation."""
        raise NotImplementedError


class Actor:
    """A process: a coroutine that runs the real code, with its own clock and ids.

    Args:
        world: Where it lives.
        name: Unique in its world.
        crashes: Whether it may die at any await.
        after_crash: Is called when it has died, to start its successor.
    """

    def __init__(
        self, world: World, name: str, *, crashes: bool = True, after_crash: Callable[[], None] | None = None
    ) -> None:
        self.world = world
        self.name = name
        self.rng = world.rng
        self.clock = SimClock(world)
        self.objects = SimObjects(self.clock)
        self.ids = Ids(world.rng.getrandbits(48))
        self._crashes = crashes
        self._after_crash = after_crash
        self._context = copy_context()
        self._life: Coroutine[Wish, Any, None] | None = None

    def live(self, life: Coroutine[Wish, Any, None], delay_s: float = 0.0) -> None:
        """Begin to run, after this long."""
        self._life = life
        self.world.actors.append(self)
        self.world.later(delay_s, self.resume, None, None)

    async def sleep(self, seconds: float) -> None:
        """Let time pass by this actor's clock."""
        await wish(Sleep(seconds))

    def resume(self, value: Any, error: Exception | None) -> None:
        """Go on with what the world answered, up to the next wish, unless the actor is dead or dies now."""
        if self._life is None:
            return
        if self._crashes and self.rng.random() < self.world.weather.crash:
            self.crash()
            return
        try:
            go_on = partial(self._life.send, value) if error is None else partial(self._life.throw, error)
            what = self._context.run(go_on)
        except StopIteration:
            self._life = None
            return
        self.world.serve(self, what)

    def crash(self) -> None:
        """Die on the spot. What is under way to the store may still arrive."""
        if self._life is not None:
            self.world.happened("crashes")
            self.world.note(self.name, "crashes", "", "")
            self.stop()
            if self._after_crash is not None:
                self._after_crash()

    def stop(self) -> None:
        """End without further effect."""
        if self._life is not None:
            self._context.run(self._life.close)
            self._life = None


class World:
    """One simulated world with one log.

    Args:
        seed: Decides everything.

    Attributes:
        weather: What goes wrong. Calm at first.
        now: The simulated time in seconds.
        operations: How many requests were made.
        counts: What happened, by name.
        is_over: Whether all are done, and nothing goes wrong any more.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 0.0
        self.operations = 0
        self.counts: Counter[str] = Counter()
        self.trace: deque[tuple[float, str, str, str, str]] = deque(maxlen=TRACE_LINES)
        self.weather = CALM
        self.store = Store(
            page_size=self.rng.choice((2, 2, 3, 4, 10)),
            unsorted=self.rng.random() < 0.3,
            offset_s=self.rng.uniform(1e6, 2e6),
        )
        self.oracle = Oracle(self.store, self.counts)
        self.actors: list[Actor] = []
        self.is_over = False
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._scheduled = 0

    # --- Time -----------------------------------------------------------------------------------------------------

    def later(self, delay_s: float, act: Callable[..., None], *args: Any) -> None:
        """Let something happen after this long."""
        self._scheduled += 1
        heappush(self._events, (self.now + delay_s, self._scheduled, act, args))

    def run(self) -> None:
        """Let everything happen, until nothing is left to happen.

        Raises:
            Violation: A promise was broken.
        """
        try:
            while self._events:
                self.now, _, act, args = heappop(self._events)
                act(*args)
        finally:
            for actor in self.actors:
                actor.stop()

    def clear_up(self) -> None:
        """Let the weather be calm from here on."""
        self.weather = CALM
        self.is_over = True

    # --- Requests -------------------------------------------------------------------------------------------------

    def serve(self, actor: Actor, what: Wish) -> None:
        """See to an actor's wish."""
        if type(what) is Request:
            self._submit(actor, what, actor.resume)
        elif type(what) is Sleep:
            self.later(what.seconds / actor.clock.rate, actor.resume, None, None)
        else:
            assert isinstance(what, list)
            gathering = _Gathering(actor, len(what))
            for index, request in enumerate(what):
                self._submit(actor, request, gathering.reply(index))

    def _submit(self, actor: Actor, request: Request, reply: Reply) -> None:
        self.operations += 1
        chance = self.rng.random()
        if chance >= self.weather.trouble:
            self.later(latency_s(self.rng), self._land, actor, request, reply, 0.0)
            return
        fate = self.weather.fate(chance)
        if fate == "busy" and request.operation != "create":
            fate = "throttled"
        if fate == "late" and request.operation in ("get", "page"):
            fate = "failed"
        self.happened(fate)
        self.note(actor.name, request.operation, _short(request), fate)
        self._befall(fate, actor, request, reply)

    def _befall(self, fate: str, actor: Actor, request: Request, reply: Reply) -> None:
        rng = self.rng
        unavailable = Unavailable(f"the weather: {fate}", hint="it is safe to try again")
        if fate == "throttled":
            self.later(latency_s(rng), reply, None, unavailable)
        elif fate == "failed":
            self.later(timeout_s(rng), reply, None, unavailable)
        elif fate == "lost reply":
            self.later(latency_s(rng), self._land, actor, request, _ignore, 0.0)
            self.later(timeout_s(rng), reply, None, unavailable)
        elif fate == "late":
            self.later(long_s(rng), self._land, actor, request, _ignore, 0.0)
            self.later(timeout_s(rng), reply, None, unavailable)
        elif fate == "busy":
            self.later(latency_s(rng), reply, False, None)
        elif fate == "slow":
            self.later(rng.uniform(0.5, 8), self._land, actor, request, reply, rng.uniform(0, 2))
        elif fate == "suspended before":
            self.later(long_s(rng), self._land, actor, request, reply, 0.0)
        else:
            self.later(latency_s(rng), self._land, actor, request, reply, long_s(rng))

    def _land(self, actor: Actor, request: Request, reply: Reply, pause_s: float) -> None:
        """Let a request take effect, and send the reply."""
        if request.operation == "delete":
            self._delete(actor, request, reply)
            return
        value = self._apply(actor, request)
        if reply is not _ignore:
            self.later(latency_s(self.rng) + pause_s, reply, value, None)

    def _apply(self, actor: Actor, request: Request) -> Any:
        operation, key = request.operation, request.key
        if operation == "get":
            assert key is not None
            return self.store.blobs.get(key)
        if operation == "page":
            return self.store.page(key)
        assert key is not None
        if operation == "create":
            created = self.store.create(key, request.data, self.now)
            self.note(actor.name, "create", key, "created" if created else "exists")
            if created:
                self.oracle.created(actor.name, key, request.data)
            return created
        self.note(actor.name, "put", key, "written")
        self.store.put(key, request.data, self.now)
        self.oracle.changed(actor.name, key)
        return None

    def _delete(self, actor: Actor, request: Request, reply: Reply) -> None:
        """Delete keys in any order, each at its own moment. Now and then the request stops half way."""
        keys = list(request.keys)
        self.rng.shuffle(keys)
        error = None
        if len(keys) > 1 and self.rng.random() < min(0.3, self.weather.trouble):
            keys = keys[: self.rng.randrange(len(keys))]
            error = Unavailable("the weather: half of a delete", hint="it is safe to try again")
            self.happened("halved deletes")
        for index, key in enumerate(keys):
            self.later(0.002 * index, self._delete_one, actor, key)
        self.later(0.002 * len(keys) + latency_s(self.rng), reply, None, error)

    def _delete_one(self, actor: Actor, key: str) -> None:
        if self.store.remove(key):
            self.note(actor.name, "delete", key, "deleted")
            self.oracle.changed(actor.name, key)

    # --- Records --------------------------------------------------------------------------------------------------

    def note(self, who: str, what: str, where: str, result: str) -> None:
        """Keep a line for the trace."""
        self.trace.append((self.now, who, what, where.removeprefix(f"{FOLDER}/"), result))

    def happened(self, what: str) -> None:
        """Count something."""
        self.counts[what] += 1


class _Gathering:
    """Waits for the replies to requests that were made at once."""

    def __init__(self, actor: Actor, count: int) -> None:
        self._actor = actor
        self._values: list[Any] = [None] * count
        self._waiting = count
        self._error: Exception | None = None

    def reply(self, index: int) -> Reply:
        """Return where to send the reply to one of them."""

        def take(value: Any, error: Exception | None) -> None:
            self._values[index] = value
            self._error = self._error or error
            self._waiting -= 1
            if not self._waiting:
                self._actor.resume(self._values, self._error)

        return take


def _ignore(_value: Any, _error: Exception | None) -> None:
    """Take a reply that nobody waits for."""


def _short(request: Request) -> str:
    return request.key or (f"{len(request.keys)} keys" if request.keys else "")
