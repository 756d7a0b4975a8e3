"""`everturn run` as a person or a program calls it: what it shows, and what it refuses without a trace."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from everturn.testing import Failure, LoopbackS3, ModelRequest, Reply, ScriptedModel, Text, ToolUse
from polling import wait_until

PROMPT = "Mend the leaking tap."
DELTA = "The washer has come."


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


# --- Bad input ----------------------------------------------------------------------------------------------------

TASK = ("--task", "t")
PROMPTED = (*TASK, "--prompt", "x")


def assert_refused(done: subprocess.CompletedProcess[str], said: str) -> None:
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(")")
    message, _, hint = line.removeprefix("error: ").partition(" (")
    assert said in message
    assert len(hint) > len("x)")
    assert done.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((*PROMPTED, "--store", "ftp://example.org/x"), "cannot make a store of 'ftp://example.org/x'"),
        ((*PROMPTED, "--registry", "redis://x"), "cannot make a registry of 'redis://x'"),
        ((*PROMPTED, "--store", "s3://[x"), "cannot make a store of 's3://[x'"),
        (("--task", "../x", "--prompt", "x"), "would climb out of its folder"),
        ((*TASK, "--prompt", ""), "the prompt is empty"),
        (TASK, "the prompt is empty"),
        (("--agent", "a", "--repo", "nowhere", "--issue", "1", "--prompt", "x"), "git ls-remote failed"),
        (("--agent", "a", "--repo", ".", "--prompt", "x"), "no issue and no task"),
        ((*PROMPTED, "--issue", "1"), "both --task and --issue"),
        ((*PROMPTED, "--prompt-file", "prompt.txt"), "the prompt is given twice"),
        ((*TASK, "--prompt-file", "nowhere.txt"), "the prompt cannot be read from nowhere.txt"),
        ((*PROMPTED, "--permission-mode", "root"), "there is no permission mode 'root'"),
        ((*PROMPTED, "--cwd", "nowhere"), "there is no directory nowhere"),
    ],
    ids=lambda value: " ".join(value) or None if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line_and_writes_nothing(everturn: Any, given: tuple[str, ...], said: str) -> None:
    (everturn.desk / "prompt.txt").write_text("x")
    before = everturn.files()
    assert_refused(everturn("run", *given), said)
    assert everturn.files() == before
    assert not everturn.state.exists()


@pytest.mark.slow
def test_a_wrong_setting_is_one_line_and_writes_nothing(everturn: Any) -> None:
    (everturn.desk / "everturn.toml").write_text("git_timeout_s = 'long'\n")
    assert_refused(everturn("run", *PROMPTED), "the setting git_timeout_s is wrong")
    assert not everturn.state.exists()


@pytest.mark.slow
def test_a_store_of_a_newer_format_is_refused_and_left_alone(everturn: Any) -> None:
    gate = everturn.state / "store" / "format.json"
    gate.parent.mkdir(parents=True)
    gate.write_text('{"format":"everturn","version":2}')
    before = everturn.files()
    assert_refused(everturn("run", *PROMPTED), "has format version 2, this release knows version 1")
    assert everturn.files() == before


def keys(server: LoopbackS3, bucket: str) -> list[str]:
    client = boto3.client(
        "s3",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id="loopback",
        aws_secret_access_key="loopback-secret",
    )
    return [item["Key"] for item in client.list_objects_v2(Bucket=bucket).get("Contents", [])]


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_refused(everturn: Any, s3_server: LoopbackS3) -> None:
    everturn.variables = s3_server.environment
    done = everturn("run", *PROMPTED, "--store", "s3://no-such-bucket/runs")
    assert_refused(done, "there is no such bucket: s3://no-such-bucket/runs")
    assert everturn.files() == {}


@pytest.mark.slow
def test_wrong_credentials_are_refused(everturn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with LoopbackS3.start() as server:
        bucket = server.create_bucket(f"bucket-{uuid.uuid4()}")  # servers of one process share their buckets
        everturn.variables = {**server.environment, "AWS_ACCESS_KEY_ID": "stranger"}
        with monkeypatch.context() as patch:
            # From here on the server looks at who is asking. It knows nobody.
            patch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
            done = everturn("run", *PROMPTED, "--store", f"s3://{bucket}/runs")
        assert_refused(done, "not allowed to read")
        assert "check the credentials" in done.stderr
        assert keys(server, bucket) == []
    assert everturn.files() == {}


def ignoring_conditions(app: Callable[..., Any]) -> Callable[..., Any]:
    def careless(environ: dict[str, Any], start_response: Any) -> Any:
        environ.pop("HTTP_IF_NONE_MATCH", None)
        return app(environ, start_response)

    return careless


@pytest.mark.slow
def test_a_store_that_ignores_conditions_is_refused_and_left_as_it_was(everturn: Any) -> None:
    with LoopbackS3.start(wrap=ignoring_conditions) as server:
        bucket = server.create_bucket(f"bucket-{uuid.uuid4()}")
        everturn.variables = server.environment
        done = everturn("run", *PROMPTED, "--store", f"s3://{bucket}/runs")
        assert_refused(done, "overwrites objects that it was told only to create")
        assert "If-None-Match" in done.stderr
        assert keys(server, bucket) == []
    assert everturn.files() == {}


@pytest.mark.slow
def test_a_store_that_does_not_answer_is_refused(everturn: Any, tmp_path: Path) -> None:
    everturn.variables = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "EVERTURN_REQUEST_TIMEOUT_S": "0.5",
        "EVERTURN_RETRY_DEADLINE_S": "0.2",
    }
    assert_refused(everturn("run", *PROMPTED, "--store", "s3://bucket/runs"), "could not read in s3://bucket/runs")
    assert everturn.files() == {}


@pytest.mark.slow
def test_a_bucket_that_is_said_to_be_a_directory_bucket_has_to_have_such_a_name(everturn: Any) -> None:
    refused = everturn("run", *PROMPTED, "--store", "s3://bucket/runs", "--s3-express")
    assert_refused(refused, "'bucket' is no name of an S3 Express bucket")
    assert everturn.files() == {}
