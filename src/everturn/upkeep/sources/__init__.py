"""Where sessions can be imported from besides this machine: the layouts of the SDK's reference adapters.

They stand in `examples/session_stores` of https://github.com/anthropics/claude-agent-sdk-python, to be copied into
other programs. docs/import.md says what each of them can lose, and what becomes of that here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from everturn.errors import Invalid
from everturn.settings import Settings
from everturn.upkeep.sources.base import Source
from everturn.upkeep.sources.parts import PartObjects
from everturn.upkeep.sources.postgres import PostgresRows
from everturn.upkeep.sources.redis import RedisLists

KINDS: dict[str, Callable[[str, Settings], Source]] = {
    "s3": PartObjects,
    "redis": RedisLists,
    "rediss": RedisLists,
    "unix": RedisLists,
    "postgres": PostgresRows,
    "postgresql": PostgresRows,
}


def is_url(place: str) -> bool:
    """Tell whether a place is a URL, rather than a file or folder."""
    return "://" in place


@contextmanager
def open_source(url: str, settings: Settings) -> Iterator[Source]:
    """Open what sessions are imported from, until the block ends. Nothing is ever written to it.

    Args:
        url: `s3://bucket/prefix`, `redis://host/0?prefix=…` or `postgresql://host/database?table=…`.
        settings: Where AWS is, whose credentials, and how patient to be.

    Raises:
        Invalid: It is another kind of URL, or its client is not installed.
        EverturnError: It cannot be reached.
    """
    scheme = url.partition("://")[0].lower()
    if scheme not in KINDS:
        raise Invalid(
            f"sessions cannot be imported from {scheme}://…",
            hint="use s3://…, redis://…, postgresql://… or a folder; see docs/import.md",
        )
    source = KINDS[scheme](url, settings)
    try:
        yield source
    finally:
        source.close()
