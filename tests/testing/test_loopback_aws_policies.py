"""What the AWS server on loopback knows of policies: variables, partition keys, conditional writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from everturn.testing import LoopbackAws

pytestmark = pytest.mark.slow

SERVER_PYTHON = Path(__file__).parents[2] / ".venv-bench" / "bin" / "python"
TAG = "${aws:PrincipalTag/everturn-task-id}"
ASSUMING = {"Effect": "Allow", "Action": ["sts:AssumeRole", "sts:TagSession"], "Resource": "*"}

Clients = Callable[[str], Any]


@pytest.fixture(scope="module")
def aws() -> Iterator[LoopbackAws]:
    with LoopbackAws.start(SERVER_PYTHON) as server:
        yield server


@pytest.fixture
def bucket(aws: LoopbackAws) -> str:
    return aws.root.fresh_bucket()


def clients(aws: LoopbackAws, key: dict[str, str]) -> Clients:
    return lambda service: boto3.client(
        service,
        endpoint_url=aws.root.url,
        region_name="us-east-1",
        aws_access_key_id=key["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=key["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=key.get("AWS_SESSION_TOKEN"),
    )


def session(aws: LoopbackAws, role: str, task: str | None) -> Clients:
    tags = [{"Key": "everturn-task-id", "Value": task}] if task else []
    given = clients(aws, aws.user(ASSUMING))("sts").assume_role(RoleArn=role, RoleSessionName="one", Tags=tags)
    held = given["Credentials"]
    return clients(
        aws,
        {
            "AWS_ACCESS_KEY_ID": held["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": held["SecretAccessKey"],
            "AWS_SESSION_TOKEN": held["SessionToken"],
        },
    )


def allowed(work: Callable[[], Any]) -> bool:
    try:
        work()
    except ClientError as error:
        if error.response["Error"]["Code"] in ("AccessDenied", "AccessDeniedException", "403"):
            return False
        raise
    return True


def allow(action: str | list[str], resource: str, **condition: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, "Condition": condition}


@pytest.mark.parametrize("tag", [TAG, "${AWS:principaltag/Everturn-Task-Id}"])
def test_a_session_tag_names_the_folder_that_a_role_may_write(aws: LoopbackAws, bucket: str, tag: str) -> None:
    s3 = session(aws, aws.role(allow("s3:PutObject", f"arn:aws:s3:::{bucket}/a/task!3a{tag}/*")), "42")("s3")
    assert allowed(partial(s3.put_object, Bucket=bucket, Key="a/task!3a42/x"))
    assert not allowed(partial(s3.put_object, Bucket=bucket, Key="a/task!3a43/x"))


@pytest.mark.parametrize(("task", "answer"), [("42", [True, False]), (None, [False, False])])
def test_a_variable_without_a_value_is_like_nothing(
    aws: LoopbackAws, bucket: str, task: str | None, answer: list[bool]
) -> None:
    role = aws.role(allow("s3:ListBucket", f"arn:aws:s3:::{bucket}", StringLike={"s3:prefix": f"*task!3a{TAG}/*"}))
    s3 = session(aws, role, task)("s3")
    listed = [allowed(partial(s3.list_objects_v2, Bucket=bucket, Prefix=p)) for p in ("task!3a42/", "task!3a/")]
    assert listed == answer


def test_a_variable_may_have_a_default(aws: LoopbackAws, bucket: str) -> None:
    key = "${aws:PrincipalTag/everturn-task-id, 'nobody'}"
    role = aws.role(allow("s3:PutObject", f"arn:aws:s3:::{bucket}/{key}"))
    assert allowed(lambda: session(aws, role, None)("s3").put_object(Bucket=bucket, Key="nobody"))
    assert not allowed(lambda: session(aws, role, "42")("s3").put_object(Bucket=bucket, Key="nobody"))


def test_a_denial_for_all_but_a_tags_value_holds_for_those_without_the_tag(aws: LoopbackAws, bucket: str) -> None:
    anything = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    refusal = {"Effect": "Deny", "Action": "s3:PutObject", "NotResource": f"arn:aws:s3:::{bucket}/{TAG}"}
    role = aws.role(anything, refusal)
    assert allowed(lambda: session(aws, role, "42")("s3").put_object(Bucket=bucket, Key="42"))
    assert not allowed(lambda: session(aws, role, None)("s3").put_object(Bucket=bucket, Key="42"))


@pytest.fixture
def table(aws: LoopbackAws, bucket: str) -> str:
    aws.client("dynamodb").create_table(
        TableName=bucket,
        KeySchema=[{"AttributeName": "key", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "key", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return bucket


def rows(client: Any, table: str, key: str) -> dict[str, Callable[[], Any]]:
    item, one = {"key": {"S": key}}, {"TableName": table}
    asked = {"KeyConditionExpression": "#k = :k", "ExpressionAttributeNames": {"#k": "key"}}
    return {
        "put": lambda: client.put_item(**one, Item=item),
        "get": lambda: client.get_item(**one, Key=item),
        "update": lambda: client.update_item(**one, Key=item, UpdateExpression="REMOVE x"),
        "query": lambda: client.query(**one, **asked, ExpressionAttributeValues={":k": {"S": key}}),
        "write many": lambda: client.batch_write_item(RequestItems={table: [{"PutRequest": {"Item": item}}]}),
        "get many": lambda: client.batch_get_item(RequestItems={table: {"Keys": [item]}}),
        "transact": lambda: client.transact_write_items(TransactItems=[{"Put": {**one, "Item": item}}]),
        "delete": lambda: client.delete_item(**one, Key=item),
    }


def test_a_role_reaches_the_rows_whose_partition_key_is_its_own_and_no_others(aws: LoopbackAws, table: str) -> None:
    condition = {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [f"task:{TAG}"]}}
    client = session(
        aws, aws.role(allow("dynamodb:*Item", "*", **condition), allow("dynamodb:Query", "*", **condition)), "42"
    )("dynamodb")
    assert [what for what, work in rows(client, table, "task:42").items() if not allowed(work)] == []
    assert [what for what, work in rows(client, table, "task:43").items() if allowed(work)] == []


def test_a_scan_names_no_partition_key(aws: LoopbackAws, table: str) -> None:
    """So `ForAllValues` alone lets it pass, as AWS does; who means to refuse it has to ask for the key as well."""
    every = {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["task:42"]}}
    strict = {**every, "Null": {"dynamodb:LeadingKeys": "false"}}
    roles = [aws.role(allow("dynamodb:Scan", "*", **condition)) for condition in (every, strict)]
    scans = [allowed(partial(session(aws, role, "42")("dynamodb").scan, TableName=table)) for role in roles]
    assert scans == [True, False]


def test_a_bucket_can_refuse_what_could_overwrite(aws: LoopbackAws, bucket: str) -> None:
    refusal = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
        "Condition": {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}},
    }
    aws.client("s3").put_bucket_policy(
        Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [refusal]})
    )
    s3 = clients(aws, aws.user(allow("s3:*", "*")))("s3")
    assert not allowed(lambda: s3.put_object(Bucket=bucket, Key="x"))
    assert allowed(lambda: s3.put_object(Bucket=bucket, Key="x", IfNoneMatch="*"))
    upload = s3.create_multipart_upload(Bucket=bucket, Key="y")["UploadId"]
    part = {
        "ETag": s3.upload_part(Bucket=bucket, Key="y", UploadId=upload, PartNumber=1, Body=b"y")["ETag"],
        "PartNumber": 1,
    }
    whole: dict[str, Any] = {"Bucket": bucket, "Key": "y", "UploadId": upload, "MultipartUpload": {"Parts": [part]}}
    assert not allowed(lambda: s3.complete_multipart_upload(**whole))
    assert allowed(lambda: s3.complete_multipart_upload(**whole, IfNoneMatch="*"))
