"""What a session-hour costs at list prices, from the pace of the recordings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from bench.frames import Frame, recordings
from bench.limit import payloads

HOUR_S = 3600.0
SUMMARY_PAUSE_S = 2.0  # the default of `summary_pause_s`
LINGER_S = 1.0
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
    """What one hour of one session asks of a store.

    Attributes:
        puts: Objects written.
        lists: Listings.
        gets: Objects read: by one resume.
        sent_bytes: Uploaded.
        kept_bytes: What stays.
    """

    puts: float
    lists: float
    gets: float
    sent_bytes: float
    kept_bytes: float

    def dollars(self, prices: Prices) -> float:
        """Return the price of it, with what it leaves behind kept for a month."""
        requests = (self.puts + self.lists) * prices.write / 1000 + self.gets * prices.read / 1000
        moved = (self.sent_bytes * prices.upload + self.kept_bytes * prices.retrieval) / GB
        return requests + moved + self.kept_bytes / GB * prices.month * DAYS_KEPT / 30


@dataclass(frozen=True)
class Pace:
    """What the recordings show: events in an hour of an agent that never waits for its user.

    Attributes:
        frames: Appends.
        lingered: PUTs if the frames of a log that come within `LINGER_S` of the first one share one.
        pauses: How often a session is quiet for longer than `SUMMARY_PAUSE_S`.
        plain_bytes: JSON lines.
        part_bytes: The same as parts.
    """

    frames: float
    lingered: float
    pauses: float
    plain_bytes: float
    part_bytes: float


def pace() -> Pace:
    """Measure the recordings."""
    conversations = recordings()
    hours = sum(frames[-1].at_s - frames[0].at_s for frames in conversations) / HOUR_S
    everything = [frame for frames in conversations for frame in frames]
    parts = payloads([frame.entries() for frame in everything])
    return Pace(
        len(everything) / hours,
        sum(_shared(frames) for frames in conversations) / hours,
        sum(_pauses(frames) for frames in conversations) / hours,
        sum(len(frame.text) for frame in everything) / hours,
        sum(len(part) for part in parts) / hours,
    )


def _shared(frames: Iterable[Frame]) -> int:
    """Count PUTs if frames wait for each other."""
    puts = 0
    open_until: dict[str | None, float] = {}
    for frame in frames:
        if frame.at_s > open_until.get(frame.subpath, -1.0):
            puts += 1
            open_until[frame.subpath] = frame.at_s + LINGER_S
    return puts


def _pauses(frames: Iterable[Frame]) -> int:
    times = [frame.at_s for frame in frames]
    return 1 + sum(later - earlier > SUMMARY_PAUSE_S for earlier, later in pairwise(times))


def hours(seen: Pace, ratios: dict[str, float]) -> dict[str, Hour]:
    """Return what an hour asks of each store.

    Args:
        seen: The pace.
        ratios: Measured: `summary_puts` and `summary_lists` for each pause, `compacted` (bytes of a compacted
            transcript for each byte of its parts), `load_gets` and `load_lists` of a compacted transcript.
    """
    summaries = seen.pauses * ratios["summary_puts"]
    looks = seen.pauses * ratios["summary_lists"]
    kept = seen.part_bytes * ratios["compacted"]

    def everturn(puts: float) -> Hour:
        # A compacted transcript has been written twice and read once more than its parts.
        return Hour(
            puts + summaries + 1,
            looks + 1 + ratios["load_lists"],
            puts + ratios["load_gets"] + 1,
            seen.part_bytes + kept,
            kept,
        )

    return {
        "everturn": everturn(seen.frames),
        f"everturn, linger {LINGER_S:g} s": everturn(seen.lingered),
        "baseline": Hour(seen.frames, 1 + seen.frames // 1000, seen.frames, seen.plain_bytes, seen.plain_bytes),
    }
