"""`everturn sessions list`."""

from __future__ import annotations

from itertools import chain

from rich.table import Table
from rich.text import Text

from everturn.cli.options import JsonOption, StoreOption
from everturn.cli.output import Terminal, fold, plain, print_json, short_ids, when
from everturn.cli.progress import in_parallel
from everturn.cli.sessions.common import ScopeOption, open_store
from everturn.log.objects import run
from everturn.transcripts.archive import SessionInfo

TITLES = ("custom_title", "ai_title", "summary_hint", "first_prompt", "command_fallback", "last_prompt")
TITLE_LENGTH = 60


def command(store: StoreOption = None, scope: ScopeOption = None, as_json: JsonOption = False) -> None:
    """List sessions, the one that changed last first."""
    archive = open_store(store)
    scopes = [scope] if scope is not None else run(archive.scopes())
    by_scope = in_parallel("listing", scopes, lambda each: run(archive.sessions(each)), quiet=as_json)
    found = sorted(chain.from_iterable(by_scope), key=lambda info: info.modified_ms, reverse=True)
    if as_json:
        for info in found:
            print_json(_record(info))
        return
    short = short_ids([info.ref.session_id for info in found])
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("session", no_wrap=True)
    table.add_column("last change (UTC)", no_wrap=True)
    table.add_column("scope", no_wrap=True, overflow="ellipsis", ratio=2)
    table.add_column("title", no_wrap=True, overflow="ellipsis", ratio=3)
    for info in found:
        table.add_row(short[info.ref.session_id], when(info.modified_ms), Text(plain(info.ref.scope)), _shown(info))
    terminal = Terminal(highlight=False)
    terminal.print(table if found else Text("there are no sessions", style="dim"))


def _record(info: SessionInfo) -> dict[str, object]:
    return {
        "session_id": info.ref.session_id,
        "scope": info.ref.scope,
        "project_key": info.ref.project_key,
        "modified": when(info.modified_ms),
        "modified_ms": info.modified_ms,
        "held": info.is_held,
        "title": _title(info),
        "summary": info.summary,
    }


def _shown(info: SessionInfo) -> Text:
    return Text.assemble(("held ", "yellow") if info.is_held else "", _title(info))


def _title(info: SessionInfo) -> str:
    return next((fold(str(info.summary[name]), TITLE_LENGTH) for name in TITLES if info.summary.get(name)), "")
