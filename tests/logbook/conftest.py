"""A logbook in a folder of its own, on a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from everturn.clock import ManualClock
from everturn.logbook.logbook import Logbook


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "logbook.db"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def logbook(path: Path, clock: ManualClock) -> Iterator[Logbook]:
    made = Logbook(path, clock=clock)
    yield made
    made.close()
