"""Options are read from the context that the CDK knows, and refused before anything is made of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from everturn_infra.options import Options, Wrong

APP = Path(__file__).parents[1] / "app.py"


def test_without_a_context_all_options_have_their_defaults() -> None:
    assert Options.from_context({}) == Options()


def test_the_cdks_own_keys_are_not_options() -> None:
    assert Options.from_context({"@aws-cdk/core:x": True, "aws:cdk:y": [], "vpc/z": 1}) == Options()


def test_text_stands_for_other_kinds_as_the_command_knows_nothing_else() -> None:
    given = {
        "versioning": "true",
        "dashboard": "false",
        "retention_days": "90",
        "service_principals": "ec2.amazonaws.com, 123456789012",
        "repos": '["https://git.example/a,b/*"]',
        "root": "",
        "kms_key": "",
    }
    assert Options.from_context(given) == Options(
        versioning=True,
        dashboard=False,
        retention_days=90,
        service_principals=("ec2.amazonaws.com", "123456789012"),
        repos=("https://git.example/a,b/*",),
        root="",
    )


def test_json_has_the_kinds_themselves() -> None:
    given = {"versioning": True, "trace_days": 30, "log_groups": ["/a", "/b"], "bucket_name": None}
    assert Options.from_context(given) == Options(versioning=True, trace_days=30, log_groups=("/a", "/b"))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"buckets": "x"}, "buckets"),
        ({"root": "/a"}, "root"),
        ({"root": "a/../b"}, "root"),
        ({"root": "a b*"}, "root"),
        ({"scoping": "none"}, "scoping"),
        ({"service_principals": []}, "service_principals"),
        ({"service_principals": "ecs"}, "service_principals"),
        ({"worker_principals": "ecs-tasks.amazonaws.com"}, "worker_principals"),
        ({"worker_principals": "*"}, "worker_principals"),
        ({"alarm_topics": "team"}, "alarm_topics"),
        ({"page_topics": "pager"}, "page_topics"),
        ({"alarm_email": "team"}, "alarm_email"),
        ({"alarm_topics": "arn:aws:lambda:eu-west-1:123456789012:function:x"}, "alarm_topics"),
        ({"kms_key": "alias/x"}, "kms_key"),
        ({"kms_key": "arn:aws:kms:eu-west-1:123456789012:alias/x"}, "kms_key"),
        ({"repos": '["https://git.example/*"'}, "repos"),
        ({"sweep_hours": 25}, "sweep_hours"),
        ({"sweep_hours": 174}, "sweep_hours"),
        ({"retention_days": 0}, "retention_days"),
        ({"retention_days": "soon"}, "retention_days"),
        ({"retention_days": True}, "retention_days"),
        ({"versioning": "yes"}, "versioning"),
        ({"log_groups": [1]}, "log_groups"),
        ({"lines_in": "a b"}, "lines_in"),
        ({"stack_name": 7}, "stack_name"),
        ({"log_days": 100}, "log_days"),
        ({"express_zone": "use1-az4"}, "bucket_name"),
        ({"express_zone": "eu-west-1a", "bucket_name": "a"}, "express_zone"),
        ({"express_zone": "use1-az4", "bucket_name": "a", "versioning": True}, "versioning"),
        ({"express_zone": "use1-az4", "bucket_name": "a", "access_logs_bucket": "b"}, "access_logs_bucket"),
        ({"express_zone": "use1-az4", "bucket_name": "a", "repos": "https://git.example/*"}, "repos"),
        ({"express_zone": "use1-az4", "bucket_name": "a", "scoping": "session-policy"}, "scoping"),
        ({"alarms": False, "alarm_email": "team@acme.example"}, "alarm_email"),
        ({"log_groups": "/a", "log_group_name": "/b"}, "log_group_name"),
        ({"log_groups": "/a, /b, /a"}, "log_groups"),
    ],
)
def test_what_cannot_be_used_is_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(Wrong, match=named):
        Options.from_context(given)


def synthesize(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, APP, "--out", folder, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_app_writes_a_template_without_the_cdks_command(tmp_path: Path) -> None:
    done = synthesize(tmp_path, "-c", "stack_name=agents", "--context", "bucket_name=acme")
    assert done.returncode == 0, done.stderr
    template = json.loads((tmp_path / "agents.template.json").read_text())
    buckets = [each for each in template["Resources"].values() if each["Type"] == "AWS::S3::Bucket"]
    assert [each["Properties"]["BucketName"] for each in buckets] == ["acme"]


def test_the_app_says_which_option_is_wrong_in_one_line(tmp_path: Path) -> None:
    done = synthesize(tmp_path, "-c", "scoping=none")
    assert done.returncode == 2
    assert done.stderr == "scoping: 'none' cannot be used; it has to be tags or session-policy\n"


def test_what_the_cdk_refuses_is_told_without_its_stack_trace(tmp_path: Path) -> None:
    done = synthesize(tmp_path, "-c", "bucket_name=Not_A_Bucket")
    assert done.returncode == 2
    assert "Invalid S3 bucket name" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_constructs_are_used_as_the_page_says(tmp_path: Path) -> None:
    page = (APP.parents[1] / "docs" / "aws.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    program = f"import sys\nsys.path.insert(0, {str(APP.parent)!r})\n{snippet}"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "everturn" not in done.stdout.lower(), "names that only AWS knows"
