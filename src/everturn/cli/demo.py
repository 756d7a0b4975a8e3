"""`everturn demo`: a worker dies in the middle of a turn, and another one finishes its work."""

from __future__ import annotations

import dataclasses
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from everturn.cli.output import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    Terminal,
    complain,
    fold,
    json_line,
    plain,
    printing,
    refuse_memory,
)

if TYPE_CHECKING:
    from everturn.demo import Report

_WORKERS = {"worker-a": ("A", "magenta"), "worker-b": ("B", "cyan")}


def command(
    store: Annotated[str | None, typer.Option(help="Where transcripts go: s3://… or file:///…")] = None,
    live: Annotated[bool, typer.Option("--live", help="Use the real model; needs ANTHROPIC_API_KEY.")] = False,
    model: Annotated[str | None, typer.Option(help="The real model's name, with --live.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the demo's folder for you to look at.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print nothing but the last line.")] = False,
) -> int:
    """Kill a worker in the middle of a turn and watch another one finish its work.

    The last line is one JSON object with what was counted; the exit code is 0 if nothing was lost.
    """
    # Imported here: the demo brings a web server and more, and who asks for help should not wait for that.
    from everturn.demo import DemoOptions, perform  # noqa: PLC0415

    refuse_memory(store or "")
    signal.signal(signal.SIGTERM, _as_interrupt)  # so that everything that was started is stopped
    account = _Account(Terminal(highlight=False, quiet=as_json))
    try:
        report = perform(DemoOptions(store, live, model, keep), account.tell)
    except KeyboardInterrupt:  # caught here: the command line library would end without a word
        complain("interrupted", "everything that was started is stopped; run it again")
        return EXIT_INTERRUPTED
    account.conclude(report)
    with printing():
        sys.stdout.write(json_line(dataclasses.asdict(report)) + "\n")
    return EXIT_OK if report.ok else EXIT_FAILED


def _as_interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


class _Account:
    """Tells a person what happens, as it happens."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._room = max(console.width - 10, 20)
        self._speaking = False

    def tell(self, who: str, event: dict[str, Any]) -> None:
        if event["event"] == "delta":
            self._speak(who, event["text"])
            return
        if self._speaking:
            self._console.print()
            self._speaking = False
        line = self._demo_line(event) if who == "demo" else self._worker_line(event)
        if line is not None:
            self._console.print(Text.assemble(*self._mark(who), *line))

    def conclude(self, report: Report) -> None:
        good = report.ok
        table = Table.grid(padding=(0, 2))
        table.add_row("acknowledged", f"{report.entries_acknowledged} entries, each durable before the next")
        table.add_row("in the store", f"{report.entries_recovered} of them, equal and in order")
        table.add_row("lost", Text(str(report.entries_lost), style="bold green" if good else "bold red"))
        table.add_row("conversation", "went on where it was" if report.resumed else Text("began anew", style="red"))
        table.add_row("issue", "mended and committed" if report.finished else Text("not mended", style="red"))
        title = "Nothing was lost" if good else "This is not what was promised"
        self._console.print()
        self._console.print(
            Panel(
                table,
                title=f"[bold]{title}[/]",
                subtitle=f"[dim]session {report.session_id} · {report.seconds:.1f} s[/]",
                border_style="green" if good else "red",
                expand=False,
            )
        )

    def _speak(self, who: str, text: str) -> None:
        if not self._speaking:
            self._console.print(Text.assemble(*self._mark(who), ("“", "dim")), end="")
            self._speaking = True
        self._console.print(Text(plain(text)), end="", soft_wrap=True)

    def _mark(self, who: str) -> list[tuple[str, str]]:
        letter, style = _WORKERS.get(who, ("", ""))
        return [(f" {letter} ", f"bold white on {style}"), ("  ", "")] if letter else []

    def _demo_line(self, event: dict[str, Any]) -> list[tuple[str, str]] | None:
        match event["event"]:
            case "set":
                return [("Everturn demo", "bold"), (f"  ·  transcripts go to {event['store']}\n", "dim")]
            case "begin":
                letter = _WORKERS[event["worker"]][0]
                return [
                    (f"── machine {letter} ", "bold"),
                    ("with a home, a temp folder and a checkout of its own", "dim"),
                ]
            case "killed":
                return [
                    ("SIGKILL", "bold white on red"),
                    (f"  machine A is gone in mid-sentence, {event['processes']} processes with it\n", "red"),
                ]
        return None

    def _worker_line(self, event: dict[str, Any]) -> list[tuple[str, str]] | None:
        match event["event"]:
            case "started":
                how = "resumes session" if event["resumed"] else "begins session"
                return [(f"{how} {event['session_id'][:8]}…", "bold"), (f"  (claim {event['epoch']})", "dim")]
            case "tool":
                command = event["input"].get("command", json_line(event["input"]))
                return [("$ ", "green"), (fold(command, self._room), "")]
            case "tool_result":
                return [("  " + fold(event["text"], self._room), "dim")]
            case "result":
                return [("done", "bold green")] if event["ok"] else [("failed", "bold red")]
            case "error":
                return [(event["message"], "red")]
        return None
