"""`Run`: what a caller holds of a run. The run itself lives in a task of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import anyio
from claude_agent_sdk import Message, SessionKey, project_key_for_directory

from everturn.runner.stopping import CANCELLED, CLOSED, Stop
from everturn.runner.tasks import spawn


@dataclass
class Progress:
    """What is known of a run; its task writes it, its handle shows it."""

    run_id: str
    session_id: str | None = None
    resumed: bool | None = None
    epoch: int | None = None
    cwd: Path | None = None
    warnings: tuple[str, ...] = ()
    missing_entries: int = 0

    @property
    def key(self) -> SessionKey:
        """The session as the agent command names it here; once its work item is claimed and its directory open."""
        assert self.cwd is not None
        assert self.session_id is not None
        return {"project_key": project_key_for_directory(self.cwd), "session_id": self.session_id}

    def warn(self, *warnings: str) -> None:
        """Add what the caller should know."""
        self.warnings += tuple(warning for warning in warnings if warning not in self.warnings)


class Mailbox:
    """Messages on their way from a run's task to whoever iterates it, one at a time. Both are in one event loop."""

    def __init__(self) -> None:
        self._waiting: deque[Message] = deque()
        self._changed = anyio.Event()
        self._error: BaseException | None = None
        self.ended = anyio.Event()

    async def put(self, message: Message) -> None:
        """Hand over a message, and wait until it was taken."""
        self.post(message)
        while any(waiting is message for waiting in self._waiting):
            await self._changed.wait()

    def post(self, message: Message) -> None:
        """Hand over a message."""
        self._waiting.append(message)
        self._notify()

    async def get(self) -> Message:
        """Take a message.

        Raises:
            StopAsyncIteration: There are no more.
            BaseException: What the run ended with; once.
        """
        while not self._waiting and not self.ended.is_set():
            await self._changed.wait()
        if self._waiting:
            message = self._waiting.popleft()
            self._notify()
            return message
        error, self._error = self._error, None
        raise error or StopAsyncIteration

    def end(self, error: BaseException | None = None) -> None:
        """Say that there are no more. Only the first call does anything."""
        if self.ended.is_set():
            return
        self._error = error
        self.ended.set()
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()


class Run:
    """A run in progress: an async iterator of the agent's messages.

    It begins when it is first iterated, and then lives in a task of its own until its agent is gone, all is stored
    and its claim is released. It waits for each message to be taken.

    Attributes:
        run_id: The run's own id; its trace in the store has it.
        session_id: The conversation; `None` until the work item is claimed.
        resumed: Whether it goes on from an earlier run; `None` until that is known.
        epoch: The claim's number; `None` until there is one.
        cwd: Where the agent works; `None` until it is open.
        warnings: What the caller should know: that the transcript is very large, that something of it is missing,
            that a conversation was not found and has begun anew.
        missing_entries: How many entries of the transcript are not known to be in the store; once the run has ended.
        stopped: Why the run was asked to end before its time: the name of a signal, `cancelled`, `closed`, `lost`;
            `None` if it was not.
    """

    def __init__(self, progress: Progress, stop: Stop, drive: Callable[[Mailbox], Coroutine[Any, Any, None]]) -> None:
        self._progress = progress
        self._stop = stop
        self._drive = drive
        self._mailbox: Mailbox | None = None
        self._closed = False

    @property
    def run_id(self) -> str:
        """See the class."""
        return self._progress.run_id

    @property
    def session_id(self) -> str | None:
        """See the class."""
        return self._progress.session_id

    @property
    def resumed(self) -> bool | None:
        """See the class."""
        return self._progress.resumed

    @property
    def epoch(self) -> int | None:
        """See the class."""
        return self._progress.epoch

    @property
    def cwd(self) -> Path | None:
        """See the class."""
        return self._progress.cwd

    @property
    def warnings(self) -> tuple[str, ...]:
        """See the class."""
        return self._progress.warnings

    @property
    def stopped(self) -> str | None:
        """See the class."""
        return self._stop.reason

    @property
    def missing_entries(self) -> int:
        """See the class."""
        return self._progress.missing_entries

    def stop(self, reason: str = "stopped") -> None:
        """Ask the run to end in good order: its agent is interrupted, what it said is stored, its claim released.

        Returns at once; iterating goes on to the last message. May be called from any thread and from a signal
        handler. Asking a second time makes it hurry.

        Args:
            reason: Why; shown as `stopped`.
        """
        self._stop.request(reason)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        if self._closed:
            raise StopAsyncIteration
        if self._mailbox is None:
            self._mailbox = Mailbox()
            spawn(self._drive(self._mailbox), self._mailbox.end)
        try:
            return await self._mailbox.get()
        except (anyio.get_cancelled_exc_class(), KeyboardInterrupt):
            self._stop.request(CANCELLED)
            await self._until_ended(self._mailbox)
            raise

    async def aclose(self) -> None:
        """End the run where it is. On return its agent is gone, what it said is stored, and the claim is released.

        Any task may do it. What went wrong on the way is raised where the run is iterated, not here.
        """
        self._closed = True
        if self._mailbox is not None:
            if not self._mailbox.ended.is_set():
                self._stop.request(CLOSED, again=False)
            await self._until_ended(self._mailbox)

    async def _until_ended(self, mailbox: Mailbox) -> None:
        """Wait for the end. Whoever cancels this wait makes the run hurry, which bounds it."""
        while not mailbox.ended.is_set():
            try:
                with anyio.CancelScope(shield=True):
                    await mailbox.ended.wait()
            except (anyio.get_cancelled_exc_class(), KeyboardInterrupt):
                self._stop.request(CANCELLED)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._mailbox is not None and not self._mailbox.ended.is_set():
            self._stop.request(CLOSED, again=False)  # nobody iterates it any more
