"""Blocks that nobody runs are checked as what they are: `as=NAME`, or by their language."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

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


Check = Callable[[str, Path, pytest.MonkeyPatch], Any]
CHECKS: dict[str, Check] = {
    "settings": settings_file,
    "toml": any_toml,
    "agents": agents_file,
    "json": any_json,
    "yaml": any_yaml,
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
