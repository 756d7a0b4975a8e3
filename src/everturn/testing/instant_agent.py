"""An agent command that is none: it asks no model, answers at once, and loses conversations where it is told to."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from everturn.testing import instant_agent_program as program

Phase = Literal["connect", "query", "streaming"]


@dataclass(frozen=True)
class AgentStart:
    """A start of an agent.

    Attributes:
        session_id: The conversation.
        resumed: Whether it was to be resumed.
        at_s: When, as `time.monotonic` counts in every process of the machine.
    """

    session_id: str
    resumed: bool
    at_s: float


class InstantAgent:
    """An agent command for `ClaudeAgentOptions.cli_path` that speaks the real one's protocol.

    It keeps a local transcript, and hands it over to the session store. A conversation that it is to resume and does
    not have, it does not find: it says "No conversation found", as the real one, and exits.

    Args:
        folder: Where it may put its program and its notes; it is made.
        answer: What it says to everything.
        loses_resumed: When it says that it does not find a conversation that it was to resume, although it has it:
            as it is started, as it is told the prompt, or in the middle of its answer.
        loses_begun: The same for a conversation that it was to begin.

    Attributes:
        path: The command.
    """

    def __init__(
        self,
        folder: Path,
        *,
        answer: str = "Done.",
        loses_resumed: Phase | None = None,
        loses_begun: Phase | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "agent"
        self._notes = folder / program.NOTES
        plan = {"answer": answer, "resumed": loses_resumed, "begun": loses_begun}
        (folder / program.PLAN).write_text(json.dumps(plan), encoding="utf-8")
        command = shlex.join([sys.executable, "-I", "-S", program.__file__, str(folder.absolute())])
        self.path.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        self.path.chmod(0o700)

    @property
    def starts(self) -> list[AgentStart]:
        """How often it was started, and for what."""
        return [AgentStart(**note) for note in self._noted("start")]

    @property
    def prompts(self) -> list[str]:
        """What it was told."""
        return [note["text"] for note in self._noted("prompt")]

    def _noted(self, kind: str) -> list[dict[str, Any]]:
        if not self._notes.exists():
            return []
        notes = [json.loads(line) for line in self._notes.read_text(encoding="utf-8").splitlines()]
        return [note for note in notes if note.pop("kind") == kind]
