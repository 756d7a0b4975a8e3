"""`everturn credentials`: a worker that holds one task's rights, and no others (docs/credentials.md)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from everturn import Settings
from everturn.cli.app import main
from everturn.log.objects import run
from everturn.log.stores import admit, connect
from everturn.registry.table import KEY
from everturn.testing import LoopbackAws, Reply, ScriptedModel

pytestmark = pytest.mark.slow

SERVER_PYTHON = Path(__file__).parents[2] / ".venv-bench" / "bin" / "python"
ID = "${aws:PrincipalTag/everturn-task-id}"
FOLDERS = ("sessions", "homes", "summaries", "catalogs", "journal", "traces", "damaged")


Command = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True)
class Stack:
    """A store, a table, a role that is limited by its own policy to the task of its tag, and who may assume it."""

    aws: LoopbackAws
    name: str
    role: str
    orchestrator: dict[str, str]

    @property
    def places(self) -> dict[str, str]:
        return {"EVERTURN_STORE": f"s3://{self.name}/agents", "EVERTURN_REGISTRY": f"dynamodb://{self.name}"}

    def keys(self) -> list[str]:
        items = self.aws.client("dynamodb").scan(TableName=self.name)["Items"]
        return sorted(item[KEY]["S"] for item in items)

    def objects(self) -> set[str]:
        found = self.aws.client("s3").list_objects_v2(Bucket=self.name)["Contents"]
        return {item["Key"].split("/")[2] for item in found if item["Key"].count("/") > 2}


@pytest.fixture(scope="module")
def aws() -> Iterator[LoopbackAws]:
    with LoopbackAws.start(SERVER_PYTHON) as server:
        yield server


def own_policy(bucket: str) -> list[dict[str, Any]]:
    place = f"arn:aws:s3:::{bucket}/agents"
    folders = [f"{folder}/task!3a{ID}/*" for folder in FOLDERS]
    listed = {"StringLike": {"s3:prefix": [f"agents/{folder}" for folder in (*folders, "format.json")]}}
    rows = {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [f"task:{ID}"]}}
    mine = [*(f"{place}/{folder}" for folder in folders), f"{place}/probes/task!3a{ID}.json"]
    read = [f"{place}/format.json", f"{place}/holds/task!3a{ID}/*"]
    return [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], "Resource": mine},
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": read},
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{bucket}", "Condition": listed},
        {"Effect": "Allow", "Action": "dynamodb:*Item", "Resource": f"*:table/{bucket}", "Condition": rows},
    ]


@pytest.fixture
def stack(aws: LoopbackAws, monkeypatch: pytest.MonkeyPatch) -> Stack:
    name = aws.root.fresh_bucket()
    aws.client("dynamodb").create_table(
        TableName=name,
        KeySchema=[{"AttributeName": KEY, "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": KEY, "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with monkeypatch.context() as patched:
        for variable, value in aws.root.environment.items():
            patched.setenv(variable, value)
        url = f"s3://{name}/agents"
        run(admit(connect(url, Settings.load()), "setup", url))
    trust = {
        "Effect": "Allow",
        "Principal": {"AWS": "*"},
        "Action": ["sts:AssumeRole", "sts:TagSession"],
        "Condition": {"Null": {"aws:RequestTag/everturn-task-id": "false"}},
    }
    role = aws.role(*own_policy(name), trust=trust)
    assuming = {"Effect": "Allow", "Action": ["sts:AssumeRole", "sts:TagSession"], "Resource": role}
    return Stack(aws, name, role, aws.user(assuming))


def called(options: Sequence[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run the command in this process; return its exit code, its output and its complaint."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["everturn", "credentials", *options])
        with pytest.raises(SystemExit) as ended:
            main()
    said = capfd.readouterr()
    return int(ended.value.code or 0), said.out, said.err


@pytest.fixture
def orchestrator(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Command:
    """The command on a machine whose own credentials may assume the role."""
    monkeypatch.chdir(tmp_path)
    for name, value in {**stack.orchestrator, **stack.places, "EVERTURN_SESSION_ROLE": stack.role}.items():
        monkeypatch.setenv(name, value)
    return lambda *options: called(options, capfd)


def give(worker: Any, stack: Stack, given: dict[str, str]) -> None:
    """Leave a worker nothing but what was given; its configuration still names the role."""
    nearby = {name: value for name, value in stack.aws.root.environment.items() if "KEY" not in name}
    worker.variables = {**nearby, **stack.places, **given}
    (worker.desk / "everturn.toml").write_text(f'session_role = "{stack.role}"\n')


@pytest.mark.cli
def test_workers_with_one_tasks_credentials_run_it_and_nothing_else(everturn: Any, stack: Stack) -> None:
    desk = everturn.beside("orchestrator")
    desk.variables = {**stack.orchestrator, **stack.places, "EVERTURN_SESSION_ROLE": stack.role}
    done = desk("credentials", "--task", "42", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    given = json.loads(done.stdout)
    assert (given["work"], given["role"]) == ("task:42", stack.role)
    other = everturn.beside("another-worker")
    give(other, stack, given["environment"])
    give(everturn, stack, {**given["environment"], "EVERTURN_SWEEP_ON_START": "true"})

    options = ("--prompt", "Hello.", "--json", "--cwd")
    with ScriptedModel(lambda _: Reply("Good day.")).serve() as url:
        first = everturn("run", "--task", "42", *options, everturn.desk, model_url=url)
        second = other("run", "--task", "42", *options, other.desk, model_url=url)
        refused = everturn("run", "--task", "43", *options, everturn.desk, model_url=url)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert json.loads(second.stdout.splitlines()[-1])["resumed"]
    # Of a table's rows they see their own alone. Who sweeps nevertheless is refused, says so once, and goes on.
    assert [json.loads(line)["event"] for line in first.stderr.splitlines()] == ["sweep_failed"]
    assert second.stderr == ""
    assert refused.returncode == 2
    assert "AccessDenied" in refused.stderr
    assert (stack.keys(), stack.objects()) == (["task:42"], {"task!3a42"})


def test_a_shell_takes_what_is_printed_and_forgets_its_profile(orchestrator: Command) -> None:
    code, output, _ = orchestrator("--task", "42")
    assert code == 0
    shell = subprocess.run(
        ["/bin/sh", "-euc", 'eval "$1"; exec env', "sh", output],
        env={"AWS_PROFILE": "wide", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    names = {line.partition("=")[0] for line in shell.stdout.splitlines()}
    expected = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    expected |= {"EVERTURN_SESSION_ROLE", "EVERTURN_SWEEP_ON_START"}
    assert names - {"PATH", "PWD", "OLDPWD", "SHLVL", "_"} == expected


def test_a_profile_can_have_its_credentials_from_the_command(
    orchestrator: Command, stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert orchestrator("--task", "42", "--format", "process")[0] == 0
    program = [str(Path(sys.executable).with_name("everturn")), "credentials", "--task", "42", "--format", "process"]
    asked = ["env", "-u", "AWS_PROFILE", f"EVERTURN_SESSION_ROLE={stack.role}", *program]
    (tmp_path / "config").write_text(f"[profile task-42]\ncredential_process = {' '.join(asked)}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("EVERTURN_SESSION_ROLE", "null")
    sts = boto3.Session(profile_name="task-42", region_name="us-east-1").client(
        "sts", endpoint_url=stack.aws.root.url
    )
    assert "/everturn-task-42-" in sts.get_caller_identity()["Arn"]


def test_a_role_for_plain_tasks_is_not_to_be_had_for_another_work_item(orchestrator: Command) -> None:
    code, output, complaint = orchestrator("--task", "Not Plain")
    assert (code, output) == (2, "")
    assert "not allowed to assume" in complaint


def test_under_a_role_for_everything_any_work_item_has_its_own_row_alone(
    orchestrator: Command, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = stack.aws.role({"Effect": "Allow", "Action": "*", "Resource": "*"})
    assuming = {"Effect": "Allow", "Action": ["sts:AssumeRole", "sts:TagSession"], "Resource": wide}
    for name, value in {**stack.aws.user(assuming), "EVERTURN_SESSION_ROLE": wide}.items():
        monkeypatch.setenv(name, value)
    repo = "https://git.example/${aws:username}"
    code, output, _ = orchestrator("--agent", "fixer", "--repo", repo, "--issue", "1", "--json")
    assert code == 0
    given = json.loads(output)
    for name, value in given["environment"].items():
        monkeypatch.setenv(name, value)
    table = boto3.Session().client("dynamodb", endpoint_url=stack.aws.root.url, region_name="us-east-1")
    table.put_item(TableName=stack.name, Item={KEY: {"S": given["work"]}})
    assert stack.keys() == [f"fixer@{repo}#1"]
    with pytest.raises(ClientError, match="AccessDenied"):
        table.get_item(TableName=stack.name, Key={KEY: {"S": given["work"] + "1"}})
    with pytest.raises(ClientError, match="AccessDenied"):
        table.scan(TableName=stack.name)


@pytest.mark.parametrize(
    ("options", "role", "reason"),
    [
        (("--task", "42"), "null", "session_role is not set"),
        (("--task", "42", "--store", "file:///tmp/x"), "arn:aws:iam::123456789012:role/r", "has no roles"),
        (("--task", "42", "--issue", "1"), "null", "both --task and --issue"),
        ((), "null", "no issue and no task"),
    ],
)
def test_what_is_missing_is_said_and_nothing_is_printed(
    options: tuple[str, ...],
    role: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EVERTURN_STORE", "s3://bucket/agents")
    monkeypatch.setenv("EVERTURN_SESSION_ROLE", role)
    code, output, complaint = called(options, capfd)
    assert (code, output) == (2, "")
    assert reason in complaint
