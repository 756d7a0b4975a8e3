"""A mirror is asked although its store is away."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from everturn import Settings, Unavailable
from everturn.cli.asking import ask
from everturn.mirrors.sqlite import SqliteMirror, folder_of


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings that name a store which never answers."""
    return Settings.load(
        store="s3://bucket/runs",
        state=tmp_path,
        aws_endpoint_url="http://127.0.0.1:1",
        aws_region="eu-central-1",
        retry_deadline_s=0.1,
    )


def runs(database: sqlite3.Connection) -> int:
    count: int = database.execute("SELECT count(*) FROM runs").fetchone()[0]
    return count


def test_what_is_known_is_told_with_a_warning(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "nobody")
    with SqliteMirror(folder_of(settings), settings.store_url()).rebuilding("missing"):
        pass
    assert ask(settings, runs, offline=False, quiet=True) == 0
    warning = capsys.readouterr().err
    assert warning.startswith("warning: ")
    assert "this is what was known before" in warning
    assert ask(settings, runs, offline=True, quiet=True) == 0
    assert not capsys.readouterr().err


def test_without_a_mirror_it_is_an_error(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "nobody")
    with pytest.raises(Unavailable):
        ask(settings, runs, offline=False, quiet=True)
