"""How a run is shown while it goes on: the agent's messages for people, or for programs."""

from __future__ import annotations

import dataclasses
import sys
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

from everturn.cli.output import fold, json_line, plain


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
