"""The docs name everything a user can meet, and nothing in them points nowhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
from prometheus_client import CollectorRegistry
from typer.core import TyperGroup

import everturn
import everturn.testing
from everturn import errors
from everturn.cli.app import app
from everturn.demo import Report
from everturn.errors import EverturnError
from everturn.settings import Settings
from everturn.telemetry import Metrics

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def rows(name: str) -> set[str]:
    """Return what stands in backticks in the first column of a page's tables."""
    firsts = re.findall(r"^\| (`[^|]+) \|", page(name), re.MULTILINE)
    return {word for first in firsts for word in re.findall(r"`([^`]+)`", first)}


def test_every_setting_is_documented_and_no_other() -> None:
    assert rows("settings.md") == set(Settings.model_fields)


def long_options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts if option.startswith("--")}


def commands_of(group: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Return the commands of a group, those of groups inside it too, by the words one types."""
    assert isinstance(group, TyperGroup)
    found = []
    for name, command in group.commands.items():
        words = f"{prefix}{name}"
        found += commands_of(command, f"{words} ") if isinstance(command, TyperGroup) else [(words, command)]
    return found


def test_every_command_and_option_is_documented_and_no_other() -> None:
    root = typer.main.get_command(app)
    text = page("cli.md")
    for name, command in commands_of(root):
        section = text.split(f"## `everturn {name}`")[1].split("\n## ")[0]
        documented = set(re.findall(r"`(--[a-z0-9-]+)`", section.split("The last line")[0]))
        assert documented == long_options(command) - {"--help"}, name
    assert all(f"`{option}`" in text or f"everturn {option}" in text for option in long_options(root))


def test_every_field_of_the_demos_last_line_is_documented() -> None:
    assert set(Report.__dataclass_fields__) <= rows("cli.md")


def test_every_error_is_documented_and_no_other() -> None:
    kinds = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, EverturnError) and value is not EverturnError
    }
    assert rows("errors.md") == kinds


def test_every_log_event_is_documented_and_no_other() -> None:
    found: set[str] = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and re.fullmatch(
                r"(self\._log|get_logger\(\))\.(debug|info|warning|error)", ast.unparse(node.func)
            ):
                (event, *_) = node.args
                assert isinstance(event, ast.Constant)
                found.add(str(event.value))
    assert rows("logs.md") == found


def test_every_metric_is_documented_and_no_other() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in registry.collect()}
    assert rows("metrics.md") == names


def test_every_tool_for_tests_is_documented() -> None:
    assert rows("testing.md") >= set(everturn.testing.__all__)


def test_every_public_name_has_a_docstring() -> None:
    for name in everturn.__all__:
        assert getattr(everturn, name).__doc__, name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_every_decision_is_in_the_list() -> None:
    listed = set(re.findall(r"\((\d{4}-[a-z-]+\.md)\)", page("decisions/README.md")))
    assert listed == {file.name for file in (DOCS / "decisions").glob("[0-9]*.md")}


def test_every_alert_has_a_runbook() -> None:
    [table] = re.findall(r"## Alarm by alarm\n(.*?)\n## ", page("operations.md"), re.DOTALL)
    alerts = set(re.findall(r"^### (\w+)", page("alarms.md"), re.MULTILINE))
    assert set(re.findall(r"\[(Everturn\w+)\]", table)) == alerts


def test_the_tests_that_the_security_page_names_are_there() -> None:
    named = re.findall(r"`(tests/[\w/.]+)`", page("security.md"))
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_readme_begins_with_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.match(r"# Everturn\n\n<!-- .* -->\n```sh\nmake demo .*\nmake test .*\n```\n", text)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_in_the_docs_compiles(path: Path) -> None:
    for snippet in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
        assert compile(snippet, str(path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
