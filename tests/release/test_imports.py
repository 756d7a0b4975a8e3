"""What an import brings along: what is heavy or belongs to an extra waits until it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

EXTRAS = {"boto3", "botocore", "chromadb", "redis", "psycopg", "numpy", "onnxruntime"}
SERVICE = {"fastapi", "jinja2", "markdown_it"}  # for the service, exports and pages
TESTS = {"moto", "flask", "ministack"}
LATER = {"structlog", "rich", "pygments"}  # for the first line that is logged, and for terminals
SDK = {"claude_agent_sdk", "mcp", "pydantic"}
AGENT = {"claude_agent_sdk", "mcp"}
LOG = {"obstore", "cryptography", "orjson", "prometheus_client"}

# Commands that start no agent.
LOOKING = [
    f"everturn.cli.{name}"
    for name in (
        *("credentials", "journal.listing", "journal.showing", "mirrors.listing", "mirrors.rebuilding", "search"),
        *("serve", "sessions.compacting", "sessions.deleting", "sessions.exporting", "sessions.holding"),
        *("sessions.listing", "sessions.repairing", "sessions.showing", "sessions.verifying", "stats", "sweep"),
        *("workdirs.listing", "workdirs.opening", "workdirs.resetting", "workdirs.sweeping", "workdirs.using"),
    )
]

NEVER = {
    "import everturn": EXTRAS | SERVICE | TESTS | LATER | SDK | LOG,
    "import claude_agent_sdk; from everturn import TranscriptStore": EXTRAS | SERVICE | TESTS | LATER,
    "import claude_agent_sdk; from everturn import *": EXTRAS | SERVICE | TESTS | LATER,
    "import everturn.cli.app": EXTRAS | SERVICE | TESTS | SDK | LOG - {"orjson"},
    f"import {', '.join(LOOKING)}": EXTRAS | TESTS | AGENT | {"fastapi"},
    "import everturn.service.serving": EXTRAS | TESTS | AGENT,
}


@pytest.mark.slow
@pytest.mark.parametrize("program", NEVER)
def test_an_import_brings_nothing_that_can_wait(program: str) -> None:
    # Only what comes after the SDK is ours to answer for.
    before, _, ours = program.rpartition("; ")
    tell = f"import sys; {before or 'pass'}; before = set(sys.modules); {ours}; print(*set(sys.modules) - before)"
    loaded = subprocess.run([sys.executable, "-c", tell], capture_output=True, text=True, check=True).stdout.split()
    assert not NEVER[program] & set(loaded), "import it where it is used; see `python -m bench.import_time`"
