"""The logs of one scope, as one process writes and reads them. Its coroutines run inside a worker thread."""

from __future__ import annotations

import math
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from everturn.clock import Clock, Ids
from everturn.errors import Conflict, EverturnError, Fenced
from everturn.log.compactor import Compactor
from everturn.log.deletion import delete_log
from everturn.log.entries import encode
from everturn.log.objects import Objects, run
from everturn.log.patience import Backoff, Patience
from everturn.log.reader import Log, list_spans, read
from everturn.log.reporting import CompactionReport
from everturn.log.writer import LogWriter
from everturn.settings import Settings
from everturn.transcripts import listing
from everturn.transcripts.holds import refuse_if_held
from everturn.transcripts.homes import find_home, noted_home, settle_home
from everturn.transcripts.layout import Layout
from everturn.transcripts.marks import Marks
from everturn.transcripts.observer import StoreObserver
from everturn.transcripts.summaries import SummaryKeeper

if TYPE_CHECKING:
    from claude_agent_sdk import SessionKey, SessionStoreEntry

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Target:
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


class SessionLogs:
    """Appends to the logs of a scope, and reads them.

    Args:
        objects: The store; it must block.
        layout: The scope's layout.
        any_cwd: Give each session one home, whatever project key it is asked for under.
        epoch: The epoch of a claim; 0 without one.
        settings: Time-outs and pauses.
        clock: For deadlines.
        ids: For write ids and jitter.
        observer: Is told what happens.
    """

    def __init__(
        self,
        objects: Objects,
        layout: Layout,
        *,
        any_cwd: bool,
        epoch: int,
        settings: Settings,
        clock: Clock,
        ids: Ids,
        observer: StoreObserver,
    ) -> None:
        self._objects = objects
        self._layout = layout
        self._any_cwd = any_cwd
        self._epoch = epoch
        self._settings = settings
        self._clock = clock
        self._ids = ids
        self._observer = observer
        self._handles: dict[Target, _Handle] = {}
        self._handles_lock = threading.Lock()
        self._homes: dict[str, str] = {}
        self._taken: dict[Target, Log] = {}
        self.latest = math.inf  # of the clock: appends try nothing again after it
        self._marks: dict[tuple[str, str, str | None], Marks] = {}
        self.summaries = SummaryKeeper(
            objects,
            layout,
            clock=clock,
            pause_s=settings.summary_pause_s,
            on_failure=observer.summary_failed,
        )
        self.compactor = Compactor(
            objects,
            after_parts=settings.compact_after_parts,
            writer=settings.worker,
            clock=clock,
            ids=ids,
            observer=CompactionReport(observer.metrics),
        )

    def target(self, key: SessionKey) -> Target:
        """Return the log that the SDK means.

        Raises:
            Invalid: A name in the key cannot be used.
        """
        target = Target(key["project_key"], key["session_id"], key.get("subpath"))
        self._folder(target)  # refuses bad names before anything happens
        return target

    async def append(
        self, target: Target, entries: list[SessionStoreEntry], patience: Patience | None = None
    ) -> None:
        """Append entries. On return they are durable.

        Args:
            target: The log.
            entries: The entries.
            patience: That of the operation this append belongs to, if it has begun already.
        """
        patience = patience or self.patience()
        with self._reporting(target, entries):
            place = await self._home_for(target, patience, entries)
        handle = self._handle(place)
        with handle.lock, _FenceNoting(self._observer):
            self._taken.pop(place, None)
            with self._reporting(place, entries):
                await self._open_for_writing(place, handle, patience)
            left_over = handle.writer.unresolved
            try:
                seq = await handle.writer.append(entries, patience)
            except EverturnError:
                if handle.writer.unresolved != left_over:
                    self._observer.ledger.failed(entries, handle.writer.unresolved)
                raise
            if place.subpath is None:
                self.summaries.note((place.project_key, place.session_id), seq, entries)
            if self._epoch:
                self.marks(target).stored(entries)
            written = handle.writer.written
        self._observer.ledger.stored(entries)
        self.compactor.note(self._folder(place), seq, written)

    def refused(self, target: Target, count: int, error: EverturnError) -> None:
        """Take note of entries that were not even tried to be stored: that is a failed append like any other."""
        self._observer.failed(self._folder(target), count, error)

    async def load(self, target: Target) -> list[SessionStoreEntry] | None:
        """Return all entries in order, or `None` if there are none."""
        place = await self._place(target)
        log = self._taken.pop(place, None) or await self._read(place)
        if self._any_cwd and not log.exists:
            # The session may have been deleted by somebody, and begun anew in another home.
            self._homes.pop(target.session_id, None)
            now = await self._place(target)
            log = log if now == place else await self._read(now)
        entries = log.entries() if log.exists else None
        if self._epoch:
            self.marks(target).begin(entries or ())
        return entries

    def marks(self, target: Target) -> Marks:
        """Return the marks of what is known to be stored of a log. They are kept for the holder of a claim."""
        name = (target.project_key if not self._any_cwd else "", target.session_id, target.subpath)
        with self._handles_lock:
            return self._marks.setdefault(name, Marks())

    def patience(self) -> Patience:
        """Return the patience for one append."""
        backoff = Backoff(self._settings.retry_start_s, self._settings.retry_limit_s)
        deadline_s = self._settings.append_deadline_s
        return Patience(self._objects, self._clock, self._ids, deadline_s, backoff, lambda: self.latest)

    async def is_known(self, target: Target) -> bool:
        """Tell whether a claim has ever begun to store a session. One request."""
        home = await noted_home(self._objects, self._layout, target.session_id)
        if home is not None:
            self._homes[target.session_id] = home
        return home is not None

    async def take_over(self, target: Target, *, is_new: bool) -> Log:
        """Fence a session for our claim, and return what it holds from now on.

        Nobody else can add to it now, so the next load, the agent's, is answered with it, unless we append first.
        """
        patience = self.patience()
        if is_new:
            return await self._begin(target, patience)
        return await self._fence(await self._home_for(target, patience), patience)

    async def _begin(self, target: Target, patience: Patience) -> Log:
        """Note the home of a session that our claim has just made, and fence it meanwhile.

        Nobody else knows it, so that neither has to wait for the other. Nothing can be appended before both are
        durable; a fence without a note is a session of which nothing is stored.
        """
        with ThreadPoolExecutor(1, "everturn-home") as helper:
            note = partial(self._home_for, target, self.patience(), is_new=True)
            noted = helper.submit(copy_context().run, lambda: run(note()))
            log = await self._fence(target, patience, is_new=True)
            if noted.result() != target:
                raise Conflict(f"session {target.session_id} is not new", hint="run it again")
        return log

    async def _fence(self, place: Target, patience: Patience, *, is_new: bool = False) -> Log:
        handle = self._handle(place)
        with handle.lock, _FenceNoting(self._observer):
            log = await handle.writer.open(patience, is_new=is_new)
            self._opened(place, handle, log)
            if log.exists:
                self._taken[place] = log
        return log

    async def listed(
        self, project_key: str, how: Callable[[Objects, Layout, list[str]], Awaitable[list[Result]]]
    ) -> list[Result]:
        """List the sessions of a project or, with homes, of the scope, with all that this process has written."""
        await self.summaries.flush(strict=True)
        projects = await listing.projects(self._objects, self._layout) if self._any_cwd else [project_key]
        return await how(self._objects, self._layout, projects)

    async def list_subkeys(self, target: Target) -> list[str]:
        """Return the subpaths of a session's sub-transcripts."""
        place = await self._place(target)
        return await listing.list_subpaths(self._objects, self._layout, place.project_key, place.session_id)

    async def delete(self, target: Target) -> None:
        """Delete a session with all its sub-transcripts, or one of those alone. One under a hold stays."""
        self._homes.pop(target.session_id, None)  # somebody may have deleted it, and begun it anew in another home
        place = await self._place(target)
        await refuse_if_held(self._objects, self._layout.scope, place.session_id)
        name = (place.project_key, place.session_id)
        copies = await self._objects.listing(self._layout.damaged(*name, place.subpath))
        await self._objects.delete([item.key for item in copies])
        if place.subpath is not None:
            await self._delete_log(place)
            return
        self.summaries.forget(name)
        await self._delete_log(Target(*name, None))  # first: a claim looks here before it begins a sub-transcript
        for subpath in await listing.list_subpaths(self._objects, self._layout, *name, all_logs=True):
            await self._delete_log(Target(*name, subpath))
        await self._objects.delete([self._layout.summary(*name)])
        await self._objects.delete([self._layout.catalog(place.project_key)])  # in this order: see there
        if self._any_cwd:
            await self._objects.delete([self._layout.home(place.session_id)])
            self._homes.pop(place.session_id, None)

    async def close(self) -> None:
        """Write the summaries that are behind and let go of threads."""
        await self.summaries.close()
        self.compactor.close()

    # --- Steps ----------------------------------------------------------------------------------------------------

    async def _home_for(
        self,
        target: Target,
        patience: Patience,
        entries: list[SessionStoreEntry] | None = None,
        *,
        is_new: bool = False,
    ) -> Target:
        """Return where to write to. A session that has no home yet gets one, unless the entries cannot be stored."""
        if self._any_cwd and target.session_id not in self._homes:
            encode(entries or ())
            settle = partial(settle_home, self._objects, self._layout, target.session_id, target.project_key)
            self._homes[target.session_id] = await patience.insist(partial(settle, is_new=is_new))
        return await self._place(target)

    @contextmanager
    def _reporting(self, target: Target, entries: list[SessionStoreEntry]) -> Iterator[None]:
        """Report an append that fails before a writer has its entries, and reports that itself."""
        try:
            yield
        except Fenced:
            raise
        except EverturnError as error:
            self._observer.failed(self._folder(target), len(entries), error)
            raise

    async def _place(self, target: Target) -> Target:
        """Return where a target really is: with homes, under that of its session."""
        if not self._any_cwd:
            return target
        home = self._homes.get(target.session_id)
        if home is None:
            home = await find_home(self._objects, self._layout, target.session_id, target.project_key)
            if home is None:
                return target
            self._homes[target.session_id] = home
        return Target(home, target.session_id, target.subpath)

    async def _open_for_writing(self, place: Target, handle: _Handle, patience: Patience) -> None:
        if not self._epoch or handle.opened:
            return
        main = self._handle(Target(place.project_key, place.session_id, None))
        if place.subpath is not None and main.opened:
            await main.writer.check(patience)  # a sub-transcript may be new to a takeover; the main one never is
        self._opened(place, handle, await handle.writer.open(patience))

    async def _read(self, place: Target) -> Log:
        """Read a log; with a claim, fence it first: what the agent is shown must not change behind its back."""
        handle = self._handle(place)
        if not self._epoch or handle.opened or not await list_spans(self._objects, self._folder(place)):
            return await read(self._objects, self._folder(place))
        with handle.lock, _FenceNoting(self._observer):
            log = await handle.writer.open()
            self._opened(place, handle, log)
            return log

    async def _delete_log(self, place: Target) -> None:
        await delete_log(self._objects, self._folder(place), partial(self._writer, place))
        self._taken.pop(place, None)
        with self._handles_lock:  # with the writer goes what it had left unresolved
            self._handles.pop(place, None)

    def _opened(self, place: Target, handle: _Handle, log: Log) -> None:
        handle.opened = True
        if not log.exists:
            marks = self.marks(place)
            marks.begin(())
            marks.deleted = log.start > 1
        if place.subpath is None and not log.exists:
            self.summaries.begin((place.project_key, place.session_id), log.tail)

    def _folder(self, place: Target) -> str:
        return self._layout.log(place.project_key, place.session_id, place.subpath)

    def _handle(self, place: Target) -> _Handle:
        with self._handles_lock:
            if place not in self._handles:
                self._handles[place] = _Handle(self._writer(place, self._epoch))
            return self._handles[place]

    def _writer(self, place: Target, epoch: int) -> LogWriter:
        return LogWriter(
            self._objects,
            self._folder(place),
            clock=self._clock,
            ids=self._ids,
            observer=self._observer,
            epoch=epoch,
            writer=self._settings.worker,
            deadline_s=self._settings.append_deadline_s,
        )


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
