"""Compaction as the library does it, without the two minutes that it waits before anything is freed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from claude_agent_sdk import SessionStore

from everturn.clock import Ids, SystemClock
from everturn.log import compaction
from everturn.log.stores import connect
from everturn.settings import Settings
from everturn.transcripts.archive import Archive, SessionRef
from everturn.transcripts.store import TranscriptStore
from everturn.upkeep.tending import Compacted, Upkeep


async def compact_session(url: str, ref: SessionRef) -> Compacted:
    """Do what `everturn sessions compact` does. To be run by `everturn.log.objects.run`."""
    settings = Settings.load()
    archive = Archive(connect(url, settings), url)
    return await Upkeep(archive, settings, SystemClock(), Ids()).compact(ref)


def wait_for_compaction(store: SessionStore) -> None:
    """Block until the compaction in a store's background is done, as it is before an agent's next 64 frames."""
    if isinstance(store, TranscriptStore):
        store._logs.compactor.wait()


@contextmanager
def freeing_at_once() -> Iterator[None]:
    """Free what a segment covers as soon as somebody looks. Safe here, where nobody reads or writes meanwhile."""
    usual_ms = compaction.FREE_AFTER_MS
    compaction.FREE_AFTER_MS = -2_000  # some times are told in milliseconds, some in whole seconds
    try:
        yield
    finally:
        compaction.FREE_AFTER_MS = usual_ms
