"""What commands share, of this group and of others: options, how the store is reached, how JSON is printed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from everturn.cli.output import OutputError, refuse_memory
from everturn.clock import Ids, SystemClock
from everturn.conversations.loading import StoredSession, load_session
from everturn.conversations.turns import as_json
from everturn.errors import Invalid
from everturn.log.objects import run
from everturn.runtime import open_archive
from everturn.settings import Settings
from everturn.telemetry import log_to_stderr
from everturn.transcripts.archive import Archive
from everturn.upkeep.tending import Upkeep

_UNSAFE = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

StoreOption = Annotated[str | None, typer.Option("--store", help="Where transcripts are: s3://… or file:///…")]
ScopeOption = Annotated[str | None, typer.Option("--scope", help="The only scope to look in: a task or work item.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
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


def settings_for(store: str | None) -> Settings:
    """Return the settings of a command that looks at a store, and have it log to standard error.

    Raises:
        Invalid: A setting is wrong, or the store would end with this process.
    """
    settings = Settings.load(store=store)
    refuse_memory(settings.store_url())
    log_to_stderr(settings.log_level if "log_level" in settings.model_fields_set else "warning")
    return settings


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


@contextmanager
def printing() -> Iterator[None]:
    """Print in here; whatever keeps the output from being written is raised as `OutputError`."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        raise OutputError(str(error)) from error


def print_json(value: dict[str, Any]) -> None:
    """Print a record on a line of its own, however deep it is, in characters that no terminal obeys."""
    with printing():
        sys.stdout.write(_UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", as_json(value)) + "\n")


def upkeep_of(archive: Archive) -> Upkeep:
    """Return what looks after the sessions of a store."""
    return Upkeep(archive, Settings.load(), SystemClock(), Ids())


def short_ids(session_ids: Sequence[str]) -> dict[str, str]:
    """Return the beginnings of ids that are enough to name them, eight characters at least."""
    length = 8
    while len({session_id[:length] for session_id in session_ids}) < len(set(session_ids)):
        length += 4
    return {session_id: session_id[:length] for session_id in session_ids}


def consent(question: str, *, yes: bool, quiet: bool) -> None:
    """Ask before something is gone for good.

    Raises:
        Invalid: The answer is no, or nobody can be asked.
    """
    if yes:
        return
    if quiet or not sys.stdin.isatty():
        raise Invalid(
            "nobody was asked, so nothing was done", hint="add --yes if that is what you want, or --dry-run"
        )
    if not typer.confirm(question):
        raise Invalid("nothing was done", hint="--dry-run shows what would be done")
