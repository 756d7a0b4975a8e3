"""What tests of workdirs begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from workdirs.yard import Origin, Yard


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path / "remotes" / "shop", {"a.txt": "a\n", "lib/b.txt": "b\n", ".gitignore": "*.o\n/build/\n"})


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path / "workdirs")
