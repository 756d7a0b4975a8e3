"""The object store as the log sees it, and the one implementation of it, on obstore.

The log's protocol is written as coroutines over `Objects`, so that a simulation can stop them at every request.
In real life they run inside worker threads, where `BlockingObjects` simply blocks and never suspends: measured,
obstore's blocking calls in threads are as fast as its async ones for single requests and three times as fast for
many, and one way serves asyncio, trio and programs with no event loop (docs/decisions/0002).
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import obstore
from obstore import exceptions
from obstore.store import LocalStore, MemoryStore, S3Store

from everturn.clock import Clock, SystemClock
from everturn.errors import Denied, EverturnError, NotFound, Unavailable

Result = TypeVar("Result")
Store = S3Store | LocalStore | MemoryStore

PARALLEL_GETS = 16


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
        """List all objects below a folder, in any order. A folder that does not exist is empty."""

    async def list_folders(self, folder: str) -> list[str]:
        """Return the names of the folders directly inside a folder."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that do not exist are fine."""

    async def wait(self, seconds: float) -> None:
        """Let this much time pass before the next request."""


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end on the spot. Its store must be one that blocks instead of suspending."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: Result = end.value
        return result
    coroutine.close()
    raise RuntimeError("a coroutine that should have blocked has suspended")


class BlockingObjects:
    """`Objects` on obstore. Its coroutines block the calling thread and never suspend.

    Args:
        store: Where the objects are.
        label: The store's URL, for messages.
        clock: What `wait` waits with.
    """

    def __init__(self, store: Store, label: str, clock: Clock | None = None) -> None:
        self._store = store
        self._label = label
        self._clock = clock or SystemClock()

    async def create(self, key: str, data: bytes) -> bool:
        """See `Objects.create`."""
        try:
            obstore.put(self._store, key, data, mode="create", use_multipart=False)
        except exceptions.AlreadyExistsError:
            return False
        except Exception as error:
            raise self._translate(error, "write") from error
        return True

    async def put(self, key: str, data: bytes) -> None:
        """See `Objects.put`."""
        try:
            obstore.put(self._store, key, data, use_multipart=False)
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
            return list(pool.map(self._get, keys))

    async def listing(self, folder: str) -> list[Item]:
        """See `Objects.listing`."""
        try:
            return [
                Item(row["path"], row["size"], int(row["last_modified"].timestamp() * 1000))
                for page in obstore.list(self._store, folder or None)
                for row in page
            ]
        except Exception as error:
            raise self._translate(error, "list") from error

    async def list_folders(self, folder: str) -> list[str]:
        """See `Objects.list_folders`."""
        try:
            listing = obstore.list_with_delimiter(self._store, folder or None)
            return [path.rsplit("/", 1)[-1] for path in listing["common_prefixes"]]
        except Exception as error:
            raise self._translate(error, "list") from error

    async def delete(self, keys: Sequence[str]) -> None:
        """See `Objects.delete`."""
        try:
            obstore.delete(self._store, list(keys))
        except FileNotFoundError:
            for key in keys:  # the local folder stops at the first one that is gone
                self._delete_one(key)
        except Exception as error:
            raise self._translate(error, "delete") from error

    async def wait(self, seconds: float) -> None:
        """See `Objects.wait`."""
        self._clock.sleep(seconds)

    def _get(self, key: str) -> Stored | None:
        try:
            result = obstore.get(self._store, key)
            modified_ms = int(result.meta["last_modified"].timestamp() * 1000)
            return Stored(bytes(result.bytes()), modified_ms)
        except FileNotFoundError as error:
            self._refuse_missing_bucket(error)
            return None
        except Exception as error:
            raise self._translate(error, "read") from error

    def _delete_one(self, key: str) -> None:
        try:
            obstore.delete(self._store, key)
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._translate(error, "delete") from error

    def _refuse_missing_bucket(self, error: Exception) -> None:
        if "NoSuchBucket" in str(error):
            raise self._translate(error, "read") from error

    def _translate(self, error: Exception, act: str) -> EverturnError:
        """Turn what obstore raises into an error of ours. It tells some causes apart only in its text."""
        text = str(error)
        reason = text.partition("\n")[0]
        if "NoSuchBucket" in text:
            return NotFound(
                f"there is no such bucket: {self._label}",
                hint="create it, or check the name, AWS_REGION and AWS_ENDPOINT_URL",
            )
        if "169.254.169.254" in text:
            return Denied(
                f"no credentials were found for {self._label}",
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the machine a role",
            )
        if isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError)):
            return Denied(
                f"not allowed to {act} in {self._label}: {_short(reason)}",
                hint="check the credentials and what they may do with this bucket and prefix",
            )
        return Unavailable(
            f"could not {act} in {self._label}: {_short(reason)}",
            hint="check that the store can be reached; it is safe to try again",
        )


def _short(reason: str, limit: int = 300) -> str:
    return reason if len(reason) <= limit else reason[:limit] + "…"
