"""What `everturn run` refuses, without a trace."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from everturn.testing import LoopbackS3

TASK = ("--task", "t")
PROMPTED = (*TASK, "--prompt", "x")


@pytest.fixture
def everturn(everturn_here: Any) -> Any:
    return everturn_here


def assert_refused(done: subprocess.CompletedProcess[str], said: str) -> None:
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(")")
    message, _, hint = line.removeprefix("error: ").partition(" (")
    assert said in message
    assert len(hint) > len("x)")
    assert done.stdout == ""


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


def test_a_wrong_setting_is_one_line_and_writes_nothing(everturn: Any) -> None:
    (everturn.desk / "everturn.toml").write_text("git_timeout_s = 'long'\n")
    assert_refused(everturn("run", *PROMPTED), "the setting git_timeout_s is wrong")
    assert not everturn.state.exists()


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


def test_a_store_that_ignores_conditions_is_refused_and_left_as_it_was(everturn: Any) -> None:
    with LoopbackS3.start(wrap=ignoring_conditions) as server:
        bucket = server.create_bucket(f"bucket-{uuid.uuid4()}")
        everturn.variables = server.environment
        done = everturn("run", *PROMPTED, "--store", f"s3://{bucket}/runs")
        assert_refused(done, "overwrites objects that it was told only to create")
        assert "If-None-Match" in done.stderr
        assert keys(server, bucket) == []
    assert everturn.files() == {}


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


def test_a_bucket_that_is_said_to_be_a_directory_bucket_has_to_have_such_a_name(everturn: Any) -> None:
    refused = everturn("run", *PROMPTED, "--store", "s3://bucket/runs", "--s3-express")
    assert_refused(refused, "'bucket' is no name of an S3 Express bucket")
    assert everturn.files() == {}
