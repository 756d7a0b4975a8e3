"""The object store as the log sees it, and the one implementation of it, on obstore.

The log's protocol is written as coroutines over `Objects`, so that a simulation can stop them at every request.
In real life they run inside worker threads, where `BlockingObjects` simply blocks and never suspends: measured,
obstore's blocking calls in threads are as fast as its async ones for single requests and three times as fast for
many, and one way serves asyncio, trio and programs with no event loop (docs/decisions/0002).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import obstore
from obstore import exceptions
from obstore.store import LocalStore, MemoryStore, S3Store

from everturn.clock import Clock, SystemClock
from everturn.errors import Denied, EverturnError, Invalid, NotFound, Unavailable

Result = TypeVar("Result")
Store = S3Store | LocalStore | MemoryStore

PARALLEL_GETS = 16
LARGE_BYTES = 1 << 20
LISTING_LIMIT_S = 50.0  # less than a number stays taken after it was written

_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_NO_BUCKET = "<Code>NoSuchBucket</Code>"
_OS_DENIED = "os error 13"
_DENIED = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError)
_DENIED_CODES = (
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
)
_DENIED_STATUSES = ("401", "403")
_REFUSED_STATUSES = ("301", "307", "400", "405", "413", "501")


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
    `Unavailable` if the store did not answer; after that a write may or may not have taken effect.
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
    """Clients of one store for different kinds of requests, which differ in their time-outs."""

    read: Store
    write: Store
    write_large: Store


class BlockingObjects:
    """`Objects` on obstore. Its coroutines block the calling thread and never suspend.

    Args:
        store: Where the objects are, or how to get there at the first request.
        label: The store's URL, for messages.
        clock: What `wait` waits with.
    """

    def __init__(self, store: Store | Callable[[], Clients], label: str, clock: Clock | None = None) -> None:
        self._connect = store if callable(store) else partial(Clients, store, store, store)
        self._connecting = threading.Lock()
        self._connected: Clients | None = None
        self._label = label
        self._clock = clock or SystemClock()

    async def create(self, key: str, data: bytes) -> bool:
        """See `Objects.create`."""
        store = self._writing(data)
        try:
            obstore.put(store, key, data, mode="create", use_multipart=False)
        except exceptions.AlreadyExistsError:
            return False
        except Exception as error:
            raise self._translate(error, "write") from error
        return True

    async def put(self, key: str, data: bytes) -> None:
        """See `Objects.put`."""
        store = self._writing(data)
        try:
            obstore.put(store, key, data, use_multipart=False)
        except Exception as error:
            raise self._translate(error, "write") from error

    async def get(self, key: str) -> Stored | None:
        """See `Objects.get`."""
        return self._get(key)

    async def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        """See `Objects.get_many`."""
        if len(keys) < 2:
            return [self._get(key) for key in keys]
        with ThreadPoolExecutor(min(PARALLEL_GETS, len(keys)), "everturn-get") as pool:
            try:
                waiting = [pool.submit(self._get, key) for key in keys]
            except RuntimeError:  # an interpreter that is shutting down starts no threads
                return [self._get(key) for key in keys]
            return [each.result() for each in waiting]

    async def listing(self, folder: str) -> list[Item]:
        """See `Objects.listing`."""
        began = self._clock.elapsed()
        try:
            items = [
                Item(row["path"], row["size"], int(row["last_modified"].timestamp() * 1000))
                for page in obstore.list(self._clients.read, folder or None)
                for row in page
            ]
        except Exception as error:
            raise self._translate(error, "list") from error
        check_listing(folder, self._clock.elapsed() - began)
        return items

    async def list_folders(self, folder: str) -> list[str]:
        """See `Objects.list_folders`."""
        try:
            listing = obstore.list_with_delimiter(self._clients.read, folder or None)
            return [path.rsplit("/", 1)[-1] for path in listing["common_prefixes"]]
        except Exception as error:
            raise self._translate(error, "list") from error

    async def delete(self, keys: Sequence[str]) -> None:
        """See `Objects.delete`."""
        try:
            obstore.delete(self._clients.write, list(keys))
        except FileNotFoundError as error:
            self._refuse_missing_bucket(error)
            for key in keys:  # the local folder stops at the first one that is gone
                self._delete_one(key)
        except Exception as error:
            raise self._translate(error, "delete") from error

    async def wait(self, seconds: float) -> None:
        """See `Objects.wait`."""
        self._clock.sleep(seconds)

    def _get(self, key: str) -> Stored | None:
        try:
            result = obstore.get(self._clients.read, key)
            modified_ms = int(result.meta["last_modified"].timestamp() * 1000)
            return Stored(bytes(result.bytes()), modified_ms)
        except FileNotFoundError as error:
            self._refuse_missing_bucket(error)
            return None
        except Exception as error:
            raise self._translate(error, "read") from error

    def _delete_one(self, key: str) -> None:
        try:
            obstore.delete(self._clients.write, key)
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._translate(error, "delete") from error

    def _refuse_missing_bucket(self, error: Exception) -> None:
        if _NO_BUCKET in str(error):
            raise self._translate(error, "read") from error

    @property
    def _clients(self) -> Clients:
        with self._connecting:
            if self._connected is None:
                self._connected = self._connect()
            return self._connected

    def _writing(self, data: bytes) -> Store:
        return self._clients.write_large if len(data) > LARGE_BYTES else self._clients.write

    def _translate(self, error: Exception, act: str) -> EverturnError:
        """Turn what obstore raises into an error of ours. It tells many causes apart in its text only."""
        text = str(error)
        where, reason = f"in {self._label}", _short(text.partition("\n")[0])
        status = _STATUS.search(text)
        code = _CODE.search(text)
        if _NO_BUCKET in text:
            return NotFound(
                f"there is no such bucket: {self._label}",
                hint="create it, or check the name, AWS_REGION and AWS_ENDPOINT_URL",
            )
        if "169.254.169.254" in text:
            return Denied(
                f"no credentials were found for {self._label}",
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the machine a role",
            )
        if isinstance(error, _DENIED) or _OS_DENIED in text or (code and code[1] in _DENIED_CODES):
            return Denied(
                f"not allowed to {act} {where}: {code[1] if code else reason}",
                hint="check the credentials and what they may do with this bucket and prefix",
            )
        if status and status[1] in _DENIED_STATUSES:
            return Denied(f"not allowed to {act} {where}: status {status[1]}", hint="check the credentials")
        if status and status[1] in _REFUSED_STATUSES:
            return Invalid(
                f"the store refuses to {act} {where}: status {status[1]} {code[1] if code else ''}".rstrip(),
                hint="check AWS_REGION, AWS_ENDPOINT_URL and the bucket's name",
            )
        return Unavailable(
            f"could not {act} {where}: {reason}",
            hint="check that the store can be reached; it is safe to try again",
        )


def _short(reason: str, limit: int = 300) -> str:
    return reason if len(reason) <= limit else reason[:limit] + "…"
