"""The registry's table."""

from __future__ import annotations

from aws_cdk import Stack
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from constructs import Construct

from everturn_infra.agreed import EXPIRES_AT, KEY
from everturn_infra.buckets import removal
from everturn_infra.options import Options

ROW_ACTIONS = ("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:DeleteItem")


class RegistryTable(Construct):
    """The table of work items, sessions and claims: on demand, and rows go by themselves when they have expired.

    Args:
        scope: Where it belongs.
        construct_id: Its id there.
        options: Its name, and whether it can be restored to a point in time.

    Attributes:
        table: The table.
    """

    def __init__(self, scope: Construct, construct_id: str, options: Options) -> None:
        super().__init__(scope, construct_id)
        self.table = dynamodb.Table(
            self,
            "Table",
            table_name=options.table_name,
            partition_key=dynamodb.Attribute(name=KEY, type=dynamodb.AttributeType.STRING),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            time_to_live_attribute=EXPIRES_AT,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=options.point_in_time_recovery
            ),
            deletion_protection=options.keep_data,
            removal_policy=removal(options),
        )

    @property
    def url(self) -> str:
        """The setting `registry`."""
        return f"dynamodb://{self.table.table_name}?region={Stack.of(self).region}"

    def grant_all(self, role: iam.Role) -> None:
        """Let a role read and write all rows, and look through them."""
        actions = [*ROW_ACTIONS, "dynamodb:Scan"]
        role.add_to_policy(iam.PolicyStatement(sid="Registry", actions=actions, resources=[self.table.table_arn]))

    def grant_row(self, role: iam.Role, key: str | None) -> None:
        """Let a role read and write one row.

        Args:
            role: The role.
            key: The row's key, which may have variables of IAM in it; `None`: any row, but one at a time.
        """
        conditions = {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [key]}} if key else None
        role.add_to_policy(
            iam.PolicyStatement(
                sid="Row",
                actions=list(ROW_ACTIONS),
                resources=[self.table.table_arn],
                conditions=conditions,
            )
        )
