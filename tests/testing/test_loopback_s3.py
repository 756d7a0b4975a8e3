"""`python -m everturn.testing` says in one line what keeps it from running a command."""

from __future__ import annotations

import sys

import pytest

from everturn.testing.s3 import main


def test_a_server_that_is_not_installed_is_named_with_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "moto.moto_server.werkzeug_app", None)
    assert main(["--", "true"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: an S3 server on loopback needs moto")
    assert "pip install" in said


def test_a_command_that_there_is_not_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--", "there-is-no-such-command"]) == 127
    assert capsys.readouterr().err.startswith("error: there-is-no-such-command cannot be started")


def test_without_a_command_the_usage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("usage: ")
