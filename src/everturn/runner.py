"""One durable run of a work item: workdir, claim, fence, agent, confirm."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, Self, TypeVar

import anyio.to_thread
from claude_agent_sdk import ClaudeAgentOptions, Message, SessionKey, project_key_for_directory

from everturn.agent import converse, refuse_options, session_of
from everturn.errors import Conflict, Held, Invalid, Unavailable
from everturn.model import Claim, Holder, WorkItem
from everturn.registry import Registry
from everturn.telemetry import get_logger
from everturn.transcripts import TranscriptStore
from everturn.workdirs import Workdirs

Result = TypeVar("Result")

UNKNOWN_PROJECT = "unknown"  # for stores that find a session wherever it lives


class Stores(Protocol):
    """Where a run gets its transcript store from. Methods block; they are called in a thread."""

    @property
    def label(self) -> str:
        """The URL of the object store."""

    def admit(self, scope: str) -> None:
        """Check that the store may be used for a scope. Raises what `TranscriptStore.open` does."""

    def claimed(self, scope: str, epoch: int) -> TranscriptStore:
        """Return the store of a scope for the holder of a claim. It has been admitted."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a run is asked to do.

    Attributes:
        work: The work item.
        prompt: What to say to an agent that has not worked on it yet.
        resume_prompt: What to say to one that has; the prompt again if it is `None`.
        options: What the caller wants of the agent.
    """

    work: WorkItem
    prompt: str
    resume_prompt: str | None
    options: ClaudeAgentOptions

    def check(self) -> None:
        """Refuse what cannot be run, before anything is touched.

        Raises:
            Invalid: A prompt is empty, an option is not the caller's to set, or the directory does not exist.
        """
        for name, text in (("prompt", self.prompt), ("resume prompt", self.resume_prompt)):
            if text is not None and not text.strip():
                raise Invalid(f"the {name} is empty", hint="say what the agent is to do")
        refuse_options(self.options)
        if self.options.cwd is not None and not _is_directory(self.options.cwd):
            raise Invalid(f"there is no directory {self.options.cwd}", hint="make it, or name another one")
        if self.options.cwd is not None and self.work.repo:
            raise Invalid(
                "a work item with a repository brings its own directory",
                hint="leave out the option cwd, or the repository",
            )


class Run:
    """A run in progress: an async iterator of the agent's messages.

    Attributes:
        session_id: The conversation; `None` until the work item is claimed.
        resumed: Whether it goes on from an earlier run; `None` until that is known.
        epoch: The claim's number; `None` until there is one.
        cwd: Where the agent works; `None` until it is open.
        warnings: What the caller should know before the agent resumes: that the transcript is very large.
    """

    def __init__(self, messages: Callable[[Run], AsyncGenerator[Message, None]]) -> None:
        self.session_id: str | None = None
        self.resumed: bool | None = None
        self.epoch: int | None = None
        self.cwd: Path | None = None
        self.warnings: tuple[str, ...] = ()
        self._messages = messages(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        return await anext(self._messages)

    async def aclose(self) -> None:
        """End the run where it is: the agent is interrupted and let go of, and what it had said is stored.

        For the task that iterates. Another one ends the run by cancelling that task.
        """
        await self._messages.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class Runner:
    """Carries out runs.

    Args:
        registry: Who owns which session.
        stores: Where transcripts go.
        workdirs: Where repositories are checked out.
        worker: The name of this worker.
        claim_ttl_s: How long a claim lasts.
    """

    def __init__(
        self, *, registry: Registry, stores: Stores, workdirs: Workdirs, worker: str, claim_ttl_s: float
    ) -> None:
        self._registry = registry
        self._stores = stores
        self._workdirs = workdirs
        self._worker = worker
        self._claim_ttl_s = claim_ttl_s
        self._log = get_logger()

    def run(self, request: Request) -> Run:
        """Return a run; it begins when it is iterated.

        Raises:
            Invalid: The request cannot be run. Nothing was touched.
        """
        request.check()
        return Run(partial(self._messages, request))

    async def _messages(self, request: Request, run: Run) -> AsyncGenerator[Message, None]:
        run.cwd = await self._directory(request)
        claim, store = await self._claim(request.work, run)
        # Bound to loggers, not to the context: that one is the caller's between two messages.
        context = {"task_id": request.work.key, "session_id": claim.session_id, "epoch": claim.epoch}
        store.observer.bind(**context)
        self._log.info("run_started", **context, resumed=run.resumed, cwd=str(run.cwd))
        async with store, aclosing(self._talk(request, run, claim, store)) as messages:
            async for message in messages:
                yield message
        self._log.info("run_ended", **context, unstored_entries=store.unstored_entries)

    async def _claim(self, work: WorkItem, run: Run) -> tuple[Claim, TranscriptStore]:
        label = self._stores.label.rstrip("/")
        ask = partial(self._registry.claim, work, Holder(self._worker), label, ttl_s=self._claim_ttl_s)
        try:
            claim = await _in_thread(ask)
        except Held as held:
            claim = await _in_thread(partial(ask, instead_of=held))
        if claim.store != label:
            claim = await self._moved(claim, label)
        store = await self._take_over(claim, run)
        if run.resumed or claim.is_new:
            return claim, store
        # A worker died before anything was stored. The agent of this machine may know the session id all the same,
        # and would refuse to begin it a second time.
        await store.aclose()
        claim = await _in_thread(partial(self._registry.begin_anew, claim))
        return claim, await self._take_over(claim, run)

    async def _moved(self, claim: Claim, label: str) -> Claim:
        """Make sure that a transcript that was in another store is in this one now: the same under another name, or a
        copy. To begin anew here would leave the conversation behind for good."""
        guest = self._stores.claimed(claim.work.key, 0)
        key: SessionKey = {"project_key": UNKNOWN_PROJECT, "session_id": claim.session_id}
        if await guest.load(key) is None:
            raise Conflict(
                f"the transcript of {claim.work.key} is in {claim.store}, and not in {label}",
                hint="name that store; or, if it is gone for good, forget the session with runtime.registry.drop(…)",
            )
        return replace(claim, store=label)

    async def _take_over(self, claim: Claim, run: Run) -> TranscriptStore:
        assert run.cwd is not None
        run.session_id, run.epoch = claim.session_id, claim.epoch
        store = self._stores.claimed(claim.work.key, claim.epoch)
        # Fence first, look second: what the agent is shown can no longer change behind its back.
        run.resumed = await store.take_over(project_key_for_directory(run.cwd), claim.session_id)
        run.warnings = store.size_warnings
        return store

    async def _talk(
        self, request: Request, run: Run, claim: Claim, store: TranscriptStore
    ) -> AsyncGenerator[Message, None]:
        assert run.cwd is not None
        conversation = converse(
            request.options,
            store=store,
            session_id=claim.session_id,
            resume=bool(run.resumed),
            cwd=run.cwd,
            prompt=(request.resume_prompt or request.prompt) if run.resumed else request.prompt,
        )
        async with aclosing(conversation) as messages:
            async for message in messages:
                if store.observer.fenced is not None:
                    raise store.observer.fenced
                await self._confirm(claim, message, run.cwd)
                yield message
        if store.unstored_entries or not store.observer.parts_written:
            raise Unavailable(
                f"{store.unstored_entries or 'all'} entries of this turn are not known to be stored",
                hint="the conversation in the store is incomplete; look at the log for what went wrong",
            )

    async def _confirm(self, claim: Claim, message: Message, cwd: Path) -> None:
        stated = session_of(message)
        if stated is None:
            return
        if stated != claim.session_id:
            raise Conflict(
                f"the agent answered as session {stated}, not as {claim.session_id}",
                hint="look for options or hooks that change the session id",
            )
        await _in_thread(partial(self._registry.confirm, claim, str(cwd)))

    async def _directory(self, request: Request) -> Path:
        """Try everything out, then make the checkout: what is refused leaves no trace."""
        work = request.work
        if work.repo:
            await _stoppable(partial(self._workdirs.check, work))
        await _in_thread(partial(self._stores.admit, work.key))
        if work.repo:
            return await _stoppable(partial(self._workdirs.open, work))
        return await _in_thread(Path(request.options.cwd or ".").absolute)


def _is_directory(path: str | Path) -> bool:
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):  # too long for a path, say
        return False


async def _stoppable(work: Callable[[threading.Event], Result]) -> Result:
    """Do blocking work that may take minutes. When we are cancelled, it is told to stop, and not waited for."""
    stop = threading.Event()
    try:
        return await anyio.to_thread.run_sync(work, stop, abandon_on_cancel=True)
    finally:
        stop.set()


async def _in_thread(work: Callable[[], Result]) -> Result:
    return await anyio.to_thread.run_sync(work)
