"""`everturn sessions list`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from rich.table import Table
from rich.text import Text

from everturn.cli.output import Terminal, fold, json_line
from everturn.cli.sessions.common import JsonOption, ScopeOption, StoreOption, open_store
from everturn.log.objects import run
from everturn.transcripts.archive import SessionInfo

TITLES = ("custom_title", "ai_title", "summary_hint", "first_prompt", "command_fallback", "last_prompt")
TITLE_LENGTH = 60


def command(store: StoreOption = None, scope: ScopeOption = None, as_json: JsonOption = False) -> None:
    """List sessions, the one that changed last first."""
    archive = open_store(store)
    scopes = [scope] if scope is not None else run(archive.scopes())
    found = [info for each in scopes for info in run(archive.sessions(each))]
    found.sort(key=lambda info: info.modified_ms, reverse=True)
    if as_json:
        for info in found:
            sys.stdout.write(json_line(_record(info)) + "\n")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("session", "scope", "last change (UTC)", "title"):
        table.add_column(heading, no_wrap=True, overflow="fold" if heading == "session" else "ellipsis")
    for info in found:
        table.add_row(
            info.ref.session_id, Text(fold(info.ref.scope, 40)), _when(info.modified_ms), Text(_title(info))
        )
    terminal = Terminal(highlight=False)
    terminal.print(table if found else Text("there are no sessions", style="dim"))


def _record(info: SessionInfo) -> dict[str, object]:
    return {
        "session_id": info.ref.session_id,
        "scope": info.ref.scope,
        "project_key": info.ref.project_key,
        "modified": _when(info.modified_ms),
        "modified_ms": info.modified_ms,
        "title": _title(info),
        "summary": info.summary,
    }


def _title(info: SessionInfo) -> str:
    return next((fold(str(info.summary[name]), TITLE_LENGTH) for name in TITLES if info.summary.get(name)), "")


def _when(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
