"""Prometheus's own tool."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 150.0  # the tests of the rules take 25 s of a processor, which others want as well


def promtool(*arguments: str | Path, given: bytes = b"") -> tuple[int, str]:
    """Run it, and return its exit code and what it said."""
    found = shutil.which("promtool") or shutil.which("promtool", path=ROOT / ".tools")
    assert found, "promtool is missing; get it with: make promtool"
    done = subprocess.run(
        [found, *arguments],
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout.decode()
