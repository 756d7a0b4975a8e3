"""What a run writes down as it goes: its journal, before anybody sees what it tells of, and its trace."""

from __future__ import annotations

from functools import partial

from claude_agent_sdk import Message

from everturn.host.folders import RunFolder
from everturn.journal.events import Event, Prompt, Resumed, Started
from everturn.journal.messages import Scribe
from everturn.journal.reading import RunRef
from everturn.model import Claim
from everturn.runner.closing import Holdings
from everturn.runner.dispatch import in_thread, in_thread_or_leave
from everturn.runner.handle import Progress
from everturn.runner.parts import Parts
from everturn.runner.request import Request


class Record:
    """The record of one run.

    Args:
        parts: What runs are made of.
        request: What this one is asked to do.
        progress: What its handle shows.
        held: Its trace, and its journal once there is one.
    """

    def __init__(self, parts: Parts, request: Request, progress: Progress, held: Holdings) -> None:
        self._parts = parts
        self._request = request
        self._progress = progress
        self._held = held
        self._scribe = Scribe()

    async def begin(self, claim: Claim, folder: RunFolder) -> None:
        """Begin the journal: it says first whose it is, and what came before.

        Raises:
            Denied: It cannot be begun.
            Unavailable: The same.
        """
        ref = RunRef(self._request.work.key, self._progress.run_id)
        begin = partial(self._parts.stores.open_journal, ref, folder.journal)
        self._held.journal = await in_thread(begin)
        if self._parts.settings.journal_durability == "fsync":
            await in_thread(folder.sync)
        if self._parts.mirror is not None:
            self._parts.mirror.note(ref, self._held.journal.path)
        before = claim.previous or claim.stale
        previous = (before.run_id or None) if before is not None else None
        await self.note(self._started(claim, previous))
        if self._progress.resumed:
            await self.note(self._resumed(claim, previous))

    def _resumed(self, claim: Claim, previous: str | None) -> Resumed:
        assert self._held.store is not None
        noted = self._held.store.cost_noted(claim.session_id) or {}
        cost_usd, models = noted.get("totalCostUSD"), noted.get("modelUsage")
        return Resumed(
            session_id=claim.session_id,
            previous_run_id=previous,
            took_over=claim.took_over,
            cost_usd=cost_usd if type(cost_usd) in (int, float) else None,
            model_usage=models if isinstance(models, dict) else None,
        )

    def _started(self, claim: Claim, previous: str | None) -> Started:
        work = self._request.work
        return Started(
            run_id=self._progress.run_id,
            work_key=work.key,
            session_id=claim.session_id,
            epoch=claim.epoch,
            worker=self._parts.settings.worker,
            cwd=str(self._progress.cwd),
            task_id=work.task_id,
            agent=work.agent,
            repo=work.repo,
            issue=None if work.issue is None else str(work.issue),
            branch=self._request.branch,
            previous_run_id=previous,
        )

    async def note(self, *events: Event) -> None:
        """Write events. On return they may be shown.

        Raises:
            EverturnError: They can neither be written nor stored, so they must not be shown.
        """
        journal = self._held.journal
        assert journal is not None
        for event in events:
            journal.write(event)
        if journal.settles:
            await in_thread_or_leave(journal.settle)

    async def prompt(self, text: str, *, resumed: bool) -> None:
        """Write what the agent is told. Raises as `note`."""
        await self.note(Prompt(text, resumed))
        if self._held.trace is not None:
            self._held.trace.note("prompt", text=text, resumed=resumed)

    async def message(self, message: Message) -> None:
        """Write what the agent says. Raises as `note`."""
        await self.note(*self._scribe.events(message))
        if self._held.trace is not None:
            self._held.trace.message(message)
