"""What the commands of this group share: their options, and how they reach the store."""

from __future__ import annotations

from typing import Annotated

import typer

from everturn.cli.output import refuse_memory
from everturn.runtime import open_archive
from everturn.settings import Settings
from everturn.telemetry import log_to_stderr
from everturn.transcripts.archive import Archive

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
    settings = Settings.load(store=store)
    refuse_memory(settings.store_url())
    log_to_stderr(settings.log_level if "log_level" in settings.model_fields_set else "warning")
    return open_archive(settings)
