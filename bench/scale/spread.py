"""How the keys of a fleet lie in the bucket, and how even the ranges stay that S3 has split them into."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from everturn.clock import Ids
from everturn.model import WorkItem
from everturn.transcripts.layout import Layout

REPOSITORIES = 50


@dataclass(frozen=True)
class Spread:
    """How the folders of work items lie.

    Attributes:
        name: How work items are named.
        example: A folder.
        shared: How many characters all of them have in common.
        busiest_now: The share of the busiest range, right after S3 has split them evenly.
        busiest_next: The share of the busiest of the same ranges when as many other work items have come after.
    """

    name: str
    example: str
    shared: int
    busiest_now: float
    busiest_next: float


def spread(items: int, ranges: int) -> dict[str, Any]:
    """Return the same as `spreads`, as JSON has it."""
    return {"items": items, "ranges": ranges, "ways": [asdict(each) for each in spreads(items, ranges)]}


def spreads(items: int, ranges: int) -> list[Spread]:
    """Return how each way of naming spreads its load.

    Args:
        items: How many work items are active at once.
        ranges: How many ranges S3 has split their keys into.
    """
    ids = Ids(0)
    ways: dict[str, Callable[[int], WorkItem]] = {
        "random ids": lambda _: WorkItem.task(ids.session_id()),
        "counting ids": lambda number: WorkItem.task(str(1_000_000 + number)),
        "counting ids after four digits of their hash": lambda number: WorkItem.task(
            f"{sha256(str(number).encode()).hexdigest()[:4]}-{number}"
        ),
        f"issues of {REPOSITORIES} repositories": lambda number: WorkItem(
            agent="fixer",
            repo=f"https://git.example/team-{number % REPOSITORIES:02}/app",
            issue=1000 + number // REPOSITORIES,
        ),
    }
    return [_spread(name, way, items, ranges) for name, way in ways.items()]


def _spread(name: str, way: Callable[[int], WorkItem], items: int, ranges: int) -> Spread:
    now, following = (
        sorted(Layout(way(number).key).projects for number in range(begin, begin + items)) for begin in (0, items)
    )
    borders = [now[index * items // ranges] for index in range(1, ranges)]
    return Spread(
        name, now[0], _shared(now[0], now[-1]), _busiest(now, borders) / items, _busiest(following, borders) / items
    )


def _busiest(folders: list[str], borders: list[str]) -> int:
    return max(Counter(bisect_right(borders, folder) for folder in folders).values())


def _shared(one: str, other: str) -> int:
    return next(index for index, (left, right) in enumerate(zip(one, other, strict=False)) if left != right)
