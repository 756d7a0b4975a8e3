"""How commands speak when something is in the way: a stream that is closed, a machine that fails, several voices."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from claude_agent_sdk import AssistantMessage, StreamEvent, TextBlock

from everturn.cli.app import _run
from everturn.cli.output import Terminal, plain
from everturn.cli.rendering import TerminalRenderer


def delta(text: str) -> StreamEvent:
    event = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}
    return StreamEvent(uuid="u", session_id="s", event=event)


def test_what_a_subagent_says_while_the_agent_speaks_is_shown_and_nothing_is_shown_twice() -> None:
    shown = io.StringIO()
    renderer = TerminalRenderer(Terminal(file=shown, highlight=False))
    renderer.show(delta("The washer "))
    renderer.show(AssistantMessage([TextBlock("I looked below.")], "m", parent_tool_use_id="call"))
    renderer.show(delta("is worn."))
    renderer.show(AssistantMessage([TextBlock("The washer is worn.")], "m"))
    renderer.show(AssistantMessage([TextBlock("It is tight now.")], "m"))
    assert shown.getvalue().split("\n") == ["The washer ", "I looked below.", "is worn.", "It is tight now.", ""]


def test_text_that_would_be_shown_in_another_order_is_shown_as_it_is_stored() -> None:
    assert plain("exe\u202egnp.\u2066x\u2069\x1b[2J") == "exegnp.x[2J"


def test_a_run_that_ends_in_the_middle_of_a_text_is_summed_up_on_a_line_of_its_own() -> None:
    shown = io.StringIO()
    renderer = TerminalRenderer(Terminal(file=shown, highlight=False, width=40))
    renderer.show(delta("The washer"))
    renderer.finish({"resumed": False, "session": "s", "epoch": 1, "cwd": "/"})
    assert shown.getvalue().startswith("The washer\n───")


@pytest.mark.usefixtures("sessions")  # it leaves logging as it was
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_stream_that_was_closed_by_whoever_started_the_command_is_no_failure(
    stream: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, stream, None)
    monkeypatch.setenv("EVERTURN_STATE", str(tmp_path))
    assert _run(["journal", "schema"]) == 0
    assert _run(["sessions", "list", "--json"]) == 2  # there is no store
    getattr(sys, stream).close()


@pytest.mark.usefixtures("sessions")
def test_what_fails_on_the_machine_is_one_line_with_a_hint(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EVERTURN_STATE", str(tmp_path))
    assert _run(["sessions", "export", "any", "--format", "html", "--output", str(tmp_path / ("a" * 300))]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: something failed on this machine: ")
    assert told.endswith("(everturn doctor checks the machine)\n")
    assert told.count("\n") == 1


def test_a_group_that_is_named_alone_shows_its_help_and_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["sessions"]) == 2
    told = capsys.readouterr()
    assert "Find, read and look after sessions." in told.out + told.err
    assert "error:" not in told.err
