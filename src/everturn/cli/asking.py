"""What the commands that ask the search mirror share: their options, and how it is brought up to date first."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import Progress as ProgressBar

from everturn.cli.output import complain
from everturn.conversations.runs import LocalJournals
from everturn.databases import snapshot
from everturn.errors import Corrupt, Denied, Unavailable
from everturn.mirrors.base import Mirror
from everturn.mirrors.chroma import ChromaMirror
from everturn.mirrors.embedding import open_embedder
from everturn.mirrors.keeping import Progress, catch_up
from everturn.mirrors.sqlite import SqliteMirror, folder_of
from everturn.opening import open_journals
from everturn.settings import Settings

Answer = TypeVar("Answer")

AgentOption = Annotated[str | None, typer.Option("--agent", help="Only runs of this agent.")]
RepoOption = Annotated[
    str | None,
    typer.Option("--repo", help="Only runs in this repository: its URL, or the end of it, as in acme/web."),
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Ask the mirror as it is; do not bring it up to date from the store first.")
]
REPAIR = "docs/repair.md tells what can be done"
SINCE_HELP = "as in 2h, 3d, 2026-11-01 or 2026-11-01T12:00."


def ask(
    settings: Settings, question: Callable[[sqlite3.Connection], Answer], *, offline: bool, quiet: bool
) -> Answer:
    """Return the answer to a question about all runs of a store.

    A mirror that turns out to be damaged is made anew, and asked again. A store that does not answer is no reason not
    to tell what is known; that it may be too old is said on standard error.

    Args:
        settings: They name the store and the folder of its mirrors.
        question: What to ask, in one transaction.
        offline: Ask the mirror as it is.
        quiet: Show no progress.

    Raises:
        NotFound: There is no mirror, or no store.
        Denied: The mirror cannot be opened.
        Unavailable: Neither the store nor a mirror can be read.
    """
    mirror = SqliteMirror(folder_of(settings), settings.store_url())

    def answer() -> Answer:
        with mirror.reading() as connection, snapshot(connection):
            return question(connection)

    return _ask(settings, mirror, answer, offline=offline, quiet=quiet)


def ask_by_meaning(
    settings: Settings, question: Callable[[ChromaMirror], Answer], *, offline: bool, quiet: bool
) -> Answer:
    """As `ask`, of the mirror for search by meaning.

    Raises:
        Invalid: Chroma is not installed, or the embedding function cannot be loaded.
        EverturnError: As `ask`.
    """
    mirror = ChromaMirror(folder_of(settings), settings.store_url(), open_embedder(settings))
    try:
        return _ask(settings, mirror, lambda: question(mirror), offline=offline, quiet=quiet)
    finally:
        mirror.close()


def _ask(settings: Settings, mirror: Mirror, answer: Callable[[], Answer], *, offline: bool, quiet: bool) -> Answer:
    if offline:
        return answer()
    _bring_up_to_date(settings, mirror, quiet=quiet)
    try:
        return answer()
    except Corrupt:
        _bring_up_to_date(settings, mirror, quiet=quiet)
        return answer()


def _bring_up_to_date(settings: Settings, mirror: Mirror, *, quiet: bool) -> None:
    """Fold what is new in the store, if the store can be read; if not, a mirror that can be asked will do."""
    try:
        journals = open_journals(settings)
        local = LocalJournals(settings.runs_path(), journals.label).runs()
        watcher = Console(stderr=True)
        with ProgressBar(console=watcher, transient=True, disable=quiet or not watcher.is_terminal) as bar:
            task = bar.add_task("Taking in journals", total=None)

            def told(progress: Progress) -> None:
                bar.update(task, completed=progress.runs, total=progress.runs_to_do)

            done = catch_up(journals, mirror, told=told, is_live=local.__contains__)
        for problem in done.damaged:
            complain(f"a journal is not known whole: {problem}", REPAIR, kind="warning")
    except (Unavailable, Denied) as error:
        if mirror.unusable() is not None:
            raise
        complain(error.message, "this is what was known before", kind="warning")
