"""From a work item to a claim and a transcript that nobody else can write to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import anyio
import anyio.to_thread
from claude_agent_sdk import SessionKey, project_key_for_directory

from everturn.clock import Clock
from everturn.errors import Conflict, EverturnError, Held
from everturn.journal.journal import Journal
from everturn.journal.leftovers import Leftover
from everturn.journal.reading import RunRef
from everturn.model import Claim, Holder, WorkItem
from everturn.registry import Registry
from everturn.runner.handle import Progress
from everturn.runner.lease import Lease
from everturn.telemetry import Metrics, get_logger, name_session
from everturn.transcripts.store import UNKNOWN_PROJECT, TranscriptStore

Result = TypeVar("Result")

LOOK_AGAIN_S = 1.0

Salvage = Callable[[TranscriptStore], Awaitable[bool]]


class Stores(Protocol):
    """Where a run gets its transcript store from. Methods block; they are called in a thread."""

    @property
    def label(self) -> str:
        """The URL of the object store."""

    def admit(self, scope: str) -> None:
        """Check that the store may be used for a scope. Raises what `TranscriptStore.open` does."""

    def claimed(self, scope: str, epoch: int) -> TranscriptStore:
        """Return the store of a scope for the holder of a claim. It has been admitted."""

    def upload_trace(self, scope: str, run_id: str, path: Path, *, timeout_s: float, late: bool = False) -> None:
        """Put a run's trace into the store, if it can be done in this time; late, if an earlier upload of it may have
        failed."""

    def open_journal(self, ref: RunRef, path: Path) -> Journal:
        """Begin a run's journal in a file."""

    def ship_journal(self, ref: RunRef, path: Path) -> Leftover:
        """Store what a dead run had written to its journal and not stored."""


class Dispatcher:
    """Claims work items and fences their transcripts.

    That takes at most three requests to the store, besides reading the conversation itself, which the agent then need
    not do again, and two to the registry; one more if the session is lost.

    Args:
        registry: Who owns which session.
        stores: Where transcripts go.
        clock: For waiting.
        metrics: What is counted.
    """

    def __init__(self, registry: Registry, stores: Stores, *, clock: Clock, metrics: Metrics) -> None:
        self._registry = registry
        self._stores = stores
        self._clock = clock
        self._metrics = metrics
        self._log = get_logger()

    async def claim(
        self, work: WorkItem, holder: Holder, *, ttl_s: float, wait_s: float, is_dead: Callable[[str], bool]
    ) -> tuple[Claim, float]:
        """Claim a work item, and return the claim and `clock.elapsed()` before it was asked for.

        Args:
            work: The work item.
            holder: Who claims it.
            ttl_s: How long the claim lasts.
            wait_s: How long to wait while somebody else holds it.
            is_dead: Tells whether a run of this machine has died without releasing its claim.

        Raises:
            Held: Somebody else holds it.
        """
        wait_until = self._clock.elapsed() + wait_s
        instead_of: Held | None = None
        label = self._stores.label.rstrip("/")
        while True:
            asked_at = self._clock.elapsed()
            claim = partial(self._registry.claim, work, holder, label, ttl_s=ttl_s, instead_of=instead_of)
            try:
                claimed = await in_thread(claim)
            except Held as held:
                if instead_of is None and held.run_id and await in_thread(partial(is_dead, held.run_id)):
                    instead_of = held
                    continue
                instead_of = None
                left_s = wait_until - self._clock.elapsed()
                if left_s <= 0:
                    self._metrics.claims.labels("refused").inc()
                    raise
                await anyio.sleep(min(LOOK_AGAIN_S, left_s))
            else:
                self._metrics.claims.labels(_outcome(claimed)).inc()
                return claimed, asked_at

    async def take_over(self, lease: Lease, progress: Progress, salvage: Salvage) -> TranscriptStore:
        """Fence the transcript of a claim and look whether there is a conversation in it.

        A session of which nothing is stored is exchanged for a fresh one before any agent starts: its id may be known
        to the agent of this machine all the same, which would refuse to begin it a second time.

        Args:
            lease: The claim.
            progress: What the run's handle shows.
            salvage: Stores what earlier runs have left on this machine; returns whether anything came of it.

        Returns:
            The store. `progress` has the session, its epoch, and whether it is resumed.
        """
        if lease.claim.store != self._stores.label.rstrip("/"):
            await self._move(lease)
        if not lease.claim.is_new:
            store = await self._fenced(lease.claim, progress)
            if store is not None:
                async with _closed_if_it_fails(store):
                    if await salvage(store) and not progress.resumed:
                        progress.resumed = await store.is_begun(lease.claim.session_id)
                if progress.resumed:
                    return store
                await store.aclose()
            before = lease.claim.previous
            confirmed = before is not None and before.cwd is not None  # an agent has held it once
            await self.begin_anew(lease, progress, "nothing of it is stored", failed=confirmed)
        store = await self._fenced(lease.claim, progress)
        assert store is not None
        return store

    async def begin_anew(self, lease: Lease, progress: Progress, why: str, *, failed: bool) -> None:
        """Exchange a claim's session for a fresh one. The old id is never tried again.

        Args:
            lease: The claim.
            progress: What the run's handle shows.
            why: For the log.
            failed: Whether there was a conversation to resume, so that its loss is counted and told.
        """
        old = lease.claim
        if failed:
            self._metrics.resume_failures.inc()
            self._log.warning("session_not_found", work=old.work.key, session_id=old.session_id)
            progress.warn(f"session {old.session_id} was not found, so the conversation has begun anew")
        await in_thread(partial(lease.replace, partial(self._registry.begin_anew, reason=why)))

    async def _fenced(self, claim: Claim, progress: Progress) -> TranscriptStore | None:
        """Fence first, look second: what the agent is shown can no longer change behind its back."""
        assert progress.cwd is not None
        progress.session_id, progress.epoch = claim.session_id, claim.epoch
        name_session(claim.session_id, claim.epoch)
        store = self._stores.claimed(claim.work.key, claim.epoch)
        async with _closed_if_it_fails(store):
            if not claim.is_new and not await store.is_known(claim.session_id):
                await store.aclose()
                return None
            project = project_key_for_directory(progress.cwd)
            progress.resumed = await store.take_over(project, claim.session_id, is_new=claim.is_new)
        progress.warn(*store.size_warnings)
        return store

    async def _move(self, lease: Lease) -> None:
        """Make sure that a transcript that was in another store is in this one now: the same under another name, or a
        copy. To begin anew here would leave the conversation behind for good."""
        claim, label = lease.claim, self._stores.label.rstrip("/")
        key: SessionKey = {"project_key": UNKNOWN_PROJECT, "session_id": claim.session_id}
        async with self._stores.claimed(claim.work.key, 0) as guest:
            if await guest.load(key) is None:
                raise Conflict(
                    f"the transcript of {claim.work.key} is in {claim.store}, and not in {label}",
                    hint="name that store; if it is gone for good, forget the session with runtime.registry.drop(…)",
                )
        await in_thread(partial(lease.replace, partial(replace, store=label)))


def _outcome(claim: Claim) -> str:
    if claim.is_new:
        return "new"
    return "taken_over" if claim.took_over else "resumed"


@asynccontextmanager
async def _closed_if_it_fails(store: TranscriptStore) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        with suppress(EverturnError):
            await store.aclose()
        raise


async def in_thread(work: Callable[[], Result]) -> Result:
    """Do blocking work."""
    return await anyio.to_thread.run_sync(work)


async def in_thread_or_leave(work: Callable[[], Result]) -> Result:
    """Do blocking work that leaves nothing behind, however long it takes. When we are cancelled, it is not waited
    for."""
    return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
