"""The alert rules: Prometheus's own tool checks and tests them, and they speak of what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from deploy.promtool import promtool
from everturn.telemetry import Metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "everturn.rules.yml"
TESTS = RULES.with_name("everturn.tests.yml")
ALARMS = ROOT / "docs" / "alarms.md"


def rules(kind: str) -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for rule in group["rules"] if kind in rule]


def alert_tests() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(TESTS.read_text(encoding="utf-8"))["tests"]
    return found


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Metrics(registry)
    return registry


def test_the_rules_are_well_formed() -> None:
    code, said = promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))
    assert code == 0, said


@pytest.mark.slow
def test_each_alert_fires_when_it_should_and_not_when_it_should_not() -> None:
    code, said = promtool("test", "rules", str(TESTS))
    assert code == 0, said


def test_the_tests_show_each_alert_firing_and_silent() -> None:
    fires: set[str] = set()
    silent: set[str] = set()
    for test in alert_tests():
        named = set(re.findall(r"(Everturn\w+):", test["name"]))
        for case in test["promql_expr_test"]:
            seen = {alert for sample in case["exp_samples"] for alert in re.findall(r"Everturn\w+", sample["labels"])}
            fires |= seen
            silent |= named - seen
    alerts = {rule["alert"] for rule in rules("alert")}
    assert fires == alerts
    assert silent == alerts


def test_every_alert_says_how_urgent_it_is_and_where_to_read_what_to_do() -> None:
    sections = re.findall(r"^### (\w+)$", ALARMS.read_text(encoding="utf-8"), re.MULTILINE)
    assert sections == [rule["alert"] for rule in rules("alert")]
    for rule in rules("alert"):
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}
        assert rule["annotations"]["runbook"] == f"docs/alarms.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("page", "ticket", "info")


def test_the_docs_say_how_urgent_each_alert_is() -> None:
    text = ALARMS.read_text(encoding="utf-8")
    for rule in rules("alert"):
        section = text.split(f"### {rule['alert']}\n")[1].split("\n### ")[0]
        assert section.split()[0] == f"**{rule['labels']['severity']}.**", rule["alert"]


def test_the_rules_use_only_series_that_there_are(registry: CollectorRegistry) -> None:
    there = {sample.name: sample.labels for family in registry.collect() for sample in family.samples}
    values = {
        (sample.name, *pair)
        for family in registry.collect()
        for sample in family.samples
        for pair in sample.labels.items()
    }
    recorded = {rule["record"] for rule in rules("record")}
    for rule in rules("record") + rules("alert"):
        for name in re.findall(r"(?:job:)?\b(?:everturn|claude)_\w+(?::\w+)?", rule["expr"]):
            assert name in (recorded if name.startswith("job:") else there), name
        for name, label, value in re.findall(r"(\w+)\{(\w+)=\"(\w+)\"\}", rule["expr"]):
            assert (name, label, value) in values


def test_the_docs_count_lines_as_metrics_that_there_are(registry: CollectorRegistry) -> None:
    there = {name for family in registry.collect() for name in (family.name, f"{family.name}_total")}
    for page in ("logs.md", "alarms.md"):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        assert set(re.findall(r"`((?:everturn|claude)_\w+_(?:total|seconds))`", text)) <= there


def test_what_happened_is_counted_in_one_way() -> None:
    for rule in rules("record"):
        _, name, window = re.fullmatch(r"(job):(\w+):increase(\d+\w)", rule["record"]).groups()  # type: ignore[union-attr]
        found = re.search(r"increase\((.*)\[", rule["expr"])
        assert found
        metric = found[1]
        labels = re.sub(r"_total(\{outcome=\"(\w+)\"\})?", lambda match: f"_{match[2]}" if match[2] else "", metric)
        assert labels == name
        assert rule["expr"] == (
            f"sum by (job) (\n  increase({metric}[{window}])\n  or\n  label_replace(\n"
            f"    min_over_time({metric}[{window}])\n    unless last_over_time({metric}[1h] offset {window}),\n"
            '    "new", "yes", "", ""\n  )\n)\n'
        )


def test_metrics_are_named_as_prometheus_wants_them(registry: CollectorRegistry) -> None:
    _, said = promtool("check", "metrics", given=generate_latest(registry))
    # These are summaries of sessions; what Prometheus means by the word is a type that we do not use.
    other = [line for line in said.splitlines() if not line.startswith("everturn_summary_failures_")]
    assert other == []
