"""How a run lets go: what its agent said is stored, compared and accounted for, then the claim is released.

In this order, whatever ended the run, its own end too, and within its grace period. A step that fails does not keep
the next one from being taken: the claim, above all, must not stay behind. What could not be done is kept in the run's
folder on this machine, for the next start here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import anyio

from everturn.errors import EverturnError, Fenced, Unavailable
from everturn.git.credential_server import CredentialServer
from everturn.host.agents import END_AGENTS_S
from everturn.host.folders import RunFolder
from everturn.journal.events import Event, Shutdown
from everturn.journal.journal import Journal
from everturn.log.background import start_thread
from everturn.runner.dispatch import in_thread
from everturn.runner.handle import Progress
from everturn.runner.interruption import Interruption
from everturn.runner.lease import Lease
from everturn.runner.parts import Parts
from everturn.runner.place import Place
from everturn.runner.stopping import CANCELLED, Stop
from everturn.runner.taints import reason_of, with_reason
from everturn.runner.tasks import Loop
from everturn.telemetry import get_logger
from everturn.transcripts.store import TranscriptStore
from everturn.upkeep.healing import Healing, folder_of, heal
from everturn.upkeep.traces import Trace

LEAST_S = 1.0  # for each step, however little of the grace period is left
TRACE_FILE = "trace.jsonl"
TAINTED = "tainted"  # in the notes of a folder: the reason that its run has added to those in the registry


@dataclass
class Holdings:
    """What a run has, and has to let go of.

    Attributes:
        folder: Its folder on this machine.
        trace: Its trace, in that folder.
        journal: Its journal, in that folder too.
        lease: Its claim.
        store: Its transcript.
        place: Its workdir.
        git: What gives its agent credentials.
        may_have_claim: Whether it has asked for its claim, and perhaps got it without knowing.
    """

    folder: RunFolder | None = None
    trace: Trace | None = None
    journal: Journal | None = None
    lease: Lease | None = None
    store: TranscriptStore | None = None
    place: Place = field(default_factory=Place)
    git: CredentialServer | None = None
    may_have_claim: bool = False


class Closing:
    """Lets go of what a run has.

    Args:
        parts: What runs are made of.
        held: What this one has.
        progress: What its handle shows.
        stop: The wish that it ends, if there was one.
        interruption: Cuts steps short when the run is to hurry.
        ending: Makes the journal's last event of what went wrong in letting go, if something did.
    """

    def __init__(  # all that a run is about
        self,
        parts: Parts,
        held: Holdings,
        progress: Progress,
        stop: Stop,
        interruption: Interruption,
        ending: Callable[[Exception | None], Event],
    ) -> None:
        self._parts = parts
        self._held = held
        self._progress = progress
        self._stop = stop
        self._interruption = interruption
        self._ending = ending
        self._keep = False  # the folder: something in it is still needed
        self._agent_is_gone = True
        self._shutdown_is_recorded = False
        self._begun = parts.clock.elapsed()
        self._log = get_logger()

    async def let_go(self) -> Exception | None:
        """Let go of everything. Never raises; returns what the caller of the run must know.

        On return the agent is gone, what it said is stored (or the session is tainted, or the local copy kept), and
        the claim is released, or runs out.
        """
        problem: Exception | None = None
        self._record_shutdown()
        if self._held.folder is not None and _may_live(self._held.folder):
            end = partial(in_thread, partial(self._held.folder.end_agent, timeout_s=END_AGENTS_S))
            self._agent_is_gone = await self._step("agent", end)
            self._keep = not self._agent_is_gone
        if self._held.store is not None:
            problem = await self._make_whole(self._held.store)
            await self._step("summaries", self._held.store.aclose)
        if self._held.trace is not None and self._held.lease is not None:
            stored = await self._step("trace", partial(self._upload_trace, self._held.trace, self._held.lease))
            self._keep = self._keep or not stored
        if self._held.journal is not None:
            self._record_shutdown()  # the wish may have come meanwhile
            self._record(self._ending(problem))
            if self._parts.mirror is not None:
                self._parts.mirror.wake()
            stored = await self._step("journal", partial(self._close_journal, self._held.journal))
            self._keep = self._keep or not stored
        await self._step("workdir", partial(in_thread, self._leave_workdir))
        if self._held.lease is not None:
            released = await self._step("release", partial(self._release, self._held.lease))
            self._held.may_have_claim = not released
        self._keep = self._keep or self._held.may_have_claim  # so that the next run here need not wait for its end
        if self._held.folder is not None:
            await self._step("folder", partial(in_thread, partial(self._held.folder.close, keep=self._keep)))
        self._tell_how_long()
        return problem

    def _leave_workdir(self) -> None:
        if self._held.git is not None:
            self._held.git.close()
        if self._agent_is_gone:  # else nobody else may work there as long as this process lives
            self._held.place.close()

    async def _make_whole(self, store: TranscriptStore) -> Exception | None:
        if isinstance(self._stop.error, Fenced):  # the transcript is somebody else's now
            return None
        flushed = await self._step("flush", store.drain)
        if (fenced := _fenced(store)) is not None:  # the same: what is left here could only get in its way
            return fenced
        self._keep = self._keep or not flushed
        found: list[Healing] = []
        compared = await self._step("compare", partial(self._compare, store, found))
        if (fenced := _fenced(store)) is not None:
            return fenced
        self._keep = self._keep or not compared
        healing = found[0] if found else None
        if healing is not None and healing.whole:
            return None
        self._progress.missing_entries = max(1, store.unstored_entries if healing is None else healing.missing)
        return await self._taint(() if healing is None else healing.reasons)

    async def _compare(self, store: TranscriptStore, found: list[Healing]) -> None:
        assert self._held.folder is not None
        key, agent = self._progress.key, self._held.folder.agent
        local = folder_of(self._held.folder.transcript, key)
        if agent is not None and not agent.kept:  # there was no room for it, say
            local = agent.config_dir / "projects" / key["project_key"]
        found.append(await heal(store, key, local, final=True))

    async def _taint(self, reasons: tuple[str, ...]) -> Exception:
        """Note that the transcript in the store is not whole, so that a resume says so."""
        reason = reason_of(self._progress.run_id, reasons)
        self._keep = True
        if self._held.lease is not None:
            self._parts.metrics.tainted_sessions.inc()
            self._log.error("session_tainted", reason=reason)
            await self._step("taint", partial(in_thread, partial(self._note_taint, self._held.lease, reason)))
        return Unavailable(
            f"the conversation in the store is not whole: {reason}",
            hint="what is missing is kept on this machine, and stored when the work item is next run here",
        )

    def _note_taint(self, lease: Lease, reason: str) -> None:
        """Note it here as well: whoever stores later what is kept here takes away this reason, and no other."""
        try:
            if self._held.folder is not None:
                self._held.folder.note(**{TAINTED: reason})
        finally:
            self._parts.registry.taint(lease.claim, with_reason(lease.claim.tainted, reason))

    async def _upload_trace(self, trace: Trace, lease: Lease) -> None:
        trace.close()
        if not self._parts.settings.upload_traces:
            return
        if self._stop.hurry:  # the next start here does it
            self._keep = True
            return
        scope = lease.claim.work.key
        upload = partial(self._parts.stores.upload_trace, scope, self._progress.run_id, trace.path)
        await in_thread(partial(upload, timeout_s=self._left_s))

    def _record_shutdown(self) -> None:
        if self._stop.reason is not None and not self._shutdown_is_recorded:
            self._shutdown_is_recorded = True
            self._record(Shutdown(self._stop.reason))

    def _record(self, event: Event) -> None:
        """Write how the run ends, for whoever reads of it later; it ends all the same."""
        if self._held.journal is not None:
            try:
                self._held.journal.write(event)
            except EverturnError as error:
                self._log.warning("closing_failed", step="journal", error=str(error))

    async def _close_journal(self, journal: Journal) -> None:
        await in_thread(partial(journal.close, self._left_s))

    async def _release(self, lease: Lease) -> None:
        await in_thread(lease.end)
        try:
            await in_thread(partial(self._parts.registry.release, lease.claim))
        except Fenced as error:  # it was somebody else's already
            if self._stop.error is not None:  # the run has ended for that, perhaps without knowing it
                self._stop.error = error

    async def _step(self, name: str, what: Callable[[], Awaitable[None]]) -> bool:
        """Take a step, and tell whether it came to its end.

        It is waited for while there is time. What waits for a store or a registry cannot be stopped, so the step is
        taken in a thread of its own, which is left to itself when time is up. It has an event loop of its own, too:
        that of the caller may come to its end meanwhile, and cancels whatever goes on in it.
        """
        failed: list[EverturnError] = []
        over = anyio.Event()
        tell = partial(Loop().call, over.set)
        thread = start_thread(partial(_carry_out, what, failed, tell), f"everturn-{name}")
        with self._interruption.unless_hurried(self._left_s, LEAST_S) as scope:
            if thread is None:  # there is none to be had, so what needs none is done here
                with _noting(failed):
                    await what()
                over.set()
            await self._until(over, scope)
        if not over.is_set():
            self._log.warning("closing_cut_short", step=name)
            if self._held.store is not None:
                self._held.store.give_up_after(0)
        for error in failed:
            self._log.warning("closing_failed", step=name, error=str(error))
        return over.is_set() and not failed

    async def _until(self, over: anyio.Event, scope: anyio.CancelScope) -> None:
        """Wait, also when the event loop comes to its end, which waits for us."""
        while not over.is_set():
            try:
                await over.wait()
            except anyio.get_cancelled_exc_class():
                if scope.cancel_called:
                    raise
                self._stop.request(CANCELLED, again=False)

    @property
    def _left_s(self) -> float:
        """How long the next step may take."""
        end = self._begun + self._parts.settings.shutdown_grace_s
        left_s = min(self._stop.left_s, end - self._parts.clock.elapsed())
        return LEAST_S if self._stop.hurry else max(LEAST_S, left_s)

    def _tell_how_long(self) -> None:
        took_s = self._stop.took_s
        if took_s is None:
            return
        self._parts.metrics.shutdown_seconds.observe(took_s)
        if took_s > self._parts.settings.shutdown_grace_s:
            self._parts.metrics.shutdowns_overrun.inc()
            self._log.error("shutdown_overrun", seconds=round(took_s, 3))


def _may_live(folder: RunFolder) -> bool:
    """Tell whether something of the agent may be left, or not kept of its transcript: its guard has not said so."""
    agent = folder.agent
    return agent is not None and not agent.kept


def _fenced(store: TranscriptStore) -> Fenced | None:
    return store.observer.fenced


def _carry_out(what: Callable[[], Awaitable[None]], failed: list[EverturnError], tell: Callable[[], object]) -> None:
    try:
        with _noting(failed):
            anyio.run(what)
    finally:
        tell()


@contextmanager
def _noting(failed: list[EverturnError]) -> Iterator[None]:
    """Note an error instead of raising it: whatever it is, the next step has to be taken."""
    try:
        yield
    except EverturnError as error:
        failed.append(error)
    except Exception as error:  # noqa: BLE001  # see above
        failed.append(
            # Not its message: in one that is not ours there may be anything, transcript text as well.
            Unavailable(f"{type(error).__name__} was raised", hint="this should not happen; please report it")
        )
