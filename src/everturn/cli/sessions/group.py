"""The group of commands."""

from __future__ import annotations

import typer

from everturn.cli.sessions import (
    compacting,
    deleting,
    exporting,
    holding,
    importing,
    listing,
    repairing,
    showing,
    verifying,
)

app = typer.Typer(name="sessions", help="Find, read and look after sessions.", no_args_is_help=True)
app.command("list")(listing.command)
app.command("show")(showing.command)
app.command("export")(exporting.command)
app.command("verify")(verifying.command)
app.command("repair")(repairing.command)
app.command("import")(importing.command)
app.command("compact")(compacting.command)
app.command("delete")(deleting.delete)
app.command("expire")(deleting.expire)
app.command("hold")(holding.command)
