"""A session as files: the entries themselves, Markdown, or a page of HTML. Pure: nothing is written here."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from everturn.conversations.loading import StoredSession
from everturn.conversations.markdown import to_markdown
from everturn.conversations.page import to_html
from everturn.errors import Invalid
from everturn.log.entries import encode
from everturn.log.names import escape
from everturn.transcripts.marks import METADATA, type_of

LINES_AT_ONCE = 500


class Format(StrEnum):
    """What a session can be exported as."""

    JSONL = "jsonl"
    MARKDOWN = "markdown"
    HTML = "html"

    @property
    def suffix(self) -> str:
        """What the names of such files end in."""
        return {"jsonl": ".jsonl", "markdown": ".md", "html": ".html"}[self.value]


def render(found: StoredSession, form: Format, *, agents: bool) -> Iterator[bytes]:
    """Return a session as one file, in pieces.

    Args:
        found: The session.
        form: What to make of it.
        agents: Whether to show what subagents said and did. JSON lines hold the main transcript only.
    """
    if form is Format.JSONL:
        yield from json_lines(found.entries)
        return
    show = to_html if form is Format.HTML else to_markdown
    for piece in show(found.conversation(), found.ref, agents=agents):
        yield piece.encode()


def json_lines(entries: list[Any]) -> Iterator[bytes]:
    """Return entries as they were appended, one a line: the form in which the agent command keeps its transcripts."""
    for start in range(0, len(entries), LINES_AT_ONCE):
        yield encode(entries[start : start + LINES_AT_ONCE]).lines


def file_name(found: StoredSession, form: Format) -> str:
    """Return what to call a session's file."""
    return escape(found.ref.session_id, "session id") + form.suffix


def agent_files(found: StoredSession) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Return the files of subagents as the agent command keeps them beside a session's own file: names and contents.

    What the transcript tells of a subagent itself stands in a file of its own there, not between the lines.

    Raises:
        Invalid: The name of a sub-transcript would lead out of the folder.
    """
    folder = escape(found.ref.session_id, "session id")
    for subpath, entries in found.agents.items():
        if any(piece in ("", ".", "..") or "\\" in piece or ":" in piece for piece in subpath.split("/")):
            raise Invalid(
                f"the sub-transcript {subpath!r} has no name that a file can have",
                hint="export without --subagents, or read it with everturn sessions show --subagents",
            )
        notes = [entry for entry in entries if type_of(entry) == METADATA]
        yield f"{folder}/{subpath}.jsonl", json_lines([entry for entry in entries if type_of(entry) != METADATA])
        if notes:
            told = {name: value for name, value in notes[-1].items() if name != "type"}
            yield f"{folder}/{subpath}.meta.json", json_lines([told])
