"""What tests of workdirs begin with: a remote and a folder of workdirs, or a workdir that an agent has left."""

from __future__ import annotations

from pathlib import Path

import pytest

from workdirs.ground import Ground, make_remote
from workdirs.left_behind import LeftBehind, copied, prepare
from workdirs.yard import Origin, Yard


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path / "remotes" / "shop", {"a.txt": "a\n", "lib/b.txt": "b\n", ".gitignore": "*.o\n/build/\n"})


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path / "workdirs")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("left") / "behind").folder


@pytest.fixture
def left(template: Path, tmp_path: Path) -> LeftBehind:
    return copied(template, tmp_path / "behind")


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_remote(tmp_path_factory.mktemp("remotes"))


@pytest.fixture
def ground(tmp_path: Path, shop: Path) -> Ground:
    return Ground(tmp_path, shop)
