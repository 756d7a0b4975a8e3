"""Record frames of the real agent command, from the SDK's wheel, at work in a copy of this project.

    python -m bench.record

A *frame* is one `append` call of the SDK to its session store: what an eager store has to make durable at once. The
agent runs with its real tools against a scripted model on loopback that speaks at a model's pace. What is recorded is
freed of the names of this machine's folders and written to `bench/recordings/`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient, SessionKey, SessionStore, SessionStoreEntry

from bench.conversations import Conversation
from bench.frames import RECORDINGS, write_frames
from bench.sanitise import our_words, sanitise
from everturn.testing import ScriptedModel, cli_environment

ROOT = Path(__file__).parents[1]
COPIED = ("src", "tests", "examples", "docs", "pyproject.toml", "Makefile")
CONVERSATIONS = 6
TURNS = 5
AT_ONCE = 3


class FrameRecorder(SessionStore):
    """A session store that only notes what it is given, and when."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self._started = time.monotonic()

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Note a frame."""
        at_s = round(time.monotonic() - self._started, 3)
        self.frames.append({"at_s": at_s, "subpath": key.get("subpath"), "entries": list(entries)})

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:  # noqa: ARG002  # the SDK's signature
        """There is nothing to resume."""
        return None


def make_project(folder: Path) -> None:
    """Make a repository of this project's own files, with its history as one commit."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "golden"))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    git = ["git", "-c", "user.name=Dev", "-c", "user.email=dev@example.invalid"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "Begin"]):
        subprocess.run([*git, *words], cwd=folder, check=True)


async def converse(conversation: Conversation, recorder: FrameRecorder, environment: dict[str, str]) -> None:
    """Let the agent have one conversation."""
    options = ClaudeAgentOptions(
        cwd=conversation.repository,
        env=environment,
        permission_mode="bypassPermissions",
        setting_sources=[],
        session_store=recorder,
        session_store_flush="eager",
        max_thinking_tokens=8000,
    )
    async with ClaudeSDKClient(options) as client:
        for prompt in conversation.prompts():
            await client.query(prompt)
            async for _ in client.receive_response():
                pass


def record(index: int, base: Path) -> list[dict[str, Any]]:
    """Record one conversation in a project and a home of its own."""
    home, project = base / "home", base / "project"
    home.mkdir(parents=True)
    make_project(project)
    conversation = Conversation(index, project, TURNS)
    model = ScriptedModel(conversation.reply)
    recorder = FrameRecorder()
    with model.serve() as url:
        programs = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        environment = cli_environment(url, home, path=programs, tmpdir=home)
        os.environ.clear()
        os.environ.update(environment)
        anyio.run(converse, conversation, recorder, environment)
    for error in model.script_errors:
        raise error
    places = {
        str(project): "/home/dev/project",
        str(home): "/home/dev",
        str(base): "/home",
        str(ROOT): "/home/dev/project",
        sys.prefix: "/home/dev/project/.venv",
        sys.base_prefix + "/lib/python": "/usr/lib/python",
        url: "http://127.0.0.1",
    }
    return sanitise(recorder.frames, places, our_words(ROOT / "docs"), index)


def main() -> None:
    """Record one conversation in this process, or all of them in processes of their own, a few at a time."""
    if len(sys.argv) > 1:
        index = int(sys.argv[1])
        with tempfile.TemporaryDirectory(prefix="record-") as base:
            frames = record(index, Path(base))
        write_frames(RECORDINGS / f"{index}.jsonl.zst", frames)
        print(f"conversation {index}: {len(frames)} frames", flush=True)
        return
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def all_of_them() -> None:
        async with anyio.create_task_group() as group:
            for index in range(CONVERSATIONS):
                group.start_soon(one, index)

    async def one(index: int) -> None:
        async with limiter:
            await anyio.run_process([sys.executable, "-m", "bench.record", str(index)], stdout=None, stderr=None)

    anyio.run(all_of_them)


if __name__ == "__main__":
    main()
