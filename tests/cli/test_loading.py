"""A command is loaded when it is asked for, and no other with it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from cli.conftest import EverturnHere
from everturn.cli.loading import lazy_group

COMMAND = "def command() -> None:\n    '''Do {name}.'''\n    print({name!r})\n"


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two commands, each in a module of its own, and one that is not there."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("walk", "run"):
        (tmp_path / f"to_{name}.py").write_text(COMMAND.format(name=name))
    where = {"walk": "to_walk:command", "run": "to_run:command", "fly": "to_fly:command"}
    app = typer.Typer(cls=lazy_group(where), add_completion=False)
    yield typer.main.get_group(app)
    for name in ("to_walk", "to_run"):
        sys.modules.pop(name, None)


def test_a_command_is_loaded_alone_and_the_collector_works_after_it(
    group: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert group.list_commands(None) == ["walk", "run", "fly"]
    group(["run"], standalone_mode=False)
    assert capsys.readouterr().out == "run\n"
    assert "to_run" in sys.modules
    assert "to_walk" not in sys.modules
    assert gc.isenabled()


def test_a_command_that_cannot_be_loaded_says_so_and_the_collector_works_after_it(group: Any) -> None:
    with pytest.raises(ModuleNotFoundError, match="to_fly"):
        group(["fly"], standalone_mode=False)
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off(group: Any) -> None:
    gc.disable()
    try:
        group(["run"], standalone_mode=False)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_for_a_name_that_is_mistyped_the_nearest_is_named(everturn_here: EverturnHere) -> None:
    done = everturn_here("srch")
    assert done.returncode == 2
    assert "Did you mean 'search'?" in done.stderr
