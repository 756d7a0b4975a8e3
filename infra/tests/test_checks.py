"""What others look for in a template: cfn-lint and cdk-nag."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from synthesized import STACKS, Synthesized


def lint(file: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("cfn-lint")
    return subprocess.run([command, "--", file], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", STACKS)
def test_cfn_lint_finds_nothing(stacks: Synthesized, name: str) -> None:
    done = lint(stacks.file(name))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_cfn_lint_would_find_something(stacks: Synthesized, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.json"
    damaged.write_text(stacks.file("plain").read_text().replace("PAY_PER_REQUEST", "PAY_LATER"))
    assert "E3030" in lint(damaged).stdout


def test_cdk_nag_finds_nothing_but_what_an_option_asks_for(stacks: Synthesized) -> None:
    (report,) = stacks.report()["pluginReports"]
    assert report["pluginName"] == "AwsSolutions"
    found = {
        (violation["ruleName"], construct["constructPath"].partition("/")[0])
        for violation in report["violations"]
        for construct in violation["violatingConstructs"]
    }
    assert found == {("AwsSolutions-DDB3", "express")}, "that table cannot be restored"
