"""A store that misbehaves on command, to test what depends on one: replies that get lost, listings that are old."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, TypeVar

from everturn.errors import EverturnError, Unavailable
from everturn.log.objects import Item, Objects, Stored

Result = TypeVar("Result")
Effect = Literal["fail", "lose_reply", "busy", "hide", "gone"]


@dataclass
class Fault:
    """Something that goes wrong with the next requests that match.

    | effect | what happens | to |
    |---|---|---|
    | `fail` | an error, before the request took effect | any operation |
    | `lose_reply` | an error, after the request took effect | any operation |
    | `busy` | `False`, though nothing was tried: S3's answer 409 to two writes at once | `create` |
    | `hide` | the objects are missing from a listing that would show them | `listing` |
    | `gone` | `None`, though the object is there | `get` |

    Args:
        effect: See above.
        operation: The name of the method of `Objects`, or `*` for all of them. Only `fail` and `lose_reply` look
            at it. `get_many` is one `get` a key.
        keys: A pattern (`*`, `?`, `[…]`) for the keys or folders; one that matches is enough.
        times: How many requests it hits; `None` for all of them from now on.
        after: How many matching requests go well before that.
        error: What `fail` and `lose_reply` raise; by default `Unavailable`.
    """

    effect: Effect
    operation: str = "*"
    keys: str = "*"
    times: int | None = 1
    after: int = 0
    error: EverturnError | None = None

    def matches(self, effect: Effect, operation: str, keys: Sequence[str]) -> bool:
        """Tell whether the fault is for such a request."""
        if effect != self.effect or (effect in ("fail", "lose_reply") and self.operation not in ("*", operation)):
            return False
        return any(self.hits(key) for key in keys)

    def hits(self, key: str) -> bool:
        """Tell whether the fault is for this key."""
        return fnmatchcase(key, self.keys)


class FaultyObjects:
    """`Objects` that behave as the inner ones do, but for the faults they were given. Safe to share by threads.

    Of several faults with one effect that match a request, the first takes it.

    ```python
    objects = FaultyObjects(inner, Fault("lose_reply", "create"))
    objects.faults.append(Fault("hide", keys="*/0000000002.jsonl.zst", times=2))
    objects.faults.clear()  # all is well again
    assert objects.counts["create"] == 1
    ```

    Args:
        inner: The store that does the work.
        faults: What goes wrong.

    Attributes:
        faults: What is still to go wrong. May be changed at any time.
        counts: How many requests were made, by the name of the method; failed ones count.
    """

    def __init__(self, inner: Objects, *faults: Fault) -> None:
        self.faults: list[Fault] = list(faults)
        self.counts: Counter[str] = Counter()
        self._inner = inner
        self._lock = threading.Lock()

    async def create(self, key: str, data: bytes) -> bool:
        """See `Objects.create`."""

        async def request() -> bool:
            return False if self._next("busy", "create", [key]) else await self._inner.create(key, data)

        return await self._request("create", [key], request)

    async def put(self, key: str, data: bytes) -> None:
        """See `Objects.put`."""
        await self._request("put", [key], lambda: self._inner.put(key, data))

    async def get(self, key: str) -> Stored | None:
        """See `Objects.get`."""

        async def request() -> Stored | None:
            return None if self._next("gone", "get", [key]) else await self._inner.get(key)

        return await self._request("get", [key], request)

    async def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        """See `Objects.get_many`. One after the other, so that a fault hits the same one every time."""
        return [await self.get(key) for key in keys]

    async def listing(self, folder: str) -> list[Item]:
        """See `Objects.listing`."""

        async def request() -> list[Item]:
            items = await self._inner.listing(folder)
            fault = self._next("hide", "listing", [item.key for item in items])
            return items if fault is None else [item for item in items if not fault.hits(item.key)]

        return await self._request("listing", [folder], request)

    async def list_folders(self, folder: str) -> list[str]:
        """See `Objects.list_folders`."""
        return await self._request("list_folders", [folder], lambda: self._inner.list_folders(folder))

    async def delete(self, keys: Sequence[str]) -> None:
        """See `Objects.delete`."""
        await self._request("delete", keys, lambda: self._inner.delete(keys))

    async def wait(self, seconds: float) -> None:
        """See `Objects.wait`. Not a request: no fault hits it and it is not counted."""
        await self._inner.wait(seconds)

    async def _request(self, operation: str, keys: Sequence[str], request: Callable[[], Awaitable[Result]]) -> Result:
        with self._lock:
            self.counts[operation] += 1
        self._raise("fail", operation, keys)
        result = await request()
        self._raise("lose_reply", operation, keys)
        return result

    def _raise(self, effect: Effect, operation: str, keys: Sequence[str]) -> None:
        fault = self._next(effect, operation, keys)
        if fault is not None:
            raise fault.error or Unavailable(
                f"a test made {operation} of {', '.join(keys)} {effect.replace('_', ' ')}",
                hint="the test wanted this; see the faults of its store",
            )

    def _next(self, effect: Effect, operation: str, keys: Sequence[str]) -> Fault | None:
        """Return the fault that takes this request, if any, and count it off."""
        with self._lock:
            for fault in [fault for fault in self.faults if fault.matches(effect, operation, keys)]:
                if fault.after > 0:
                    fault.after -= 1
                    continue
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self.faults.remove(fault)
                return fault
        return None
