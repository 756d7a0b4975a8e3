"""What runs that died on this machine have left in their folders: what they could not store any more, and traces."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from everturn.errors import EverturnError, Unavailable
from everturn.host.agents import END_AGENTS_S
from everturn.host.folders import RunFolder
from everturn.journal.reading import RunRef
from everturn.model import Claim
from everturn.runner.closing import TAINTED, TRACE_FILE
from everturn.runner.dispatch import in_thread
from everturn.runner.handle import Progress
from everturn.runner.lease import Lease
from everturn.runner.parts import Parts
from everturn.runner.taints import reason_of, with_reason, without_reason
from everturn.telemetry import get_logger
from everturn.transcripts.store import TranscriptStore
from everturn.upkeep.healing import Healing, folder_of, salvage

KEPT_S = 7 * 86_400.0  # a folder that nothing could be done with


class Past:
    """Looks after the folders of dead runs, at the start of a new one.

    Args:
        parts: What runs are made of.
        progress: What the handle of the new run shows.
        lease: Its claim.
    """

    def __init__(self, parts: Parts, progress: Progress, lease: Lease) -> None:
        self._parts = parts
        self._progress = progress
        self._lease = lease
        self._label = parts.stores.label.rstrip("/")
        self._looked = False
        # It would be the same, and take as long, for each of the folders.
        self._journal_refusal: Unavailable | None = None
        self._trace_refusal: Unavailable | None = None
        self._log = get_logger()

    async def look_after(self, store: TranscriptStore) -> bool:
        """Store what can be stored of what is left here, and throw away what is done with. Only once.

        The transcript of another session stays until that session is run here again, or for a week. Nothing that
        goes wrong here keeps the new run from its work: what is left stays left.

        Args:
            store: The transcript of the new run, fenced.

        Returns:
            Whether anything was added to that transcript.

        Raises:
            Fenced: A newer claim has taken over meanwhile.
        """
        if self._looked:
            return False
        self._looked = True
        appended = 0
        left = await self._leftovers()
        try:
            for folder in left:
                appended += await self._look_after(folder, store)
        finally:
            for folder in left:
                folder.close(keep=True)  # what we have not come to is for the next run, of this process too
        if store.observer.fenced is not None:
            raise store.observer.fenced
        if appended:
            self._progress.warn(f"{appended} entries that an earlier run had left on this machine were stored now")
        return bool(appended)

    async def _leftovers(self) -> list[RunFolder]:
        try:
            return await in_thread(self._parts.folders.leftovers)
        except (EverturnError, OSError) as error:
            self._log.warning("leftovers_not_found", error=str(error))
            return []

    async def _look_after(self, folder: RunFolder, store: TranscriptStore) -> int:
        """Do what can be done with a folder, and return how many entries were appended."""
        healing = Healing()
        keep = True
        try:
            await in_thread(partial(folder.end_agent, timeout_s=END_AGENTS_S))
            is_ours = _store_of(folder) == self._label
            needed = folder.transcript.exists() or not is_ours
            if is_ours and folder.transcript.exists() and folder.facts["session_id"] == self._progress.session_id:
                healing = await self._salvage(folder, store)
                needed = False
            if is_ours:  # last: what is refused here must not keep a conversation from being whole
                await self._ship_journal(folder)
                await self._upload_trace(folder)
            keep = needed and not await in_thread(partial(self._is_old, folder))
        except (EverturnError, OSError) as error:
            self._log.warning("leftover_stays", left_by=folder.run_id, error=str(error))
        await in_thread(partial(folder.close, keep=keep))
        return healing.appended

    async def _salvage(self, folder: RunFolder, store: TranscriptStore) -> Healing:
        key = self._progress.key
        healing = await salvage(store, key, folder_of(folder.transcript, key))
        tainted = without_reason(self._lease.claim.tainted, folder.facts.get(TAINTED))
        if not healing.whole:
            reason = reason_of(folder.run_id, healing.reasons)
            tainted = with_reason(tainted, reason)
            self._parts.metrics.tainted_sessions.inc()
            self._log.error("session_tainted", reason=reason)
        if tainted != self._lease.claim.tainted:
            await in_thread(partial(self._lease.replace, partial(self._taint, tainted=tainted)))
        return healing

    def _taint(self, claim: Claim, *, tainted: str | None) -> Claim:
        self._parts.registry.taint(claim, tainted)
        return replace(claim, tainted=tainted)

    async def _ship_journal(self, folder: RunFolder) -> None:
        journal = folder.journal
        if not journal.exists():
            return
        if self._journal_refusal is not None:
            raise self._journal_refusal
        ref = RunRef(folder.facts["task_id"], folder.run_id)
        try:
            async with self._parts.stores.claimed(ref.scope, 0) as guest:
                is_deleted = not await guest.is_known(folder.facts["session_id"])
            if is_deleted:  # perhaps before anything of its journal was in the store: it must not come back
                self._progress.warn(f"the journal of run {ref.run_id} was not stored, as its session was deleted")
            else:
                await self._store_journal(ref, journal)
        except Unavailable as error:
            self._journal_refusal = error
            raise
        await in_thread(journal.unlink)

    async def _store_journal(self, ref: RunRef, journal: Path) -> None:
        left = await in_thread(partial(self._parts.stores.ship_journal, ref, journal))
        if left.torn_bytes or left.damaged:
            self._progress.warn(f"the journal of run {ref.run_id} was torn; every whole line of it is stored")

    async def _upload_trace(self, folder: RunFolder) -> None:
        trace = folder.path / TRACE_FILE
        if not self._parts.settings.upload_traces or not trace.exists():
            return
        if self._trace_refusal is not None:
            raise self._trace_refusal
        scope, timeout_s = folder.facts["task_id"], self._parts.settings.retry_deadline_s
        upload = partial(self._parts.stores.upload_trace, scope, folder.run_id, trace, timeout_s=timeout_s, late=True)
        try:
            await in_thread(upload)
        except Unavailable as error:
            self._trace_refusal = error
            raise
        await in_thread(trace.unlink)

    def _is_old(self, folder: RunFolder) -> bool:
        return self._parts.clock.now() - folder.path.stat().st_mtime > KEPT_S


def _store_of(folder: RunFolder) -> str | None:
    """Return the URL of the store that a folder's run used; `None` if its notes do not say all that is needed."""
    facts = folder.facts
    url, *names = (facts.get(name) for name in ("store", "task_id", "session_id"))
    return url.rstrip("/") if isinstance(url, str) and all(isinstance(name, str) for name in names) else None
