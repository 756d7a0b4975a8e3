"""The group of commands."""

from __future__ import annotations

import typer

from everturn.cli.loading import lazy_group

_COMMANDS = {
    "list": "everturn.cli.workdirs.listing:command",
    "open": "everturn.cli.workdirs.opening:command",
    "reset": "everturn.cli.workdirs.resetting:command",
    "sweep": "everturn.cli.workdirs.sweeping:command",
    "usage": "everturn.cli.workdirs.using:command",
}

app = typer.Typer(
    name="workdirs", cls=lazy_group(_COMMANDS), help="Look after what agents work in.", no_args_is_help=True
)
