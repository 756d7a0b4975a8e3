"""Keeping the sessions of a store in order: compacting, deleting, expiring.

Ages are told by the store's own clock, as the times of objects are.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from everturn.clock import Clock, Ids
from everturn.errors import Corrupt, NotFound
from everturn.log.compaction import clear_deleted, collect, compact, covered
from everturn.log.names import parse_file_name
from everturn.log.objects import Item, Objects
from everturn.log.reader import list_parts, log_exists, read_part
from everturn.log.stores import now_ms
from everturn.settings import Settings
from everturn.transcripts import listing
from everturn.transcripts.archive import Archive, SessionRef
from everturn.transcripts.holds import held, refuse_if_held
from everturn.transcripts.homes import forget_home
from everturn.transcripts.layout import Layout
from everturn.transcripts.observer import StoreObserver
from everturn.transcripts.session_logs import SessionLogs, Target
from everturn.upkeep.journals import SessionJournals

DAY_MS = 24 * 60 * 60 * 1000
# No worker that was suspended for so long comes back to write: only then the trace of a deletion itself may go.
REMAINS_MS = 7 * DAY_MS


@dataclass(frozen=True, slots=True)
class Compacted:
    """What compacting a session did.

    Attributes:
        ref: The session.
        objects_before: How many parts and segments it had.
        objects_after: How many it has now.
        segments: How many segments were written.
        freed: How many objects were deleted.
        waiting: How many can be deleted once the segments are two minutes old.
    """

    ref: SessionRef
    objects_before: int = 0
    objects_after: int = 0
    segments: int = 0
    freed: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """A session as a deletion finds it.

    Attributes:
        ref: The session.
        objects: How many objects it consists of.
        size_bytes: How large they are.
        modified_ms: When the last of them was written, in milliseconds since the Unix epoch.
        is_held: Whether it is under a legal hold.
        is_remains: Whether it was deleted before, and only the traces of that are left.
        subpath: The sub-transcript, if it is about one alone.
    """

    ref: SessionRef
    objects: int
    size_bytes: int
    modified_ms: int
    is_held: bool = False
    is_remains: bool = False
    subpath: str | None = None


class Upkeep:
    """Looks after the sessions of an archive.

    Args:
        archive: The sessions.
        settings: Time-outs.
        clock: For deadlines.
        ids: For write ids.
    """

    def __init__(self, archive: Archive, settings: Settings, clock: Clock, ids: Ids) -> None:
        self._archive = archive
        self._objects: Objects = archive.objects
        self._settings = settings
        self._clock = clock
        self._ids = ids
        self._observer = StoreObserver()
        self._journals = SessionJournals(self._objects, settings, clock, ids, self._observer)

    async def compact(self, ref: SessionRef) -> Compacted:
        """Merge each transcript of a session into as few segments as it takes, and free what can be freed.

        Readers and writers may be at work meanwhile. What was merged is durable on return.

        Raises:
            Corrupt: A part is missing or damaged. Names the object; what was merged before stays so.
            Unavailable: The store did not answer in time.
        """
        result = Compacted(ref)
        reached_ms: int | None = None
        for folder in await self._folders(ref):
            before = len(await list_parts(self._objects, folder))
            if before < 2:
                result = replace(
                    result, objects_before=result.objects_before + before, objects_after=result.objects_after + before
                )
                continue
            outcome = await compact(
                self._objects, folder, writer=self._settings.worker, ids=self._ids, everything=True
            )
            reached_ms = reached_ms or await now_ms(self._objects, ref.scope)
            freed = await collect(self._objects, folder, now_ms=reached_ms)
            freed += await clear_deleted(self._objects, folder, now_ms=reached_ms)
            after = await list_parts(self._objects, folder)
            result = replace(
                result,
                objects_before=result.objects_before + before,
                objects_after=result.objects_after + len(after),
                segments=result.segments + len(outcome.segments),
                freed=result.freed + freed,
                waiting=result.waiting + len(covered(after)),
            )
        return result

    async def look(self, ref: SessionRef) -> Found:
        """Return what there is of a session."""
        holds = await held(self._objects, ref.scope)
        return await self._found(ref, await self._objects.listing(_folder(ref)), holds)

    async def look_at(self, ref: SessionRef, subpath: str) -> Found:
        """Return what there is of a sub-transcript.

        Raises:
            NotFound: There is no such sub-transcript.
        """
        listed = await list_parts(self._objects, ref.folder(subpath))
        if not await listing.is_there(self._objects, ref.folder(subpath), listed):
            raise _no_such(ref, subpath)
        items = list(listed.values())
        is_held = ref.session_id in await held(self._objects, ref.scope)
        size_bytes = sum(item.size_bytes for item in items)
        return Found(ref, len(items), size_bytes, _newest_ms(items), is_held, subpath=subpath)

    async def delete(self, ref: SessionRef, subpath: str | None = None) -> None:
        """Delete a session, or one of its sub-transcripts. Readers find nothing from the first moment on.

        With a session go the journals and traces of the runs that it was held in.

        Raises:
            Conflict: It is under a legal hold.
            NotFound: There is no such sub-transcript.
            Unavailable: The store did not answer in time. Delete it again: what is left goes then.
        """
        if subpath is not None and not await log_exists(self._objects, ref.folder(subpath)):
            raise _no_such(ref, subpath)
        await refuse_if_held(self._objects, ref.scope, ref.session_id)
        if subpath is None:  # first: while the session is there, whoever was interrupted finds the rest
            for each in await self._journals.runs(ref.scope, ref.session_id):
                await self._journals.delete(each)
        logs = SessionLogs(
            self._objects,
            Layout(ref.scope),
            any_cwd=False,  # the one that was named, not the one its home names
            epoch=0,
            settings=self._settings,
            clock=self._clock,
            ids=self._ids,
            observer=self._observer,
        )
        await logs.delete(Target(ref.project_key, ref.session_id, subpath))
        if subpath is None:
            await forget_home(self._objects, Layout(ref.scope), ref.session_id, ref.project_key)

    async def expired(self, scope: str, older_than_ms: int) -> list[Found]:
        """Return the sessions of a scope that were last written so long ago, remains of deleted ones included.

        Remains have to be a week old in any case. Three listings a session are made for those whose summary is as
        old, and for those that have none.
        """
        layout = Layout(scope)
        reached_ms = await now_ms(self._objects, scope)
        limit_ms = reached_ms - older_than_ms
        remains_limit_ms = reached_ms - max(older_than_ms, REMAINS_MS)
        holds = await held(self._objects, scope)
        found: list[Found] = []
        for project_key in await listing.projects(self._objects, layout):
            paused = await listing.pauses(self._objects, layout, project_key)
            for session_id, paused_ms in paused.items():
                if paused_ms is not None and paused_ms >= limit_ms:
                    continue
                state = await self._state(SessionRef(scope, project_key, session_id), holds)
                if state.objects and state.modified_ms < (remains_limit_ms if state.is_remains else limit_ms):
                    found.append(state)
        return found

    async def expire(self, found: Found) -> bool:
        """Delete an expired session, or the remains of one. A session that was written to since then is left alone.

        Returns:
            Whether it was deleted.

        Raises:
            Conflict: It is under a legal hold.
        """
        await refuse_if_held(self._objects, found.ref.scope, found.ref.session_id)
        items = await self._objects.listing(_folder(found.ref))
        if await self._last_entry_ms(items) != found.modified_ms:
            return False
        if found.is_remains:
            # A deletion that broke off may have left the summary; without the folder nobody would find it again.
            await self._delete_derived(found.ref)
            await self._journals.clear_remains(found.ref.scope)
            await self._objects.delete([item.key for item in items])
        else:
            await self.delete(found.ref)
        return True

    async def _found(self, ref: SessionRef, items: Sequence[Item], holds: set[str]) -> Found:
        exists = await self._archive.exists(ref)
        size_bytes = sum(item.size_bytes for item in items)
        return Found(ref, len(items), size_bytes, _newest_ms(items), ref.session_id in holds, not exists)

    async def _state(self, ref: SessionRef, holds: set[str]) -> Found:
        """Return what there is of a session, with the time of its last entry, whatever was compacted since."""
        items = await self._objects.listing(_folder(ref))
        found = await self._found(ref, items, holds)
        return replace(found, modified_ms=await self._last_entry_ms(items))

    async def _last_entry_ms(self, items: Sequence[Item]) -> int:
        """Return when the last part was written: a segment is younger than what it holds, and says how much."""
        newest_ms = 0
        for item in sorted(items, key=lambda item: item.modified_ms, reverse=True):
            if item.modified_ms <= newest_ms:
                break
            folder, _, name = item.key.rpartition("/")
            span = parse_file_name(name)
            written_ms = item.modified_ms
            if span is not None and span.segment:
                with suppress(Corrupt):  # then it counts as young
                    part = await read_part(self._objects, folder, span)
                    written_ms = (part and part.header.newest_ms) or written_ms
            newest_ms = max(newest_ms, written_ms)
        return newest_ms

    async def _delete_derived(self, ref: SessionRef) -> None:
        """Delete what was derived from a session."""
        layout = Layout(ref.scope)
        await self._objects.delete([layout.summary(ref.project_key, ref.session_id)])
        await self._objects.delete([layout.catalog(ref.project_key)])
        await forget_home(self._objects, layout, ref.session_id, ref.project_key)

    async def _folders(self, ref: SessionRef) -> list[str]:
        return [ref.folder(subpath) for subpath in (None, *await self._archive.subpaths(ref))]


def _no_such(ref: SessionRef, subpath: str) -> NotFound:
    return NotFound(f"session {ref.session_id} has no {subpath}", hint="everturn sessions show lists them")


def _folder(ref: SessionRef) -> str:
    return Layout(ref.scope).session(ref.project_key, ref.session_id)


def _newest_ms(items: Sequence[Item]) -> int:
    return max((item.modified_ms for item in items), default=0)
