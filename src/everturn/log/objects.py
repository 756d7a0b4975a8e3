"""The object store as the log sees it, and the one implementation of it, on obstore.

The log's protocol is written as coroutines over `Objects`, so that a simulation can stop them at every request.
In real life they run inside worker threads, where `BlockingObjects` simply blocks and never suspends: measured,
obstore's blocking calls in threads are as fast as its async ones for single requests and three times as fast for
many, and one way serves asyncio, trio and programs with no event loop (docs/decisions/0002).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from itertools import count, pairwise
from typing import Any, Protocol, TypeVar

import obstore
from obstore import exceptions
from obstore.store import LocalStore, MemoryStore, S3Store

from everturn.clock import Clock, SystemClock
from everturn.errors import Corrupt, Denied, Unavailable
from everturn.log.causes import names_no_bucket, translate
from everturn.log.requests import Requests

Result = TypeVar("Result")
Store = S3Store | LocalStore | MemoryStore

LARGE_BYTES = 1 << 20
PAGE = 1000
LISTING_LIMIT_S = 50.0  # less than a number stays taken after it was written


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a listing. Times are the store's own, in milliseconds since the Unix epoch."""

    key: str
    size_bytes: int
    modified_ms: int


@dataclass(frozen=True, slots=True)
class Stored:
    """An object that was fetched, and when the store says it was last written."""

    data: bytes
    modified_ms: int


class Objects(Protocol):
    """What the log asks of a store. Keys are relative to the store's root.

    Every method raises `Denied` if the credentials do not allow it, `NotFound` if there is no such bucket, and
    `Unavailable` if the store did not answer; after that a write may or may not have taken effect. All but `create`
    may try again before they say so.
    """

    async def create(self, key: str, data: bytes) -> bool:
        """Create an object if there is none of that name. `True`: it is durable. `False`: the name is taken, or
        the store was busy with it; reading it tells which.
        """

    async def put(self, key: str, data: bytes) -> None:
        """Write an object, over an older one if there is one. For derived files only."""

    async def get(self, key: str) -> Stored | None:
        """Fetch an object, or `None` if there is none."""

    async def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        """Fetch several objects at once, in the order of their keys."""

    async def listing(self, folder: str) -> list[Item]:
        """List all objects below a folder, in any order. A folder that does not exist is empty.

        Raises `Unavailable` if it took longer than `LISTING_LIMIT_S` from the first page to the last: objects come
        and go in a log, and the pages would not belong together.
        """

    async def list_folders(self, folder: str) -> list[str]:
        """Return the names of the folders directly inside a folder."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that do not exist are fine."""

    async def wait(self, seconds: float) -> None:
        """Let this much time pass before the next request."""


async def get_each(
    objects: Objects, keys: Sequence[str], *excused: type[Corrupt | Denied]
) -> list[Stored | Corrupt | Denied | None]:
    """Fetch objects, in the order of their keys, though some of them cannot be decrypted.

    Args:
        objects: Where they are.
        keys: Their keys.
        excused: Which errors stand in the place of the object that they are about, instead of being raised. If there
            is one, all are fetched once more, one after the other.
    """
    try:
        return [*await objects.get_many(keys)]
    except excused:
        return [await _get_or_error(objects, key, excused) for key in keys]


async def _get_or_error(
    objects: Objects, key: str, excused: tuple[type[Corrupt | Denied], ...]
) -> Stored | Corrupt | Denied | None:
    try:
        return await objects.get(key)
    except excused as error:
        return error


def check_listing(folder: str, seconds: float) -> None:
    """Refuse a listing that took so long that numbers can have been freed, and taken again, between its pages.

    Raises:
        Unavailable: It did.
    """
    if seconds > LISTING_LIMIT_S:
        raise Unavailable(
            f"listing {folder} took {seconds:.0f} s, and is out of date", hint="it is safe to try again"
        )


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end on the spot. Its store must be one that blocks instead of suspending."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: Result = end.value
        return result
    coroutine.close()
    raise RuntimeError("a coroutine that should have blocked has suspended")


@dataclass(frozen=True, slots=True)
class Clients:
    """Clients of one store for different kinds of requests, which differ in their time-outs.

    Attributes:
        lists_in_order: Whether listings come in the order of keys, so that one can go on where it broke off.
    """

    read: Store
    write: Store
    write_large: Store
    lists_in_order: bool = False


class BlockingObjects:
    """`Objects` on obstore. Its coroutines block the calling thread and never suspend.

    Every request has its turn, and all but `create` are made again if the store does not answer: the log's writer has
    to know of each time that the outcome of a create is unknown.

    Args:
        store: Where the objects are, or how to get there at the first request.
        label: The store's URL, for messages.
        clock: What `wait` waits with.
        requests: How requests are made.
        prepare: Is called before each request, and raises errors of ours if it cannot be made.
    """

    def __init__(
        self,
        store: Store | Callable[[], Clients],
        label: str,
        clock: Clock | None = None,
        requests: Requests | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self._prepare = prepare
        self._connect = store if callable(store) else partial(Clients, store, store, store)
        self._connecting = threading.Lock()
        self._connected: Clients | None = None
        self._label = label
        self._clock = clock or SystemClock()
        self.requests = requests or Requests(label, clock=self._clock)
        self._helpers: ThreadPoolExecutor | None = None

    async def create(self, key: str, data: bytes) -> bool:
        """See `Objects.create`."""
        return self.requests.once("write", partial(self._create, key, data))

    async def put(self, key: str, data: bytes) -> None:
        """See `Objects.put`."""
        self.requests.insist("write", partial(self._put, key, data))

    async def get(self, key: str) -> Stored | None:
        """See `Objects.get`."""
        return self._get(key)

    async def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        """See `Objects.get_many`."""
        batch = _Batch(keys, self._get)
        helpers = [self._help(batch) for _ in range(min(self.requests.throttle.full_width, len(keys)) - 1)]
        batch.work()
        for helper in helpers:
            if helper is not None and not helper.cancel():  # one that has not begun yet has nothing left to do
                helper.result()
        return batch.result()

    async def listing(self, folder: str) -> list[Item]:
        """See `Objects.listing`."""
        listing = _Listing(lambda: self._clients, folder)
        began = self._clock.elapsed()
        while self.requests.insist("list", listing.go_on):
            pass
        check_listing(folder, self._clock.elapsed() - began)
        return listing.items

    async def list_folders(self, folder: str) -> list[str]:
        """See `Objects.list_folders`."""
        return self.requests.insist("list", partial(self._list_folders, folder))

    async def delete(self, keys: Sequence[str]) -> None:
        """See `Objects.delete`."""
        for start in range(0, len(keys), PAGE):
            self.requests.insist("delete", partial(self._delete, list(keys[start : start + PAGE])))

    async def wait(self, seconds: float) -> None:
        """See `Objects.wait`."""
        self._clock.sleep(seconds)

    @property
    def throttled(self) -> int:
        """How many requests the store refused because there were too many."""
        return self.requests.throttled

    @property
    def retried(self) -> int:
        """How many requests were made again."""
        return self.requests.retried

    def _create(self, key: str, data: bytes) -> bool:
        try:
            obstore.put(self._writing(data), key, data, mode="create", use_multipart=False)
        except exceptions.AlreadyExistsError:
            return False
        return True

    def _put(self, key: str, data: bytes) -> None:
        obstore.put(self._writing(data), key, data, use_multipart=False)

    def _get(self, key: str) -> Stored | None:
        return self.requests.insist("read", partial(self._fetch, key))

    def _fetch(self, key: str) -> Stored | None:
        try:
            result = obstore.get(self._clients.read, key)
            modified_ms = int(result.meta["last_modified"].timestamp() * 1000)
            return Stored(bytes(result.bytes()), modified_ms)
        except FileNotFoundError as error:
            self._refuse_missing_bucket(error)
            return None

    def _list_folders(self, folder: str) -> list[str]:
        listing = obstore.list_with_delimiter(self._clients.read, folder or None)
        return [path.rsplit("/", 1)[-1] for path in listing["common_prefixes"]]

    def _delete(self, keys: list[str]) -> None:
        try:
            obstore.delete(self._clients.write, keys)
        except FileNotFoundError as error:
            self._refuse_missing_bucket(error)
            for key in keys:  # the local folder stops at the first one that is gone
                self._delete_one(key)

    def _delete_one(self, key: str) -> None:
        try:
            obstore.delete(self._clients.write, key)
        except FileNotFoundError:
            return

    def _refuse_missing_bucket(self, error: Exception) -> None:
        if names_no_bucket(error):
            raise translate(error, "read", self._label) from error

    def _help(self, batch: _Batch) -> Future[None] | None:
        """Let a thread help with a batch. `None` if there is none to be had."""
        with self._connecting:
            if self._helpers is None:
                self._helpers = ThreadPoolExecutor(self.requests.throttle.full_width, "everturn-get")
        try:
            return self._helpers.submit(copy_context().run, batch.work)
        except RuntimeError:  # an interpreter that is shutting down starts no threads
            return None

    @property
    def _clients(self) -> Clients:
        if self._prepare is not None:
            self._prepare()
        with self._connecting:
            if self._connected is None:
                self._connected = self._connect()
            return self._connected

    def _writing(self, data: bytes) -> Store:
        return self._clients.write_large if len(data) > LARGE_BYTES else self._clients.write


class _Batch:
    """Keys to fetch, by as many threads as like to help. The first failure ends it for all of them."""

    def __init__(self, keys: Sequence[str], fetch: Callable[[str], Stored | None]) -> None:
        self._keys = keys
        self._fetch = fetch
        self._numbers = count()
        self._found: list[Stored | None] = [None] * len(keys)
        self._failure: BaseException | None = None

    def work(self) -> None:
        """Fetch until nothing is left."""
        while self._failure is None and (number := next(self._numbers)) < len(self._keys):
            try:
                self._found[number] = self._fetch(self._keys[number])
            except BaseException as failure:  # noqa: BLE001  # raised by `result`, in the thread that asked
                self._failure = failure

    def result(self) -> list[Stored | None]:
        """Return what was found, or raise what went wrong."""
        if self._failure is not None:
            raise self._failure
        return self._found


class _Listing:
    """A listing that is fetched page by page, and goes on where it broke off if the order of its keys allows."""

    def __init__(self, connect: Callable[[], Clients], folder: str) -> None:
        self.items: list[Item] = []
        self._connect = connect
        self._folder = folder or None
        self._pages: Iterator[Any] | None = None
        self._reached = 0

    def go_on(self) -> bool:
        """Get further than before: one page, or as many as it takes if it has to begin again. `False`: at the end."""
        pages = self._pages or self._begin()
        self._pages = None  # unless it goes well: pages that have failed give nothing more
        while page := next(pages, None):
            self.items += [
                Item(row["path"], row["size"], int(row["last_modified"].timestamp() * 1000)) for row in page
            ]
            if len(self.items) > self._reached:
                break
        self._reached = len(self.items)
        self._pages = pages
        return bool(page)

    def _begin(self) -> Iterator[Any]:
        clients = self._connect()
        if not clients.lists_in_order or any(one.key >= two.key for one, two in pairwise(self.items)):
            self.items.clear()
        after = self.items[-1].key if self.items else None
        return iter(obstore.list(clients.read, self._folder, offset=after, chunk_size=PAGE))
