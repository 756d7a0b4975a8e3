"""The group of commands."""

from __future__ import annotations

import typer

from everturn.cli.mirrors import listing, rebuilding

app = typer.Typer(name="mirrors", help="Look after what is derived from journals.", no_args_is_help=True)
app.command("list")(listing.command)
app.command("rebuild")(rebuilding.command)
