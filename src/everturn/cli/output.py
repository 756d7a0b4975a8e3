"""How commands speak: messages of the agent for people, JSON for programs, one line for errors."""

from __future__ import annotations

import dataclasses
import json
import sys
from datetime import UTC, datetime
from typing import Any, Protocol

from claude_agent_sdk import (
    AssistantMessage,
    Message,
    ResultMessage,
    StreamEvent,
    SystemMessage,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from everturn.errors import Invalid

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_LOST = 3
EXIT_UNSTORED = 4
EXIT_HELD = 75  # "try again later", as sendmail's sysexits.h has it
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))
_TURNS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))  # they turn the text around that comes after them
_CONTROLS = {code: None for code in (*range(32), *range(127, 160), *_TURNS) if chr(code) not in "\n\t"}


def complain(message: str, hint: str, kind: str = "error") -> None:
    """Print one line to standard error."""
    line = plain(f"{kind}: {message} ({hint})".replace("\n", " "))
    sys.stderr.write(line + "\n")


def first_line(error: Exception) -> str:
    """Return what an error that is not ours says first; its kind if it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def refuse_memory(url: str) -> None:
    """Refuse a store that would end with this process.

    Raises:
        Invalid: It is `memory://`.
    """
    if url.startswith("memory:"):
        raise Invalid(
            "memory:// keeps nothing when the command ends", hint="use s3://bucket/prefix or file:///folder"
        )


def json_line(value: Any) -> str:
    """Return a value as one line of JSON; what JSON does not know is shown as text."""
    return json.dumps(value, default=str, separators=(",", ":"))


class OutputError(Exception):
    """Standard output took no more. Not an `OSError`: the command line library would answer that one by itself."""


class Terminal(Console):
    """Standard output for people."""

    def print(self, *objects: Any, **options: Any) -> None:
        """See the library. What cannot be written is raised as `OutputError`."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            raise OutputError(str(error)) from error

    def on_broken_pipe(self) -> None:
        """Tell the caller, who has an agent to let go of; the library would exit on the spot."""
        raise OutputError("whoever read the output has gone") from BrokenPipeError()


class Renderer(Protocol):
    """Shows a run."""

    def show(self, message: Message) -> None:
        """Show one message."""

    def finish(self, summary: dict[str, Any]) -> None:
        """Show how it ended."""


class JsonRenderer:
    """One JSON object a line: each message with its `type`, and `{"type":"summary",…}` at the end."""

    def show(self, message: Message) -> None:
        """See `Renderer`."""
        self._print({"type": type(message).__name__, **dataclasses.asdict(message)})

    def finish(self, summary: dict[str, Any]) -> None:
        """See `Renderer`."""
        self._print({"type": "summary", **summary})

    def _print(self, value: dict[str, Any]) -> None:
        sys.stdout.write(json_line(value) + "\n")
        sys.stdout.flush()


class TerminalRenderer:
    """Text as it streams, tool calls and results folded to a line each."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._streamed = False

    def show(self, message: Message) -> None:
        """See `Renderer`."""
        if isinstance(message, StreamEvent):
            self._show_delta(message)
        elif isinstance(message, AssistantMessage):
            self._show_assistant(message)
        elif isinstance(message, UserMessage):
            self._show_results(message)
        elif isinstance(message, SystemMessage) and message.subtype == "mirror_error":
            self._console.print(f"[red]not stored:[/] {escape(str(message.data.get('error')))}")

    def finish(self, summary: dict[str, Any]) -> None:
        """See `Renderer`."""
        if self._streamed:  # the run ended in the middle of a text
            self._console.print()
        self._console.rule(style="dim")
        began = "went on with" if summary["resumed"] else "began"
        self._console.print(Text(f"{began} session {summary['session']}, claim {summary['epoch']}", style="dim"))
        self._console.print(Text(f"in {summary['cwd']}", style="dim"), soft_wrap=True)
        if "turns" in summary:
            cost = "" if summary["cost_usd"] is None else f" · ${summary['cost_usd']:.2f}"
            turns = "1 turn" if summary["turns"] == 1 else f"{summary['turns']} turns"
            text = f"{turns}{cost} · {summary['seconds']} s"
            self._console.print(Text(text, style="dim" if summary["ok"] else "red"))

    def _show_delta(self, message: StreamEvent) -> None:
        delta = message.event.get("delta", {})
        if message.parent_tool_use_id is None and delta.get("type") == "text_delta":
            self._console.print(Text(plain(delta["text"])), end="", soft_wrap=True)
            self._streamed = True

    def _show_assistant(self, message: AssistantMessage) -> None:
        for block in message.content:
            if isinstance(block, TextBlock):
                self._show_text(block.text, streams=message.parent_tool_use_id is None)
            elif isinstance(block, ToolUseBlock):
                room = self._console.width - len(block.name) - 3
                text = escape(fold(json_line(block.input), room))
                self._console.print(f"[cyan]▸ {escape(block.name)}[/] [dim]{text}[/]")

    def _show_text(self, text: str, *, streams: bool) -> None:
        """Show a text, unless it is there already, piece by piece: what subagents say never is."""
        if self._streamed:
            self._console.print()
        if not (self._streamed and streams):
            self._console.print(Text(plain(text)))
        self._streamed = self._streamed and not streams

    def _show_results(self, message: UserMessage) -> None:
        if isinstance(message.content, str):
            return
        for block in message.content:
            if isinstance(block, ToolResultBlock):
                style = "red" if block.is_error else "dim"
                self._console.print(Text("  " + fold(result_text(block), self._console.width - 2), style=style))


def result_text(block: ToolResultBlock) -> str:
    """Return what a tool answered, as text."""
    if isinstance(block.content, str):
        return block.content
    return " ".join(str(piece.get("text", piece.get("type"))) for piece in block.content or [])


def plain(text: str) -> str:
    """Return text without what would make a terminal do something, or show it in another order than it has."""
    return text.translate(_CONTROLS)


def fold(text: str, length: int) -> str:
    """Return text as one line of at most this length."""
    line = plain(" ".join(text.split()))
    return line if len(line) <= length else line[: length - 1] + "…"


def when(milliseconds: int) -> str:
    """Return a time as people read it, in UTC.

    Args:
        milliseconds: Since the Unix epoch.
    """
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def size(count: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def age(seconds: float) -> str:
    """Return a duration as people read it, in its largest unit: `26 h`, `3 d`."""
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def summary_of(result: ResultMessage | None) -> dict[str, Any]:
    """Return what a run's last message says of it."""
    if result is None:
        return {"ok": False}
    return {
        "ok": not result.is_error,
        "turns": result.num_turns,
        "cost_usd": result.total_cost_usd,
        "seconds": round(result.duration_ms / 1000, 1),
    }
