"""All sessions of a store, of every scope: for commands and pages that look at them, and keep them in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from everturn.errors import Conflict, Invalid, NotFound
from everturn.log.names import names_in, unescape
from everturn.log.objects import Objects
from everturn.log.reader import Log, read
from everturn.transcripts import listing
from everturn.transcripts.holds import held
from everturn.transcripts.layout import Layout

SCOPES = "sessions"
SUMMARIES = "summaries"
TELLING = 8  # so many characters of an id name one session among all


@dataclass(frozen=True, slots=True, order=True)
class SessionRef:
    """Where a session lies.

    Attributes:
        scope: Its task or work item.
        project_key: The project it was first written under.
        session_id: The conversation.
    """

    scope: str
    project_key: str
    session_id: str

    def folder(self, subpath: str | None = None) -> str:
        """Return the folder of its main transcript, or of a sub-transcript."""
        return Layout(self.scope).log(self.project_key, self.session_id, subpath)


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What a listing tells of a session.

    Attributes:
        ref: Where it lies.
        modified_ms: When it last paused, in milliseconds since the Unix epoch, by the store's clock.
        summary: The SDK's summary of it: `first_prompt`, `custom_title`, `last_prompt`, `git_branch`, …
        is_held: Whether it is under a legal hold.
    """

    ref: SessionRef
    modified_ms: int
    summary: dict[str, Any]
    is_held: bool


class Archive:
    """The sessions of a store. Its coroutines are meant for `everturn.log.objects.run`.

    Args:
        objects: The store's objects.
        label: The store's URL, for messages.
    """

    def __init__(self, objects: Objects, label: str) -> None:
        self.objects = objects
        self.label = label

    async def scopes(self) -> list[str]:
        """Return the names of all scopes."""
        return names_in(await self.objects.list_folders(SCOPES))

    async def sessions(self, scope: str) -> list[SessionInfo]:
        """Return the sessions of a scope, the one that changed last first."""
        layout = Layout(scope)
        holds = await held(self.objects, scope)
        found = [
            SessionInfo(
                SessionRef(scope, project_key, summary["session_id"]),
                summary["mtime"],
                summary["data"],
                summary["session_id"] in holds,
            )
            for project_key in await listing.projects(self.objects, layout)
            for summary in await listing.list_summaries(self.objects, layout, [project_key])
        ]
        return sorted(found, key=lambda info: info.modified_ms, reverse=True)

    async def find(self, session: str, scope: str | None = None) -> SessionRef:
        """Return the session whose id is, or begins with, what was given, or the only one of the scope of that name.

        Args:
            session: A session id, the beginning of one, or the name of a scope (a task, a work item's key).
            scope: The only scope to look in.

        Raises:
            Invalid: Nothing was given: a command with an unset variable must not find the only session there is.
            NotFound: There is none.
            Conflict: There are several.
        """
        if not session:
            raise Invalid("no session was named", hint="give a session id, or the beginning of one")
        found = await self._paused(session) if scope is None and len(session) >= TELLING else []
        if not found:
            found = await self._beginning_with(session, scope)
        exact = [ref for ref in found if ref.session_id == session]
        found = exact or found
        if not found:
            raise NotFound(f"there is no session {session} in {self.label}", hint="everturn sessions list shows them")
        if len(found) > 1:
            names = ", ".join(sorted({f"{ref.session_id} ({ref.scope})" for ref in found})[:5])
            raise Conflict(
                f"{session} stands for {len(found)} sessions: {names}",
                hint="give more of the id, or the scope with --scope",
            )
        return found[0]

    async def _paused(self, beginning: str) -> list[SessionRef]:
        """Return the sessions of all scopes whose ids begin so and that have a summary: a request for a thousand."""
        found = []
        for item in await self.objects.listing(SUMMARIES):
            segments = item.key.removesuffix(".json").split("/")[1:]
            names = [name for segment in segments if (name := unescape(segment)) is not None]
            if len(segments) == len(names) == 3 and names[2].startswith(beginning):
                found.append(SessionRef(*names))
        return found

    async def _beginning_with(self, session: str, scope: str | None) -> list[SessionRef]:
        """Look at every session of a scope, or of all scopes."""
        scopes = [scope] if scope is not None else await self.scopes()
        if session in scopes and scope is None:
            return await self.refs(session)
        return [ref for each in scopes for ref in await self.refs(each) if ref.session_id.startswith(session)]

    async def read(self, ref: SessionRef, subpath: str | None = None) -> Log:
        """Read a session's main transcript, or a sub-transcript.

        Raises:
            Corrupt: Something is missing or damaged. Names the object.
        """
        return await read(self.objects, ref.folder(subpath))

    async def exists(self, ref: SessionRef) -> bool:
        """Tell whether a session is there: one that was deleted is not."""
        return await listing.is_there(self.objects, ref.folder()) or bool(await self.subpaths(ref))

    async def subpaths(self, ref: SessionRef) -> list[str]:
        """Return the subpaths of a session's sub-transcripts."""
        return await listing.list_subpaths(self.objects, Layout(ref.scope), ref.project_key, ref.session_id)

    async def refs(self, scope: str | None) -> list[SessionRef]:
        """Return all sessions of a scope, or of all scopes, without asking what they are about."""
        return [
            SessionRef(each, project_key, entry["session_id"])
            for each in ([scope] if scope is not None else await self.scopes())
            for project_key in await listing.projects(self.objects, Layout(each))
            for entry in await listing.list_sessions(self.objects, Layout(each), [project_key])
        ]
