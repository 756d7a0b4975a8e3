"""What others look for in a template: cfn-lint and cdk-nag."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from aws_cdk import App, Stack, Validations
from aws_cdk import aws_s3 as s3
from cdk_nag import AwsSolutionsChecks

from synthesized import STACKS, Synthesized


def lint(file: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("cfn-lint")
    return subprocess.run([command, "--include-checks", "I", "--", file], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", STACKS)
def test_cfn_lint_finds_nothing(stacks: Synthesized, name: str) -> None:
    done = lint(stacks.file(name))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_cfn_lint_would_find_something(stacks: Synthesized, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.json"
    damaged.write_text(stacks.file("plain").read_text().replace("PAY_PER_REQUEST", "PAY_LATER"))
    assert "E3030" in lint(damaged).stdout


def test_cdk_nag_finds_nothing_but_what_is_acknowledged(stacks: Synthesized) -> None:
    (report,) = stacks.report()["pluginReports"]
    assert report["pluginName"] == "AwsSolutions"
    found = {each["ruleName"] for each in report["violations"] if not each.get("suppressed")}
    assert (report["conclusion"], found) == ("success", set())


def test_cdk_nag_would_find_something(tmp_path: Path) -> None:
    app = App(outdir=str(tmp_path), analytics_reporting=False)
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    s3.Bucket(Stack(app, "other"), "Bucket")
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        app.synth()
