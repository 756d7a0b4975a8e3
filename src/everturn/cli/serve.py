"""`everturn serve`: the service of a fleet."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from everturn.cli.output import EXIT_OK, OutputError, json_line
from everturn.settings import Settings
from everturn.telemetry import log_to_stderr


def command(
    host: Annotated[str | None, typer.Option(help="The address to listen on; goes before the setting.")] = None,
    port: Annotated[int | None, typer.Option(help="The port; 0: any free one. Goes before the setting.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the address as one JSON object.")] = False,
) -> None:
    """Serve webhooks, admin requests, metrics, an API and a dashboard, until SIGTERM or Ctrl-C.

    The first line on standard output says where, as soon as connections are taken.
    """
    # Imported here: a web server and all that it brings, and who asks for help should not wait for that.
    from everturn.service.serving import serve  # noqa: PLC0415

    settings = Settings.load(serve_host=host, serve_port=port)
    log_to_stderr(settings.log_level)

    def tell(address: str) -> None:
        line = json_line({"address": address, "pid": os.getpid()}) if as_json else f"Everturn serves on {address}"
        try:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        except OSError as error:
            raise OutputError(str(error)) from error

    if not serve(settings, told=tell):
        sys.stdout.flush()
        os._exit(EXIT_OK)  # a thread is left that would be waited for, and what it is at is safe to die
