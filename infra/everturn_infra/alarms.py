"""What calls for somebody: metric filters on Everturn's log lines (docs/logs.md), and alarms on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from aws_cdk import Aws, Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from everturn_infra.options import Options

Severity = Literal["page", "ticket"]

SWEEPS_LOOKED_AT_H = 6  # how long one period of the sweeper's alarm is


@dataclass(frozen=True, slots=True)
class Counted:
    """Log lines that are counted.

    Args:
        metric: The metric's name.
        event: The lines' `event`.
        value: What each counts as: 1, or the number in one of its fields.
    """

    metric: str
    event: str
    value: str = "1"


@dataclass(frozen=True, slots=True)
class Rule:
    """When there is an alarm.

    Args:
        name: Its name, which is also its heading in docs/alarms.md.
        metric: The metric it goes by.
        severity: Whether somebody is woken.
        says: What has happened, in a sentence.
        threshold: How many there have to be in one period.
        minutes: How long a period is.
        periods: How many periods in a row there have to be.
    """

    name: str
    metric: str
    severity: Severity
    says: str
    threshold: int = 1
    minutes: int = 5
    periods: int = 1


COUNTED = (
    Counted("MirrorFailures", "append_failed"),
    Counted("ResumeFailures", "session_not_found"),
    Counted("FencedWriters", "fenced"),
    Counted("TaintedSessions", "session_tainted"),
    Counted("ShutdownsOverrun", "shutdown_overrun"),
    Counted("ClaimsLost", "claim_lost"),
    Counted("Sweeps", "swept"),
    Counted("RunsEnded", "run_ended"),
    Counted("HealedEntries", "healed", "$.entries"),
)

RULES = (
    Rule("EverturnMirrorFailures", "MirrorFailures", "ticket", "Appends to transcripts gave up."),
    Rule(
        "EverturnMirrorKeepsFailing",
        "MirrorFailures",
        "page",
        "Appends to transcripts have been giving up for ten minutes.",
        periods=2,
    ),
    Rule("EverturnSessionsTainted", "TaintedSessions", "page", "A transcript lacks something that was said."),
    Rule(
        "EverturnResumeFailures",
        "ResumeFailures",
        "ticket",
        "Three sessions within an hour could not be found when they were to be resumed.",
        threshold=3,
        minutes=60,
    ),
    Rule("EverturnWritersFenced", "FencedWriters", "ticket", "A worker wrote on after another one had taken over."),
    Rule("EverturnClaimsLost", "ClaimsLost", "ticket", "A claim ended while its run was in progress."),
    Rule(
        "EverturnClaimsLostWidely",
        "ClaimsLost",
        "page",
        "Five claims ended within ten minutes while their runs were in progress.",
        threshold=5,
        minutes=10,
    ),
    Rule(
        "EverturnShutdownsOverrun",
        "ShutdownsOverrun",
        "ticket",
        "A run that was to stop took longer than shutdown_grace_s.",
    ),
)
SWEEPER = Rule("EverturnSweeperStopped", "Sweeps", "ticket", "No sweep of the registry has gone well for too long.")


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
                self._count(group, counted, "" if number == 0 else str(number + 1))
        self.topic = self._own_topic(options.alarm_email)
        everyone = [*self._topics("All", options.alarm_topics), *([self.topic] if self.topic else [])]
        woken = self._topics("Page", options.page_topics)
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

    def _count(self, group: logs.ILogGroup, counted: Counted, suffix: str) -> None:
        logs.MetricFilter(
            self,
            f"Count{counted.metric}{suffix}",
            log_group=group,
            filter_pattern=logs.FilterPattern.string_value("$.event", "=", counted.event),
            metric_namespace=self.namespace,
            metric_name=counted.metric,
            metric_value=counted.value,
            default_value=0,
        )

    def _topics(self, prefix: str, arns: Sequence[str]) -> list[sns.ITopic]:
        return [sns.Topic.from_topic_arn(self, f"{prefix}{number}", arn) for number, arn in enumerate(arns)]

    def _own_topic(self, email: str | None) -> sns.Topic | None:
        if email is None:
            return None
        topic = sns.Topic(self, "Topic", display_name="Everturn", enforce_ssl=True)
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
