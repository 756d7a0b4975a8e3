"""What a session-hour costs at list prices, from what was counted at the server (`bench/replay.py`)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

HOUR_S = 3600.0
DAYS_KEPT = 30
GB = 1 << 30


@dataclass(frozen=True)
class Prices:
    """List prices of a storage class in us-east-1, in dollars.

    Attributes:
        name: What it is called.
        write: For 1,000 PUT or LIST requests.
        read: For 1,000 GET requests.
        month: For a GB stored for a month.
        upload: For a GB sent, where that costs.
        retrieval: For a GB fetched, where that costs.
    """

    name: str
    write: float
    read: float
    month: float
    upload: float = 0.0
    retrieval: float = 0.0


PRICES = (
    Prices("S3 Standard", write=0.005, read=0.0004, month=0.023),
    Prices("S3 Express One Zone", write=0.00113, read=0.00003, month=0.11, upload=0.0032, retrieval=0.0006),
)


@dataclass(frozen=True)
class Hour:
    """What one hour of one session asks of a store. Deleting is free.

    Attributes:
        puts: Objects written.
        lists: Listings.
        gets: Objects read.
        sent_bytes: Uploaded.
        fetched_bytes: Downloaded.
        kept_bytes: What stays.
    """

    puts: float
    lists: float
    gets: float
    sent_bytes: float
    fetched_bytes: float
    kept_bytes: float

    def dollars(self, prices: Prices) -> float:
        """Return the price of it, with what it leaves behind kept for a month."""
        requests = (self.puts + self.lists) * prices.write / 1000 + self.gets * prices.read / 1000
        moved = (self.sent_bytes * prices.upload + self.fetched_bytes * prices.retrieval) / GB
        return requests + moved + self.kept_bytes / GB * prices.month * DAYS_KEPT / 30


def hour(row: dict[str, Any], seconds: float) -> Hour:
    """Return what an hour asks, from a replay of so many seconds."""
    counts: Counter[str] = Counter()
    for phase in row["phases"].values():
        counts.update(phase)
    share = HOUR_S / seconds
    return Hour(
        puts=counts["PUT"] * share,
        lists=counts["LIST"] * share,
        gets=(counts["GET"] + counts["HEAD"]) * share,
        sent_bytes=counts["bytes_in"] * share,
        fetched_bytes=counts["bytes_out"] * share,
        kept_bytes=row["kept_bytes"] * share,
    )


def phases(row: dict[str, Any], without: dict[str, Any] | None = None) -> dict[str, Counter[str]]:
    """Return what was asked, by what it was for.

    Args:
        row: A replay.
        without: The same without compaction in the background, whose share is what is more.
    """
    found = {name: Counter(counts) for name, counts in row["phases"].items()}
    if without is None:
        return found
    appends = Counter(without["phases"]["appends"])
    more = found["appends"] - appends
    return {"appends": appends, "background compaction": more, **{n: c for n, c in found.items() if n != "appends"}}
