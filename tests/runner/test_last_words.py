"""What the command says of a run at its end, and its exit code."""

from __future__ import annotations

import anyio
import pytest
from claude_agent_sdk import ClaudeSDKError, ProcessError

from everturn import Unavailable
from everturn.cli.app import _explain
from everturn.cli.output import EXIT_FAILED, EXIT_UNSTORED, Terminal
from everturn.cli.rendering import TerminalRenderer
from everturn.cli.run import _stream
from runner.test_handle import Drive


def show(drive: Drive) -> int:
    return anyio.run(_stream, drive.run(), TerminalRenderer(Terminal(highlight=False)))


def test_of_an_agent_that_failed_it_is_not_said_that_all_is_stored_if_it_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    drive = Drive("a", error=ProcessError("out of memory"))
    drive.progress.missing_entries = 3
    assert show(drive) == EXIT_UNSTORED
    first, second = capsys.readouterr().err.splitlines()
    assert first == "error: the agent failed: out of memory (run it again to go on)"
    assert second.startswith("error: 3 entries of what it had said are not in the store")


def test_warnings_of_a_run_that_says_nothing_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    drive = Drive(error=Unavailable("the store is away", hint="wait"))
    drive.progress.warn("the transcript is not whole")
    with pytest.raises(Unavailable):
        show(drive)
    assert capsys.readouterr().err.splitlines() == ["warning: the transcript is not whole (see docs/runs.md)"]


def test_a_warning_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    drive = Drive("a", "b")
    drive.progress.warn("the transcript is not whole")
    show(drive)
    assert capsys.readouterr().err.count("not whole") == 1


def test_an_agent_that_fails_without_a_word_is_no_crash(capsys: pytest.CaptureFixture[str]) -> None:
    assert _explain(ClaudeSDKError()) == EXIT_FAILED
    assert "the agent failed: ClaudeSDKError" in capsys.readouterr().err
