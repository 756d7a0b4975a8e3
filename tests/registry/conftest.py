"""Each kind of registry in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from everturn.clock import ManualClock
from everturn.registry import Registry
from registry.places import Place, SqlitePlace


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "registry.db"


@pytest.fixture
def sqlite_place(path: Path) -> SqlitePlace:
    return SqlitePlace(path)


@pytest.fixture(params=["sqlite"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


@pytest.fixture
def clock(place: Place) -> ManualClock:
    return place.clock


@pytest.fixture
def registry(place: Place) -> Registry:
    return place.connect()
