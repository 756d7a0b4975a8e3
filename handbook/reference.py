"""`python -m handbook.reference` writes `docs/reference/` from the code. A test says when it has to be run again."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import typer.main
from prometheus_client import CollectorRegistry, Histogram
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from everturn import errors
from everturn.cli.app import app, exit_code_of
from everturn.errors import EverturnError, Held
from everturn.journal.schema import schema
from everturn.service.web.problems import status_of
from everturn.settings import PREFIX, Settings
from everturn.telemetry import Metrics
from handbook.docstrings import docstring_of
from handbook.http_api import http_api
from handbook.markdown import code, one_line, page, prose, table
from handbook.python_api import python_api

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference"
_LOG_CALL = re.compile(r"(?:self\._log|get_logger\(\))\.(debug|info|warning|error)")
_ABOUT_ERRORS = """Every error, from the code: what it is a kind of, the exit code of a command that ends with it, and
the status of a response that says so. There is more about [what to do](../errors.md)."""
_LIMITS = {"Gt": "more than", "Ge": "at least", "Lt": "less than", "Le": "at most"}


def cli() -> str:
    """Return the reference of the command."""
    root = typer.main.get_command(app)
    pieces = [
        "# Command",
        "What `--help` says, on one page. [What each command is for, and the exit codes](../cli.md).",
    ]
    for words, command in _commands(root, "everturn"):
        pieces += [f"## {code(words)}", *(prose(one_line(each)) for each in (command.help or "").split("\n\n"))]
        pieces.append(code(" ".join([words, *(each.upper() for each in _arguments(command))])))
        pieces.append(table(("argument or option", "value", "default", "meaning"), map(_parameter, command.params)))
    return page(*pieces)


def _commands(group: Any, words: str) -> Iterator[tuple[str, Any]]:
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _commands(command, f"{words} {name}")
        else:
            yield f"{words} {name}", command


def _arguments(command: Any) -> list[str]:
    names = [each.name if each.required else f"[{each.name}]" for each in command.params if not _is_option(each)]
    return ["[options]", *names] if any(map(_is_option, command.params)) else names


def _is_option(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "option")


def _parameter(parameter: Any) -> tuple[str, str, str, str]:
    names = [*parameter.opts, *parameter.secondary_opts] if _is_option(parameter) else [parameter.name.upper()]
    flag = _is_option(parameter) and parameter.is_flag
    annotation = parameter.type_descriptor.annotation
    value = "" if flag else parameter.metavar or getattr(annotation, "__name__", str(annotation)).lower()
    default = parameter.default
    shown = "" if flag or default in (None, (), []) or callable(default) else code(getattr(default, "value", default))
    repeated = " May be repeated." if getattr(parameter, "multiple", False) else ""
    return ", ".join(map(code, names)), value, shown, prose(parameter.help or "") + repeated


def settings() -> str:
    """Return the reference of the settings."""
    rows = []
    for name, field in Settings.model_fields.items():
        rows.append(
            (code(name), code(_variable(name, field)), _type(field), _default(field), prose(field.description or ""))
        )
    return page(
        "# Settings",
        "Every setting, from the code. [Where settings come from, and what each one is good for](../settings.md).",
        table(("setting", "variable", "type", "default", "meaning"), rows),
    )


def _variable(name: str, field: FieldInfo) -> str:
    alias = field.validation_alias
    return f"{PREFIX}{name.upper()}" if alias is None else str(alias.choices[1])  # type: ignore[union-attr]


def _type(field: FieldInfo) -> str:
    annotation = field.annotation
    text = (
        getattr(annotation, "__name__", "")
        if isinstance(annotation, type) and not hasattr(annotation, "__args__")
        else ""
    )
    text = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", text or str(annotation)).replace(" | None", "")
    limits = [
        f"{_LIMITS[type(each).__name__]} {next(iter(_values_of(each)))}"
        for each in field.metadata
        if type(each).__name__ in _LIMITS
    ]
    return ", ".join([code(text), *limits])


def _values_of(limit: Any) -> list[Any]:
    """Return what a limit holds."""
    return [getattr(limit, name) for name in type(limit).__slots__]


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined or field.default in (None, ()):
        return ""
    return code(str(field.default).lower() if isinstance(field.default, bool) else field.default)


def metrics() -> str:
    """Return the reference of the metrics."""
    registry = CollectorRegistry()
    made = Metrics(registry)
    histograms = {each._name: each for each in vars(made).values() if isinstance(each, Histogram)}
    rows = []
    for family in registry.collect():
        labels: dict[str, list[str]] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label != "le" and value not in labels.setdefault(label, []):
                    labels[label].append(value)
        name = f"{family.name}_total" if family.type == "counter" else family.name
        bounds = histograms[family.name]._upper_bounds[:-1] if family.name in histograms else ()
        said = [f"{code(label)}: {', '.join(map(code, values))}" for label, values in labels.items()]
        said += [f"up to {', '.join(f'{each:g}' for each in bounds)}"] if bounds else []
        rows.append((code(name), family.type, "; ".join(said), prose(family.documentation)))
    return page(
        "# Metrics",
        "Every metric, from the code. [How they are served](../metrics.md), and [alert rules](../alarms.md).",
        table(("metric", "kind", "labels or buckets", "meaning"), rows),
    )


def events() -> str:
    """Return the reference of log events and journal events."""
    return page(
        "# Events",
        "Two kinds of lines: those that a process logs about itself, and those of a run's journal.",
        "## Log events",
        "Every event that is logged, from the code. [What each one means](../logs.md), and what all lines have.",
        table(("event", "level", "fields", "where"), _log_events()),
        "## Journal events",
        "Every type of line in a journal, from the code. [How journals are written and read](../journal.md); "
        "[the same as a JSON Schema](../journal.schema.json).",
        *_journal_events(),
    )


@cache
def _log_events() -> list[tuple[str, str, str, str]]:
    found: dict[str, tuple[set[str], dict[str, None], set[str]]] = {}
    for file in sorted((ROOT / "src").rglob("*.py")):
        module = ".".join(file.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            call = _LOG_CALL.fullmatch(ast.unparse(node.func)) if isinstance(node, ast.Call) else None
            if call and isinstance(node, ast.Call) and isinstance(node.args[0], ast.Constant):
                levels, fields, modules = found.setdefault(str(node.args[0].value), (set(), {}, set()))
                levels.add(call[1])
                fields.update(dict.fromkeys(each.arg for each in node.keywords if each.arg))
                modules.add(module)
    return [
        (code(name), ", ".join(sorted(levels)), ", ".join(map(code, fields)), ", ".join(map(code, sorted(modules))))
        for name, (levels, fields, modules) in sorted(found.items())
    ]


def _journal_events() -> Iterator[str]:
    for kind, line in schema()["$defs"].items():
        yield f"### {code(kind)}"
        yield prose(line.get("description", ""))
        rows = []
        for name, values in line["properties"].items():
            if name in ("v", "type"):
                continue
            types = values.get("type", "anything")
            shown = " or ".join(types) if isinstance(types, list) else types
            missing = "" if name in line["required"] else " May be missing."
            rows.append((code(name), shown, prose(values.get("description", "")) + missing))
        yield table(("field", "type", "meaning"), rows)


def errors_page() -> str:
    """Return the reference of the errors."""
    pieces = [
        "# Errors",
        _ABOUT_ERRORS,
    ]
    rows = []
    for kind in _kinds(EverturnError):
        bases = "" if kind is EverturnError else code(kind.__bases__[0].__name__)
        error = _example(kind)
        rows.append(
            (
                code(kind.__name__),
                bases,
                str(exit_code_of(error)),
                str(status_of(error)),
                prose(docstring_of(kind).summary),
            )
        )
    pieces.append(table(("error", "a kind of", "exit code", "status", "meaning"), rows))
    for kind in (EverturnError, Held):
        doc = docstring_of(kind)
        pieces += [
            f"## {code(kind.__name__)}",
            table(("attribute", "meaning"), ((code(n), prose(t)) for n, t in doc.sections["Args"])),
        ]
    return page(*pieces)


def _kinds(kind: type[EverturnError]) -> Iterator[type[EverturnError]]:
    yield kind
    for each in kind.__subclasses__():
        if each.__module__ == errors.__name__:
            yield from _kinds(each)


def _example(kind: type[EverturnError]) -> EverturnError:
    if kind is Held:
        return Held("held", hint="wait", holder="", run_id="", epoch=1, until=0.0)
    return kind("it happened", hint="mend it")


PAGES: dict[str, Callable[[], str]] = {
    "cli": cli,
    "settings": settings,
    "metrics": metrics,
    "events": events,
    "errors": errors_page,
    "http-api": http_api,
    "python-api": python_api,
}


def main() -> None:
    """Write all pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        (FOLDER / f"{name}.md").write_text(make(), encoding="utf-8")
    print(f"{FOLDER.relative_to(ROOT)}: {', '.join(PAGES)}")


if __name__ == "__main__":
    main()
