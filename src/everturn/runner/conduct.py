"""The course of one run, from the first look to the last: it claims, fences, talks, and lets go of everything."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKError,
    Message,
    ResultMessage,
    SystemMessage,
)
from claude_agent_sdk.types import StreamEvent

from everturn.agent import Agent, says_that_it_asks, session_of
from everturn.errors import Conflict, EverturnError, Fenced, NotFound, Unavailable
from everturn.host.agents import END_AGENTS_S, end_old_agents, find_cli, mark_of
from everturn.host.folders import RunFolder
from everturn.journal.events import BeganAnew, Ended, Event
from everturn.model import Holder
from everturn.runner.closing import LEAST_S, TRACE_FILE, Closing, Holdings
from everturn.runner.dispatch import Dispatcher, Result, in_thread, in_thread_or_leave
from everturn.runner.handle import Mailbox, Progress
from everturn.runner.interruption import Interruption
from everturn.runner.lease import Lease
from everturn.runner.parts import Parts
from everturn.runner.past import Past
from everturn.runner.place import Place
from everturn.runner.record import Record
from everturn.runner.request import Request
from everturn.runner.stopping import CANCELLED, LOST, Stop
from everturn.runner.turn import ConversationLost, Turn
from everturn.telemetry import RunContext, get_logger, name_session
from everturn.transcripts.store import TranscriptStore
from everturn.upkeep.healing import folder_of, heal
from everturn.upkeep.traces import Trace

STORE_SHARE = 0.6  # of the grace period: how long appends go on being tried when the run is to stop
BEGAN_ANEW = "everturn_began_anew"


class Conduct:
    """One run. Its task calls `run`, once.

    Args:
        parts: What it is made of.
        request: What it is asked to do.
        progress: What its handle shows.
        stop: The wish that it ends.
        mailbox: Where messages go.
    """

    def __init__(self, parts: Parts, request: Request, progress: Progress, stop: Stop, mailbox: Mailbox) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._metrics = parts.metrics
        self._request = request
        self._progress = progress
        self._stop = stop
        self._mailbox = mailbox
        self._interruption = Interruption(stop)
        self._log = get_logger()
        self._held = Holdings()
        self._record = Record(parts, request, progress, self._held)
        self._context = RunContext(request.work.key, progress.run_id)
        self._mark = mark_of(parts.settings.registry_url(), request.work.key)
        self._result: ResultMessage | None = None
        self._problem: Exception | None = None
        self._begun = 0.0
        self._heard = False
        self._dispatcher = Dispatcher(parts.registry, parts.stores, clock=parts.clock, metrics=parts.metrics)

    async def run(self) -> None:
        """Carry out the run, and tell the mailbox how it ended. Raises nothing but its task's own cancellation."""
        with self._context.bound():  # the task is the run's own, and so is what is bound in it
            await self._run()

    async def _run(self) -> None:
        self._metrics.runs_in_progress.inc()
        error: BaseException | None = None
        try:
            await self._course()
        except Exception as caught:  # noqa: BLE001  # it is raised where the run is iterated
            error = caught
        finally:
            self._metrics.runs_in_progress.dec()
            self._count(error)
            self._mailbox.end(error)

    async def _course(self) -> None:
        try:
            with self._interruption.unless_stopped():
                await self._prepare()
            if self._stop.reason is None:
                await self._talk()
        except anyio.get_cancelled_exc_class():
            self._stop.request(CANCELLED, again=False)  # the event loop is coming to its end, and waits for us
            raise
        except Exception as caught:  # noqa: BLE001  # raised below, when all is let go of
            self._problem = caught
        finally:
            with anyio.CancelScope(shield=True):
                unwell = await self._closing().let_go()
        for error in (self._stop.error, self._problem, unwell):
            if error is not None:
                raise error

    # --- Before the agent -----------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        """Try everything out, then claim, then open what the claim is on: what is refused leaves no trace."""
        work = self._request.work
        if work.repo:
            await _stoppable(partial(self._parts.workdirs.check, work, self._request.branch))
        await in_thread_or_leave(partial(self._parts.stores.admit, work.key))
        self._cli = find_cli(self._request.options.cli_path)
        await in_thread(self._parts.folders.check)
        self._held.folder = await in_thread(partial(self._parts.folders.open, self._progress.run_id))
        self._held.trace = Trace(self._held.folder.path / TRACE_FILE)
        lease = await self._claim(self._held.folder)
        if self._settings.sweep_on_start:  # now, as it would have taken a stale session from under the claim
            self._parts.sweeper.begin()
        self._parts.sweeper.begin_workdirs()
        claim = lease.claim
        end_old = partial(end_old_agents, claim.session_id, claim.epoch, work=self._mark, confirm=lease.check)
        await in_thread(partial(end_old, timeout_s=END_AGENTS_S))
        self._progress.cwd = await self._directory(keep=not claim.is_new)
        past = Past(self._parts, self._progress, lease)
        self._held.store = await self._dispatcher.take_over(lease, self._progress, past.look_after)
        self._metrics.dispatch_seconds.observe(self._parts.clock.elapsed() - self._begun)
        self._label_folder()
        await self._record.begin(lease.claim, self._held.folder)
        await past.look_after(self._held.store)  # a session that is new has left nothing to wait for until here
        if not (claim.is_new or self._progress.resumed):
            await self._refresh_workdir()
        if lease.claim.tainted is not None:
            self._progress.warn(f"the transcript is not whole: {lease.claim.tainted}")
            self._log.warning("resumes_tainted", reason=lease.claim.tainted)
        self._log.info("run_started", resumed=self._progress.resumed, cwd=str(self._progress.cwd))

    async def _claim(self, folder: RunFolder) -> Lease:
        settings = self._settings
        self._begun = self._parts.clock.elapsed()
        self._held.may_have_claim = True
        try:
            claim, asked_at = await self._dispatcher.claim(
                self._request.work,
                Holder(settings.worker, self._progress.run_id, self._parts.clock.boot()),
                ttl_s=settings.claim_ttl_s,
                wait_s=settings.claim_wait_s,
                is_dead=self._parts.folders.is_dead,
            )
        except EverturnError:  # if its answer alone was lost, it ends by itself; without a registry nothing is left
            self._held.may_have_claim = False
            raise
        name_session(claim.session_id, claim.epoch)
        self._held.lease = lease = Lease(
            self._parts.registry,
            claim,
            asked_at=asked_at,
            clock=self._parts.clock,
            lost=partial(self._stop.request, LOST),
            renewed=folder.extend_lease,
            metrics=self._metrics,
        )
        folder.extend_lease(lease.until)  # not before: if it cannot be written, the claim is released all the same
        if claim.stale is not None:
            self._progress.warn(f"session {claim.stale.session_id} was too old, so the conversation has begun anew")
        return lease

    async def _directory(self, *, keep: bool) -> Path:
        request = self._request
        if request.work.repo:
            begin = partial(self._held.place.open, self._parts.workdirs, request.work, request.branch)
            opened = await _stoppable(lambda stop: begin(keep=keep, run_id=self._progress.run_id, stop=stop))
            self._progress.warn(*opened.warnings)
            return opened.path
        return await in_thread(Path(self._request.options.cwd or ".").absolute)

    async def _refresh_workdir(self) -> None:
        """The conversation has begun anew, so its workdir does as well; it was opened for one that goes on."""
        if self._request.work.repo:
            place, self._held.place = self._held.place, Place()
            await in_thread(place.close)
            self._progress.cwd = await self._directory(keep=False)

    def _label_folder(self) -> None:
        """Have the run's folder say whose it is, for whoever finds it."""
        assert self._held.folder is not None
        self._held.folder.note(**asdict(self._context), store=self._parts.stores.label)

    # --- With the agent -------------------------------------------------------------------------------------------

    async def _talk(self) -> None:
        try:
            await self._hold_a_turn()
            return
        except ConversationLost as error:
            if not self._progress.resumed:
                raise NotFound(
                    f"the agent command lost session {self._progress.session_id} as soon as it had begun",
                    hint="look for options or hooks that change the session id or its files",
                ) from error
        with self._interruption.unless_stopped():
            await self._begin_anew()
        if self._stop.reason is None:
            await self._talk()  # for the last time: what has begun anew is not resumed

    async def _hold_a_turn(self) -> None:
        folder, store, progress = self._held.folder, self._held.store, self._progress
        assert folder is not None
        assert store is not None
        prompt = ""
        with self._interruption.unless_stopped():
            prompt = await self._prompt()
        if self._stop.reason is not None:
            return
        session_id, epoch, resume = progress.session_id or "", progress.epoch or 0, bool(progress.resumed)
        agent = Agent(
            self._options(folder),
            store=store,
            session_id=session_id,
            resume=resume,
            cwd=progress.cwd or Path(),
            cli=folder.launcher(
                self._cli,
                session_id=session_id,
                epoch=epoch,
                work=self._mark,
                without=self._settings.token_variables(),
            ),
        )
        grace_s = self._settings.shutdown_grace_s
        turn = Turn(
            agent,
            self._stop,
            self._interruption,
            grace_s=grace_s,
            hasten=partial(self._hasten, store),
            end_agent=partial(folder.end_agent, timeout_s=END_AGENTS_S),
            take=self._take,
            post=self._post,
        )
        try:
            await turn.hold(prompt)
        except ClaudeSDKError as error:
            raise await self._explained(error, folder) from error

    def _options(self, folder: RunFolder) -> ClaudeAgentOptions:
        """Return what the caller wants of the agent and, with a workdir, what git gets from us."""
        options, access = replace(self._request.options, include_partial_messages=True), self._parts.access
        if not self._request.work.repo:
            return options
        if self._held.git is None:
            self._held.git = access.server(folder.path / "git")
        return replace(options, env=access.for_agent(self._request.work.agent, self._held.git, options.env))

    def _hasten(self, store: TranscriptStore) -> None:
        """Leave time for what comes after storing what the agent says last."""
        store.give_up_after(LEAST_S if self._stop.hurry else STORE_SHARE * self._settings.shutdown_grace_s)

    async def _explained(self, error: ClaudeSDKError, folder: RunFolder) -> Exception:
        """Return why the agent failed: perhaps it was ended, as the claim that it worked under was no longer ours."""
        if self._held.lease is not None:
            try:
                with self._interruption.unless_stopped():
                    await in_thread_or_leave(self._held.lease.check)
            except Fenced as fenced:
                return fenced
            except EverturnError as unknown:
                self._metrics.claim_renewal_failures.inc()
                self._log.warning("claim_not_renewed", work=self._request.work.key, error=str(unknown))
        agent = folder.agent
        if agent is not None and agent.ended == "lease":
            return Unavailable(
                "the claim ran out while this worker stood still, so its agent was ended",
                hint="what the agent had said is stored; run it again to go on",
            )
        return error

    async def _prompt(self) -> str:
        resumed = bool(self._progress.resumed)
        record = None if self._held.lease is None else self._held.lease.claim.previous
        prompt = await self._request.text(resumed=resumed, record=record)
        await self._record.prompt(prompt, resumed=resumed)
        return prompt

    async def _take(self, message: Message) -> None:
        """Do with a message what has to be done before anybody sees it, then hand it over."""
        store = self._held.store
        assert store is not None
        if store.observer.fenced is not None:
            raise store.observer.fenced
        if self._progress.resumed and not self._heard:
            self._metrics.resume_seconds.observe(self._parts.clock.elapsed() - self._begun)
        self._heard = True
        await self._confirm(message)
        if isinstance(message, ResultMessage):
            self._result = message
            await self._compare(store)
        await self._record.message(message)
        if self._is_wanted(message):
            await self._mailbox.put(message)

    async def _compare(self, store: TranscriptStore) -> None:
        """Look, at the end of a turn, whether all that the agent has handed over is stored. The rest is to come."""
        agent = self._held.folder.agent if self._held.folder is not None else None
        if agent is None:
            return
        key = self._progress.key
        try:
            await heal(store, key, folder_of(agent.config_dir / "projects", key), final=False)
        except EverturnError as error:  # it is looked at again when the agent has gone
            self._log.warning("not_compared", error=str(error))

    async def _post(self, message: Message) -> None:
        """Hand over what the agent says after it was interrupted; nobody need be waiting for it."""
        await self._record.message(message)
        if self._is_wanted(message):
            self._mailbox.post(message)

    def _is_wanted(self, message: Message) -> bool:
        """Tell whether the caller has asked for such messages: the journal has the pieces of answers in any case."""
        if self._request.options.include_partial_messages:
            return True
        return not isinstance(message, StreamEvent) and not says_that_it_asks(message)

    async def _confirm(self, message: Message) -> None:
        stated = session_of(message)
        if stated is None:
            return
        if stated != self._progress.session_id:
            raise Conflict(
                f"the agent answered as session {stated}, not as {self._progress.session_id}",
                hint="look for options or hooks that change the session id",
            )
        assert self._held.lease is not None
        try:
            confirm = partial(self._parts.registry.confirm, self._held.lease.claim, str(self._progress.cwd))
            await in_thread_or_leave(confirm)  # a stop must not wait for a registry
        except Fenced:
            raise
        except EverturnError as error:  # the registry is away; while the lease lasts, that is no reason to end
            self._log.warning("claim_not_renewed", work=self._request.work.key, error=str(error))

    async def _begin_anew(self) -> None:
        """The conversation is lost. Forget it, begin another one, and tell whoever listens."""
        assert self._held.lease is not None
        lost = self._progress.session_id
        if self._held.store is not None:
            store, self._held.store = self._held.store, None
            await store.aclose()
        await self._dispatcher.begin_anew(
            self._held.lease, self._progress, "the agent command did not find it", failed=True
        )
        self._held.store = await self._dispatcher.take_over(self._held.lease, self._progress, _nothing_left)
        self._label_folder()
        await self._refresh_workdir()
        told = {"session_id": self._progress.session_id, "instead_of": lost}
        await self._record.note(BeganAnew(str(told["session_id"]), str(lost)))
        self._mailbox.post(SystemMessage(subtype=BEGAN_ANEW, data={"type": "system", "subtype": BEGAN_ANEW, **told}))

    def _closing(self) -> Closing:
        return Closing(self._parts, self._held, self._progress, self._stop, self._interruption, self._ending)

    def _ending(self, unwell: Exception | None) -> Event:
        error = self._stop.error or self._problem or unwell
        return Ended(self._outcome(error), _told(error))

    def _outcome(self, error: BaseException | None) -> str:
        if self._stop.reason is not None:
            return "lost" if self._stop.reason == LOST else "stopped"
        if error is not None:
            return "refused" if self._held.lease is None else "failed"
        return "completed" if self._result is not None and not self._result.is_error else "failed"

    def _count(self, error: BaseException | None) -> None:
        outcome = self._outcome(error)
        self._metrics.runs.labels(outcome).inc()
        self._log.info("run_ended", outcome=outcome, stopped=self._stop.reason, error=_told(error))


def _told(error: BaseException | None) -> str | None:
    """Return what a log line says of an error. In the message of one that is not ours there may be anything: the SDK
    quotes what it could not read."""
    if error is None or isinstance(error, EverturnError):
        return str(error) if error else None
    return type(error).__name__


async def _nothing_left(_: TranscriptStore) -> bool:
    """A session that is new has left nothing anywhere."""
    return False


async def _stoppable(work: Callable[[threading.Event], Result]) -> Result:
    """Do blocking work that may take minutes. When we are cancelled, it is told to stop, and not waited for."""
    stop = threading.Event()
    try:
        return await anyio.to_thread.run_sync(work, stop, abandon_on_cancel=True)
    finally:
        stop.set()
