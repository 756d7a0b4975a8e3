"""The Grafana dashboard: its model is sound, and it shows every metric that there is, and no other."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from deploy.promtool import promtool
from everturn.telemetry import Metrics

FILE = Path(__file__).parents[2] / "deploy" / "grafana" / "everturn.json"
COLUMNS = 24
# What Grafana puts in for its variables.
VALUES = {"$__rate_interval": "5m", "$job": ".+"}
UNITS = {"short", "s", "bytes", "Bps", "ops"}


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Everything on it but the headings of its rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module")
def expressions(panels: list[dict[str, Any]]) -> list[str]:
    found = [target["expr"] for panel in panels for target in panel["targets"]]
    for name, value in VALUES.items():
        found = [text.replace(name, value) for text in found]
    return found


def test_grafana_can_load_it(dashboard: dict[str, Any]) -> None:
    assert dashboard["schemaVersion"] >= 36  # since then a data source is an object
    assert "id" not in dashboard  # of the installation that it was made in
    assert dashboard["uid"]
    assert dashboard["title"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def test_no_panel_lies_on_another_or_beside_the_grid(dashboard: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS, panel["title"]
        columns = range(place["x"], place["x"] + place["w"])
        cells = set(itertools.product(columns, range(place["y"], place["y"] + place["h"])))
        assert cells
        assert not cells & taken, panel["title"]
        taken |= cells


def test_it_has_a_row_for_each_thing_to_look_at(dashboard: dict[str, Any]) -> None:
    assert [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"] == [
        "Fleet",
        "Transcripts",
        "Journal and mirrors",
        "Resumption",
        "Workdirs and disk",
        "Webhooks and the service",
        "Shutdown",
    ]


def test_each_panel_says_what_it_shows(panels: list[dict[str, Any]]) -> None:
    titles = [panel["title"] for panel in panels]
    assert len(set(titles)) == len(titles)
    for panel in panels:
        assert panel["type"] in ("stat", "timeseries")
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"])
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)


def test_data_source_and_job_are_chosen_by_whoever_looks(
    dashboard: dict[str, Any], panels: list[dict[str, Any]]
) -> None:
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["datasource", "job"]
    for part in [*panels, *(target for panel in panels for target in panel["targets"])]:
        assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for target in (target for panel in panels for target in panel["targets"]):
        selectors = len(re.findall(r"(?:everturn|claude)_\w+|ALERTS", target["expr"]))
        assert target["expr"].count('job=~"$job"') == selectors, target["expr"]


def test_prometheus_understands_every_expression(expressions: list[str], tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(expressions)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    code, said = promtool("check", "rules", file)
    assert code == 0, said
    assert "$" not in "".join(expressions)


def test_it_shows_every_metric_that_there_is_and_no_other(expressions: list[str]) -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    series = {sample.name: family for family in registry.collect() for sample in family.samples}
    shown = {name for text in expressions for name in re.findall(r"(?:everturn|claude)_\w+", text)}
    assert shown <= set(series)
    assert {series[name].name for name in shown} == {family.name for family in registry.collect()}


def test_it_groups_by_labels_that_there_are(expressions: list[str]) -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    labels = {sample.name: set(sample.labels) for family in registry.collect() for sample in family.samples}
    for text in expressions:
        for grouped, name in re.findall(r"by \(([\w, ]+)\) \((?:\w+\()?((?:everturn|claude)_\w+)", text):
            assert set(grouped.split(", ")) <= labels[name] | {"job", "instance"}, text


def test_colours_are_given_to_what_is_shown(panels: list[dict[str, Any]]) -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    values = {value for family in registry.collect() for sample in family.samples for value in sample.labels.values()}
    for panel in panels:
        legends = {target["legendFormat"] for target in panel["targets"]}
        for override in panel["fieldConfig"]["overrides"]:
            assert override["matcher"]["options"] in legends | values
