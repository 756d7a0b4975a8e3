"""What nobody may do with the stack, or a task's worker may not. Nothing but the stack's own policies refuses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from everturn.log.names import escape
from stack.deployed import Deployed, Variables

pytestmark = pytest.mark.slow

FOLDERS = ("sessions", "homes", "summaries", "catalogs", "journal", "damaged", "traces", "holds")
WRITTEN_ONCE = ("homes", "damaged", "traces", "holds")
OURS, THEIRS = "42", ("4", "421", "other", "4.2")


@pytest.fixture(scope="module")
def worker(stack: Deployed) -> Variables:
    return stack.task(OURS)


@pytest.fixture(scope="module")
def service(stack: Deployed) -> Variables:
    return stack.service()


@pytest.fixture(scope="module")
def as_worker(stack: Deployed, worker: Variables) -> Any:
    return stack.client("s3", worker)


@pytest.fixture(scope="module")
def as_service(stack: Deployed, service: Variables) -> Any:
    return stack.client("s3", service)


def key_in(stack: Deployed, folder: str, task: str, name: str = "x/00000001.json") -> str:
    return f"{stack.root}/{folder}/{escape(f'task:{task}', 'scope')}/{name}"


def allowed(work: Callable[..., Any], **request: Any) -> bool:
    try:
        work(**request)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("AccessDenied", "AccessDeniedException"):
            return False
        raise
    return True


def create(client: Any, stack: Deployed, key: str) -> bool:
    return allowed(client.put_object, Bucket=stack.bucket, Key=key, Body=b"{}", IfNoneMatch="*")


def overwrite(client: Any, stack: Deployed, key: str) -> bool:
    return allowed(client.put_object, Bucket=stack.bucket, Key=key, Body=b"{}")


# --- One task and another -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", FOLDERS)
def test_nothing_of_another_task_can_be_read_written_deleted_or_listed(
    stack: Deployed, as_worker: Any, as_service: Any, folder: str
) -> None:
    for task in THEIRS:
        key = key_in(stack, folder, task)
        assert create(as_service, stack, key)
        assert not allowed(as_worker.get_object, Bucket=stack.bucket, Key=key), key
        assert not allowed(as_worker.delete_object, Bucket=stack.bucket, Key=key), key
        assert not allowed(as_worker.list_objects_v2, Bucket=stack.bucket, Prefix=key.rpartition("/")[0]), key
        assert not overwrite(as_worker, stack, key), key
        assert not create(as_worker, stack, key_in(stack, folder, task, "new.json")), key
    assert not allowed(as_worker.list_objects_v2, Bucket=stack.bucket, Prefix=f"{stack.root}/{folder}/")


def test_a_deletion_of_many_objects_takes_none_of_another_task(
    stack: Deployed, as_worker: Any, as_service: Any
) -> None:
    ours, theirs = (key_in(stack, "sessions", task, "many.json") for task in (OURS, "other"))
    for key in (ours, theirs):
        assert create(as_service, stack, key)
    objects = [{"Key": key} for key in (ours, theirs)]
    try:
        as_worker.delete_objects(Bucket=stack.bucket, Delete={"Objects": objects})
    except ClientError as error:
        assert error.response["Error"]["Code"] == "AccessDenied"  # noqa: PT017
    assert allowed(as_service.get_object, Bucket=stack.bucket, Key=theirs)


def test_what_all_tasks_share_can_be_read_and_no_more(stack: Deployed, as_worker: Any) -> None:
    gate = f"{stack.root}/format.json"
    assert allowed(as_worker.get_object, Bucket=stack.bucket, Key=gate)
    assert not create(as_worker, stack, gate)
    assert not overwrite(as_worker, stack, gate)
    assert not allowed(as_worker.delete_object, Bucket=stack.bucket, Key=gate)
    for prefix in ("", f"{stack.root}/"):
        assert not allowed(as_worker.list_objects_v2, Bucket=stack.bucket, Prefix=prefix)


def test_a_task_lifts_no_hold_and_takes_no_trace_away(stack: Deployed, as_worker: Any, as_service: Any) -> None:
    hold, trace = (key_in(stack, folder, OURS, "h.json") for folder in ("holds", "traces"))
    assert create(as_service, stack, hold)
    assert allowed(as_worker.get_object, Bucket=stack.bucket, Key=hold)
    assert create(as_worker, stack, trace)
    for key in (hold, trace):
        assert not overwrite(as_worker, stack, key)
        assert not allowed(as_worker.delete_object, Bucket=stack.bucket, Key=key)
    assert not create(as_worker, stack, key_in(stack, "holds", OURS, "another.json"))


# --- Rows ---------------------------------------------------------------------------------------------------------


def test_a_task_has_its_own_row_and_no_other(stack: Deployed, worker: Variables) -> None:
    table = stack.client("dynamodb", worker)
    for task, may in ((OURS, True), *((task, False) for task in THEIRS)):
        key = {"work": {"S": f"task:{task}"}}
        assert allowed(table.put_item, TableName=stack.table, Item=key) is may
        assert allowed(table.get_item, TableName=stack.table, Key=key) is may
        assert allowed(table.delete_item, TableName=stack.table, Key=key) is may
    assert not allowed(table.scan, TableName=stack.table)
    assert not allowed(table.delete_table, TableName=stack.table)


# --- Whoever it is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["sessions", "journal"])
def test_a_worker_writes_over_no_part(stack: Deployed, as_worker: Any, folder: str) -> None:
    key = key_in(stack, folder, OURS, f"{folder}/00000001.json")
    assert create(as_worker, stack, key)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        create(as_worker, stack, key)
    assert not overwrite(as_worker, stack, key)
    assert not overwrite(as_worker, stack, key_in(stack, folder, OURS, f"{folder}/00000002.json"))


@pytest.mark.parametrize("folder", WRITTEN_ONCE)
def test_not_even_the_service_writes_over_what_is_written_once(stack: Deployed, as_service: Any, folder: str) -> None:
    key = key_in(stack, folder, OURS, "once.json")
    assert create(as_service, stack, key)
    assert not overwrite(as_service, stack, key)
    assert not overwrite(as_service, stack, f"{stack.root}/format.json")


def test_the_service_may_write_over_parts_as_a_deletion_does(stack: Deployed, as_service: Any) -> None:
    key = key_in(stack, "sessions", OURS, "deleted/00000001.json")
    assert create(as_service, stack, key)
    assert overwrite(as_service, stack, key)


def test_nothing_outside_of_the_root_can_be_reached(stack: Deployed, as_worker: Any, as_service: Any) -> None:
    for client in (as_worker, as_service):
        assert not create(client, stack, f"elsewhere/sessions/{escape(f'task:{OURS}', 'scope')}/1.json")
        assert not allowed(client.list_objects_v2, Bucket=stack.bucket, Prefix="elsewhere/")
        assert not allowed(client.delete_bucket, Bucket=stack.bucket)
        assert not allowed(client.delete_bucket_policy, Bucket=stack.bucket)


def test_a_request_that_came_without_tls_is_refused(stack: Deployed, service: Variables) -> None:
    def as_a_proxy_says(request: Any, **_: Any) -> None:
        # The server takes a proxy's word for it, as it has only TLS here.
        request.headers["X-Forwarded-Proto"] = "http"

    client = stack.client("s3", service)
    gate = {"Bucket": stack.bucket, "Key": f"{stack.root}/format.json"}
    assert allowed(client.get_object, **gate)
    client.meta.events.register("before-send.s3", as_a_proxy_says)
    assert not allowed(client.get_object, **gate)


# --- Who becomes whom ---------------------------------------------------------------------------------------------


def test_nobody_has_a_tasks_rights_without_saying_for_which_task(stack: Deployed) -> None:
    for tags in ([], [{"Key": "everturn-task", "Value": "task:42"}], [{"Key": "everturn-task-id", "Value": "42/x"}]):
        with pytest.raises(ClientError, match="not authorized to perform: sts:AssumeRole"):
            stack.task(OURS, Tags=tags)


def test_only_the_service_hands_out_tasks(stack: Deployed, worker: Variables) -> None:
    request = {
        "RoleArn": stack.settings["EVERTURN_SESSION_ROLE"],
        "RoleSessionName": "somebody",
        "Tags": [{"Key": "everturn-task-id", "Value": "other"}],
    }
    for who in (stack.orchestrator, worker):
        assert not allowed(stack.client("sts", who).assume_role, **request)
    service = {"RoleArn": stack.outputs["ServiceRoleArn"], "RoleSessionName": "somebody"}
    assert not allowed(stack.client("sts", worker).assume_role, **service)


def test_who_has_no_role_reaches_nothing(stack: Deployed) -> None:
    who = stack.orchestrator
    gate = {"Bucket": stack.bucket, "Key": f"{stack.root}/format.json"}
    assert not allowed(stack.client("s3", who).get_object, **gate)
    assert not allowed(stack.client("dynamodb", who).scan, TableName=stack.table)


@pytest.mark.parametrize("tag", ["", "é", "4", "42.", "42:x", "42 ", "=42", "42="])
def test_a_tag_that_is_nearly_another_tasks_reaches_nothing_of_it(stack: Deployed, as_service: Any, tag: str) -> None:
    key = key_in(stack, "sessions", OURS, f"near-{tag.encode().hex()}.json")
    assert create(as_service, stack, key)
    who = stack.task(tag)
    client, table = stack.client("s3", who), stack.client("dynamodb", who)
    assert not allowed(client.get_object, Bucket=stack.bucket, Key=key)
    assert not allowed(client.list_objects_v2, Bucket=stack.bucket, Prefix=key.rpartition("/")[0])
    assert not allowed(client.list_objects_v2, Bucket=stack.bucket)
    assert not allowed(table.get_item, TableName=stack.table, Key={"work": {"S": f"task:{OURS}"}})
