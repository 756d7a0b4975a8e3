"""The group of commands."""

from __future__ import annotations

import typer

from everturn.cli.loading import lazy_group

_COMMANDS = {
    "list": "everturn.cli.mirrors.listing:command",
    "rebuild": "everturn.cli.mirrors.rebuilding:command",
}

app = typer.Typer(
    name="mirrors", cls=lazy_group(_COMMANDS), help="Look after what is derived from journals.", no_args_is_help=True
)
