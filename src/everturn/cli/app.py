"""The command's root: global behaviour, and how errors reach a person."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
import typer.main

from everturn.cli.loading import lazy_group
from everturn.cli.output import (
    EXIT_BROKEN_PIPE,
    EXIT_FAILED,
    EXIT_HELD,
    EXIT_INTERRUPTED,
    EXIT_LOST,
    EXIT_OK,
    EXIT_REFUSED,
    OutputError,
    complain,
    first_line,
)
from everturn.errors import EverturnError, Fenced, Held

_EXPLAINED = (
    EverturnError,
    typer.TyperException,
    OutputError,
    OSError,
    KeyboardInterrupt,
    typer.Abort,
)

_COMMANDS = {
    "run": "everturn.cli.run:command",
    "serve": "everturn.cli.serve:command",
    "demo": "everturn.cli.demo:command",
    "demo-fleet": "everturn.cli.demo_fleet:command",
    "doctor": "everturn.cli.doctor:command",
    "sweep": "everturn.cli.sweep:command",
    "credentials": "everturn.cli.credentials:command",
    "search": "everturn.cli.search:command",
    "stats": "everturn.cli.stats:command",
    "sessions": "everturn.cli.sessions:app",
    "journal": "everturn.cli.journal:app",
    "mirrors": "everturn.cli.mirrors:app",
    "workdirs": "everturn.cli.workdirs:app",
}

app = typer.Typer(
    name="everturn",
    cls=lazy_group(_COMMANDS),
    help="Keeps a coding agent's work alive when the worker that runs it dies.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"everturn {version('everturn')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command. `docs/cli.md` lists the exit codes."""
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    _stand_in_for_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no text may end a run because a terminal cannot show it
    try:
        returned = _command()(arguments, standalone_mode=False)
    except _explained() as error:
        return _explain(error)
    return returned if isinstance(returned, int) else EXIT_OK


@cache
def _command() -> Callable[..., object]:
    """Return the command. What it has loaded, it keeps."""
    return typer.main.get_command(app)


def _explained() -> tuple[type[BaseException], ...]:
    """Return the errors that are said in a line. The agent's are among them if anything of it was loaded."""
    sdk = sys.modules.get("claude_agent_sdk")
    return _EXPLAINED if sdk is None else (*_EXPLAINED, sdk.ClaudeSDKError)


def exit_code_of(error: EverturnError) -> int:
    """Return the exit code of a command that ends with an error of ours."""
    return EXIT_HELD if isinstance(error, Held) else EXIT_LOST if isinstance(error, Fenced) else EXIT_REFUSED


def _explain(error: BaseException) -> int:
    """Say in one line what happened, and return the exit code for it."""
    if isinstance(error, EverturnError):
        complain(error.message, error.hint)
        return exit_code_of(error)
    if isinstance(error, typer.TyperException):
        message = error.format_message().rstrip(".")
        if message:  # without one, a group of commands was named alone, and its help has been shown
            complain(message, "everturn --help lists what there is")
        return EXIT_REFUSED
    if isinstance(error, OutputError):
        return _explain_output(error)
    if isinstance(error, OSError):
        complain(f"something failed on this machine: {first_line(error)}", "everturn doctor checks the machine")
        return EXIT_FAILED
    if isinstance(error, typer.Abort) or not isinstance(error, Exception):
        complain("interrupted", "nothing that was stored is lost; run it again")
        return EXIT_INTERRUPTED
    complain(f"the agent failed: {first_line(error)}", "what it had said is stored; run it again to go on")
    return EXIT_FAILED


def _explain_output(error: OutputError) -> int:
    _let_go_of_stdout()
    if isinstance(error.__cause__, BrokenPipeError):
        return EXIT_BROKEN_PIPE
    complain(f"the output could not be written: {error}", "nothing that was stored is lost; run it again")
    return EXIT_FAILED


def _stand_in_for_closed_streams() -> None:
    """Write to nowhere where whoever started us has closed a stream: that nobody listens is no failure."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # as long as the process lives
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


def _let_go_of_stdout() -> None:
    """Keep the interpreter from trying once more, when it ends, to write what could not be written."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
