"""`everturn demo-fleet`: the service with a fleet to watch, until Ctrl-C."""

from __future__ import annotations

import dataclasses
import signal
import sys
import threading
from abc import ABC, abstractmethod
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from everturn.cli.output import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    OutputError,
    Terminal,
    complain,
    fold,
    json_line,
)

if TYPE_CHECKING:
    from everturn.demo.fleet import FleetReport

_STYLES = ("cyan", "magenta", "green", "yellow", "blue")
_MARGIN = 28


def command(
    port: Annotated[int, typer.Option(min=0, max=65535, help="The service's port; 0: any free one.")] = 0,
    runs: Annotated[
        int, typer.Option(min=1, max=1000, help="How many issues are worked on before it begins anew.")
    ] = 12,
    once: Annotated[bool, typer.Option("--once", help="End when all of them have been worked on.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each thing that happens.")
    ] = False,
) -> int:
    """Start the service on loopback, with a fleet of scripted runs, kills and takeovers to watch.

    The first line says where to look. It goes on until Ctrl-C; then all of it is stopped and removed.
    """
    # Imported here: the demo brings a web server and more, and who asks for help should not wait for that.
    from everturn.demo.fleet import FleetOptions, perform_fleet  # noqa: PLC0415

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    account: _Speaker = _Events() if as_json else _Account()
    try:
        report = perform_fleet(FleetOptions(port, runs, once), account.tell)
    except KeyboardInterrupt:
        if account.problem is not None:
            raise account.problem from account.problem.__cause__
        complain("interrupted", "all that was started is stopped, and its folder is removed")
        return EXIT_INTERRUPTED
    account.conclude(report)
    return EXIT_FAILED if report.failed else EXIT_OK


def _interrupt(_number: int, _frame: object) -> None:
    """End it, once: who asks again while it is being tidied up would leave half of it behind."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


class _Speaker(ABC):
    """Tells what happens, from whichever thread. When nobody listens any more, all of it ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.problem: OutputError | None = None

    def tell(self, who: str, event: dict[str, Any]) -> None:
        with self._lock:
            if self.problem is not None:
                return
            try:
                self._tell(who, event)
            except OutputError as error:
                self.problem = error
                # To the thread that waits for the others: it would not hear of it otherwise.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def conclude(self, report: FleetReport) -> None:
        self._tell("demo", {"event": "ended", **dataclasses.asdict(report)})

    @abstractmethod
    def _tell(self, who: str, event: dict[str, Any]) -> None:
        """Tell what somebody did."""


class _Events(_Speaker):
    """Speaks to programs."""

    def _tell(self, who: str, event: dict[str, Any]) -> None:
        try:
            sys.stdout.write(json_line({"who": who, **event}) + "\n")
            sys.stdout.flush()
        except OSError as error:
            raise OutputError(str(error)) from error


class _Account(_Speaker):
    """Speaks to people."""

    def __init__(self) -> None:
        super().__init__()
        self._console = Terminal(highlight=False)
        self._room = max(self._console.width - _MARGIN, 20)

    def _tell(self, who: str, event: dict[str, Any]) -> None:
        line = _of_demo(event) if who == "demo" else self._of_worker(event)
        if line is not None:
            mark = [] if who == "demo" else [(f"{who:>10} ", _STYLES[int(who.rpartition("-")[2]) % len(_STYLES)])]
            self._console.print(Text.assemble(*mark, *line), soft_wrap=True)

    def _of_worker(self, event: dict[str, Any]) -> list[tuple[str, str]] | None:
        issue = (f"#{event['issue']} ", "dim")
        match event["event"]:
            case "started":
                how = "goes on with" if event["resumed"] else "begins"
                return [issue, (f"{how} {event['repo']}", "bold"), (f"  session {event['session_id'][:8]}", "dim")]
            case "tool":
                given = event["input"]
                said = given.get("command") or PurePath(given.get("file_path", "")).name or json_line(given)
                return [issue, (f"{event['name']} ", "green"), (fold(said, self._room), "")]
            case "result":
                return [issue, ("done", "bold green") if event["ok"] else ("failed", "bold red")]
            case "error":
                return [issue, (event["message"], "red")]
        return None


def _of_demo(event: dict[str, Any]) -> list[tuple[str, str]] | None:
    kind, issue = event["event"], f" #{event.get('issue')} "
    if kind == "serving":
        return [("The fleet is at ", "bold"), (event["url"], "bold underline"), ("  ·  Ctrl-C ends it\n", "dim")]
    plain = {
        "played": "issues {first} to {last} have been played\n",
        "stopping": "stopping all of it …",
        "ended": "{finished} issues played in {runs} runs; {killed} workers were killed, {failed} issues failed",
    }
    if kind in plain:
        return [(plain[kind].format(**event), "dim")]
    told = {
        "killed": ("SIGKILL", "bold white on red", "{worker} is gone in mid-sentence, {processes} processes with it"),
        "merged": ("webhook", "bold black on yellow", "was merged in {repo}"),
        "asked": ("admin", "bold black on yellow", "asked {what}"),
        "failed": ("failed", "bold white on red", "{message}"),
    }
    if kind not in told:
        return None
    mark, style, text = told[kind]
    return [(f"{mark:>10} ", style), (issue if "issue" in event else " ", "dim"), (text.format(**event), "")]
