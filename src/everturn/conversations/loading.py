"""A session with everything that belongs to it, as it lies in the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from everturn.conversations.conversation import Conversation
from everturn.conversations.reading import claims_in, read_conversation
from everturn.conversations.turns import Taken
from everturn.log.reader import list_parts
from everturn.transcripts.archive import Archive, SessionRef


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session that was read.

    Attributes:
        ref: Where it lies.
        entries: Its main transcript.
        agents: Its sub-transcripts, by subpath.
        claims: The claims that were taken on it.
        parts: How many objects hold it.
        size_bytes: How large they are together, compressed.
    """

    ref: SessionRef
    entries: list[Any]
    agents: dict[str, list[Any]] = field(default_factory=dict)
    claims: list[Taken] = field(default_factory=list)
    parts: int = 0
    size_bytes: int = 0

    def conversation(self) -> Conversation:
        """Return what was said and done."""
        return read_conversation(self.entries, self.agents, self.claims)


def _nobody(_done: int, _total: int) -> None:
    """Tell nobody."""


async def load_session(
    archive: Archive, ref: SessionRef, *, told: Callable[[int, int], None] = _nobody
) -> StoredSession:
    """Read a session's main transcript and all of its sub-transcripts.

    Args:
        archive: The store's sessions.
        ref: The session.
        told: Is told how many transcripts have been read, and how many there are.

    Raises:
        Corrupt: Something is missing or damaged. Names the object.
        Unavailable: The store did not answer.
    """
    subpaths = await archive.subpaths(ref)
    told(0, len(subpaths) + 1)
    log = await archive.read(ref)
    stored = list((await list_parts(archive.objects, log.folder)).values())
    agents: dict[str, list[Any]] = {}
    for done, subpath in enumerate(subpaths, 1):
        told(done, len(subpaths) + 1)
        sub = await archive.read(ref, subpath)
        agents[subpath] = sub.entries()
        stored += (await list_parts(archive.objects, sub.folder)).values()
    told(len(subpaths) + 1, len(subpaths) + 1)
    return StoredSession(
        ref, log.entries(), agents, claims_in(log), len(stored), sum(item.size_bytes for item in stored)
    )
