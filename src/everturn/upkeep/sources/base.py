"""What an import reads from: a place where sessions lie in somebody else's layout.

A source gives the lines of a session in the order in which its own `load` would. What they mean is the same
everywhere, and is told here: each line is an entry, and a line that is none is a refusal that names it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from everturn.errors import Corrupt, Invalid, NotFound
from everturn.upkeep.local import parse_entry


class Line(NamedTuple):
    """One line as it is stored: where, its number there, and its bytes."""

    where: str
    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Logs:
    """A session, read whole.

    Attributes:
        entries: The entries of the main transcript, under `None`, and of the others by their subpaths.
        left_out: How many lines were left out because they are no entries.
    """

    entries: Mapping[str | None, list[Any]]
    left_out: int = 0


class SourceSession(Protocol):
    """A session that can be imported."""

    @property
    def project_key(self) -> str:
        """The project."""

    @property
    def session_id(self) -> str:
        """The conversation."""

    @property
    def place(self) -> str:
        """Where it is, for people; without secrets."""

    def read(self) -> Logs:
        """Read all of it. Blocks.

        Raises:
            EverturnError: It cannot be read, or is not whole.
        """


class Source(Protocol):
    """A place with sessions. Its methods block, and may be called by several threads; after `names` has returned."""

    label: str

    def names(self) -> list[tuple[str, str]]:
        """Return the project keys and session ids of all sessions there, in order."""

    def logs(self, project_key: str, session_id: str) -> dict[str | None, list[Line]]:
        """Return the lines of a session's transcripts. One that should be there and is not has none."""

    def close(self) -> None:
        """Let go of the connection."""


@dataclass(frozen=True, slots=True)
class RemoteSession:
    """A session in a source.

    Attributes:
        source: Where it is.
        project_key: The project.
        session_id: The conversation.
        skip_malformed: Leave out lines that are no entries, as the adapters do when they load, instead of refusing.
    """

    source: Source
    project_key: str
    session_id: str
    skip_malformed: bool = False

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.source.label} {self.project_key}/{self.session_id}"

    def read(self) -> Logs:
        """See `SourceSession.read`."""
        lines = self.source.logs(self.project_key, self.session_id)
        if not lines.get(None):
            raise NotFound(
                f"{self.place} has no main transcript", hint="was it deleted, or has it expired? a copy may have it"
            )
        entries: dict[str | None, list[Any]] = {}
        left_out = 0
        for subpath, found in lines.items():
            _check_subpath(subpath, self.place)
            if not found:
                raise Corrupt(
                    f"{self.place} has lost the transcript {subpath}, which its index names",
                    hint="restore it there, or take it out of the index to import the rest",
                )
            entries[subpath] = self._entries(found)
            left_out += len(found) - len(entries[subpath])
        return Logs(entries, left_out)

    def _entries(self, lines: Iterable[Line]) -> list[Any]:
        entries = []
        for line in lines:
            try:
                entries.append(parse_entry(line.data))
            except ValueError as error:
                if self.skip_malformed:
                    continue
                raise Invalid(
                    f"line {line.number} of {line.where} is not an entry: {error}",
                    hint="mend it there, or leave such lines out with --skip-malformed",
                ) from None
        return entries


def check_types(entries: Mapping[str | None, Sequence[Any]], place: str) -> None:
    """Refuse what is no transcript: every entry says of what type it is.

    Raises:
        Invalid: One does not.
    """
    for subpath, said in entries.items():
        for number, entry in enumerate(said, 1):
            if not isinstance(entry.get("type"), str):
                where = place if subpath is None else f"{subpath} of {place}"
                raise Invalid(f"{where} is not a transcript: entry {number} has no type", hint="name a session")


def is_session_id(text: str) -> bool:
    """Tell whether a name is one that the agent gives to a session."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def split_url(url: str, *names: str) -> tuple[str, dict[str, str]]:
    """Take parameters of ours out of a URL's query; the rest stays as it is written, for the client.

    Args:
        url: The URL.
        names: The parameters.

    Returns:
        The URL without them, and their values.

    Raises:
        Invalid: It is no URL.
    """
    pieces = _pieces(url)
    others, values = [], {}
    for each in filter(None, pieces.query.split("&")):
        name, _, value = each.partition("=")
        if name in names:
            values[name] = unquote(value)
        else:
            others.append(each)
    return urlunsplit(pieces._replace(query="&".join(others))), values


def label_of(url: str) -> str:
    """Return a URL for people: without user, password and parameters."""
    pieces = _pieces(url)
    if "@" in pieces.path:  # a password with a slash in it, which should have been escaped
        return f"{pieces.scheme}://…"
    return urlunsplit((pieces.scheme, pieces.netloc.rpartition("@")[2], pieces.path, "", ""))


def _pieces(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # its text may hold the password
        scheme = url.partition(":")[0]
        raise Invalid(f"the {scheme} URL cannot be read", hint="docs/import.md shows what it looks like") from None


def grouped(items: Iterable[tuple[str | None, Any]]) -> dict[str | None, list[Any]]:
    """Gather values by their subpaths, in order; the main transcript first."""
    found: dict[str | None, list[Any]] = {None: []}
    for subpath, value in items:
        found.setdefault(subpath, []).append(value)
    return found


def _check_subpath(subpath: str | None, place: str) -> None:
    if subpath is not None and any(name in ("", ".", "..") for name in subpath.split("/")):
        raise Invalid(f"{place} has a transcript named {subpath!r}, which no agent writes", hint="remove it there")
