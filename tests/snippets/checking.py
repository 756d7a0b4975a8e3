"""Blocks that nobody runs are checked as what they are: `as=NAME`, or by their language."""

from __future__ import annotations

import ast
import json
import re
import sqlite3
import tomllib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from everturn.journal.schema import schema
from everturn.logbook.logbook import Logbook
from everturn.service.web.problems import Trouble
from everturn.settings import Settings
from snippets.finding import Block, Unclear

ROOT = Path(__file__).parents[2]


def settings_file(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an `everturn.toml`."""
    (folder / "everturn.toml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(folder)
    given = set(tomllib.loads(text))
    assert given <= Settings.load().model_fields_set


def any_toml(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is some other program's TOML."""
    assert tomllib.loads(text)


def agents_file(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an `agents.json`."""
    (folder / "agents.json").write_text(text, encoding="utf-8")
    monkeypatch.chdir(folder)
    Settings.load()


def any_json(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is JSON, whole or line by line."""
    try:
        json.loads(text)
    except ValueError:
        assert [json.loads(line) for line in text.splitlines()]


def any_yaml(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is YAML."""
    assert yaml.safe_load(text)


def program(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is Python, and an example inside a docstring."""
    assert compile(text, "<snippet>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def journal_line(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line is one of a journal."""
    for line in text.splitlines():
        jsonschema.Draft202012Validator(schema()).validate(json.loads(line))


def trouble(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what the service answers when something is wrong."""
    Trouble.model_validate_json(text)


def iam_policy(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a policy as IAM takes it: of an identity or a role, or about who may assume one."""
    policy = json.loads(text)
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        known = {"Sid", "Effect", "Action", "Resource", "Principal", "Condition"}
        assert {"Effect", "Action"} <= set(statement) <= known
        assert statement["Effect"] in ("Allow", "Deny")
        assert ("Resource" in statement) != ("Principal" in statement)


def nginx(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a part of nginx's configuration: directives that end with `;`, in blocks that are closed."""
    depth = 0
    for line in re.sub(r"#.*", "", text).splitlines():
        words = line.strip()
        assert not words or words[-1] in "{};", words
        depth += words.count("{") - words.count("}")
        assert depth >= 0
    assert depth == 0


def logbook_query(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a question to a logbook."""
    book = Logbook(folder / "logbook.db")
    book.check().result()
    book.close()
    with closing(sqlite3.connect(folder / "logbook.db")) as database:
        database.execute(text)


Check = Callable[[str, Path, pytest.MonkeyPatch], Any]
CHECKS: dict[str, Check] = {
    "settings": settings_file,
    "toml": any_toml,
    "agents": agents_file,
    "json": any_json,
    "yaml": any_yaml,
    "program": program,
    "journal-line": journal_line,
    "trouble": trouble,
    "iam-policy": iam_policy,
    "nginx": nginx,
    "logbook-query": logbook_query,
}
BY_LANGUAGE = {"toml": "settings", "json": "json", "yaml": "yaml"}


def check(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check a block as what it is.

    Raises:
        Unclear: There is no such check.
    """
    name = block.words.one("as") or BY_LANGUAGE.get(block.language, "")
    if name not in CHECKS:
        raise Unclear(f"{block.place}: as={name} is not known; there are {', '.join(CHECKS)}")
    CHECKS[name](block.text, folder, monkeypatch)
