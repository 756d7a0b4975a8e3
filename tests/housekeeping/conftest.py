"""What tests of housekeeping begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from housekeeping.ground import Ground, make_remote


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_remote(tmp_path_factory.mktemp("remotes"))


@pytest.fixture
def ground(tmp_path: Path, shop: Path) -> Ground:
    return Ground(tmp_path, shop)
