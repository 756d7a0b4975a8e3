"""The group of commands."""

from __future__ import annotations

import typer

from everturn.cli.sessions import export, importing, listing, repairing, show, verifying

app = typer.Typer(name="sessions", help="Find, read and look after sessions.", no_args_is_help=True)
app.command("list")(listing.command)
app.command("show")(show.command)
app.command("export")(export.command)
app.command("verify")(verifying.command)
app.command("repair")(repairing.command)
app.command("import")(importing.command)
