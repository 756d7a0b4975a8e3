"""A stack that CloudFormation has deployed on loopback, and who works with it: they know its outputs, no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from everturn.testing import LoopbackAws, cli_environment
from everturn.testing.s3 import REGION

REPOSITORY = Path(__file__).parents[2]
INFRA_PYTHON = REPOSITORY / ".venv-infra" / "bin" / "python"
SERVER_PYTHON = REPOSITORY / ".venv-bench" / "bin" / "python"
STACK = "everturn"
DEPLOY_S = 60
COMMAND_S = 60

Variables = dict[str, str]


def synthesize(folder: Path, **options: str) -> str:
    """Return the template that the CDK app makes of some options."""
    context = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    subprocess.run(
        [INFRA_PYTHON, REPOSITORY / "infra" / "app.py", "--out", folder, *context],
        env={
            "PATH": f"{INFRA_PYTHON.parent}:{os.environ['PATH']}",
            "HOME": str(INFRA_PYTHON.parents[1]),  # the CDK keeps a cache there
        },
        check=True,
        timeout=DEPLOY_S,
    )
    return (folder / f"{STACK}.template.json").read_text()


def deploy(aws: LoopbackAws, template: str, *, update: bool = False, stack: str = STACK) -> None:
    """Let CloudFormation make the stack, or bring it up to date, and wait until it has."""
    client = aws.client("cloudformation")
    change = client.update_stack if update else client.create_stack
    change(StackName=stack, TemplateBody=template, Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"])
    waiter = client.get_waiter("stack_update_complete" if update else "stack_create_complete")
    waiter.wait(StackName=stack, WaiterConfig={"Delay": 1, "MaxAttempts": DEPLOY_S})


def outputs_of(aws: LoopbackAws, stack: str) -> dict[str, str]:
    """Return the outputs of a stack, as they are."""
    [found] = aws.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    return {each["OutputKey"]: each["OutputValue"] for each in found["Outputs"]}


def settings_of(aws: LoopbackAws, stack: str, *, form: str) -> str:
    """Return what the program prints that turns outputs into settings."""
    told = subprocess.run(
        [sys.executable, REPOSITORY / "infra" / "settings.py", stack, "--region", REGION, "--format", form],
        env={"PATH": os.environ["PATH"], **aws.environment},
        check=True,
        capture_output=True,
        text=True,
        timeout=DEPLOY_S,
    )
    return told.stdout


@dataclass(frozen=True)
class Deployed:
    """The stack.

    Attributes:
        aws: Where it is.
        outputs: Its outputs.
        settings: Those that are settings, by their names in the environment.
        orchestrator: Who may assume the service role, and may do nothing else.
    """

    aws: LoopbackAws
    outputs: Mapping[str, str]
    settings: Mapping[str, str]
    orchestrator: Variables

    @property
    def bucket(self) -> str:
        return self.outputs["BucketName"]

    @property
    def table(self) -> str:
        return self.outputs["TableName"]

    @property
    def root(self) -> str:
        return self.settings["EVERTURN_STORE"].removeprefix(f"s3://{self.bucket}/")

    def client(self, service: str, who: Variables) -> Any:
        """Return a client that is somebody, and tries once."""
        return boto3.client(
            service,
            endpoint_url=who["AWS_ENDPOINT_URL"],
            region_name=who["AWS_REGION"],
            aws_access_key_id=who["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=who["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=who.get("AWS_SESSION_TOKEN"),
            verify=who["AWS_CA_BUNDLE"],
            config=Config(retries={"total_max_attempts": 1}),
        )

    def service(self) -> Variables:
        """Return the environment of the service: the stack's settings, and the service role."""
        return self._as(self.orchestrator, RoleArn=self.outputs["ServiceRoleArn"], RoleSessionName="service")

    def task(self, task_id: str, **more: Any) -> Variables:
        """Return the environment of a worker that holds one task's rights, and no more. No session policy helps."""
        tags = [{"Key": "everturn-task-id", "Value": task_id}]
        request = {
            "RoleArn": self.settings["EVERTURN_SESSION_ROLE"],
            "RoleSessionName": "worker",
            "Tags": tags,
            **more,
        }
        variables = self._as(self.service(), **request)
        del variables["EVERTURN_SESSION_ROLE"]
        return variables

    def printed(self, exports: str) -> Variables:
        """Return the environment of a worker that has what `everturn credentials` printed, and no role to assume."""
        variables = {**self.service(), **parse(exports)}
        del variables["EVERTURN_SESSION_ROLE"]
        return variables

    def _as(self, who: Variables, **request: Any) -> Variables:
        given = self.client("sts", who).assume_role(**request)["Credentials"]
        return {
            **self.settings,
            **{name: who[name] for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_CA_BUNDLE", "SSL_CERT_FILE")},
            "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
            "AWS_SESSION_TOKEN": given["SessionToken"],
        }


def parse(exports: str) -> dict[str, str]:
    """Return what a shell would know after some exports."""
    told = subprocess.run(
        ["sh", "-c", f"{exports}\nexec env -0"],
        env={"PATH": os.environ["PATH"]},
        check=True,
        capture_output=True,
        text=True,
    )
    known = dict(line.split("=", 1) for line in told.stdout.split("\0") if "=" in line)
    return {name: value for name, value in known.items() if name.startswith(("EVERTURN_", "AWS_"))}


def as_json(template: str) -> dict[str, Any]:
    """Return a template."""
    parsed: dict[str, Any] = json.loads(template)
    return parsed


@dataclass(frozen=True)
class Machine:
    """A machine with a folder of its own. It knows what it is told, and nothing of this one.

    Args:
        folder: Where its home, its state and what it works in are; made here.
        who: What its programs have for an environment.
        model: Where the model is, if an agent is to run.
    """

    folder: Path
    who: Variables
    model: str = "http://127.0.0.1:9"

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        """Start the command."""
        desk, home = self.folder / "desk", self.folder / "home"
        for each in (desk, home):
            each.mkdir(parents=True, exist_ok=True)
        told = {f"EVERTURN_{name.upper()}": value for name, value in settings.items()}
        return subprocess.Popen(
            [Path(sys.executable).with_name("everturn"), *arguments],
            env={
                **cli_environment(self.model, home, path=os.environ["PATH"], tmpdir=home),
                **self.who,
                "EVERTURN_STATE": str(self.folder / "state"),
                "EVERTURN_LOG_LEVEL": "info",
                **told,
            },
            cwd=desk,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def command(self, *arguments: str, **settings: str) -> Finished:
        """Let the command come to its end."""
        with self.start(*arguments, **settings) as child:
            try:
                said, complaints = child.communicate(timeout=COMMAND_S)
            finally:
                child.kill()
        return Finished(child.returncode, said, complaints)


@dataclass(frozen=True)
class Finished:
    """What a command came to."""

    status: int
    said: str
    complaints: str

    def summary(self) -> dict[str, Any]:
        """Return the last line of what it printed, which has to be JSON."""
        return as_json(self.done().splitlines()[-1])

    def done(self) -> str:
        """Return what it printed; it has to have gone well."""
        assert self.status == 0, self.complaints
        return self.said

    def lines(self) -> list[dict[str, Any]]:
        """Return its log lines."""
        return [as_json(line) for line in self.complaints.splitlines() if line.startswith("{")]

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines()]
