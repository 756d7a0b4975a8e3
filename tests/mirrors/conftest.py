"""What tests of search by meaning begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from everturn.mirrors.chroma import ChromaMirror
from mirrors.shelves import RUNS, mirror_at, rebuild


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[ChromaMirror]:
    found = mirror_at(tmp_path / "mirror")
    rebuild(found, RUNS)
    yield found
    found.close()
