"""The journals of a work item: in the store and, of runs on this machine, what is on its way there."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from everturn.errors import Conflict, Corrupt, Invalid, NotFound
from everturn.journal.events import Prompt
from everturn.journal.lines import Recorded, parse
from everturn.journal.reading import Journals, RunJournal, RunRef, put_in_order
from everturn.log.names import part
from everturn.log.reader import read_part
from everturn.transcripts.archive import Archive

LOCAL_FILE = "journal.jsonl"
_NOTES = "run.json"
_HINT = "everturn journal list shows what there is"


@dataclass(frozen=True, slots=True)
class Named:
    """What somebody has named.

    Attributes:
        work_key: The work item.
        run_id: The run, if it was one.
    """

    work_key: str
    run_id: str | None = None


class LocalFile:
    """The journal of a run on this machine, read as it grows.

    Args:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_bytes = 0

    def read(self) -> tuple[list[Recorded], int]:
        """Return the events that have come since the last time, and how many whole lines are none.

        A file that has become shorter is read from its beginning again. One that is gone has nothing new.
        """
        events: list[Recorded] = []
        unreadable = 0
        for line in self._new_lines():
            try:
                events.append(parse(line))
            except Corrupt:
                unreadable += 1
        return events, unreadable

    def _new_lines(self) -> list[bytes]:
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self._read_bytes:
                    self._read_bytes = 0
                file.seek(self._read_bytes)
                found = file.read()
        except OSError:
            return []
        whole = found[: found.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        return whole.split(b"\n")[:-1]


class LocalJournals:
    """The journals of runs on this machine that are not over, or were left behind.

    Args:
        root: The folder with the folders of runs (`Settings.runs_path`).
        label: The URL of the store that they go to; those for others are passed over.
    """

    def __init__(self, root: Path, label: str) -> None:
        self._root = root
        self._label = label
        self._files: dict[RunRef, LocalFile] = {}
        self._passed: set[Path] = set()

    def runs(self) -> dict[RunRef, LocalFile]:
        """Return them. Each file goes on from where it was read before."""
        try:
            folders = set(self._root.iterdir()) - {self._root / ref.run_id for ref in self._files} - self._passed
        except OSError:
            folders = set()
        for folder in sorted(folders):
            ref = self._ref(folder)
            if ref is not None:
                self._files[ref] = LocalFile(folder / LOCAL_FILE)
        return self._files

    def _ref(self, folder: Path) -> RunRef | None:
        """Tell whose folder it is. One that does not say so yet is asked again."""
        try:
            facts = json.loads((folder / _NOTES).read_bytes())
            scope, label = facts["task_id"], facts["store"]
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None
        if label != self._label or not isinstance(scope, str):
            self._passed.add(folder)
            return None
        return RunRef(scope, folder.name)


class Runs:
    """Finds and reads journals. Its coroutines are meant for `everturn.log.objects.run`.

    Args:
        journals: Those of the store.
        local: Those of this machine.
    """

    def __init__(self, journals: Journals, local: LocalJournals) -> None:
        self.journals = journals
        self.local = local

    async def find(self, word: str) -> Named:
        """Return the work item that a word stands for.

        Args:
            word: A work item's key, a task's id, a run's id or the beginning of one, or the same of a session.

        Raises:
            Invalid: Nothing was given: a command with an unset variable must not find the only run there is.
            NotFound: There is no journal for it.
            Conflict: It stands for several.
        """
        if not word.strip():
            raise Invalid("no work item was named", hint="give its key, a task, a run or a session")
        scopes = {*await self.journals.scopes(), *(ref.scope for ref in self.local.runs())}
        for key in (word, f"task:{word}"):
            if key in scopes:
                return Named(key)
        refs = {ref for scope in scopes for ref in await self.runs(scope)}
        ref = _the_one(word, refs)
        if ref is not None:
            return Named(ref.scope, ref.run_id)
        return Named(await self._scope_of_session(word, scopes))

    async def runs(self, scope: str) -> list[RunRef]:
        """Return the runs of a work item that have journals, in no particular order."""
        return sorted({*await self.journals.runs(scope), *(ref for ref in self.local.runs() if ref.scope == scope)})

    async def choose(self, scope: str, beginning: str) -> RunRef:
        """Return the run of a work item whose id is this, or else begins so.

        Raises:
            NotFound: There is none.
            Conflict: There are several.
        """
        ref = _the_one(beginning, await self.runs(scope))
        if ref is None:
            raise NotFound(f"{scope} has no run {beginning}", hint=_HINT)
        return ref

    async def read(self, ref: RunRef) -> RunJournal:
        """Read a journal, with what is only on this machine.

        Raises:
            Corrupt: A part is damaged or missing. Names the object.
            Unavailable: The store did not answer in time.
        """
        file = self.local.runs().get(ref)
        # In this order: once all of it is shipped, it is removed.
        local, unreadable = LocalFile(file.path).read() if file is not None else ([], 0)
        stored = await self.journals.read(ref)
        if stored.deleted or not (local or unreadable):
            return stored
        found = put_in_order(ref, [event.raw for event in (*stored.events, *local)], stored.tail)
        return replace(found, unreadable=max(stored.unreadable, unreadable))

    async def glance(self, ref: RunRef, tail: int) -> RunJournal:
        """Read how a run began and how it ended, as far as it is stored. What lies between is left out, if it can be.

        Args:
            ref: The run.
            tail: The number of its last part.

        Raises:
            EverturnError: As `read`.
        """
        end = await self.journals.read(ref, after=max(0, tail - 1))
        if end.deleted or (tail == 1 and end.events):
            return end
        first = await read_part(self.journals.objects, ref.folder, part(1))
        begin = put_in_order(ref, first.entries() if first is not None else (), tail)
        if not end.events or not any(isinstance(each.event, Prompt) for each in begin.events):
            return await self.journals.read(ref)
        return RunJournal(ref, _without_repetition(begin.events, end.events), tail)

    async def _scope_of_session(self, word: str, scopes: Iterable[str]) -> str:
        missing = NotFound(f"there is no journal for {word} in {self.journals.label}", hint=_HINT)
        try:
            found = await Archive(self.journals.objects, self.journals.label).find(word)
        except NotFound:
            raise missing from None
        if found.scope not in scopes:
            raise missing
        return found.scope


def _without_repetition(begin: tuple[Recorded, ...], end: tuple[Recorded, ...]) -> tuple[Recorded, ...]:
    last = begin[-1].seq
    return (*begin, *(event for event in end if event.seq > last))


def _the_one(word: str, refs: Iterable[RunRef]) -> RunRef | None:
    """Return the run whose id is this or, if there is none, the one whose id begins so; `None`: there is neither.

    Raises:
        Conflict: There are several.
    """
    beginning = sorted(ref for ref in refs if word and ref.run_id.startswith(word))
    found = [ref for ref in beginning if ref.run_id == word] or beginning
    if len(found) > 1:
        names = ", ".join(f"{ref.run_id} ({ref.scope})" for ref in found[:5])
        raise Conflict(f"{word} stands for {len(found)} runs: {names}", hint="give more of the id, or the work item")
    return found[0] if found else None
