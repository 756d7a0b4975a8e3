"""The AWS server on loopback says what is wrong when it cannot be started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from everturn.testing import LoopbackAws


@pytest.mark.parametrize(
    ("python", "match"), [("/nowhere/python", "no /nowhere/python"), (sys.executable, "have ministack")]
)
def test_a_python_that_cannot_serve_is_named_as_the_cause(
    python: str, match: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match=match), LoopbackAws.start(python):
        pytest.fail("it has started")
