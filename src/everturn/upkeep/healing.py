"""Comparing what the agent keeps on this machine with what is stored, and appending what is missing.

The agent command writes its transcript to a file of its own, and hands over to the store what it has written. So the
file is the measure: at the end of a run everything in it has to be stored. What is missing behind the last entry that
the store has can be appended, in order and once. What is missing before that cannot be put in its place any more: the
conversation is tainted, and that is said rather than passed over.

While the agent lives, nothing is appended from the file: what is missing at its end is most likely under way, and
many entries have nothing that would tell a second copy from the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio.to_thread

from everturn.errors import EverturnError, Invalid
from everturn.transcripts.marks import Place, uuid_of
from everturn.transcripts.store import TranscriptStore
from everturn.upkeep.alignment import align, same_session, without_repeats
from everturn.upkeep.importing import SUFFIX, LocalSession, metadata_of
from everturn.upkeep.local import batches, read_on

if TYPE_CHECKING:
    from claude_agent_sdk import SessionKey, SessionStoreEntry

MAIN = "main"


@dataclass(frozen=True, slots=True)
class Healing:
    """What a comparison has found and done.

    Attributes:
        appended: How many entries were appended.
        missing: How many entries are known to be missing from the store now.
        reasons: Why, and what could not be compared: sentences without transcript text.
    """

    appended: int = 0
    missing: int = 0
    reasons: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether the store has everything that is known of."""
        return not self.missing and not self.reasons


async def heal(store: TranscriptStore, session: SessionKey, local: Path, *, final: bool) -> Healing:
    """Compare a session of ours with the agent's own files, and append what is missing if the agent has ended.

    What waits in this process is stored first. The store is read only where something is missing that cannot be under
    way. May be called any number of times; nothing is appended twice.

    Args:
        store: The store of the claim under which the agent ran.
        session: The session's project key and id.
        local: The folder of `<session_id>.jsonl` and, beside it, `<session_id>/subagents/`. There may be nothing.
        final: The agent has ended, and its files are complete but for a last line that may be cut off.

    Returns:
        What was found. What was appended is durable.

    Raises:
        Invalid: The store has no claim.
        EverturnError: The store failed. What was appended by then is durable; calling again goes on from there.
    """
    found = await _heal_all(store, session, local, final=final)
    ledger = store.observer.ledger
    if final and found.is_whole and found.has_main:
        ledger.clear()  # all that was ever handed over came from these files
    unstored = ledger.missing_entries if final else ledger.given_up_entries
    if unstored and found.is_whole:
        found.missing += unstored
        found.reasons.append(f"{unstored} entries that the agent has handed over are not stored")
    return Healing(found.appended, found.missing, tuple(found.reasons))


async def salvage(store: TranscriptStore, session: SessionKey, local: Path) -> Healing:
    """Append what a run that died on this machine has left in its files and not in the store.

    For a new claim, when it has fenced the session and before its agent starts. If the conversation has gone on in
    the store since, or was deleted, nothing is appended.

    Args:
        store: The store of the new claim.
        session: The session's project key and id.
        local: As for `heal`.

    Raises:
        EverturnError: As for `heal`.
    """
    try:
        found = await _heal_all(store, session, local, final=True, salvaging=True)
    finally:
        for key, _ in await anyio.to_thread.run_sync(_files, session, local):
            store.marks(key).forget()  # the next agent has other files
    return Healing(found.appended, found.missing, tuple(found.reasons))


def folder_of(projects: Path, session: SessionKey) -> Path:
    """Return where the agent has its files of a session: among those of its project, or of another one.

    The command names the folder after the directory as it sees it, which may be another name for the same one.

    Args:
        projects: The agent's folder of projects, or what was kept of it.
        session: The session's project key and id.
    """
    usual = projects / session["project_key"]
    name = f"{session['session_id']}{SUFFIX}"
    if (usual / name).exists():
        return usual
    found = [path for path in projects.glob(f"*/{name}") if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent if found else usual


async def _heal_all(
    store: TranscriptStore, session: SessionKey, local: Path, *, final: bool, salvaging: bool = False
) -> _Found:
    if not store.epoch:
        raise Invalid("only the holder of a claim can heal a session", hint="import it, or repair it")
    await store.drain()
    found = _Found(salvaging)
    for key, path in await anyio.to_thread.run_sync(_files, session, local):
        await _Log(store, key, path, found).heal(final=final)
    return found


def _files(session: SessionKey, local: Path) -> list[tuple[SessionKey, Path]]:
    """Return the logs of which there are files."""
    files = LocalSession(local / f"{session['session_id']}{SUFFIX}")
    found: list[tuple[SessionKey, Path]] = [(session, files.path)] if files.path.exists() else []
    for subpath, path in files.subagents().items():
        key: SessionKey = {**session, "subpath": subpath}
        found.append((key, path))
    return found


@dataclass
class _Found:
    """What is told in the end."""

    salvaging: bool = False
    appended: int = 0
    missing: int = 0
    has_main: bool = False
    refused: bool = False
    reasons: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return not self.missing and not self.reasons


class _Log:
    """One log, and the file it comes from."""

    def __init__(self, store: TranscriptStore, key: SessionKey, path: Path, found: _Found) -> None:
        self._store = store
        self._key = key
        self._path = path
        self._found = found
        self._marks = store.marks(key)
        self._name = key.get("subpath") or MAIN

    async def heal(self, *, final: bool) -> None:
        """Compare, and append if the agent has ended."""
        known_lost = self._marks.lost
        try:
            diverged = await self._compare(final=final)
            metadata = self._metadata() if final else []
        except _UnreadableError as error:
            self._report(0, str(error))
            return
        self._found.has_main |= self._name == MAIN
        if self._marks.lost:
            is_new = self._marks.lost != known_lost
            self._report(self._marks.lost, "the store has gone on behind them", is_new=is_new)
        if not final:
            return
        after = self._marks.after()
        if diverged or self._found.refused:
            self._refuse(after, "the conversation has gone on without them")
        elif self._found.salvaging and self._marks.deleted:
            self._refuse(after, "they were deleted")
        else:
            await self._append([*after, *metadata])

    async def _compare(self, *, final: bool) -> bool:
        """Lay the file beside what is known to be stored, or else beside the store. Tell whether it has diverged."""
        if self._marks.known:
            more = await self._read(self._marks.place, final=final)
            if more is not None:
                await anyio.to_thread.run_sync(self._marks.meet, *more)
                if len(self._marks.inside()) == self._marks.lost:
                    return False
        everything = await self._read(Place(), final=final)
        assert everything is not None  # it is its own beginning
        stored = await self._store.load(self._key) or []  # the marks begin anew with it
        return await anyio.to_thread.run_sync(self._compare_with, stored, *everything)

    def _compare_with(self, stored: list[Any], entries: list[Any], place: Place) -> bool:
        local = without_repeats(entries)
        self._marks.meet(local, place)
        self._marks.lost = len(self._marks.inside())
        return align(local, stored).diverged

    async def _read(self, place: Place, *, final: bool) -> tuple[list[Any], Place] | None:
        try:
            found = await anyio.to_thread.run_sync(partial(read_on, self._path, place, finished=final))
        except EverturnError as error:
            raise _UnreadableError(error.message) from error
        if found and self._name == MAIN and not same_session(found[0], self._key["session_id"]):
            raise _UnreadableError("the file belongs to another session")
        return found

    def _metadata(self) -> list[Any]:
        """Return a subagent's metadata, if the store has not got it."""
        try:
            found = [] if self._name == MAIN else metadata_of(self._path)
        except EverturnError as error:
            raise _UnreadableError(error.message) from error
        return [each for each in found if not self._marks.has_metadata(each)]

    async def _append(self, entries: Sequence[Any]) -> None:
        """Append what is missing at the end. It is durable on return."""
        appended = 0
        self._store.take_again(self._key)
        try:
            for batch in batches(entries):
                await self._store.append(self._key, cast("list[SessionStoreEntry]", batch))
                await self._store.drain()  # it may linger
                appended += len(batch)
        finally:
            self._marks.meet((), self._marks.place)
            self._found.appended += appended
            if appended:
                self._store.observer.healed(self._name, appended)

    def _refuse(self, entries: Sequence[Any], why: str) -> None:
        if any(uuid_of(entry) is not None for entry in entries):  # otherwise it is only how the agent has closed
            self._found.refused = True
            self._report(len(entries), why)

    def _report(self, missing: int, why: str, *, is_new: bool = True) -> None:
        """Tell what cannot be healed; in the log only if it is new."""
        self._found.missing += missing
        what = f"{missing} entries of {self._name} are missing" if missing else f"{self._name} cannot be compared"
        self._found.reasons.append(f"{what}: {why}")
        if is_new:
            self._store.observer.not_healed(self._name, missing, why)


class _UnreadableError(Exception):
    """A local transcript cannot be compared."""
