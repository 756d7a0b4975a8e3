"""The program behind `InstantAgent`.

`python -I -S instant_agent_program.py FOLDER arguments…`. It is to start fast, so it imports little, and nothing of
Everturn.

It speaks the agent command's protocol on standard input and output, one JSON object a line, and keeps a local
transcript where that does.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PLAN, NOTES = "plan.json", "notes.jsonl"
NOT_FOUND = "No conversation found with session ID: "


class Conversation:
    """One conversation, as far as it is held here.

    Args:
        folder: Where the plan and the notes are.
        arguments: Those of the agent command.
    """

    def __init__(self, folder: str, arguments: list[str]) -> None:
        self._folder = Path(folder)
        options = dict(re.findall(r"^--(resume|session-id)=(.*)$", "\n".join(arguments), re.MULTILINE))
        self._resumed = "resume" in options
        self._id = options.get("resume") or options.get("session-id") or make_uuid()
        self._mirrored = "--session-mirror" in arguments
        self.note(kind="start", session_id=self._id, resumed=self._resumed, at_s=time.monotonic())
        plan = json.loads((self._folder / PLAN).read_text(encoding="utf-8"))
        self._answer = plan["answer"]
        self._loses = plan["resumed" if self._resumed else "begun"]
        home = Path(os.environ.get("CLAUDE_CONFIG_DIR") or Path.home() / ".claude")
        project = re.sub("[^a-zA-Z0-9]", "-", str(Path.cwd()))
        self._file = home / "projects" / project / f"{self._id}.jsonl"

    def note(self, **fields: Any) -> None:
        """Note what happens, for whoever made the agent."""
        with (self._folder / NOTES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(fields) + "\n")

    def hold(self) -> None:
        """Hold it, until there is nothing more to be told."""
        if self._loses == "connect" or (self._resumed and not self._file.exists()):
            self._lose()
        for line in sys.stdin:
            self._hear(json.loads(line))

    def _hear(self, told: dict[str, Any]) -> None:
        if told["type"] == "control_request":
            initializes = told["request"]["subtype"] == "initialize"
            if initializes and self._loses == "query":
                os.close(0)  # whatever is said from now on, nobody hears it
            self._answer_request(told["request_id"])
            if initializes and self._loses == "query":
                self._lose()
        elif told["type"] == "user":
            content = told["message"]["content"]
            self._reply(content if isinstance(content, str) else json.dumps(content))

    def _answer_request(self, request_id: str) -> None:
        done: dict[str, Any] = {"subtype": "success", "request_id": request_id, "response": {}}
        say({"type": "control_response", "response": done})

    def _reply(self, prompt: str) -> None:
        self.note(kind="prompt", session_id=self._id, text=prompt)
        say(self._named("system", subtype="init", claude_code_version="2.1.0", cwd=str(Path.cwd()), tools=[]))
        if self._loses == "streaming":
            self._say_answer("Let me see …")
            self._lose()
        self._store(
            {"type": "user", "uuid": make_uuid(), "message": {"role": "user", "content": prompt}},
            {"type": "assistant", "uuid": make_uuid(), "message": self._message(self._answer)},
        )
        self._say_answer(self._answer)
        self._say_result("success", is_error=False, result=self._answer)

    def _say_answer(self, text: str) -> None:
        say(self._named("assistant", message=self._message(text), parent_tool_use_id=None))

    def _message(self, text: str) -> dict[str, Any]:
        return {"role": "assistant", "model": "instant", "content": [{"type": "text", "text": text}]}

    def _store(self, *entries: dict[str, Any]) -> None:
        """Write the local transcript, and hand it over as the agent command does."""
        whole = [{"sessionId": self._id, "cwd": str(Path.cwd()), **entry} for entry in entries]
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in whole)
        if self._mirrored:
            say({"type": "transcript_mirror", "filePath": str(self._file), "entries": whole})

    def _lose(self) -> None:
        """Say what the agent command says of a conversation that it does not have, and end as it does."""
        self._say_result("error_during_execution", is_error=True, errors=[NOT_FOUND + self._id])
        raise SystemExit(1)

    def _say_result(self, subtype: str, **fields: Any) -> None:
        say(self._named("result", subtype=subtype, duration_ms=1, duration_api_ms=0, num_turns=1, **fields))

    def _named(self, kind: str, **fields: Any) -> dict[str, Any]:
        return {"type": kind, "session_id": self._id, "uuid": make_uuid(), **fields}


def make_uuid() -> str:
    """Return a random UUID; the module for that is slow to import."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"


def say(message: dict[str, Any]) -> None:
    """Tell whoever has started us."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Be an agent."""
    Conversation(sys.argv[1], sys.argv[2:]).hold()


if __name__ == "__main__":
    main()
