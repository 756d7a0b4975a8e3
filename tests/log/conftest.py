"""What the tests of the log share."""

from __future__ import annotations

import hypothesis
import pytest

from log.bench import Bench

# A slow machine is no failure, and what was found is worth a written example rather than a hidden file.
hypothesis.settings.register_profile("everturn", deadline=None, database=None)
hypothesis.settings.load_profile("everturn")


@pytest.fixture
def bench() -> Bench:
    return Bench()
