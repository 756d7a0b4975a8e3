"""What lies in the simulated store, and what one request does to it at the moment it takes effect.

Requests take effect one at a time: the store is as consistent as S3 is. What is not consistent is what a client
makes of several requests, and that is the point: a listing is several pages, each of its own moment.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from zlib import crc32

from everturn.log.objects import Item, Stored

FOLDER = "sessions/scope/project/session/main"


class Store:
    """One folder of objects.

    Args:
        page_size: How many keys a page of a listing has.
        unsorted: List in an order that has nothing to do with the keys, as directory buckets do.
        offset_s: How far the store's own clock is from the simulated time.
    """

    def __init__(self, *, page_size: int, unsorted: bool, offset_s: float) -> None:
        self.blobs: dict[str, Stored] = {}
        self._page_size = page_size
        self._unsorted = unsorted
        self._offset_s = offset_s
        self._order: list[tuple[str, str]] = []

    def modified_ms(self, now: float) -> int:
        """Return the time the store would give an object that is written now: whole seconds, as S3's listings do."""
        return int(now + self._offset_s) * 1000

    def create(self, key: str, data: bytes, now: float) -> bool:
        """Create an object if there is none."""
        if key in self.blobs:
            return False
        insort(self._order, (self._place(key), key))
        self.blobs[key] = Stored(data, self.modified_ms(now))
        return True

    def put(self, key: str, data: bytes, now: float) -> None:
        """Write an object, over an older one if there is one."""
        if not self.create(key, data, now):
            self.blobs[key] = Stored(data, self.modified_ms(now))

    def remove(self, key: str) -> bool:
        """Delete an object, and tell whether it was there."""
        if self.blobs.pop(key, None) is None:
            return False
        self._order.remove((self._place(key), key))
        return True

    def page(self, after: str | None) -> tuple[list[Item], str | None]:
        """Return the page of the listing that follows a key, and the key to go on from, if there is more."""
        start = 0 if after is None else bisect_right(self._order, (self._place(after), after))
        keys = [key for _, key in self._order[start : start + self._page_size]]
        more = start + self._page_size < len(self._order)
        return [self.item(key) for key in keys], keys[-1] if more else None

    def _place(self, key: str) -> str:
        return f"{crc32(key.encode()):08x}" if self._unsorted else key

    def item(self, key: str) -> Item:
        """Return what a listing says of an object."""
        blob = self.blobs[key]
        return Item(key, len(blob.data), blob.modified_ms)


class Perfect:
    """`Objects` for a perfect reader: every request takes effect at once, and the world stands still meanwhile."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, key: str) -> Stored | None:
        """See `Objects.get`."""
        return self._store.blobs.get(key)

    async def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        """See `Objects.get_many`."""
        return [self._store.blobs.get(key) for key in keys]

    async def listing(self, folder: str) -> list[Item]:
        """See `Objects.listing`."""
        return [self._store.item(key) for key in self._store.blobs]

    async def wait(self, seconds: float) -> None:
        """See `Objects.wait`. Nothing changes, however long one waits."""
