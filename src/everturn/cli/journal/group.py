"""The group of commands."""

from __future__ import annotations

import typer

from everturn.cli.journal import printing_schema

app = typer.Typer(name="journal", help="Read what happened in runs.", no_args_is_help=True)
app.command("schema")(printing_schema.command)
