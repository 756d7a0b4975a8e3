"""`everturn run`: one durable run of a work item, streaming to the terminal."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import anyio
import typer
from anyio.abc import TaskStatus
from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKError, PermissionMode, ResultMessage

from everturn.cli.output import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_UNSTORED,
    OutputError,
    Terminal,
    complain,
    first_line,
    refuse_memory,
)
from everturn.cli.rendering import JsonRenderer, Renderer, TerminalRenderer, summary_of
from everturn.cli.work import work_item
from everturn.errors import EverturnError, Invalid
from everturn.runner.handle import Run
from everturn.runtime import Runtime
from everturn.settings import Settings
from everturn.telemetry import log_to_stderr

PERMISSION_MODES = ("default", "acceptEdits", "bypassPermissions", "plan", "dontAsk", "auto")


def command(  # noqa: PLR0913, PLR0917  # one parameter for each option
    agent: Annotated[str | None, typer.Option(help="Who works on it.")] = None,
    repo: Annotated[str | None, typer.Option(help="The repository to work in: a URL or a path.")] = None,
    issue: Annotated[str | None, typer.Option(help="The issue to work on.")] = None,
    task: Annotated[str | None, typer.Option(help="The id of a task, in place of an issue.")] = None,
    branch: Annotated[
        str | None, typer.Option(help="What to work on: a branch, a ref such as refs/pull/7/head, or a commit.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="What to say to an agent that begins.")] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="The same, from a file.")] = None,
    resume_prompt: Annotated[
        str | None, typer.Option(help="What to say to one that goes on; the prompt again if not given.")
    ] = None,
    resume_prompt_file: Annotated[Path | None, typer.Option(help="The same, from a file.")] = None,
    cwd: Annotated[Path | None, typer.Option(help="Where to work, without --repo; default: here.")] = None,
    model: Annotated[str | None, typer.Option(help="The model; default: the agent command's own.")] = None,
    permission_mode: Annotated[
        str | None, typer.Option(help=f"What the agent may do unasked: {', '.join(PERMISSION_MODES)}.")
    ] = None,
    allow_tool: Annotated[list[str] | None, typer.Option(help="A tool it may use unasked; may be repeated.")] = None,
    max_turns: Annotated[int | None, typer.Option(help="How many turns it may take.", min=1)] = None,
    store: Annotated[str | None, typer.Option(help="Where transcripts go: s3://… or file:///…")] = None,
    s3_express: Annotated[
        bool, typer.Option("--s3-express", help="The store's bucket is a directory bucket (S3 Express One Zone).")
    ] = False,
    registry: Annotated[str | None, typer.Option(help="Who owns which session: sqlite:///…")] = None,
    wait: Annotated[
        float | None, typer.Option(help="How long to wait if somebody else holds it, in seconds.", min=0)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print messages as JSON, one a line.")] = False,
) -> int:
    """Run a work item: begin it, or go on where any worker left it.

    The transcript is stored frame by frame. If this worker dies, run the same command on another one.
    """
    settings = Settings.load(store=store, s3_express=s3_express or None, registry=registry, claim_wait_s=wait)
    refuse_memory(settings.store_url())
    log_to_stderr(settings.log_level if "log_level" in settings.model_fields_set else "warning")
    work = work_item(agent, repo, issue, task)
    options = ClaudeAgentOptions(
        cwd=cwd,
        model=model,
        permission_mode=_permission_mode(permission_mode),
        allowed_tools=allow_tool or [],
        max_turns=max_turns,
        include_partial_messages=not as_json,
    )
    run = Runtime(settings).run(
        work,
        prompt=_text("prompt", prompt, prompt_file) or "",
        resume_prompt=_text("resume prompt", resume_prompt, resume_prompt_file),
        options=options,
        branch=branch,
    )
    renderer: Renderer = JsonRenderer() if as_json else TerminalRenderer(Terminal(highlight=False))
    return anyio.run(_stream, run, renderer)


async def _stream(run: Run, renderer: Renderer) -> int:
    """Show a run to its end. A signal ends it in good order; whatever does, the agent is gone when this returns."""
    outcome = _Outcome()
    async with anyio.create_task_group() as group:
        await group.start(_stop_on_signals, run, outcome)
        try:
            await _show(run, renderer, outcome)
        except (EverturnError, ClaudeSDKError, OutputError) as error:
            outcome.error = error  # raised below: the group would wrap it
        finally:
            with anyio.CancelScope(shield=True):
                await run.aclose()
        group.cancel_scope.cancel()
    _tell_warnings(run, outcome)  # of a run that did not come to its first message, too
    return _exit_code(run, outcome)


def _exit_code(run: Run, outcome: _Outcome) -> int:
    if outcome.signal is not None:
        if isinstance(outcome.error, EverturnError):
            complain(outcome.error.message, outcome.error.hint)
            complain(f"stopped by {outcome.signal.name}", "run it again to go on")
        else:
            complain(f"stopped by {outcome.signal.name}", "what the agent had said is stored; run it again to go on")
        return 128 + outcome.signal
    if run.missing_entries and isinstance(outcome.error, EverturnError | ClaudeSDKError):
        _tell_unstored(run, outcome.error)
        return EXIT_UNSTORED
    if outcome.error is not None:
        raise outcome.error
    return EXIT_FAILED if outcome.result is None or outcome.result.is_error else EXIT_OK


def _tell_unstored(run: Run, error: EverturnError | ClaudeSDKError) -> None:
    if isinstance(error, EverturnError):
        complain(error.message, error.hint)
        return
    complain(f"the agent failed: {first_line(error)}", "run it again to go on")
    complain(
        f"{run.missing_entries} entries of what it had said are not in the store",
        "they are kept on this machine, and stored when the work item is next run here",
    )


def _tell_warnings(run: Run, outcome: _Outcome) -> None:
    for warning in run.warnings[outcome.warnings_told :]:
        complain(warning, "see docs/runs.md", kind="warning")
    outcome.warnings_told = len(run.warnings)


async def _show(run: Run, renderer: Renderer, outcome: _Outcome) -> None:
    async for message in run:
        _tell_warnings(run, outcome)
        with _telling_output_errors():
            renderer.show(message)
        if isinstance(message, ResultMessage):
            outcome.result = message
    summary = {
        "run": run.run_id,
        "session": run.session_id,
        "resumed": run.resumed,
        "epoch": run.epoch,
        "cwd": str(run.cwd),
        "stopped": run.stopped,
        "warnings": list(run.warnings),
    }
    with _telling_output_errors():
        renderer.finish({**summary, **summary_of(outcome.result)})


@contextmanager
def _telling_output_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(str(error)) from error


@dataclass
class _Outcome:
    """How a run ended."""

    result: ResultMessage | None = None
    error: Exception | None = None
    signal: signal.Signals | None = None
    warnings_told: int = 0


async def _stop_on_signals(run: Run, outcome: _Outcome, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as received:
        task_status.started()
        async for number in received:  # the second one makes it hurry
            outcome.signal = outcome.signal or signal.Signals(number)
            run.stop(outcome.signal.name)


def _text(name: str, text: str | None, file: Path | None) -> str | None:
    if text is not None and file is not None:
        raise Invalid(f"the {name} is given twice", hint="give it as text or as a file")
    if file is None:
        return text
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"the {name} cannot be read from {file}: {error}", hint="name a text file in UTF-8") from None


def _permission_mode(name: str | None) -> PermissionMode | None:
    if name is not None and name not in PERMISSION_MODES:
        raise Invalid(f"there is no permission mode {name!r}", hint=f"use one of {', '.join(PERMISSION_MODES)}")
    return cast("PermissionMode | None", name)
