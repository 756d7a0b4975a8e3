"""`everturn run` as a person or a program calls it: what it shows."""

from __future__ import annotations

import json
import shutil
import signal
from typing import Any

import pytest

from everturn.testing import Failure, ModelRequest, Reply, ScriptedModel, Text, ToolUse
from polling import wait_until

PROMPT = "Mend the leaking tap."
DELTA = "The washer has come."
PROMPTED = ("--task", "t", "--prompt", "x")


STALLING = Reply("The washer is worn.", stall_after_chunks=2)


def answer(request: ModelRequest) -> Reply | Failure:
    if DELTA in request.last_user_text():
        return Reply("It is tight now.")
    if not request.tool_results():
        return Reply("Let me look.", ToolUse("Bash", {"command": "echo drip-$((40 + 2))"}))
    return Reply("The washer is worn.")


@pytest.mark.cli
@pytest.mark.slow
def test_a_run_streams_to_the_terminal_and_a_second_one_goes_on_as_json(everturn: Any) -> None:
    model = ScriptedModel(answer)
    (everturn.desk / "prompt.txt").write_text(PROMPT)
    (everturn.desk / "delta.txt").write_text(DELTA + "\n")
    given = ["run", "--task", "tap", "--prompt-file", "prompt.txt", "--resume-prompt-file", "delta.txt"]
    with model.serve() as url:
        first = everturn(*given, "--permission-mode", "bypassPermissions", model_url=url)
        second = everturn(*given, "--json", model_url=url)
    assert (first.returncode, first.stderr) == (0, "")
    for shown in ("Let me look.", "▸ Bash", "drip-42", "The washer is worn.", "claim 1", str(everturn.desk)):
        assert shown in first.stdout
    assert first.stdout.count("Let me look.") == first.stdout.count("The washer is worn.") == 1

    assert (second.returncode, second.stderr) == (0, "")
    *messages, summary = [json.loads(line) for line in second.stdout.splitlines()]
    assert summary["type"] == "summary"
    assert (summary["resumed"], summary["epoch"], summary["ok"]) == (True, 2, True)
    assert summary["session"] in first.stdout
    assert summary["cwd"] == str(everturn.desk)
    assert [message["type"] for message in messages if message["type"] != "SystemMessage"] == [
        "AssistantMessage",
        "ResultMessage",
    ]
    said = "\n".join(model.requests[-1].texts())
    assert said.index(PROMPT) < said.index("The washer is worn.") < said.index(DELTA)
    wait_until(lambda: not everturn.processes(), "no process is left")


@pytest.mark.cli
@pytest.mark.slow
def test_a_conversation_that_is_lost_is_told_on_standard_error_and_begun_anew(everturn: Any) -> None:
    given = ["run", "--task", "tap", "--prompt", PROMPT, "--resume-prompt", DELTA]
    model = ScriptedModel(lambda _: Reply("The washer is worn."))
    with model.serve() as url:
        assert everturn(*given, model_url=url).returncode == 0
        shutil.rmtree(everturn.state / "store")
        done = everturn(*given, "--json", model_url=url)
    assert done.returncode == 0
    summary = json.loads(done.stdout.splitlines()[-1])
    [warning] = summary["warnings"]
    assert "was not found, so the conversation has begun anew" in warning
    assert f"warning: {warning} (see docs/runs.md)" in done.stderr.splitlines()
    assert (summary["resumed"], summary["ok"]) == (False, True)
    assert PROMPT in model.requests[-1].last_user_text()


@pytest.mark.slow
@pytest.mark.cli
def test_a_failure_of_the_model_is_exit_code_1_and_not_a_crash(everturn: Any) -> None:
    with ScriptedModel(lambda _: Failure(403, "permission_error", "not for you")).serve() as url:
        done = everturn("run", "--task", "tap", "--prompt", PROMPT, "--json", model_url=url)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["type"], summary["ok"], summary["resumed"]) == ("summary", False, False)
    assert "not for you" in done.stdout


@pytest.mark.cli
@pytest.mark.slow
def test_a_run_that_is_told_to_stop_says_so_leaves_no_process_and_can_go_on(everturn: Any) -> None:
    def work(request: ModelRequest) -> Reply | Failure:
        said = answer(request)
        return said if DELTA in request.last_user_text() or not request.tool_results() else STALLING

    model = ScriptedModel(work)
    signals = (signal.SIGINT, signal.SIGTERM)
    machines = [everturn.beside(number.name) for number in signals]
    given = ["run", "--task", "tap", "--prompt", PROMPT, "--resume-prompt", DELTA]
    with model.serve() as url:
        started = [here.start(*given, "--permission-mode", "bypassPermissions", model_url=url) for here in machines]
        wait_until(lambda: sum(bool(request.tool_results()) for request in model.requests) == 2, "both are at it")
        for process, number in zip(started, signals, strict=True):
            process.send_signal(number)
        for process, here, number in zip(started, machines, signals, strict=True):
            _, complaint = process.communicate(timeout=60)
            assert process.returncode == 128 + number
            [line] = complaint.splitlines()
            assert line.startswith(f"error: stopped by {number.name} (")
            assert not here.processes()
        assert machines[1](*given, model_url=url).returncode == 0
    assert PROMPT in "\n".join(model.requests[-1].texts())


@pytest.mark.slow
@pytest.mark.cli
@pytest.mark.parametrize("given", [["--json"], []], ids=["json", "text"])
def test_a_reader_that_goes_away_ends_the_run_quietly(everturn: Any, given: list[str]) -> None:
    with ScriptedModel(lambda _: Reply(Text("a\nb\nc\n" * 20), chunk_delay_s=0.02)).serve() as url:
        with everturn.start("run", *PROMPTED, *given, model_url=url) as process:
            process.stdout.readline()
            process.stdout.close()
            complaint = process.stderr.read()
        assert (process.returncode, complaint) == (141, "")
    assert not everturn.processes()


@pytest.mark.slow
@pytest.mark.cli
def test_a_terminal_that_cannot_show_a_letter_does_not_end_the_run(everturn: Any) -> None:
    with ScriptedModel(lambda _: Reply("Gr\u00fc\u00dfe \U0001f600")).serve() as url:
        everturn.variables["PYTHONIOENCODING"] = "ascii"
        done = everturn("run", *PROMPTED, model_url=url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Gr\\xfc\\xdfe" in done.stdout
