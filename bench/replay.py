"""An hour of an agent that never waits for its user, as recorded, and everything that it asks of a store.

Time is not waited for. What depends on it happens where it would: frames that linger together are appended together
and drained, a summary is written after each pause that is long enough, and compaction in the background is over
before the next append, as it is at an agent's pace. Requests are counted at the server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from claude_agent_sdk import SessionKey, SessionStore

from bench.compact import freeing_at_once, wait_for_compaction
from bench.frames import Frame, rounds
from bench.servers import Server
from everturn.settings import Settings
from everturn.transcripts.store import TranscriptStore

SUMMARY_PAUSE_S = float(Settings.model_fields["summary_pause_s"].default)


@dataclass
class Group:
    """Frames of one log that share a PUT."""

    frames: list[Frame]

    @property
    def at_s(self) -> float:
        """When it begins."""
        return self.frames[0].at_s

    @property
    def subpath(self) -> str | None:
        """The log."""
        return self.frames[0].subpath

    def entries(self) -> Iterator[list[Any]]:
        """Yield the entries of each frame."""
        return (frame.entries() for frame in self.frames)


def session_of(seconds: float) -> list[Frame]:
    """Return one session of this length: recorded conversations, one right after the other."""
    found: list[Frame] = []
    begin_s = 0.0
    for round_number, conversations in enumerate(rounds()):
        for conversation in conversations:
            for frame in conversation:
                at_s = begin_s + frame.at_s - conversation[0].at_s
                if at_s > seconds:
                    return found
                subpath = f"{frame.subpath}-{round_number}" if frame.subpath else None
                found.append(replace(frame, at_s=at_s, subpath=subpath))
            begin_s = found[-1].at_s
    raise AssertionError("rounds never end")


def groups(frames: Sequence[Frame], linger_s: float) -> list[Group]:
    """Put together what lingers together: frames of a log that come within `linger_s` of the first one."""
    found: list[Group] = []
    growing: dict[str | None, Group] = {}
    for frame in frames:
        group = growing.get(frame.subpath)
        if group is not None and linger_s and frame.at_s <= group.at_s + linger_s:
            group.frames.append(frame)
        else:
            growing[frame.subpath] = Group([frame])
            found.append(growing[frame.subpath])
    return found


def pauses(frames: Sequence[Group], pause_s: float = SUMMARY_PAUSE_S) -> set[int]:
    """Return before which groups the main log was quiet for so long that its summary is written."""
    found: set[int] = set()
    last_s: float | None = None
    for index, group in enumerate(frames):
        if last_s is not None and group.at_s - last_s > pause_s:
            found.add(index)
            last_s = None  # written; the next one is due after something new
        if group.subpath is None:
            last_s = group.frames[-1].at_s
    return found


@dataclass
class Replay:
    """One session-hour.

    Args:
        server: Counts.
        project_key: Where the session is.
        session_id: The session.

    Attributes:
        phases: What was asked of the server, by what it was for.
    """

    server: Server
    project_key: str
    session_id: str
    phases: dict[str, Counter[str]] = field(default_factory=dict)

    async def write(self, opened: AbstractAsyncContextManager[SessionStore], lingering: Sequence[Group]) -> None:
        """Append everything, as it came. Closing the store writes the last summary."""
        quiet_before = pauses(lingering)
        with freeing_at_once():
            async with opened as store:
                self.server.take_counts()
                for index, group in enumerate(lingering):
                    if index in quiet_before:
                        await self._pause(store)
                    await self._append(store, group)
                self._note("appends")
        self._note("summaries")

    async def resume(self, opened: AbstractAsyncContextManager[SessionStore], frames: Sequence[Frame]) -> int:
        """Load the main transcript and those of subagents in a new process. Returns how many entries there are."""
        async with opened as store:
            self.server.take_counts()
            loaded = [await store.load(self._key(subpath)) for subpath in {frame.subpath: 0 for frame in frames}]
            self._note("resume")
        return sum(len(entries or ()) for entries in loaded)

    async def _append(self, store: SessionStore, group: Group) -> None:
        for entries in group.entries():
            await store.append(self._key(group.subpath), entries)
        if isinstance(store, TranscriptStore):
            await store.drain()
        wait_for_compaction(store)

    async def _pause(self, store: SessionStore) -> None:
        self._note("appends")
        if isinstance(store, TranscriptStore):
            await store.flush()
        self._note("summaries")

    def _key(self, subpath: str | None) -> SessionKey:
        found: SessionKey = {"project_key": self.project_key, "session_id": self.session_id}
        return found if subpath is None else {**found, "subpath": subpath}

    def _note(self, phase: str) -> None:
        self.phases.setdefault(phase, Counter()).update(self.server.take_counts())
