"""What all tests look at is synthesized once: that takes some seconds."""

from __future__ import annotations

import pytest

from synthesized import Synthesized, synthesize


@pytest.fixture(scope="session")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    return synthesize(tmp_path_factory.mktemp("cdk"))
