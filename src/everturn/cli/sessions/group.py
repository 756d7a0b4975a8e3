"""The group of commands."""

from __future__ import annotations

import typer

from everturn.cli.sessions import export, listing, show

app = typer.Typer(name="sessions", help="Find, read and look after sessions.", no_args_is_help=True)
app.command("list")(listing.command)
app.command("show")(show.command)
app.command("export")(export.command)
