"""All of it in one stack, which plain CloudFormation deploys: no assets, no functions, nothing prepared."""

from __future__ import annotations

from aws_cdk import Aws, BootstraplessSynthesizer, CfnOutput, Stack
from aws_cdk import aws_logs as logs
from constructs import Construct

from everturn_infra.alarms import Alarms
from everturn_infra.buckets import ExpressBucket, SessionBucket, encryption_key, removal
from everturn_infra.dashboard import FleetDashboard
from everturn_infra.options import Options
from everturn_infra.registry import RegistryTable
from everturn_infra.roles import ServiceRole, SessionRole


class EverturnStack(Stack):
    """Store, registry, roles, log lines, alarms and a dashboard. Its outputs are Everturn's settings.

    The name of an output that is a setting is that of the environment variable, in camel case: `EverturnStore` is
    `EVERTURN_STORE`, `AwsRegion` is `AWS_REGION`. `settings.py` makes either form of them.

    Args:
        scope: The app.
        options: What it is made of.
    """

    def __init__(self, scope: Construct, options: Options) -> None:
        super().__init__(
            scope,
            options.stack_name,
            description="Everturn: transcripts, registry, roles, alarms and a dashboard",
            synthesizer=BootstraplessSynthesizer(),
        )
        self.options = options
        key = encryption_key(self, options)
        self.registry = RegistryTable(self, "Registry", options)
        self.service_role = ServiceRole(self, "Service", options)
        if options.express_zone:
            store: SessionBucket | ExpressBucket = ExpressBucket(self, "Sessions", options, key=key)
        else:
            store = self._bucket_with_tasks(SessionBucket(self, "Sessions", options, key=key))
        self.store = store
        self.service_role.grant(store, self.registry)
        self._watch()
        self._tell("EverturnStore", store.url, "setting: where transcripts are")
        self._tell("EverturnRegistry", self.registry.url, "setting: where sessions and claims are")
        self._tell("AwsRegion", Aws.REGION, "setting: the region of all of it")
        if key and not options.express_zone:
            self._tell("EverturnS3Sse", "kms", "setting: how S3 encrypts")
            self._tell("EverturnS3SseKmsKey", key.key_arn, "setting: the KMS key")
            self._tell("EverturnS3SseBucketKey", "true", "setting: KMS is asked once for many objects")
        self._tell("ServiceRoleArn", self.service_role.role.role_arn, "the role of the service and of orchestrators")
        self._tell("TableName", self.registry.table.table_name, "the registry's table")

    def _bucket_with_tasks(self, store: SessionBucket) -> SessionBucket:
        """Return the bucket, once it knows its writers and there is a role for single tasks."""
        store.refuse_overwriting(self.service_role.role)
        session_role = SessionRole(self, "Task", self.options, service_role=self.service_role.role)
        session_role.grant(store, self.registry)
        self.service_role.grant_tasks(session_role.role)
        self._tell("EverturnSessionRole", session_role.role.role_arn, "setting: the role of the work on one task")
        self._tell("BucketName", store.bucket.bucket_name, "the bucket")
        return store

    def _watch(self) -> None:
        options = self.options
        groups = self._log_groups()
        if not options.alarms:
            return
        alarms = Alarms(self, "Alarms", options, log_groups=groups)
        self._tell("MetricsNamespace", alarms.namespace, "where the counted log lines are")
        if alarms.topic:
            self._tell("AlarmTopicArn", alarms.topic.topic_arn, "what hears of all alarms")
        if options.dashboard:
            FleetDashboard(
                self,
                "Fleet",
                alarms=alarms,
                store=self.store,
                registry=self.registry,
                log_groups=groups,
                lines_in=options.lines_in,
            )

    def _log_groups(self) -> list[logs.ILogGroup]:
        names = self.options.log_groups
        if names:
            return [
                logs.LogGroup.from_log_group_name(self, f"LogGroup{number}", name)
                for number, name in enumerate(names, 1)
            ]
        group = logs.CfnLogGroup(
            self,
            "LogGroup",
            log_group_name=self.options.log_group_name,
            retention_in_days=self.options.log_days,
        )
        group.apply_removal_policy(removal(self.options))
        self._tell("LogGroupName", group.ref, "where Everturn's log lines belong")
        return [logs.LogGroup.from_log_group_name(self, "Logs", group.ref)]

    def _tell(self, name: str, value: str, description: str) -> None:
        CfnOutput(self, name, value=value, description=description)
