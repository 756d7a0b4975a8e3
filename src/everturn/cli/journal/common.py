"""What the commands of this group share."""

from __future__ import annotations

from typing import Annotated

import typer

from everturn.cli.options import settings_for
from everturn.conversations.runs import LocalJournals, Runs
from everturn.opening import open_journals

WORK = "A work item's key, a task, or a run or a session, or the beginning of its id."

WorkArgument = Annotated[str, typer.Argument(help=WORK)]


def open_runs(store: str | None) -> Runs:
    """Return the journals of a store, with what this machine has of them.

    Raises:
        Invalid: The URL is wrong, or the store has another format version.
        NotFound: There is no store of ours there.
    """
    settings = settings_for(store)
    journals = open_journals(settings)
    return Runs(journals, LocalJournals(settings.runs_path(), journals.label))
