"""`TranscriptStore`: the Claude Agent SDK's SessionStore on an object store."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

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
from everturn.errors import Fenced, Unavailable
from everturn.log.entries import encode
from everturn.log.objects import Objects, run
from everturn.log.patience import Backoff, Patience
from everturn.log.reader import Log, list_spans, read
from everturn.log.stores import admit, connect
from everturn.log.writer import LogWriter
from everturn.settings import Settings
from everturn.transcripts import listing
from everturn.transcripts.deletion import delete_log
from everturn.transcripts.homes import find_home, settle_home
from everturn.transcripts.layout import Layout
from everturn.transcripts.observer import StoreObserver
from everturn.transcripts.summaries import SummaryKeeper

Result = TypeVar("Result")

QUIET_ROUNDS = 6


@dataclass(frozen=True, slots=True)
class _Target:
    """A log as the SDK names it."""

    project_key: str
    session_id: str
    subpath: str | None


class _Handle:
    """The writing side of one log in this process."""

    def __init__(self, writer: LogWriter) -> None:
        self.writer = writer
        self.opened = False
        self.lock = threading.Lock()  # appends from several event loops take turns


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
        self._objects = objects
        self._layout = Layout(scope)
        self._any_cwd = any_cwd
        self._epoch = epoch
        self._settings = settings or Settings.load()
        self._clock = clock or SystemClock()
        self._ids = ids or Ids()
        self.observer = observer or StoreObserver()
        self._handles: dict[_Target, _Handle] = {}
        self._in_flight = 0
        self._all_landed = anyio.Event()
        self._handles_lock = threading.Lock()
        self._homes: dict[str, str] = {}
        self._gates = anyio.lowlevel.RunVar[dict[_Target, anyio.Lock]](f"everturn-gates-{id(self)}")
        self._summaries = SummaryKeeper(
            objects,
            self._layout,
            clock=self._clock,
            pause_s=self._settings.summary_pause_s,
            on_failure=self.observer.summary_failed,
        )

    @classmethod
    def open(
        cls,
        url: str,
        *,
        scope: str,
        any_cwd: bool = False,
        epoch: int = 0,
        settings: Settings | None = None,
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

        Raises:
            Invalid: The URL or scope is wrong, the store has another format version, or it does not honour
                create-if-absent. Nothing was written.
            NotFound: There is no such bucket.
            Denied: The credentials are wrong.
            Unavailable: The store did not answer.
        """
        settings = settings or Settings.load()
        objects = connect(url, settings)
        store = cls(objects, scope=scope, any_cwd=any_cwd, epoch=epoch, settings=settings)
        run(admit(objects, scope, url))
        return store

    # --- The SDK's contract ---------------------------------------------------------------------------------------

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Append entries. On return they are durable. An empty list writes nothing.

        Raises:
            Invalid: An entry is not a JSON value. Nothing was written.
            Unavailable: The store did not settle the write within `append_deadline_s`. Appending the same entries
                again is safe: they are not written twice.
            Fenced: A newer claim has taken over; nothing more can be appended here.
        """
        if not entries:
            return
        if not self._in_flight:
            self._all_landed = anyio.Event()
        self._in_flight += 1
        try:
            target = self._target(key)
            async with self._turn(target):
                await _in_thread(partial(self._append, target, entries))
        except BaseException:  # cancelled, too: what has not come back is not known to be stored
            self.observer.ledger.failed(entries, None)
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
        return await _in_thread(partial(self._load, self._target(key)))

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """List the sessions of a project key; with `any_cwd`, of the whole scope."""
        self._layout.sessions(project_key)
        return await _in_thread(partial(self._list, project_key, listing.list_sessions))

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """Return the summaries of the sessions that `list_sessions` lists, by the same clock."""
        self._layout.sessions(project_key)
        return await _in_thread(partial(self._list, project_key, listing.list_summaries))

    async def delete(self, key: SessionKey) -> None:
        """Delete a session with all its sub-transcripts or, if the key has a subpath, that one alone."""
        await _in_thread(partial(self._delete, self._target(key)))

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """Return the subpaths of a session's sub-transcripts."""
        return await _in_thread(partial(self._list_subkeys, _Target(key["project_key"], key["session_id"], None)))

    # --- Beyond it ------------------------------------------------------------------------------------------------

    async def take_over(self, project_key: str, session_id: str) -> bool:
        """Fence a session for this store's claim, so that no older claim can write to it from here on.

        Args:
            project_key: Where the session will live if it is new.
            session_id: The session.

        Returns:
            Whether there is a conversation to resume: something that was said, not only the agent's notes to itself.

        Raises:
            Fenced: A newer claim has been here already.
        """
        return await _in_thread(partial(self._take_over, self._target_of(project_key, session_id, None)))

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

    async def flush(self) -> None:
        """Write the summaries that are behind. Entries need no flush: `append` is durable."""
        await _in_thread(self._summaries.flush)

    async def aclose(self) -> None:
        """Write what is behind and let go of threads."""
        with anyio.CancelScope(shield=True):
            await _in_thread(self._summaries.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __await__(self) -> Generator[Any, None, Self]:
        return self._itself().__await__()

    async def _itself(self) -> Self:
        # It is open already, so `await TranscriptStore.open(...)` may be written by those who expect to.
        return self

    # --- Inside a worker thread -----------------------------------------------------------------------------------

    async def _append(self, target: _Target, entries: list[SessionStoreEntry]) -> None:
        patience = self._patience()
        place = await self._home_for(target, patience, entries)
        handle = self._handle(place)
        with handle.lock, self._noting_fences():
            await self._open_for_writing(place, handle, patience)
            left_over = handle.writer.unresolved
            try:
                seq = await handle.writer.append(entries, patience)
            except Unavailable:
                if handle.writer.unresolved != left_over:
                    self.observer.ledger.failed(entries, handle.writer.unresolved)
                raise
            if place.subpath is None:
                self._summaries.note((place.project_key, place.session_id), seq, entries)
        self.observer.ledger.stored(entries)

    async def _home_for(
        self, target: _Target, patience: Patience, entries: list[SessionStoreEntry] | None = None
    ) -> _Target:
        """Return where to write to. A session that has no home yet gets one, unless the entries cannot be stored."""
        if self._any_cwd and target.session_id not in self._homes:
            encode(entries or ())
            self._homes[target.session_id] = await patience.insist(
                partial(settle_home, self._objects, self._layout, target.session_id, target.project_key)
            )
        return await self._place(target)

    async def _open_for_writing(self, place: _Target, handle: _Handle, patience: Patience) -> None:
        if not self._epoch or handle.opened:
            return
        main = self._handle(_Target(place.project_key, place.session_id, None))
        if place.subpath is not None and main.opened:
            await main.writer.check(patience)  # a sub-transcript may be new to a takeover; the main one never is
        self._opened(place, handle, await handle.writer.open(patience))

    async def _load(self, target: _Target) -> list[SessionStoreEntry] | None:
        place = await self._place(target)
        log = await self._read(place)
        if self._any_cwd and not log.exists:
            # The session may have been deleted by somebody, and begun anew in another home.
            self._homes.pop(target.session_id, None)
            now = await self._place(target)
            log = log if now == place else await self._read(now)
        return log.entries() if log.exists else None

    async def _read(self, place: _Target) -> Log:
        handle = self._handle(place)
        if not self._epoch or handle.opened or not await list_spans(self._objects, self._folder(place)):
            return await read(self._objects, self._folder(place))
        with handle.lock, self._noting_fences():
            log = await handle.writer.open()
            self._opened(place, handle, log)
            return log

    async def _take_over(self, target: _Target) -> bool:
        patience = self._patience()
        place = await self._home_for(target, patience)
        handle = self._handle(place)
        with handle.lock, self._noting_fences():
            log = await handle.writer.open(patience)
            self._opened(place, handle, log)
        return any(_is_said(entry) for part in log.parts for entry in part.entries())

    async def _list(
        self, project_key: str, how: Callable[[Objects, Layout, list[str]], Awaitable[list[Result]]]
    ) -> list[Result]:
        await self._summaries.flush()
        projects = await listing.projects(self._objects, self._layout) if self._any_cwd else [project_key]
        return await how(self._objects, self._layout, projects)

    async def _list_subkeys(self, target: _Target) -> list[str]:
        place = await self._place(target)
        return await listing.list_subpaths(self._objects, self._layout, place.project_key, place.session_id)

    async def _delete(self, target: _Target) -> None:
        place = await self._place(target)
        name = (place.project_key, place.session_id)
        if place.subpath is not None:
            await self._delete_log(place)
            return
        self._summaries.forget(name)
        subpaths = await listing.list_subpaths(self._objects, self._layout, *name, all_logs=True)
        for subpath in (None, *subpaths):
            await self._delete_log(_Target(*name, subpath))
        await self._objects.delete([self._layout.summary(*name)])
        if self._any_cwd:
            await self._objects.delete([self._layout.home(place.session_id)])
            self._homes.pop(place.session_id, None)

    async def _delete_log(self, place: _Target) -> None:
        await delete_log(self._objects, self._folder(place), partial(self._writer, place))
        with self._handles_lock:  # with the writer goes what it had left unresolved
            self._handles.pop(place, None)

    async def _place(self, target: _Target) -> _Target:
        """Return where a target really is: with `any_cwd`, under its session's home."""
        if not self._any_cwd:
            return target
        home = self._homes.get(target.session_id)
        if home is None:
            home = await find_home(self._objects, self._layout, target.session_id, target.project_key)
            if home is None:
                return target
            self._homes[target.session_id] = home
        return _Target(home, target.session_id, target.subpath)

    # --- Small things ---------------------------------------------------------------------------------------------

    def _target(self, key: SessionKey) -> _Target:
        return self._target_of(key["project_key"], key["session_id"], key.get("subpath"))

    def _target_of(self, project_key: str, session_id: str, subpath: str | None) -> _Target:
        self._layout.log(project_key, session_id, subpath)  # refuses bad names before anything happens
        return _Target(project_key, session_id, subpath)

    def _folder(self, place: _Target) -> str:
        return self._layout.log(place.project_key, place.session_id, place.subpath)

    def _patience(self) -> Patience:
        backoff = Backoff(self._settings.retry_start_s, self._settings.retry_limit_s)
        return Patience(self._objects, self._clock, self._ids, self._settings.append_deadline_s, backoff)

    def _handle(self, place: _Target) -> _Handle:
        with self._handles_lock:
            if place not in self._handles:
                self._handles[place] = _Handle(self._writer(place, self._epoch))
            return self._handles[place]

    def _writer(self, place: _Target, epoch: int) -> LogWriter:
        return LogWriter(
            self._objects,
            self._folder(place),
            clock=self._clock,
            ids=self._ids,
            observer=self.observer,
            epoch=epoch,
            writer=self._settings.worker,
            deadline_s=self._settings.append_deadline_s,
        )

    def _opened(self, place: _Target, handle: _Handle, log: Log) -> None:
        handle.opened = True
        if place.subpath is None and not log.exists:
            self._summaries.begin((place.project_key, place.session_id), log.tail)

    def _noting_fences(self) -> _FenceNoting:
        return _FenceNoting(self.observer)

    @asynccontextmanager
    async def _turn(self, target: _Target) -> AsyncIterator[None]:
        """Let the appends to one log go one by one, in the order in which they were called."""
        gates = self._gates.get({})
        self._gates.set(gates)
        async with gates.setdefault(target, anyio.Lock()):
            yield


class _FenceNoting:
    """Tells the observer when a newer claim has taken over, and refuses to go on after that."""

    def __init__(self, observer: StoreObserver) -> None:
        self._observer = observer

    def __enter__(self) -> None:
        if self._observer.fenced is not None:
            raise self._observer.fenced

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Fenced):
            self._observer.stopped(error)


def _is_said(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("type") in ("user", "assistant")


async def _in_thread(work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    return await anyio.to_thread.run_sync(lambda: run(work()))
