"""What the commands of this group share: options, and how the store is reached."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from everturn.cli.options import settings_for
from everturn.clock import Ids, SystemClock
from everturn.conversations.loading import StoredSession, load_session
from everturn.log.objects import run
from everturn.opening import open_archive
from everturn.settings import Settings
from everturn.transcripts.archive import Archive
from everturn.upkeep.tending import Upkeep

ScopeOption = Annotated[str | None, typer.Option("--scope", help="The only scope to look in: a task or work item.")]
SessionArgument = Annotated[
    str, typer.Argument(help="A session id, the beginning of one, or the name of a scope with one session.")
]


def open_store(store: str | None) -> Archive:
    """Return the store's sessions.

    Raises:
        Invalid: The URL is wrong, or the store has another format version.
        NotFound: There is no store of ours there.
    """
    return open_archive(settings_for(store))


def load(archive: Archive, session: str, scope: str | None) -> StoredSession:
    """Find a session and read all of it; tell about progress where somebody looks on.

    Raises:
        NotFound: There is none.
        Conflict: There are several.
        Corrupt: Something is missing or damaged. Names the object.
    """
    watcher = Console(stderr=True)
    ref = run(archive.find(session, scope))
    with Progress(console=watcher, transient=True, disable=not watcher.is_terminal) as progress:
        task = progress.add_task("Reading", total=None)

        def told(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        return run(load_session(archive, ref, told=told))


def upkeep_of(archive: Archive) -> Upkeep:
    """Return what looks after the sessions of a store."""
    return Upkeep(archive, Settings.load(), SystemClock(), Ids())
