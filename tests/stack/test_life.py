"""The stack's own life: it is brought up to date in place, and what is in it outlives it."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from botocore.exceptions import ClientError

from everturn import Denied, Settings, TranscriptStore
from everturn.testing import LoopbackAws
from everturn.testing.aws import ACCOUNT
from stack.conftest import become, made_of
from stack.deployed import deploy, synthesize

pytestmark = pytest.mark.slow

STACK = "everturn-again"
ANY_WORK = "fixer@https://git.example/web#42"


def append(scope: str) -> None:
    async def main() -> None:
        settings = Settings.load()
        store = TranscriptStore.open(settings.store_url(), scope=scope, settings=settings)
        async with store:
            await store.append({"project_key": "-home", "session_id": "s-1"}, [{"type": "user", "uuid": "1"}])

    anyio.run(main)


def test_an_update_keeps_everything_in_place_and_a_deletion_keeps_the_data(
    aws: LoopbackAws, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(aws, template, stack=STACK)
    before = made_of(aws, STACK)
    become(monkeypatch, before.service())
    append("task:1")
    with pytest.raises(Denied, match="not allowed to assume"):
        append(ANY_WORK)

    wider = synthesize(tmp_path, service_principals=ACCOUNT, kms_key="new", scoping="session-policy")
    deploy(aws, wider, update=True, stack=STACK)
    after = made_of(aws, STACK)
    assert after.outputs == before.outputs
    become(monkeypatch, after.service())
    append(ANY_WORK)

    client = aws.client("cloudformation")
    client.delete_stack(StackName=STACK)
    client.get_waiter("stack_delete_complete").wait(StackName=STACK, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    with pytest.raises(ClientError, match="NoSuchEntity"):
        aws.client("iam").get_role(RoleName=after.outputs["ServiceRoleArn"].rpartition("/")[2])
    alarms = aws.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert not [each for each in alarms if each["AlarmName"].startswith(STACK)]
    parts = aws.client("s3").list_objects_v2(Bucket=after.bucket, Prefix=f"{after.root}/sessions/")
    assert parts["KeyCount"] == 2
    assert aws.client("dynamodb").describe_table(TableName=after.table)["Table"]["TableStatus"] == "ACTIVE"
    groups = aws.client("logs").describe_log_groups(logGroupNamePrefix=after.outputs["LogGroupName"])["logGroups"]
    assert len(groups) == 1
