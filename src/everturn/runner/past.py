"""What runs that died on this machine have left in their folders: what they could not store any more, and traces."""

from __future__ import annotations

from functools import partial

from claude_agent_sdk import SessionKey, project_key_for_directory

from everturn.errors import EverturnError
from everturn.host.folders import RunFolder
from everturn.runner.closing import END_AGENTS_S, TRACE_FILE
from everturn.runner.dispatch import in_thread
from everturn.runner.handle import Progress
from everturn.runner.lease import Lease
from everturn.runner.parts import Parts
from everturn.telemetry import get_logger
from everturn.transcripts import TranscriptStore
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
        self._log = get_logger()

    async def look_after(self, store: TranscriptStore) -> bool:
        """Store what can be stored of what is left here, and throw away what is done with.

        The transcript of another session stays until that session is run here again, or for a week. Nothing that
        goes wrong here keeps the new run from its work: what is left stays left.

        Args:
            store: The transcript of the new run, fenced.

        Returns:
            Whether anything was added to that transcript.

        Raises:
            Fenced: A newer claim has taken over meanwhile.
        """
        appended = 0
        for folder in await in_thread(self._parts.folders.leftovers):
            keep = True
            try:
                keep, healing = await self._look_after(folder, store)
                appended += healing.appended
            except (EverturnError, OSError) as error:
                self._log.warning("leftover_stays", left_by=folder.run_id, error=str(error))
            finally:
                await in_thread(partial(folder.close, keep=keep))
        if store.observer.fenced is not None:
            raise store.observer.fenced
        if appended:
            self._progress.warn(f"{appended} entries that an earlier run had left on this machine were stored now")
        return bool(appended)

    async def _look_after(self, folder: RunFolder, store: TranscriptStore) -> tuple[bool, Healing]:
        """Return whether the folder is still needed, and what was healed from it."""
        facts = folder.facts
        await in_thread(partial(folder.end_agent, timeout_s=END_AGENTS_S))
        if facts.get("store") != self._parts.stores.label:
            return not await in_thread(partial(self._is_old, folder)), Healing()
        await self._upload_trace(folder, facts["task_id"])
        if facts.get("session_id") != self._progress.session_id or not folder.transcript.exists():
            return folder.transcript.exists() and not await in_thread(partial(self._is_old, folder)), Healing()
        return False, await self._salvage(folder, store)

    async def _salvage(self, folder: RunFolder, store: TranscriptStore) -> Healing:
        assert self._progress.cwd is not None
        assert self._progress.session_id is not None
        project = project_key_for_directory(self._progress.cwd)
        key: SessionKey = {"project_key": project, "session_id": self._progress.session_id}
        healing = await salvage(store, key, folder_of(folder.transcript, key))
        claim = self._lease.claim
        if healing.whole and claim.tainted is not None:
            await in_thread(partial(self._parts.registry.taint, claim, None))
            self._lease.replace_now(tainted=None)
        return healing

    async def _upload_trace(self, folder: RunFolder, scope: str) -> None:
        trace = folder.path / TRACE_FILE
        if not self._parts.settings.upload_traces or not trace.exists():
            return
        timeout_s = self._parts.settings.retry_deadline_s
        upload = partial(self._parts.stores.upload_trace, scope, folder.run_id, trace, timeout_s=timeout_s, late=True)
        await in_thread(upload)
        await in_thread(trace.unlink)

    def _is_old(self, folder: RunFolder) -> bool:
        return self._parts.clock.now() - folder.path.stat().st_mtime > KEPT_S
