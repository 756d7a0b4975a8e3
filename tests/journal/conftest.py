"""What tests of journals begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from journal.desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)
