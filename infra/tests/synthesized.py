"""Stacks to look at, and how to look things up in what is synthesized of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aws_cdk import App, Validations
from cdk_nag import AwsSolutionsChecks

from everturn_infra import EverturnStack, Options

TOPIC = "arn:aws:sns:eu-west-1:123456789012:{}"
KEY = "arn:aws:kms:eu-west-1:123456789012:key/0c1d2e3f-0000-4000-8000-000000000000"

STACKS = {
    "plain": Options(stack_name="plain"),
    "full": Options(
        stack_name="full",
        bucket_name="acme-agents",
        table_name="acme-registry",
        root="",
        kms_key="new",
        versioning=True,
        noncurrent_days=7,
        retention_days=90,
        trace_days=30,
        damaged_days=14,
        access_logs_bucket="acme-logs",
        scoping="session-policy",
        service_principals=("ec2.amazonaws.com", "pods.eks.amazonaws.com", "123456789012"),
        worker_principals=("arn:aws:iam::123456789012:role/runner",),
        repos=("https://git.example/acme/*",),
        service_role_name="everturn-service",
        session_role_name="everturn-task",
        log_groups=("/ecs/workers", "/ecs/service"),
        lines_in="log_processed",
        alarm_topics=(TOPIC.format("team"),),
        page_topics=(TOPIC.format("team"), TOPIC.format("pager")),
        alarm_email="team@acme.example",
        sweep_hours=24,
    ),
    "express": Options(
        stack_name="express",
        bucket_name="agents",
        express_zone="use1-az4",
        kms_key=KEY,
        retention_days=90,
        alarms=False,
        point_in_time_recovery=False,
    ),
    "fleeting": Options(stack_name="fleeting", keep_data=False, dashboard=False, kms_key=KEY),
}


@dataclass(frozen=True)
class Synthesized:
    """What came of `STACKS`: a file each, and what cdk-nag says of them."""

    folder: Path

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.template.json"

    def template(self, name: str) -> Template:
        return Template(json.loads(self.file(name).read_text()))

    def report(self) -> dict[str, Any]:
        return json.loads((self.folder / "validation-report.json").read_text())


@dataclass(frozen=True)
class Template:
    """A template, to look things up in."""

    body: dict[str, Any]

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.body["Resources"].values() if each["Type"] == kind]

    def one(self, kind: str) -> dict[str, Any]:
        (found,) = self.all(kind)
        return found

    def properties(self, kind: str) -> dict[str, Any]:
        return self.one(kind)["Properties"]

    def role(self, purpose: str) -> dict[str, Any]:
        (found,) = (each for each in self.all("AWS::IAM::Role") if purpose in each["Properties"]["Description"])
        return found["Properties"]

    def statements(self, purpose: str) -> dict[str, dict[str, Any]]:
        """Return a role's statements by their ids."""
        resources = self.body["Resources"]
        (policy,) = (
            each["Properties"]
            for each in self.all("AWS::IAM::Policy")
            if purpose in resources[each["Properties"]["Roles"][0]["Ref"]]["Properties"]["Description"]
        )
        return {each["Sid"]: each for each in policy["PolicyDocument"]["Statement"]}

    def outputs(self) -> dict[str, str]:
        return {name: text(each["Value"]) for name, each in self.body["Outputs"].items()}


def text(value: Any) -> str:
    """Return a value of a template as it will be, but for what only AWS knows, which is told as `<Kind>`."""
    if isinstance(value, str):
        return value
    ((function, argument),) = value.items()
    if function == "Fn::Join":
        return argument[0].join(text(part) for part in argument[1])
    named = argument if isinstance(argument, str) else argument[0]
    for kind in ("SessionsBucket", "RegistryTable", "ServiceRole", "TaskRole", "Key", "LogGroup", "AlarmsTopic"):
        if named.startswith(kind):
            return f"<{kind}>"
    return f"<{named.removeprefix('AWS::')}>"


def synthesize(folder: Path) -> Synthesized:
    """Write all stacks, and have cdk-nag look at them."""
    app = App(outdir=str(folder), analytics_reporting=False)
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    for options in STACKS.values():
        EverturnStack(app, options)
    try:
        app.synth()
    except RuntimeError as error:  # what was found is in the report, which has a test of its own
        if "ValidationFailed" not in str(error):
            raise
    return Synthesized(folder)
