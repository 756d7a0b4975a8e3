"""Outputs of a stack become settings, whichever tool has written them down."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import settings

OUTPUTS = {
    "EverturnStore": "s3://acme-agents/everturn",
    "EverturnS3SseKmsKey": "arn:aws:kms:eu-west-1:123456789012:key/0c1d",
    "EverturnS3SseBucketKey": "true",
    "AwsRegion": "eu-west-1",
    "ServiceRoleArn": "arn:aws:iam::123456789012:role/service",
}


@pytest.fixture(params=["cdk", "cloudformation"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    listed = [{"OutputKey": key, "OutputValue": value} for key, value in OUTPUTS.items()]
    stacks = [{"StackName": "other"}, {"StackName": "everturn", "Outputs": listed}]
    path = tmp_path / "outputs.json"
    path.write_text(json.dumps({"everturn": OUTPUTS} if request.param == "cdk" else {"Stacks": stacks}))
    return path


def test_as_a_file_of_settings(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert settings.main(["everturn", "--outputs", str(file)]) == 0
    assert tomllib.loads(capsys.readouterr().out) == {
        "store": "s3://acme-agents/everturn",
        "s3_sse_kms_key": "arn:aws:kms:eu-west-1:123456789012:key/0c1d",
        "s3_sse_bucket_key": True,
        "aws_region": "eu-west-1",
    }


def test_as_a_shells_exports(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert settings.main(["everturn", "--outputs", str(file), "--format", "env"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "export AWS_REGION=eu-west-1",
        "export EVERTURN_S3_SSE_BUCKET_KEY=true",
        "export EVERTURN_S3_SSE_KMS_KEY=arn:aws:kms:eu-west-1:123456789012:key/0c1d",
        "export EVERTURN_STORE=s3://acme-agents/everturn",
    ]


def test_a_stack_that_is_not_there_is_told_in_one_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert settings.main(["agents", "--outputs", str(file)]) == 2
    assert capsys.readouterr().err == "the outputs of agents cannot be read: it is not there\n"


@pytest.mark.parametrize("text", ["[]", '"everturn"', "{}", "{"])
def test_a_file_that_has_no_outputs_is_told_in_one_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "outputs.json").write_text(text)
    assert settings.main(["everturn", "--outputs", str(tmp_path / "outputs.json")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("the outputs of everturn cannot be read: ")
