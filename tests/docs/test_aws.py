"""The stack on AWS, its page and the package say the same. What is in the template is tested in infra/tests."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from everturn.log import roles
from everturn.log.names import escape
from everturn.model import WorkItem
from everturn.registry import table
from everturn.settings import Settings

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"


def load(name: str) -> ModuleType:
    """Load a module of the stack by its file: the CDK, which the others import, is not in this environment."""
    spec = importlib.util.spec_from_file_location(f"infra_{Path(name).stem}", INFRA / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


agreed, options, rules, settings = (
    load(name)
    for name in ("everturn_infra/agreed.py", "everturn_infra/options.py", "everturn_infra/rules.py", "settings.py")
)


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    return text.split(f"\n## {heading}\n")[1].split("\n## ", maxsplit=1)[0]


def events() -> dict[str, tuple[str, str]]:
    """Return the level and the fields of each documented log line."""
    found = re.findall(r"^\| `(\w+)` \| (\w+) \|.*\| (.*) \|$", section(page("logs.md"), "Events"), re.MULTILINE)
    return {event: (level, fields) for event, level, fields in found}


def test_a_task_is_given_what_its_session_policy_would_give_it() -> None:
    assert (agreed.WRITTEN, agreed.ADDED, agreed.READ) == (roles.WRITTEN, roles.ADDED, roles.READ)
    assert agreed.GATE == roles.GATE


def test_a_tasks_row_and_folder_are_what_the_package_calls_them() -> None:
    key = WorkItem.task("web-4.2_x").key
    assert agreed.ROW_OF_TASK.format("web-4.2_x") == key
    assert agreed.FOLDER_OF_TASK.format("web-4.2_x") == escape(key, "scope")


def test_session_tags_are_those_that_everturn_sends() -> None:
    tags = {tag["Key"] for tag in roles.Assignment("task:42", agent="fixer", repo="https://git.example/web").tags()}
    assert {agreed.TASK_ID_TAG, agreed.SCOPE_TAG, agreed.REPO_TAG} <= tags


def test_the_table_is_the_registrys() -> None:
    assert (agreed.KEY, agreed.EXPIRES_AT) == (table.KEY, table.EXPIRES_AT)


def test_no_folder_of_the_format_is_forgotten() -> None:
    layout = re.search(r"## 1\. Layout\n\n(?:<!--[^\n]*-->\n)?```\n(.*?)```", page("format.md"), re.DOTALL)
    assert layout is not None
    names = set(re.findall(r"^<root>/([a-z.]+)", layout[1], re.MULTILINE))
    assert {*agreed.WRITTEN, *agreed.ADDED, *agreed.READ, agreed.GATE, "probes"} == names
    written_over = {"summaries", "catalogs", "probes"}
    once = {*agreed.LOGS, *(path.removesuffix("/*") for path in agreed.CREATED)}
    assert once == names - written_over


@pytest.mark.parametrize("counted", rules.COUNTED, ids=lambda counted: counted.metric)
def test_what_is_counted_is_a_log_line_with_that_field(counted: Any) -> None:
    _, fields = events()[counted.event]
    assert counted.field is None or f"`{counted.field}`" in fields


@pytest.mark.parametrize("rule", [*rules.RULES, rules.SWEEPER], ids=lambda rule: rule.name)
def test_each_alarm_has_its_row_its_lines_and_its_chapter(rule: Any) -> None:
    (event,) = (counted.event for counted in rules.COUNTED if counted.metric == rule.metric)
    (row,) = re.findall(
        rf"^\| \[{rule.name}\]\(alarms.md#(\w+)\) \| `(\w+)` \|.*\| (\w+) \|$", page("aws.md"), re.MULTILINE
    )
    assert row == (rule.name.lower(), event, rule.severity)
    assert f"### {rule.name}\n\n**{rule.severity}.**" in page("alarms.md")


def test_alarms_are_as_severe_as_those_of_prometheus() -> None:
    groups = yaml.safe_load((ROOT / "deploy/prometheus/everturn.rules.yml").read_text())["groups"]
    severities = {
        each["alert"]: each["labels"]["severity"] for group in groups for each in group["rules"] if "alert" in each
    }
    for rule in (*rules.RULES, rules.SWEEPER):
        assert severities[rule.name] == rule.severity


def test_every_option_is_documented_with_its_default_and_no_other() -> None:
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", section(page("aws.md"), "Options"), re.MULTILINE)
    told = {name: default for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    assert set(told) == set(options.Options.__dataclass_fields__)
    for name, value in ((name, getattr(options.Options(), name)) for name in told):
        if isinstance(value, bool):
            assert told[name] == f"`{str(value).lower()}`", name
        elif isinstance(value, int):
            assert told[name] == str(value), name
        elif value:
            assert told[name] == f"`{value if isinstance(value, str) else ', '.join(value)}`", name


def test_outputs_that_are_settings_are_documented_and_known() -> None:
    source = (INFRA / "everturn_infra" / "stack.py").read_text(encoding="utf-8")
    made = re.findall(r'_tell\("(\w+)"', source)
    variables = settings.variables(dict.fromkeys(made, ""))
    known = {variable.removeprefix("EVERTURN_").lower() for variable in variables}
    assert known <= set(Settings.model_fields)
    text = section(page("aws.md"), "Outputs")
    assert all(f"`{name}`" in text for name in (*made, *known))
