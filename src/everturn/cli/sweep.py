"""`everturn sweep`: sessions that are too old to be resumed are forgotten, and workdirs are looked after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from everturn.cli.options import JsonOption
from everturn.cli.output import Terminal, age, counted, plain, print_json, short_ids, when
from everturn.cli.workdirs.sweeping import print_report, print_report_as_json
from everturn.clock import SystemClock
from everturn.model import SessionRecord
from everturn.registry import open_registry
from everturn.runner.sweeping import Sweeper
from everturn.settings import Settings
from everturn.telemetry import default_metrics, log_to_stderr
from everturn.workshop import Workshop


def command(
    registry: Annotated[str | None, typer.Option(help="Who owns which session; goes before the setting.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be dropped, and drop nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Drop the sessions that were last used too long ago to be resumed, then sweep the workdirs of this machine.

    Transcripts stay. A session that somebody holds is never dropped, and nothing unsaved is removed.
    """
    settings = Settings.load(registry=registry)
    log_to_stderr(settings.log_level if "log_level" in settings.model_fields_set else "warning")
    opened = open_registry(settings.registry_url(), ages=settings.session_ages(), settings=settings)
    dropped = Sweeper(opened, default_metrics()).sweep(dry_run=dry_run)
    workshop = Workshop.open(settings, opened)
    report = workshop.sweeper.sweep(dry_run=dry_run) if workshop.root.is_there else None
    now = SystemClock().now()
    if as_json:
        for each in dropped:
            print_json({**_record(each, now), "dropped": not dry_run})
        if report is not None:
            print_report_as_json(report)
        return
    terminal = Terminal(highlight=False)
    if dropped:
        terminal.print(_table(dropped, now))
    count = counted(len(dropped), "session", "sessions")
    terminal.print(f"{count} would be dropped" if dry_run else f"{count} dropped")
    if report is not None:
        print_report(terminal, report)


def _table(dropped: Sequence[SessionRecord], now: float) -> Table:
    short = short_ids([each.session_id for each in dropped])
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("work item", overflow="ellipsis", no_wrap=True, ratio=2)
    table.add_column("session", no_wrap=True)
    table.add_column("unused for", no_wrap=True, justify="right")
    table.add_column("last worker", overflow="ellipsis", no_wrap=True, ratio=1)
    for each in dropped:
        unused = age(now - each.last_used_at)
        table.add_row(Text(plain(each.work_key)), short[each.session_id], unused, Text(plain(each.worker)))
    return table


def _record(dropped: SessionRecord, now: float) -> dict[str, Any]:
    return {
        "work": dropped.work_key,
        "session_id": dropped.session_id,
        "agent": dropped.agent,
        "worker": dropped.worker,
        "store": dropped.store,
        "last_used": when(round(dropped.last_used_at * 1000)),
        "unused_s": round(max(now - dropped.last_used_at, 0)),
    }
