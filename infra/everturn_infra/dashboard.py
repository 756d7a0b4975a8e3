"""One page about the fleet, for CloudWatch: alarms, what is counted, store and registry, the latest complaints."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Aws, Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_logs as logs
from constructs import Construct

from everturn_infra.alarms import Alarms
from everturn_infra.buckets import ExpressBucket, SessionBucket
from everturn_infra.registry import RegistryTable


class FleetDashboard(Construct):
    """A dashboard of what the alarms go by, and of the store and the registry.

    Args:
        scope: Where it belongs.
        construct_id: Its id there.
        alarms: The alarms, and the metrics they go by.
        store: Whose size is shown; that of a directory bucket is not.
        registry: Whose load is shown.
        log_groups: Where Everturn's lines are.
        lines_in: The field that they are in there; none if they stand as they are.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        alarms: Alarms,
        store: SessionBucket | ExpressBucket,
        registry: RegistryTable,
        log_groups: Sequence[logs.ILogGroup],
        lines_in: str | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        dashboard = cloudwatch.Dashboard(
            self, "Dashboard", dashboard_name=f"{Aws.STACK_NAME}-fleet", default_interval=Duration.days(1)
        )
        dashboard.add_widgets(
            cloudwatch.AlarmStatusWidget(title="Alarms", alarms=list(alarms.alarms.values()), width=24, height=3)
        )

        def counts(title: str, *names: str) -> cloudwatch.GraphWidget:
            return cloudwatch.GraphWidget(title=title, left=[alarms.metric(name) for name in names], width=8)

        dashboard.add_widgets(
            counts("Transcripts", "MirrorFailures", "TaintedSessions", "HealedEntries"),
            counts("Resumes and takeovers", "ResumeFailures", "FencedWriters", "ClaimsLost"),
            counts("Runs and sweeps", "RunsEnded", "ShutdownsOverrun", "Sweeps"),
        )
        dashboard.add_widgets(*_registry(registry), *_store(store))
        dashboard.add_widgets(
            cloudwatch.LogQueryWidget(
                title="Warnings and errors",
                log_group_names=[group.log_group_name for group in log_groups],
                query_lines=_complaints(lines_in),
                width=24,
                height=8,
            )
        )


def _complaints(lines_in: str | None) -> list[str]:
    line = f"{lines_in}." if lines_in else ""
    shown = ", ".join(f"{line}{name} as {name}" if line else name for name in ("level", "event", "task_id", "run_id"))
    return [
        f"fields @timestamp, {shown}, coalesce({line}error, {line}reason) as why",
        f'filter {line}level in ["warning", "error"]',
        "sort @timestamp desc",
        "limit 50",
    ]


def _registry(registry: RegistryTable) -> list[cloudwatch.IWidget]:
    table = registry.table
    return [
        cloudwatch.GraphWidget(
            title="Registry: capacity",
            left=[table.metric_consumed_read_capacity_units(), table.metric_consumed_write_capacity_units()],
            width=8,
        ),
        cloudwatch.GraphWidget(
            title="Registry: refused",
            left=[
                table.metric("ReadThrottleEvents", statistic="Sum"),
                table.metric("WriteThrottleEvents", statistic="Sum"),
                table.metric_conditional_check_failed_requests(),
            ],
            width=8,
        ),
    ]


def _store(store: SessionBucket | ExpressBucket) -> list[cloudwatch.IWidget]:
    if isinstance(store, ExpressBucket):
        return []

    def daily(name: str, storage: str) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace="AWS/S3",
            metric_name=name,
            dimensions_map={"BucketName": store.bucket.bucket_name, "StorageType": storage},
            statistic="Average",
            period=Duration.days(1),
        )

    return [
        cloudwatch.GraphWidget(
            title="Store, once a day",
            left=[daily("BucketSizeBytes", "StandardStorage")],
            right=[daily("NumberOfObjects", "AllStorageTypes")],
            width=8,
        )
    ]
