"""Each kind of registry in turn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from everturn.clock import ManualClock
from everturn.registry import Registry
from registry.dynamo import Dynamo, DynamoPlace
from registry.places import Place, SqlitePlace


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "registry.db"


@pytest.fixture
def sqlite_place(path: Path) -> SqlitePlace:
    return SqlitePlace(path)


@pytest.fixture(scope="session")
def dynamo_server() -> Iterator[Dynamo]:
    with Dynamo.start() as started:
        yield started


@pytest.fixture
def dynamo(dynamo_server: Dynamo) -> Dynamo:
    dynamo_server.reset(None)
    return dynamo_server


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ACCESS_KEY_ID": "loopback", "SECRET_ACCESS_KEY": "loopback-secret"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)


@pytest.fixture
def dynamodb_place(dynamo: Dynamo, credentials: None) -> DynamoPlace:
    return DynamoPlace(dynamo)


@pytest.fixture(params=["sqlite", "dynamodb"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


@pytest.fixture
def clock(place: Place) -> ManualClock:
    return place.clock


@pytest.fixture
def registry(place: Place) -> Registry:
    return place.connect()
