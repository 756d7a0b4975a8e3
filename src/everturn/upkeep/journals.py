"""The journals and traces of a session: they go when it goes."""

from __future__ import annotations

from functools import partial

from everturn.clock import Clock, Ids
from everturn.journal.events import BeganAnew, Started
from everturn.journal.reading import Journals, RunJournal, RunRef
from everturn.log.deletion import delete_log
from everturn.log.objects import Objects
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
        """Return the runs of a scope in which a session was held, or begun, or lost. Reads all its journals."""
        found = [await self._journals.read(ref) for ref in await self._journals.runs(scope)]
        return [journal.ref for journal in found if session_id in _sessions(journal)]

    async def delete(self, ref: RunRef) -> None:
        """Delete the journal of a run, and its trace. What the run still ships is refused, should it be alive."""
        await delete_log(self._objects, ref.folder, partial(self._writer, ref.folder))
        await self._objects.delete([Layout(ref.scope).trace(ref.run_id)])

    async def clear_remains(self, scope: str) -> None:
        """Delete what deletions of journals have left in a scope."""
        for ref in await self._journals.runs(scope):
            if (await self._journals.read(ref)).deleted:
                await self._objects.delete([item.key for item in await self._objects.listing(ref.folder)])

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


def _sessions(journal: RunJournal) -> set[str]:
    """Return the sessions that a run had to do with."""
    events = [each.event for each in journal.events]
    found = {event.session_id for event in events if isinstance(event, Started | BeganAnew)}
    return found | {event.instead_of for event in events if isinstance(event, BeganAnew)}
