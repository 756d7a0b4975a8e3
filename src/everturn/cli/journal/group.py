"""The group of commands."""

from __future__ import annotations

import typer

from everturn.cli.loading import lazy_group

_COMMANDS = {
    "list": "everturn.cli.journal.listing:command",
    "show": "everturn.cli.journal.showing:command",
    "schema": "everturn.cli.journal.printing_schema:command",
}

app = typer.Typer(name="journal", cls=lazy_group(_COMMANDS), help="Read what happened in runs.", no_args_is_help=True)
