"""What calls for somebody: metric filters on Everturn's log lines (docs/logs.md), and alarms on them."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Aws, Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from everturn_infra.options import Options
from everturn_infra.rules import COUNTED, RULES, SWEEPER, SWEEPS_LOOKED_AT_H, Counted, Rule


class Alarms(Construct):
    """Metric filters on log groups, alarms on what they count, and who hears of them.

    Args:
        scope: Where it belongs.
        construct_id: Its id there.
        options: Topics, and how long no sweep may have gone well.
        log_groups: Where Everturn's lines are.

    Attributes:
        namespace: The metrics' namespace: `Everturn/` and the stack's name.
        alarms: The alarms, by name.
        topic: The stack's own topic, if there is one.
    """

    def __init__(
        self, scope: Construct, construct_id: str, options: Options, *, log_groups: Sequence[logs.ILogGroup]
    ) -> None:
        super().__init__(scope, construct_id)
        self.namespace = f"Everturn/{Aws.STACK_NAME}"
        for number, group in enumerate(log_groups):
            for counted in COUNTED:
                self._count(group, counted, options.lines_in, "" if number == 0 else str(number + 1))
        self.topic = self._own_topic(options.alarm_email)
        everyone = [*self._topics("All", options.alarm_topics), *([self.topic] if self.topic else [])]
        woken = self._topics("Page", [arn for arn in options.page_topics if arn not in options.alarm_topics])
        self.alarms = {rule.name: self._alarm(rule) for rule in RULES}
        self.alarms[SWEEPER.name] = self._sweeper_alarm(options.sweep_hours)
        for rule in (*RULES, SWEEPER):
            for topic in (*everyone, *(woken if rule.severity == "page" else ())):
                self.alarms[rule.name].add_alarm_action(actions.SnsAction(topic))
                self.alarms[rule.name].add_ok_action(actions.SnsAction(topic))

    def metric(self, name: str, minutes: int = 5) -> cloudwatch.Metric:
        """Return the sum of what is counted under a name, for each so many minutes."""
        return cloudwatch.Metric(
            namespace=self.namespace, metric_name=name, statistic="Sum", period=Duration.minutes(minutes)
        )

    def _count(self, group: logs.ILogGroup, counted: Counted, lines_in: str | None, suffix: str) -> None:
        line = f"$.{lines_in}" if lines_in else "$"
        logs.MetricFilter(
            self,
            f"Count{counted.metric}{suffix}",
            log_group=group,
            filter_pattern=logs.FilterPattern.string_value(f"{line}.event", "=", counted.event),
            metric_namespace=self.namespace,
            metric_name=counted.metric,
            metric_value=f"{line}.{counted.field}" if counted.field else "1",
            default_value=0,
        )

    def _topics(self, prefix: str, arns: Sequence[str]) -> list[sns.ITopic]:
        return [sns.Topic.from_topic_arn(self, f"{prefix}{number}", arn) for number, arn in enumerate(arns)]

    def _own_topic(self, email: str | None) -> sns.Topic | None:
        if email is None:
            return None
        topic = sns.Topic(self, "Topic", display_name="Everturn", enforce_ssl=True)
        topic.add_to_resource_policy(
            iam.PolicyStatement(  # a topic that has a policy of its own lets nobody in that it does not name
                sid="Alarms",
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}},
            )
        )
        topic.add_subscription(subscriptions.EmailSubscription(email))
        return topic

    def _alarm(self, rule: Rule) -> cloudwatch.Alarm:
        return self.metric(rule.metric, rule.minutes).create_alarm(
            self,
            rule.name,
            alarm_name=_name(rule),
            alarm_description=_description(rule),
            threshold=rule.threshold,
            evaluation_periods=rule.periods,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )

    def _sweeper_alarm(self, hours: int) -> cloudwatch.Alarm:
        """What does not happen leaves no line: missing data counts as no sweep."""
        return self.metric(SWEEPER.metric, SWEEPS_LOOKED_AT_H * 60).create_alarm(
            self,
            SWEEPER.name,
            alarm_name=_name(SWEEPER),
            alarm_description=_description(SWEEPER),
            threshold=1,
            evaluation_periods=hours // SWEEPS_LOOKED_AT_H,
            comparison_operator=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            treat_missing_data=cloudwatch.TreatMissingData.BREACHING,
        )


def _name(rule: Rule) -> str:
    return f"{Aws.STACK_NAME}-{rule.name}"


def _description(rule: Rule) -> str:
    return f"{rule.severity}: {rule.says} See docs/alarms.md#{rule.name.lower()}"
