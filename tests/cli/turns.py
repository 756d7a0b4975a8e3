"""Turns of the real agent in programs of their own, which keep what is said in a store."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from everturn.testing import cli_environment

TESTS = Path(__file__).parents[1]

# `store` and `scope` name one of Everturn's stores, `redis` a server that keeps it in the layout of another adapter.
TURN = textwrap.dedent(
    """
    import asyncio, json, sys
    from claude_agent_sdk import ClaudeAgentOptions, query
    from everturn import TranscriptStore

    async def turn():
        given = json.loads(sys.argv[3])
        if "store" in given:
            given["session_store"] = TranscriptStore.open(given.pop("store"), scope=given.pop("scope"), any_cwd=True)
        if "redis" in given:
            from imports.adapters import mirror_to_redis
            given["session_store"] = mirror_to_redis(*given.pop("redis"))
        given |= {"permission_mode": "bypassPermissions", "setting_sources": []}
        options = ClaudeAgentOptions(cwd=sys.argv[1], **given)
        async for _ in query(prompt=sys.argv[2], options=options):
            pass

    asyncio.run(turn())
    """
)


def start(url: str, machine: Path, prompt: str, **options: Any) -> subprocess.Popen[bytes]:
    """Begin a turn on a machine: a folder with `home`, `desk` and `tmp`."""
    return subprocess.Popen(
        [sys.executable, "-c", TURN, str(machine / "desk"), prompt, json.dumps(options)],
        env={**cli_environment(url, machine / "home", tmpdir=machine / "tmp"), "PYTHONPATH": str(TESTS)},
    )


def turn(url: str, machine: Path, prompt: str, **options: Any) -> None:
    """Have a turn to its end."""
    with start(url, machine, prompt, **options) as process:
        assert process.wait(timeout=120) == 0
