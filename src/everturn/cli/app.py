"""The command's root: global behaviour, and how errors reach a person."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer
from claude_agent_sdk import ClaudeSDKError

from everturn.cli import demo, run
from everturn.cli.output import complain
from everturn.errors import EverturnError

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="everturn",
    help="Keeps a coding agent's work alive when the worker that runs it dies.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.command)
app.command("demo")(demo.command)


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
    """Run the command. Exit codes: 0 done, 1 the agent failed, 2 refused, 130 interrupted."""
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    try:
        code = app(arguments, standalone_mode=False)
    except typer.TyperException as error:
        complain(error.format_message().rstrip("."), "everturn --help lists what there is")
        return EXIT_REFUSED
    except EverturnError as error:
        complain(error.message, error.hint)
        return EXIT_REFUSED
    except ClaudeSDKError as error:
        complain(
            f"the agent failed: {str(error).splitlines()[0]}", "what it had said is stored; run it again to go on"
        )
        return EXIT_FAILED
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted", "what the agent had said is stored; run it again to go on")
        return EXIT_INTERRUPTED
    return code if isinstance(code, int) else EXIT_OK
