"""A bucket in memory and a table in memory that count what is asked of them as AWS does."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from math import ceil
from typing import Any

from obstore.store import MemoryStore

from everturn.clock import ManualClock
from everturn.log.objects import PAGE, BlockingObjects, Item, Stored

WRITES = ("PUT", "DELETE")  # what S3 counts against the rate of writes
READS = ("GET", "LIST")
READ_UNIT_BYTES, WRITE_UNIT_BYTES = 4096, 1024
SCAN_PAGE_BYTES = 1 << 20

ItemOf = dict[str, dict[str, Any]]


@dataclass
class Tally:
    """What was asked of S3.

    Attributes:
        requests: How many requests, by what they were for and of which kind.
        sent: Bytes sent, by what they were for.
        fetched: Bytes fetched, by what they were for.
        seconds: How many requests of each kind in each second.
        folders: How many requests of each kind below each of the root's folders.
    """

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    fetched: Counter[str] = field(default_factory=Counter)
    seconds: Counter[tuple[int, str]] = field(default_factory=Counter)
    folders: Counter[tuple[str, str]] = field(default_factory=Counter)


class Bucket:
    """`Objects` in memory, with a clock that is turned by hand. A listing is a request for each 1,000 objects.

    Args:
        clock: When objects were written.
        purpose: Says what a request for a key is for.
        objects: Where they really are, if not in memory.
    """

    def __init__(
        self, clock: ManualClock, purpose: Callable[[str], str], objects: BlockingObjects | None = None
    ) -> None:
        self._clock = clock
        self._purpose = purpose
        self._objects = objects or BlockingObjects(MemoryStore(), "memory://", clock)
        self._modified_ms: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()
        self.tally = Tally()

    @property
    def kept_bytes(self) -> Counter[str]:
        """How much is there, below each of the root's folders."""
        found: Counter[str] = Counter()
        for key, size_bytes in self._sizes.items():
            found[key.split("/")[0]] += size_bytes
        return found

    @property
    def objects(self) -> int:
        """How many objects there are."""
        return len(self._sizes)

    async def create(self, key: str, data: bytes) -> bool:
        """See `Objects`. One that is refused is a request all the same."""
        created = await self._objects.create(key, data)
        self._written(key, data, created=created)
        return created

    async def put(self, key: str, data: bytes) -> None:
        """See `Objects`."""
        await self._objects.put(key, data)
        self._written(key, data, created=True)

    async def get(self, key: str) -> Stored | None:
        """See `Objects`."""
        return self._fetched(key, await self._objects.get(key))

    async def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        """See `Objects`."""
        found = await self._objects.get_many(keys)
        return [self._fetched(key, stored) for key, stored in zip(keys, found, strict=True)]

    async def listing(self, folder: str) -> list[Item]:
        """See `Objects`."""
        found = await self._objects.listing(folder)
        self._note("LIST", folder, max(1, ceil(len(found) / PAGE)))
        return [Item(item.key, item.size_bytes, self._modified_ms[item.key]) for item in found]

    async def list_folders(self, folder: str) -> list[str]:
        """See `Objects`."""
        found = await self._objects.list_folders(folder)
        self._note("LIST", folder, max(1, ceil(len(found) / PAGE)))
        return found

    async def delete(self, keys: Sequence[str]) -> None:
        """See `Objects`."""
        await self._objects.delete(keys)
        for key in keys:
            self._note("DELETE", key)
            self._sizes.pop(key, None)

    async def wait(self, seconds: float) -> None:
        """See `Objects`."""
        await self._objects.wait(seconds)

    def _written(self, key: str, data: bytes, *, created: bool) -> None:
        self._note("PUT", key, sent=len(data))
        if created:
            self._modified_ms[key] = int(self._clock.now() * 1000)
            self._sizes[key] = len(data)

    def _fetched(self, key: str, stored: Stored | None) -> Stored | None:
        self._note("GET", key, fetched=0 if stored is None else len(stored.data))
        return None if stored is None else Stored(stored.data, self._modified_ms[key])

    def _note(self, kind: str, key: str, count: int = 1, *, sent: int = 0, fetched: int = 0) -> None:
        purpose = self._purpose(key)
        with self._lock:
            self.tally.requests[purpose, kind] += count
            self.tally.sent[purpose] += sent
            self.tally.fetched[purpose] += fetched
            self.tally.seconds[int(self._clock.elapsed()), kind] += count
            self.tally.folders[key.split("/", maxsplit=1)[0], kind] += count


class TableClient:
    """What the registry asks of boto3's client of DynamoDB, in memory, with the units that AWS would charge.

    Only the two conditions that the registry makes are known. `tests/bench/test_scale.py` compares it with moto.

    Args:
        clock: The server's time of day.

    Attributes:
        requests: How many requests, by operation.
        units: Read and write units, by what was asked for.
        table: The items.
    """

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.requests: Counter[str] = Counter()
        self.units: Counter[str] = Counter()
        self.table: dict[str, ItemOf] = {}

    def get_item(self, *, Key: ItemOf, **_: Any) -> dict[str, Any]:  # noqa: N803  # as boto3 has it
        """Read an item, consistently."""
        item = self.table.get(Key["work"]["S"])
        self._charge("GetItem", read=1 if item is None else ceil(size_of(item) / READ_UNIT_BYTES))
        return self._answer() if item is None else {**self._answer(), "Item": item}

    def put_item(self, *, Item: ItemOf, **condition: Any) -> dict[str, Any]:  # noqa: N803  # the same
        """Write an item under a condition."""
        self._write("PutItem", Item["work"]["S"], Item, condition)
        return self._answer()

    def delete_item(self, *, Key: ItemOf, **condition: Any) -> dict[str, Any]:  # noqa: N803  # the same
        """Delete an item under a condition."""
        self._write("DeleteItem", Key["work"]["S"], None, condition)
        return self._answer()

    def scan(self, **_: Any) -> dict[str, Any]:
        """Read all items, consistently. It is one page here; the units are those of all pages."""
        size_bytes = sum(map(size_of, self.table.values()))
        self._charge("Scan", max(1, ceil(size_bytes / SCAN_PAGE_BYTES)), read=ceil(size_bytes / READ_UNIT_BYTES))
        return {**self._answer(), "Items": list(self.table.values())}

    def _write(self, operation: str, key: str, item: ItemOf | None, condition: dict[str, Any]) -> None:
        there = self.table.get(key)
        larger = max(size_of(each) for each in (there, item, {}) if each is not None)
        self._charge(operation, write=max(1, ceil(larger / WRITE_UNIT_BYTES)))
        seen = condition.get("ExpressionAttributeValues", {}).get(":seen")
        if (there is None) != (seen is None) or (there is not None and there["write_id"] != seen):
            raise Refused(self._answer(), there)
        if item is None:
            self.table.pop(key, None)
        else:
            self.table[key] = item

    def _charge(self, operation: str, count: int = 1, *, read: int = 0, write: int = 0) -> None:
        self.requests[operation] += count
        self.units["read"] += read
        self.units["write"] += write

    def _answer(self) -> dict[str, Any]:
        return {"ResponseMetadata": {"HTTPHeaders": {"date": formatdate(self._clock.now(), usegmt=True)}}}


class Refused(Exception):
    """The error of a condition that does not hold, as botocore's `ClientError` carries it."""

    def __init__(self, answer: dict[str, Any], item: ItemOf | None) -> None:
        super().__init__("the condition does not hold")
        self.response = {**answer, "Error": {"Code": "ConditionalCheckFailedException"}, "Item": item}


def size_of(item: ItemOf) -> int:
    """Return how large DynamoDB takes an item to be: names and values in UTF-8, a number half a byte a digit."""
    return sum(len(name.encode()) + _size_of_value(value) for name, value in item.items())


def _size_of_value(value: dict[str, Any]) -> int:
    ((kind, plain),) = value.items()
    if kind == "S":
        return len(plain.encode())
    if kind == "BOOL":
        return 1
    digits = str(plain).replace(".", "").replace("-", "").strip("0")
    return ceil(len(digits) / 2) + 1
