"""The group of commands."""

from __future__ import annotations

import typer

from everturn.cli.loading import lazy_group

_COMMANDS = {
    "list": "everturn.cli.sessions.listing:command",
    "show": "everturn.cli.sessions.showing:command",
    "export": "everturn.cli.sessions.exporting:command",
    "verify": "everturn.cli.sessions.verifying:command",
    "repair": "everturn.cli.sessions.repairing:command",
    "import": "everturn.cli.sessions.importing:command",
    "compact": "everturn.cli.sessions.compacting:command",
    "delete": "everturn.cli.sessions.deleting:delete",
    "expire": "everturn.cli.sessions.deleting:expire",
    "hold": "everturn.cli.sessions.holding:command",
}

app = typer.Typer(
    name="sessions", cls=lazy_group(_COMMANDS), help="Find, read and look after sessions.", no_args_is_help=True
)
