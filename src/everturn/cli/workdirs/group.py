"""The group of commands."""

from __future__ import annotations

import typer

from everturn.cli.workdirs import listing, opening, resetting, sweeping, using

app = typer.Typer(name="workdirs", help="Look after what agents work in.", no_args_is_help=True)
app.command("list")(listing.command)
app.command("open")(opening.command)
app.command("reset")(resetting.command)
app.command("sweep")(sweeping.command)
app.command("usage")(using.command)
