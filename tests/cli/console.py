"""The command, run in the process of the test: what it prints, and its exit code, in a fraction of the time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from everturn.cli.app import _run


@dataclass(frozen=True)
class Done:
    """What a command has said."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """Return the objects it printed, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Console:
    """The command, run in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.error = ""

    def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        """Run it, check its exit code, and return what it printed."""
        self._capsys.readouterr()
        returned = _run(["sessions", *map(str, arguments)])
        output, self.error = self._capsys.readouterr()
        assert returned == code, output + self.error
        return output

    def json(self, *arguments: str | Path, code: int = 0) -> list[dict[str, Any]]:
        """Run it with `--json`, and return the objects it printed."""
        return [json.loads(line) for line in self(*arguments, "--json", code=code).splitlines()]
