"""A workdir that an agent has left."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workdirs.left_behind import LeftBehind, copied, prepare


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("left") / "behind").folder


@pytest.fixture
def left(template: Path, tmp_path: Path) -> LeftBehind:
    return copied(template, tmp_path / "behind")
