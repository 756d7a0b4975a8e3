"""Who may do what: one role for the service and the orchestrators, one for the work on a single task."""

from __future__ import annotations

from typing import Any

from aws_cdk import Aws, Duration
from aws_cdk import aws_iam as iam
from constructs import Construct

from everturn_infra.agreed import (
    ADDED,
    FOLDER_OF_TASK,
    GATE,
    READ,
    REPO_TAG,
    ROW_OF_TASK,
    SCOPE_TAG,
    TASK_ID_TAG,
    WRITTEN,
)
from everturn_infra.buckets import ExpressBucket, SessionBucket
from everturn_infra.options import Options, is_service
from everturn_infra.registry import RegistryTable

TASK_ID = f"${{aws:PrincipalTag/{TASK_ID_TAG}}}"  # IAM puts the session's own in its place
ROW = ROW_OF_TASK.format(TASK_ID)
FOLDER = FOLDER_OF_TASK.format(TASK_ID)

_SAY_ACCOUNT = ("ecs-tasks.amazonaws.com",)  # services that tell for which account they ask
_TAG_SESSIONS = ("pods.eks.amazonaws.com",)
_EC2 = ("ec2.amazonaws.com", "ec2.amazonaws.com.cn")


class ServiceRole(Construct):
    """The role of the service, of orchestrators and of administration: all scopes, the whole table.

    Args:
        scope: Where it belongs.
        construct_id: Its id there.
        options: Who may assume it, and its name.

    Attributes:
        role: The role.
    """

    def __init__(self, scope: Construct, construct_id: str, options: Options) -> None:
        super().__init__(scope, construct_id)
        principals = [_principal(name) for name in options.service_principals]
        self.role = iam.Role(
            self,
            "Role",
            role_name=options.service_role_name,
            description="Everturn: the service, orchestrators and administration",
            assumed_by=iam.CompositePrincipal(*principals),
        )
        if any(name in _EC2 for name in options.service_principals):
            iam.InstanceProfile(self, "InstanceProfile", role=self.role)

    def grant(self, store: SessionBucket | ExpressBucket, registry: RegistryTable) -> None:
        """Give it the store and the registry."""
        store.grant_all(self.role)
        store.grant_key(self.role)
        registry.grant_all(self.role)

    def grant_tasks(self, role: iam.Role) -> None:
        """Let it assume the session role, for whatever task."""
        self.role.add_to_policy(
            iam.PolicyStatement(sid="Tasks", actions=["sts:AssumeRole", "sts:TagSession"], resources=[role.role_arn])
        )


class SessionRole(Construct):
    """The role of the work on one task. Which task that is, is said by whoever assumes it.

    Args:
        scope: Where it belongs.
        construct_id: Its id there.
        options: What limits it, who may assume it for which repositories, and its name.
        service_role: Who may assume it in any case.

    Attributes:
        role: The role.
    """

    def __init__(self, scope: Construct, construct_id: str, options: Options, *, service_role: iam.Role) -> None:
        super().__init__(scope, construct_id)
        self._options = options
        condition = _for_a_task(options)
        principals = [iam.ArnPrincipal(service_role.role_arn), *map(_principal, options.worker_principals)]
        self.role = iam.Role(
            self,
            "Role",
            role_name=options.session_role_name,
            description="Everturn: the work on one task",
            max_session_duration=Duration.hours(1),
            assumed_by=iam.CompositePrincipal(
                *(each.with_conditions(condition).with_session_tags() for each in principals)
            ),
        )

    def grant(self, store: SessionBucket, registry: RegistryTable) -> None:
        """Give it what a task needs of the store and the registry."""
        if self._options.scoping == "tags":
            self._grant_one_task(store)
            registry.grant_row(self.role, ROW)
        else:
            store.grant_all(self.role)
            registry.grant_row(self.role, None)
        store.grant_key(self.role)

    def _grant_one_task(self, store: SessionBucket) -> None:
        """Give what docs/credentials.md lists, for the task that the session's tag names."""
        get, put, delete = "s3:GetObject", "s3:PutObject", "s3:DeleteObject"
        written, added, read = ([f"{name}/{FOLDER}/*" for name in names] for names in (WRITTEN, ADDED, READ))
        store.grant_objects(self.role, "Written", [get, put, delete], [*written, f"probes/{FOLDER}.json"])
        store.grant_objects(self.role, "Added", [get, put], added)
        store.grant_objects(self.role, "Read", [get], [*read, GATE])
        store.grant_listing(self.role, [*written, *added, *read, GATE])


def _for_a_task(options: Options) -> dict[str, Any]:
    """Return the condition under which the session role may be assumed: somebody says for which task.

    A tag may hold a slash, and would then name a folder inside another task's.
    """
    if options.scoping == "tags":
        condition: dict[str, Any] = {
            "Null": {f"aws:RequestTag/{TASK_ID_TAG}": "false"},
            "StringNotLike": {f"aws:RequestTag/{TASK_ID_TAG}": "*/*"},
        }
    else:
        condition = {"Null": {f"aws:RequestTag/{SCOPE_TAG}": "false"}}
    if options.repos:
        condition["StringLike"] = {f"aws:RequestTag/{REPO_TAG}": list(options.repos)}
    return condition


def _principal(name: str) -> iam.PrincipalBase:
    if not is_service(name):
        return iam.ArnPrincipal(name) if name.startswith("arn:") else iam.AccountPrincipal(name)
    principal: iam.PrincipalBase = iam.ServicePrincipal(name)
    if name in _SAY_ACCOUNT:
        principal = principal.with_conditions({"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}})
    return principal.with_session_tags() if name in _TAG_SESSIONS else principal
