"""Who is told that something has changed: any number of browsers, without a thread for any of them."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Hashable, Mapping

MOST_TOPICS = 20_000

Topic = str | None  # a session's id; `None`: the fleet
_Waiter = asyncio.Future[None]


class News:
    """Numbers that grow when what is shown has changed, and who waits for that.

    Safe to use from threads; `changed` may be awaited in any event loop.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._prints: dict[Topic, Hashable] = {}
        self._count = 0
        self._changed: OrderedDict[Topic, int] = OrderedDict()
        self._waiting: defaultdict[asyncio.AbstractEventLoop, set[_Waiter]] = defaultdict(set)
        self._has_ended = False

    @property
    def waiting(self) -> int:
        """How many wait."""
        with self._lock:
            return sum(map(len, self._waiting.values()))

    def version(self, topic: Topic = None) -> int:
        """Return the number of a topic: 0 if nothing of it has ever changed."""
        with self._lock:
            return self._changed.get(topic, 0)

    def tell(self, prints: Mapping[Topic, Hashable]) -> None:
        """Note what is shown now; whatever is not the same as before has changed.

        Args:
            prints: What is shown of each topic, times that only grow left out.
        """
        with self._lock:
            before, self._prints = self._prints, dict(prints)
            news: list[Topic] = []
            for topic in prints.keys() | before.keys():
                new, old = prints.get(topic), before.get(topic)
                if new is not old and new != old:
                    news.append(topic)
            if news:
                self._note(news)

    def touch(self, topic: Topic) -> None:
        """Note that something of a topic has changed."""
        with self._lock:
            self._note([topic])

    def _note(self, topics: list[Topic]) -> None:
        self._count += 1
        for topic in topics:
            self._changed[topic] = self._count
            self._changed.move_to_end(topic)
        while len(self._changed) > MOST_TOPICS:
            self._changed.popitem(last=False)
        self._wake()

    async def changed(self, since: int, topic: Topic = None) -> int:
        """Wait until the number of a topic is another one, or until the end. Return the number.

        Args:
            since: The number that the caller knows.
            topic: What it is about.
        """
        loop = asyncio.get_running_loop()
        while True:
            waiter: _Waiter = loop.create_future()
            with self._lock:
                known = self._changed.get(topic, 0)
                if known != since or self._has_ended:
                    return known
                self._waiting[loop].add(waiter)
            try:
                await waiter
            finally:
                self._forget(loop, waiter)

    def end(self) -> None:
        """Let nobody wait any more."""
        with self._lock:
            self._has_ended = True
            self._wake()

    def _forget(self, loop: asyncio.AbstractEventLoop, waiter: _Waiter) -> None:
        with self._lock:
            self._waiting[loop].discard(waiter)
            if not self._waiting[loop]:
                del self._waiting[loop]

    def _wake(self) -> None:
        """One call for each event loop, however many wait in it."""
        for loop, waiters in self._waiting.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_release, list(waiters))


def _release(waiters: list[_Waiter]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
