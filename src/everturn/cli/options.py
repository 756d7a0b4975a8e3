"""Options that several commands have, and the settings of those that look at a store."""

from __future__ import annotations

from typing import Annotated

import typer

from everturn.cli.output import refuse_memory
from everturn.settings import Settings
from everturn.telemetry import log_to_stderr

StoreOption = Annotated[str | None, typer.Option("--store", help="Where transcripts are: s3://… or file:///…")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RegistryOption = Annotated[
    str | None, typer.Option("--registry", help="Who owns which session; goes before the setting.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


def settings_for(store: str | None) -> Settings:
    """Return the settings of a command that looks at a store, and have it log to standard error.

    Raises:
        Invalid: A setting is wrong, or the store would end with this process.
    """
    settings = Settings.load(store=store)
    refuse_memory(settings.store_url())
    log_to_stderr(settings.log_level if "log_level" in settings.model_fields_set else "warning")
    return settings
