"""The fold of a run for search by meaning: its events to passages of turns (docs/mirrors.md). Pure.

A turn is one running text: the prompt, what the agent said, and which tools it called with what. It is cut into
passages no longer than models of meaning look at. Where it is cut follows from the text before the cut alone, so a
passage that is complete never changes, and only the last one of a turn is written again as the turn grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from everturn.journal import events as known
from everturn.mirrors.base import Line
from everturn.mirrors.values import Unreadable, asked, needed, words

FOLD_VERSION = 1  # another number has every mirror rebuilt: to be raised whenever the same events give other passages

PASSAGE_CHARS = 1_000
TEXT_CHARS = 8_000
INPUT_CHARS = 300
MAX_PASSAGES = 64  # of a turn

_OF_THE_RUN = ("session_id", "worker", "agent", "repo", "task_id")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of what a turn is about.

    Attributes:
        run_id: The run.
        work: The work item's key.
        turn: The number of the turn in its run, from 1; 0: before the first.
        number: The number of the passage in its turn, from 0.
        seq: The event that it begins in.
        at_ms: When that was written, in milliseconds since the Unix epoch.
        text: The words.
        tools: The tools that are called in it.
        session_id: The conversation.
        worker: Who ran it.
        agent: The agent's name.
        repo: The repository.
        task_id: The task, if the work item is one.
    """

    run_id: str
    work: str
    turn: int
    number: int
    seq: int
    at_ms: int
    text: str
    tools: tuple[str, ...]
    session_id: str | None
    worker: str | None
    agent: str | None
    repo: str | None
    task_id: str | None


class PassageFold:
    """The fold of one run, from its start or from where a state was stored.

    Args:
        run_id: The run.
        work: The scope of its journal.
        state: What `state` returned.

    Attributes:
        count: How many passages there are.
    """

    def __init__(self, run_id: str, work: str, state: bytes | None = None) -> None:
        self._run: dict[str, Any] = {"run_id": run_id, "work": work, **dict.fromkeys(_OF_THE_RUN)}
        self._turn = 0
        self._open: dict[str, Any] | None = None
        self._written = 0  # passages of the turn that are complete
        self.count = 0
        self._complete: list[dict[str, Any]] = []
        self._has_grown = False
        if state is not None:
            found = orjson.loads(state)
            self._run, self._turn, self._open, self._written, self.count = (found[name] for name in _STORED)

    def state(self) -> bytes:
        """Return what it takes to go on with the next event."""
        values = (self._run, self._turn, self._open, self._written, self.count)
        return orjson.dumps(dict(zip(_STORED, values, strict=True)))

    @property
    def repo(self) -> str | None:
        """The repository."""
        found: str | None = self._run["repo"]
        return found

    def take(self, lines: Iterable[Line]) -> None:
        """Fold lines that follow on those before. What cannot be read is passed over."""
        for line in lines:
            handler = _HANDLERS.get(line["type"])
            if handler is None or line["v"] > known.VERSION:
                continue
            try:
                handler(self, line)
            except Unreadable:
                continue

    def drain(self) -> list[Passage]:
        """Return the passages that are new, or have grown, since the last time."""
        found, self._complete = self._complete, []
        if self._open is not None and self._has_grown:
            found.append(self._open)
        self._has_grown = False
        return [Passage(**{**each, "tools": tuple(each["tools"])}) for each in found]

    # --- Events -----------------------------------------------------------------------------------------------------

    def _started(self, line: Line) -> None:
        self._run |= {name: words(line, name) for name in _OF_THE_RUN}

    def _goes_on(self, line: Line) -> None:
        self._run["session_id"] = needed(line, "session_id")

    def _prompt(self, line: Line) -> None:
        text = needed(line, "text")
        self._finish()
        self._turn, self._written = self._turn + 1, 0
        self._add(line, text[:TEXT_CHARS])

    def _said(self, line: Line) -> None:
        self._add(line, needed(line, "text")[:TEXT_CHARS])

    def _called(self, line: Line) -> None:
        tool, text = needed(line, "name"), asked(line.get("input"))[: 2 * INPUT_CHARS]
        self._add(line, f"{tool}: {' '.join(text.split())[:INPUT_CHARS]}", tool)

    # --- Passages ---------------------------------------------------------------------------------------------------

    def _add(self, line: Line, text: str, tool: str | None = None) -> None:
        text = text.strip()
        if not text or self._written >= MAX_PASSAGES:
            return
        passage = self._open = self._open or self._begin(line)
        passage["text"] += f"\n{text}" if passage["text"] else text
        self._note_tool(passage, tool)
        self._has_grown = True
        while len(passage["text"]) > PASSAGE_CHARS:
            rest = self._cut(passage)
            self._finish()
            if self._written >= MAX_PASSAGES or not rest:
                break
            passage = self._open = self._begin(line) | {"text": rest}
            self._note_tool(passage, tool)
            self._has_grown = True

    def _begin(self, line: Line) -> dict[str, Any]:
        """Return a passage that begins. What it says of the run stays, whatever becomes of the run."""
        self.count += 1
        place = {"turn": self._turn, "number": self._written, "seq": line["seq"], "at_ms": line["at_ms"]}
        return {**self._run, **place, "text": "", "tools": []}

    def _note_tool(self, passage: dict[str, Any], tool: str | None) -> None:
        if tool is not None and tool not in passage["tools"]:
            passage["tools"].append(tool)

    def _cut(self, passage: dict[str, Any]) -> str:
        """Cut a passage, between words where that is possible, and return the rest."""
        text = passage["text"]
        spaces = (text.rfind(space, PASSAGE_CHARS // 2, PASSAGE_CHARS) for space in ("\n", " "))
        end = next((space for space in spaces if space >= 0), PASSAGE_CHARS)
        passage["text"] = text[:end].rstrip()
        return str(text[end:].lstrip())

    def _finish(self) -> None:
        if self._open is not None:
            if self._has_grown:
                self._complete.append(self._open)
            self._open, self._has_grown = None, False
            self._written += 1


_STORED = ("run", "turn", "open", "written", "count")
_HANDLERS: dict[str, Callable[[PassageFold, Line], None]] = {
    known.Started.TYPE: PassageFold._started,
    known.Resumed.TYPE: PassageFold._goes_on,
    known.BeganAnew.TYPE: PassageFold._goes_on,
    known.Prompt.TYPE: PassageFold._prompt,
    known.Assistant.TYPE: PassageFold._said,
    known.ToolUse.TYPE: PassageFold._called,
}
