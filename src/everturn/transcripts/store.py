"""`TranscriptStore`: the Claude Agent SDK's SessionStore on an object store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Self, TypeVar, cast
from weakref import WeakKeyDictionary

import anyio
import anyio.lowlevel
import anyio.to_thread
from claude_agent_sdk import (
    SessionKey,
    SessionListSubkeysKey,
    SessionStore,
    SessionStoreEntry,
    SessionStoreListEntry,
    SessionSummaryEntry,
)

from everturn.clock import Clock, Ids, SystemClock
from everturn.errors import Unavailable
from everturn.log.encryption import Keys
from everturn.log.objects import Objects, run
from everturn.log.roles import Assignment
from everturn.log.stores import admit, connect
from everturn.settings import Settings
from everturn.transcripts import listing
from everturn.transcripts.backlog import Append, Backlog
from everturn.transcripts.layout import Layout
from everturn.transcripts.linger import Linger
from everturn.transcripts.marks import Marks, cost_noted, is_said
from everturn.transcripts.observer import StoreObserver
from everturn.transcripts.session_logs import SessionLogs, Target
from everturn.transcripts.sizes import size_warnings

Result = TypeVar("Result")

QUIET_ROUNDS = 6
UNKNOWN_PROJECT = "unknown"  # for stores that find a session wherever it lives


class _Kept(Unavailable, TimeoutError):
    """The store did not answer, and what was to be appended goes before what comes next. The SDK would try twice
    more, which takes time and comes to nothing else, were it not for a time-out, which it takes as final."""


class TranscriptStore(SessionStore):
    """Transcripts that any worker can resume.

    Hand it to the SDK: `ClaudeAgentOptions(session_store=TranscriptStore.open(url, scope=...),
    session_store_flush="eager")`. When `append` returns, the entries are durable. Nothing is ever overwritten, what
    is read is verified, and entries come back equal to what was appended. Works under asyncio and trio.

    Args:
        objects: The store's objects; use `open` to get a store from a URL.
        scope: The task or other scope that these transcripts belong to.
        any_cwd: Find a session whatever working directory, and so project key, it is asked for from. Without it,
            project keys are kept apart, as the SDK's contract has it.
        epoch: The epoch of a claim; 0, the default, for use without one.
        settings: Time-outs and pauses.
        clock: For tests.
        ids: For tests.
        observer: Is told what happens; the default logs it.

    Raises:
        Invalid: The scope is empty, too long, or would climb out of its folder. Every method says the same of the
            names in its key.
    """

    def __init__(
        self,
        objects: Objects,
        *,
        scope: str,
        any_cwd: bool = False,
        epoch: int = 0,
        settings: Settings | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
        observer: StoreObserver | None = None,
    ) -> None:
        self._layout = Layout(scope)
        self._settings = settings or Settings.load()
        self._clock = clock or SystemClock()
        self.observer = observer or StoreObserver()
        self._logs = SessionLogs(
            objects,
            self._layout,
            any_cwd=any_cwd,
            epoch=epoch,
            settings=self._settings,
            clock=self._clock,
            ids=ids or Ids(),
            observer=self.observer,
        )
        self._backlog = self._make_backlog(self._clock, claimed=epoch > 0)
        self.epoch = epoch
        self.size_warnings: tuple[str, ...] = ()
        self._costs: dict[str, dict[str, Any]] = {}
        self._in_flight = 0
        self._all_landed = anyio.Event()

    @classmethod
    def open(
        cls,
        url: str,
        *,
        scope: str,
        any_cwd: bool = False,
        epoch: int = 0,
        settings: Settings | None = None,
        keys: Keys | None = None,
    ) -> Self:
        """Open a store and try out that it can be trusted.

        Blocks for two requests to the store, or five if it is new. In a program with an event loop that must not
        wait, call it in a thread. The result may be awaited and used with `async with`, which closes it.

        Args:
            url: `s3://bucket/prefix`, `file:///folder` or `memory://` (new and empty every time). For S3, the usual
                `AWS_*` variables are honoured, `AWS_ENDPOINT_URL` among them.
            scope: The task or other scope; one prefix in the store.
            any_cwd: See the class.
            epoch: See the class.
            settings: Read from the environment and `everturn.toml` if not given.
            keys: Where keys to encrypt with come from; goes before the setting `encryption_key_file`.

        Raises:
            Invalid: The URL or scope is wrong, the store has another format version, or it does not honour
                create-if-absent. Nothing was written.
            NotFound: There is no such bucket.
            Denied: The credentials are wrong.
            Unavailable: The store did not answer.
        """
        settings = settings or Settings.load()
        objects = connect(url, settings, keys, assignment=Assignment(scope))
        store = cls(objects, scope=scope, any_cwd=any_cwd, epoch=epoch, settings=settings)
        run(admit(objects, scope, url))
        return store

    # --- The SDK's contract ---------------------------------------------------------------------------------------

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Append entries. On return they are durable. An empty list writes nothing.

        With the setting `linger_s` they are durable that much later, or on return of `drain`, `flush` or `aclose`.

        Raises:
            Invalid: An entry is not a JSON value. Nothing was written.
            Unavailable: The store did not settle the write within `append_deadline_s`. Appending the same entries
                again is safe: they are not written twice. With a claim they are kept, and go before the next ones.
            Fenced: A newer claim has taken over; nothing more can be appended here.
        """
        if not entries:
            return
        if not self._in_flight:
            self._all_landed = anyio.Event()
        self._in_flight += 1
        try:
            target = self._logs.target(key)
            async with self._turn(target):
                await _in_thread(partial(self._append, target, entries))
        except BaseException as error:  # cancelled, too: what has not come back is not known to be stored
            self.observer.ledger.failed(entries, None)
            if self.epoch and isinstance(error, Unavailable):
                raise _Kept(error.message, hint=error.hint) from error
            raise
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._all_landed.set()

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """Return all entries in order, or `None` if there are none.

        Raises:
            Corrupt: Something is missing or damaged. Names the object.
        """
        return await self._after_draining(partial(self._logs.load, self._logs.target(key)))

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """List the sessions of a project key; with `any_cwd`, of the whole scope."""
        self._layout.sessions(project_key)  # refuses bad names before anything happens
        return await self._after_draining(partial(self._logs.listed, project_key, listing.list_sessions))

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """Return the summaries of the sessions that `list_sessions` lists, by the same clock."""
        self._layout.sessions(project_key)  # refuses bad names before anything happens
        return await self._after_draining(partial(self._logs.listed, project_key, listing.list_summaries))

    async def delete(self, key: SessionKey) -> None:
        """Delete a session with all its sub-transcripts or, if the key has a subpath, that one alone.

        Raises:
            Conflict: The session is under a legal hold. Nothing was deleted.
        """
        await self._after_draining(partial(self._logs.delete, self._logs.target(key)))

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """Return the subpaths of a session's sub-transcripts."""
        target = Target(key["project_key"], key["session_id"], None)
        return await self._after_draining(partial(self._logs.list_subkeys, target))

    # --- Beyond it ------------------------------------------------------------------------------------------------

    async def is_known(self, session_id: str) -> bool:
        """Tell whether anything of a session can be stored, by its note. One request; for a store with homes.

        Every claim leaves that note before it stores any entries, so a session without one is lost, or never was.
        """
        target = self._logs.target({"project_key": UNKNOWN_PROJECT, "session_id": session_id})
        return await _in_thread(partial(self._logs.is_known, target))

    async def take_over(self, project_key: str, session_id: str, *, is_new: bool = False) -> bool:
        """Fence a session for this store's claim, so that no older claim can write to it from here on.

        The next `load` of the session is answered with what was read for this, if nothing is appended first.

        If it is so large that the agent command is known to choke on it, `size_warnings` says so afterwards.

        Args:
            project_key: Where the session will live if it is new.
            session_id: The session.
            is_new: The claim has just made the session, so that it need not be looked for.

        Returns:
            Whether there is a conversation to resume: something that was said, not only the agent's notes to itself.

        Raises:
            Fenced: A newer claim has been here already.
            Corrupt: Something is missing or damaged. Names the object.
        """
        target = self._logs.target({"project_key": project_key, "session_id": session_id})
        return await _in_thread(partial(self._take_over, target, is_new=is_new))

    def cost_noted(self, session_id: str) -> dict[str, Any] | None:
        """Return the agent command's last note of what a session has cost, as far as this store has seen it.

        It has after `take_over`. Tells nothing that was not said before: `None` means that nobody noted a cost.
        """
        return self._costs.get(session_id)

    def marks(self, key: SessionKey) -> Marks:
        """Return the marks of what this store knows to be stored of a log. With a claim only; empty without."""
        return self._logs.marks(self._logs.target(key))

    def take_again(self, key: SessionKey) -> None:
        """Take entries of a log again after some were not taken, as too much waited for a store that was away.

        The caller appends first what is missing: what comes after it could not be put in order otherwise.
        """
        if self._backlog is not None:
            self._backlog.take_again(self._logs.target(key))

    async def is_begun(self, session_id: str) -> bool:
        """Tell whether anything was said in a session. Reads it whole; for a store with homes."""
        entries = await self.load({"project_key": UNKNOWN_PROJECT, "session_id": session_id})
        return any(is_said(entry) for entry in entries or ())

    async def settled(self) -> None:
        """Wait until everything that the SDK has taken from the agent so far is stored, or has failed.

        The SDK appends in tasks of its own, one after the other. It starts them as soon as it has a frame, so when
        the event loop has gone round a few times and nothing is under way, nothing is left.
        """
        quiet_rounds = 0
        while quiet_rounds < QUIET_ROUNDS:
            if self._in_flight:
                quiet_rounds = 0
                await self._all_landed.wait()
            else:
                quiet_rounds += 1
                await anyio.lowlevel.checkpoint()

    @property
    def unstored_entries(self) -> int:
        """How many entries were handed over and are not known to be in the store."""
        return self.observer.ledger.missing_entries

    def give_up_after(self, seconds: float) -> None:
        """Have appends, those under way too, try nothing again after this time: a run that ends has little of it."""
        self._logs.latest = self._clock.elapsed() + seconds

    async def drain(self) -> None:
        """Store now what lingers, and what could not be stored so far. On return all entries are durable.

        Raises:
            EverturnError: Something could not be stored. It is kept, and tried again later.
        """
        if self._backlog is not None:
            await _in_thread(self._backlog.flush)

    async def flush(self) -> None:
        """Store now what lingers, and write the summaries that are behind."""
        await self.drain()
        await _in_thread(self._logs.summaries.flush)

    async def aclose(self) -> None:
        """Store and write what is behind, and let go of threads."""
        with anyio.CancelScope(shield=True):
            try:
                if self._backlog is not None:
                    await _in_thread(self._backlog.close)
            finally:
                await _in_thread(self._logs.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __await__(self) -> Generator[Any, None, Self]:
        return self._itself().__await__()

    async def _itself(self) -> Self:
        # It is open already, so `await TranscriptStore.open(...)` may be written by those who expect to.
        return self

    # --- Small things ---------------------------------------------------------------------------------------------

    async def _append(self, target: Target, entries: list[SessionStoreEntry]) -> None:
        self._note_cost(target, entries)
        if self._backlog is None:
            await self._logs.append(target, entries)
            return
        if self.observer.fenced is not None:
            raise self.observer.fenced
        await self._backlog.append(target, entries)

    def _make_backlog(self, clock: Clock, *, claimed: bool) -> Backlog | None:
        patience, ledger, linger_s = self._logs.patience, self.observer.ledger, self._settings.linger_s
        append = cast("Append", self._logs.append)  # it takes the entries as the SDK types them
        refused = self._logs.refused
        if linger_s:
            return Linger(
                append,
                patience=patience,
                linger_s=linger_s,
                clock=clock,
                ledger=ledger,
                refused=refused,
                in_order=claimed,
            )
        return Backlog(append, patience=patience, ledger=ledger, refused=refused) if claimed else None

    async def _after_draining(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Do something that has to see what this process has appended."""
        await self.drain()
        return await _in_thread(work)

    async def _take_over(self, target: Target, *, is_new: bool) -> bool:
        log = await self._logs.take_over(target, is_new=is_new)
        self.size_warnings = tuple(size_warnings(log))
        self.observer.too_large(self.size_warnings)
        is_begun, noted = False, None
        for part in reversed(log.parts):  # what is looked for stands near the end
            entries = log.entries_of(part)
            is_begun = is_begun or any(map(is_said, entries))
            noted = noted or cost_noted(entries)
            if is_begun and noted is not None:
                break
        self._note_cost(target, [noted])
        return is_begun

    def _note_cost(self, target: Target, entries: Sequence[Any]) -> None:
        noted = cost_noted(entries) if target.subpath is None else None
        if noted is not None:
            self._costs[target.session_id] = noted

    @asynccontextmanager
    async def _turn(self, target: Target) -> AsyncIterator[None]:
        """Let the appends to one log go one by one, in the order in which they were called."""
        try:
            gates = _gates.get()
        except LookupError:  # the first append in this event loop
            gates = WeakKeyDictionary()
            _gates.set(gates)
        async with gates.setdefault(self, {}).setdefault(target, anyio.Lock(fast_acquire=True)):
            yield


# By store, and gone with it: an event loop may last for as long as a machine, and have any number of stores.
_gates = anyio.lowlevel.RunVar[WeakKeyDictionary[TranscriptStore, dict[Target, anyio.Lock]]]("everturn-gates")


async def _in_thread(work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    return await anyio.to_thread.run_sync(lambda: run(work()))
