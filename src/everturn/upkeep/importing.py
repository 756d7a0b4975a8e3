"""Bringing sessions into a store: what the agent command has kept on this machine, or another store has, becomes
resumable anywhere.

A session is compared as a whole before anything of it is written. What the store has already is not written again, so
that an import can be broken off and run again. What was written is read back and compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import anyio.to_thread
from claude_agent_sdk import SessionKey, SessionStoreEntry, project_key_for_directory

from everturn.errors import Conflict, Denied, EverturnError, Invalid, NotFound
from everturn.log.entries import encode
from everturn.transcripts.marks import METADATA, uuid_of
from everturn.transcripts.store import TranscriptStore
from everturn.upkeep.alignment import comparable, is_metadata, same_session, without_repeats
from everturn.upkeep.local import batches, read_transcript
from everturn.upkeep.sources.base import (
    Logs,
    RemoteSession,
    Source,
    SourceSession,
    check_types,
    is_session_id,
)

SUFFIX = ".jsonl"
PROJECTS = "projects"

NO_SESSION = "its name is not a session id"

Status = Literal["imported", "continued", "unchanged", "refused", "skipped"]


@dataclass(frozen=True, slots=True)
class LocalSession:
    """A session on this machine: `<project_key>/<session_id>.jsonl`, and what its subagents said beside it."""

    path: Path

    @property
    def project_key(self) -> str:
        """The project, as the agent command names its folder."""
        return self.path.absolute().parent.name

    @property
    def session_id(self) -> str:
        """The conversation."""
        return self.path.stem

    def subagents(self) -> dict[str, Path]:
        """Return the transcripts of its subagents, by their subpaths."""
        folder = self.path.with_suffix("")
        found = sorted((folder / "subagents").rglob(f"*{SUFFIX}"))
        return {path.relative_to(folder).as_posix().removesuffix(SUFFIX): path for path in found}

    @property
    def place(self) -> str:
        """Its file."""
        return str(self.path)

    def read(self) -> Logs:
        """Read all of it as a store would have got it from the agent.

        Raises:
            EverturnError: A file of it cannot be read, or is not a whole transcript.
        """
        files: dict[str | None, Path] = {None: self.path}
        files.update(self.subagents())
        return Logs({subpath: read_log(path, subpath) for subpath, path in files.items()})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one session or file.

    Attributes:
        place: Its file, or where it is in the source.
        status: `imported`: it is new. `continued`: the store had its beginning. `unchanged`: there was nothing to do.
            `refused`: see the message; unless it is the store that failed, nothing of it was written. `skipped`: it
            is no session.
        entries: How many entries were written, or would be.
        message: Why, in one sentence; empty if there is nothing to say.
        session: What it is about, if that is a session.
    """

    place: str
    status: Status
    entries: int = 0
    message: str = ""
    session: SourceSession | None = field(default=None, compare=False)


def find_sessions(paths: Iterable[Path]) -> tuple[list[LocalSession], list[Outcome]]:
    """Find the sessions in files and folders: a session's file, a project's folder, or the folder of all projects.

    Returns:
        The sessions, and what was found that is none.
    """
    sessions: list[LocalSession] = []
    others: list[Outcome] = []
    for path in paths:
        try:
            files = _files_at(path)
        except EverturnError as error:
            others.append(Outcome(str(path), "refused", message=str(error)))
            continue
        sessions += [LocalSession(file) for file in files if _is_session_name(file)]
        others += [Outcome(str(file), "skipped", message=NO_SESSION) for file in files if not _is_session_name(file)]
    return list(dict.fromkeys(sessions)), others


def find_in(source: Source, *, skip_malformed: bool = False) -> tuple[list[SourceSession], list[Outcome]]:
    """Find the sessions in a source. Blocks.

    Args:
        source: Where they are.
        skip_malformed: See `RemoteSession`.

    Returns:
        The sessions, and what was found that is none.

    Raises:
        NotFound: There are none.
        EverturnError: The source cannot be read.
    """
    names = source.names()
    if not names:
        raise NotFound(f"there are no sessions in {source.label}", hint="check its name, prefix or table")
    sessions: list[SourceSession] = []
    others = []
    for project_key, session_id in names:
        session = RemoteSession(source, project_key, session_id, skip_malformed)
        if is_session_id(session_id):
            sessions.append(session)
        else:
            others.append(Outcome(session.place, "skipped", message=NO_SESSION))
    return sessions, others


def select(
    sessions: Sequence[SourceSession], ids: Sequence[str] = (), projects: Sequence[str] = ()
) -> tuple[list[SourceSession], list[Outcome]]:
    """Choose among sessions.

    Args:
        sessions: What there is.
        ids: Session ids, or beginnings of them; none means all.
        projects: Project keys; none means all.

    Returns:
        Those of one of these projects and one of these ids, and refusals of what was named and is not there.

    Raises:
        Conflict: A beginning is that of several ids.
    """
    chosen = [each for each in sessions if not projects or each.project_key in projects]
    refused = [
        Outcome(project, "refused", message=f"there is no session of the project {project}")
        for project in dict.fromkeys(projects)
        if all(each.project_key != project for each in chosen)
    ]
    named: set[str] = set()
    for beginning in dict.fromkeys(ids):
        found = {each.session_id for each in chosen if each.session_id.startswith(beginning)}
        if len(found) > 1:
            raise Conflict(f"{len(found)} sessions begin with {beginning!r}", hint="name more of the id")
        if not found:
            refused.append(Outcome(beginning, "refused", message=f"there is no session {beginning}"))
        named |= found
    return [each for each in chosen if not ids or each.session_id in named], refused


def project_folder(agent_folder: Path, directory: Path) -> Path:
    """Return the folder in which the agent command keeps the sessions that were held in a directory."""
    return agent_folder / PROJECTS / project_key_for_directory(str(directory.absolute()))


def _files_at(path: Path) -> list[Path]:
    try:
        return _files_in(path) if path.is_dir() else [_named(path)]
    except OSError as error:
        hint = "check its name, and the permissions of its folders"
        raise Denied(f"{path} cannot be looked at: {error.strerror}", hint=hint) from None


def _files_in(folder: Path) -> list[Path]:
    folder = folder / PROJECTS if (folder / PROJECTS).is_dir() else folder
    files = sorted(folder.glob(f"*{SUFFIX}")) or sorted(folder.glob(f"*/*{SUFFIX}"))
    if not files:
        raise NotFound(f"there are no sessions in {folder}", hint="name a folder of projects, a project or a session")
    return files


def _named(path: Path) -> Path:
    if not path.exists() and not path.is_symlink():
        raise NotFound(f"there is no file or folder {path}", hint="check its name")
    if not _is_session_name(path):
        raise Invalid(f"{path} is not a session's file", hint="it would be named <session id>.jsonl")
    return path


def _is_session_name(path: Path) -> bool:
    return path.suffix == SUFFIX and is_session_id(path.stem)


async def import_session(
    store: TranscriptStore,
    session: SourceSession,
    *,
    dry_run: bool = False,
    wrote: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Bring one session into a store, with its subagents, as far as the store has not got it, and read it back.

    Args:
        store: The store of the scope it goes to.
        session: The session.
        dry_run: Compare, but write nothing.
        wrote: Is told how many entries are durable, each time some are.
    """
    try:
        logs = await anyio.to_thread.run_sync(session.read)
        check_types(logs.entries, session.place)
        if not same_session(logs.entries[None], session.session_id):
            raise Invalid(f"the entries of {session.place} belong to another session", hint="was it renamed?")
        plans = [await _plan(store, _key(session, subpath), said) for subpath, said in logs.entries.items()]
        if not dry_run:
            for plan in plans:
                for batch in batches(plan.rest):
                    await store.append(plan.key, cast("list[SessionStoreEntry]", batch))
                    wrote(len(batch))
            for plan in plans:
                await _read_back(store, plan)
    except EverturnError as error:
        return Outcome(session.place, "refused", message=str(error), session=session)
    return _outcome(session, plans, logs.left_out)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be appended to a log, and what it has already."""

    key: SessionKey
    stored: list[Any]
    rest: list[Any]


def _outcome(session: SourceSession, plans: Sequence[_Plan], left_out: int) -> Outcome:
    fresh, stored = sum(len(plan.rest) for plan in plans), sum(len(plan.stored) for plan in plans)
    status: Status = "unchanged" if not fresh else "continued" if stored else "imported"
    message = f"malformed lines left out: {left_out}" if left_out else ""
    return Outcome(session.place, status, fresh, message, session)


def read_log(path: Path, subpath: str | None) -> list[Any]:
    """Read one local transcript as a store would have got it from the agent: a subagent's ends with its metadata.

    Raises:
        EverturnError: It cannot be read, or is not a transcript.
    """
    entries: list[Any] = read_transcript(path)
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry.get("type"), str):
            raise Invalid(f"{path} is not a transcript: entry {number} has no type", hint="name a session's file")
    entries = comparable(entries)
    return entries if subpath is None else [*entries, *metadata_of(path)]


def metadata_of(path: Path) -> list[Any]:
    """Return what stands in the small file beside a subagent's transcript. A damaged one is as good as none.

    Raises:
        Denied: It cannot be read.
    """
    sidecar = path.with_name(path.name.removesuffix(SUFFIX) + ".meta.json")
    try:
        record = json.loads(sidecar.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return []
    except OSError as error:
        raise Denied(f"{sidecar} cannot be read: {error.strerror}", hint="check its permissions") from None
    return [{**record, "type": METADATA}] if isinstance(record, dict) else []


async def _plan(store: TranscriptStore, key: SessionKey, said: list[Any]) -> _Plan:
    """Tell which entries the store has not got.

    Raises:
        Conflict: What it has is something else.
    """
    stored: list[Any] = list(await store.load(key) or ())
    said = without_repeats(said)
    if _common_beginning(said, stored) == len(stored):
        return _Plan(key, stored, said[len(stored) :])
    return _Plan(key, stored, _rest(key, said, stored))


def _rest(key: SessionKey, local: list[Any], stored: list[Any]) -> list[Any]:
    """Return what is missing where the store has notes of its own, or has gone on."""
    said, known = comparable(local), comparable(stored)
    same = _common_beginning(said, known)
    rest = said[same:]
    if rest and same < len(known):
        if same and not any(uuid_of(entry) for entry in rest):
            rest = []  # the store has gone on; here there are only the notes with which the agent has closed
        else:
            where = key.get("subpath", "the main transcript")
            raise Conflict(
                f"the store has another session {key['session_id']}: entry {same + 1} of {where} differs",
                hint="import it into another scope, or delete the stored one first",
            )
    metadata = [entry for entry in local if is_metadata(entry)]
    if metadata and len(said) >= len(known) and not _is_known(metadata[-1], stored):
        rest = [*rest, metadata[-1]]
    return rest


async def _read_back(store: TranscriptStore, plan: _Plan) -> None:
    """Compare what the store has now with what it should have.

    Raises:
        Conflict: It has something else.
    """
    if not plan.rest:
        return
    expected = without_repeats([*plan.stored, *plan.rest])
    same = _common_beginning(expected, list(await store.load(plan.key) or ()))
    if same < len(expected):
        where = plan.key.get("subpath", "the main transcript")
        raise Conflict(
            f"{plan.key['session_id']} was written, but entry {same + 1} of {where} is another one now",
            hint="does a run write to that session? stop it; then: everturn sessions verify, and import again",
        )


def _common_beginning(said: Sequence[Any], known: Sequence[Any]) -> int:
    pairs = enumerate(zip(said, known, strict=False))
    return next((at for at, (ours, theirs) in pairs if not _equal(ours, theirs)), min(len(said), len(known)))


def _is_known(metadata: Any, stored: Iterable[Any]) -> bool:
    last = [entry for entry in stored if is_metadata(entry)][-1:]
    return bool(last) and _equal(last[0], metadata)


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except RecursionError:  # nested too deeply for that
        return encode([one]).lines == encode([other]).lines


def _key(session: SourceSession, subpath: str | None) -> SessionKey:
    key: SessionKey = {"project_key": session.project_key, "session_id": session.session_id}
    return key if subpath is None else {**key, "subpath": subpath}
