"""Findings of cdk-nag that are not followed, each with its reason.

They are part of the constructs, so that whoever checks an app with these in it need not repeat them.
"""

from __future__ import annotations

from collections.abc import Iterable

from aws_cdk import Acknowledgment, Stack, Validations
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3

_RULES = "AwsSolutions::AwsSolutions"

NO_ACCESS_LOGS = (
    "Who reads and writes what is told by CloudTrail, and by the option access_logs_bucket where a bucket for such"
    " logs exists; a log line for each part would cost more than the parts."
)
OBJECTS_OF_A_FOLDER = (
    "The names of objects are made up while agents work. The wildcard ends a prefix: the store's own, or the folder"
    " of the one task that the session's tag names."
)


def no_access_logs(bucket: s3.Bucket) -> None:
    """Acknowledge that a bucket keeps no access logs."""
    Validations.of(bucket).acknowledge(Acknowledgment(id=f"{_RULES}-S1", reason=NO_ACCESS_LOGS))


def objects_of_folders(role: iam.Role, bucket: s3.Bucket, keys: Iterable[str]) -> None:
    """Acknowledge that a role may reach all objects of some folders.

    Args:
        role: The role.
        bucket: The bucket.
        keys: The folders' keys, each with its `*` at the end.
    """
    child = bucket.node.default_child
    assert isinstance(child, s3.CfnBucket)
    name = Stack.of(bucket).resolve(child.logical_id)
    for key in keys:
        shown = key.replace("${", "<").replace("}", ">")
        finding = f"{_RULES}-IAM5[Resource::<{name}.Arn>/{shown}]"
        Validations.of(role).acknowledge(Acknowledgment(id=finding, reason=OBJECTS_OF_A_FOLDER))
