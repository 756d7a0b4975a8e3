"""Bringing local sessions into a store: what the agent command has kept on this machine becomes resumable anywhere.

A session is compared as a whole before anything of it is written. What the store has already is not written again, so
that an import can be broken off and run again.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from claude_agent_sdk import SessionKey, SessionStoreEntry, project_key_for_directory

from everturn.errors import Conflict, Denied, EverturnError, Invalid, NotFound
from everturn.log.entries import encode
from everturn.transcripts.marks import METADATA, uuid_of
from everturn.transcripts.store import TranscriptStore
from everturn.upkeep.alignment import comparable, is_metadata, same_session
from everturn.upkeep.local import batches, read_transcript

SUFFIX = ".jsonl"
PROJECTS = "projects"

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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one session or file.

    Attributes:
        path: Its file.
        status: `imported`: it is new. `continued`: the store had its beginning. `unchanged`: there was nothing to do.
            `refused`: see the message; nothing of it was written. `skipped`: it is no session.
        entries: How many entries were written, or would be.
        message: Why, in one sentence; empty if there is nothing to say.
    """

    path: Path
    status: Status
    entries: int = 0
    message: str = ""


def find_sessions(paths: Iterable[Path]) -> tuple[list[LocalSession], list[Outcome]]:
    """Find the sessions in files and folders: a session's file, a project's folder, or the folder of all projects.

    Returns:
        The sessions, and what was found that is none.
    """
    sessions: list[LocalSession] = []
    others: list[Outcome] = []
    for path in paths:
        try:
            files = _files_in(path) if path.is_dir() else [_named(path)]
        except EverturnError as error:
            others.append(Outcome(path, "refused", message=str(error)))
            continue
        sessions += [LocalSession(file) for file in files if _is_session_name(file)]
        others += [
            Outcome(file, "skipped", message="its name is not a session id")
            for file in files
            if not _is_session_name(file)
        ]
    return list(dict.fromkeys(sessions)), others


def project_folder(agent_folder: Path, directory: Path) -> Path:
    """Return the folder in which the agent command keeps the sessions that were held in a directory."""
    return agent_folder / PROJECTS / project_key_for_directory(str(directory.absolute()))


def _files_in(folder: Path) -> list[Path]:
    folder = folder / PROJECTS if (folder / PROJECTS).is_dir() else folder
    try:
        files = sorted(folder.glob(f"*{SUFFIX}")) or sorted(folder.glob(f"*/*{SUFFIX}"))
    except OSError as error:
        raise Denied(f"{folder} cannot be looked into: {error.strerror}", hint="check its permissions") from None
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
    try:
        return path.suffix == SUFFIX and str(uuid.UUID(path.stem)) == path.stem
    except ValueError:
        return False


async def import_session(
    store: TranscriptStore,
    session: LocalSession,
    *,
    dry_run: bool = False,
    wrote: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Bring one session into a store, with its subagents, as far as the store has not got it.

    Args:
        store: The store of the scope it goes to.
        session: The session.
        dry_run: Compare, but write nothing.
        wrote: Is told how many entries are durable, each time some are.
    """
    try:
        logs = {subpath: read_log(path, subpath) for subpath, path in _files_of(session).items()}
        if not same_session(logs[None], session.session_id):
            raise Invalid(f"the entries of {session.path} belong to another session", hint="was the file renamed?")
        rests = {subpath: await _rest(store, _key(session, subpath), local) for subpath, local in logs.items()}
        if not dry_run:
            for subpath, (rest, _) in rests.items():
                for batch in batches(rest):
                    await store.append(_key(session, subpath), cast("list[SessionStoreEntry]", batch))
                    wrote(len(batch))
    except EverturnError as error:
        return Outcome(session.path, "refused", message=str(error))
    return _outcome(session, list(rests.values()))


def _outcome(session: LocalSession, rests: Sequence[tuple[list[Any], int]]) -> Outcome:
    fresh, stored = sum(len(rest) for rest, _ in rests), sum(count for _, count in rests)
    status: Status = "unchanged" if not fresh else "continued" if stored else "imported"
    return Outcome(session.path, status, fresh)


def _files_of(session: LocalSession) -> dict[str | None, Path]:
    files: dict[str | None, Path] = {None: session.path}
    files.update(session.subagents())
    return files


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


async def _rest(store: TranscriptStore, key: SessionKey, local: list[Any]) -> tuple[list[Any], int]:
    """Return the entries that the store has not got, and how many it has.

    Raises:
        Conflict: What it has is something else.
    """
    stored: list[Any] = list(await store.load(key) or ())
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
    return rest, len(stored)


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


def _key(session: LocalSession, subpath: str | None) -> SessionKey:
    key: SessionKey = {"project_key": session.project_key, "session_id": session.session_id}
    return key if subpath is None else {**key, "subpath": subpath}
