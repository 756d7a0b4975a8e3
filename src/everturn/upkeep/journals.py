"""The journals and traces of a session: they go when it goes."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

from everturn.clock import Clock, Ids
from everturn.errors import Corrupt
from everturn.journal.events import BeganAnew, Resumed, Started
from everturn.journal.reading import Journals, RunJournal, RunRef, put_in_order
from everturn.log.deletion import delete_log
from everturn.log.objects import Objects
from everturn.log.reader import list_spans, read_part, uncovered
from everturn.log.writer import LogWriter
from everturn.settings import Settings
from everturn.transcripts.layout import Layout
from everturn.transcripts.observer import StoreObserver


class SessionJournals:
    """The journals of the runs that a session was held in.

    Args:
        objects: The store.
        settings: Time-outs.
        clock: For deadlines.
        ids: For write ids.
        observer: Is told what happens.
    """

    def __init__(self, objects: Objects, settings: Settings, clock: Clock, ids: Ids, observer: StoreObserver) -> None:
        self._objects = objects
        self._settings = settings
        self._clock = clock
        self._ids = ids
        self._observer = observer
        self._journals = Journals(objects, "")

    async def runs(self, scope: str, session_id: str) -> list[RunRef]:
        """Return the runs of a scope in which a session was held, or begun, or lost. Reads all its journals.

        One that is so damaged that nothing tells whose it is counts as the session's: it must not outlive it.
        """
        found = [(ref, await self._sessions(ref)) for ref in await self._journals.runs(scope)]
        return [ref for ref, sessions in found if sessions is None or session_id in sessions]

    async def delete(self, ref: RunRef) -> None:
        """Delete the trace of a run, and its journal. What the run still ships is refused, should it be alive.

        The trace goes first: only by the journal would it be found again, should this be broken off.
        """
        await self._objects.delete([Layout(ref.scope).trace(ref.run_id)])
        await delete_log(self._objects, ref.folder, partial(self._writer, ref.folder))

    async def clear_remains(self, scope: str) -> None:
        """Delete what deletions of journals have left in a scope."""
        for ref in await self._journals.runs(scope):
            with suppress(Corrupt):  # then it was not deleted
                if not (await self._journals.read(ref)).deleted:
                    continue
                await self._objects.delete([item.key for item in await self._objects.listing(ref.folder)])

    async def _sessions(self, ref: RunRef) -> set[str] | None:
        """Return the sessions that a run had to do with; `None`: its journal is damaged, and nothing tells.

        Of a journal that is deleted, what counts is what a deletion that was broken off has left of it.
        """
        try:
            journal = await self._journals.read(ref)
        except Corrupt:
            return _sessions_of(await self._left(ref)) or None
        return _sessions_of(await self._left(ref) if journal.deleted else journal)

    async def _left(self, ref: RunRef) -> RunJournal:
        """Return what can be read of a journal, part by part."""
        lines: list[Any] = []
        for span in uncovered(await list_spans(self._objects, ref.folder)):
            with suppress(Corrupt):
                part = await read_part(self._objects, ref.folder, span)
                lines += part.entries() if part is not None else []
        return put_in_order(ref, lines, 0)

    def _writer(self, folder: str, epoch: int) -> LogWriter:
        return LogWriter(
            self._objects,
            folder,
            clock=self._clock,
            ids=self._ids,
            observer=self._observer,
            epoch=epoch,
            writer=self._settings.worker,
            deadline_s=self._settings.retry_deadline_s,
        )


def _sessions_of(journal: RunJournal) -> set[str]:
    """Return the sessions that a run had to do with."""
    events = [each.event for each in journal.events]
    found = {event.session_id for event in events if isinstance(event, Started | Resumed | BeganAnew)}
    return found | {event.instead_of for event in events if isinstance(event, BeganAnew)}
