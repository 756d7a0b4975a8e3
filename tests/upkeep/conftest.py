"""What tests of looking after sessions share."""

from __future__ import annotations

from pathlib import Path

import pytest

from upkeep.mending import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)
