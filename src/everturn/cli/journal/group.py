"""The group of commands."""

from __future__ import annotations

import typer

from everturn.cli.journal import listing, printing_schema, showing

app = typer.Typer(name="journal", help="Read what happened in runs.", no_args_is_help=True)
app.command("list")(listing.command)
app.command("show")(showing.command)
app.command("schema")(printing_schema.command)
