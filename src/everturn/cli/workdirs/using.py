"""`everturn workdirs usage`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from everturn.cli.options import JsonOption
from everturn.cli.output import Terminal, plain, print_json, size, when
from everturn.cli.workdirs.common import reach
from everturn.housekeeping.disk import Usage, usage
from everturn.settings import Settings

BAR = 24


def command(
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure what was used since it was last measured, first.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show how much room workdirs and caches take, as it was when they were last measured."""
    reached = reach()
    root = reached.workshop.root
    if measure and root.is_there:
        watcher = Console(stderr=True)
        with watcher.status("measuring …", spinner="dots") if watcher.is_terminal and not as_json else watcher:
            reached.workshop.measurer.refresh()
    found = usage(root)
    settings = reached.settings
    if as_json:
        limits = {"quota_bytes": settings.workdirs_quota_bytes, "wanted_free_bytes": settings.workdirs_free_bytes}
        print_json({**found.facts(), **limits})
        return
    _show(Terminal(highlight=False), found, settings)


def _show(terminal: Terminal, found: Usage, settings: Settings) -> None:
    built = f"of which {size(found.ignored_bytes)} ignored by git" if found.ignored_bytes else ""
    rows = {
        "workdirs": (found.trees_bytes, built),
        "caches": (found.caches_bytes, ""),
        "quarantine": (found.quarantine_bytes, ""),
        "trash": (found.trash_bytes, ""),
    }
    total_bytes = sum(size_bytes for size_bytes, _ in rows.values())
    grid = Table(box=None, pad_edge=False, show_header=False)
    for name, (size_bytes, note) in rows.items():
        grid.add_row(name, _bar(size_bytes, total_bytes), _size(size_bytes), Text(note, style="dim"))
    terminal.print(grid)
    _show_groups(terminal, "by repository", found.by_repository)
    _show_groups(terminal, "by agent", {name or "(none)": size_bytes for name, size_bytes in found.by_agent.items()})
    _show_limits(terminal, found, settings)
    if found.unmeasured:
        terminal.print(Text(f"{found.unmeasured} not measured yet: --measure does it now", style="yellow"))
    elif found.measured_at is not None:
        terminal.print(Text(f"measured at {when(round(found.measured_at * 1000))} or later", style="dim"))


def _show_limits(terminal: Terminal, found: Usage, settings: Settings) -> None:
    terminal.print()
    total_bytes, free_bytes, wanted_bytes = (
        found.disk_total_bytes,
        found.disk_free_bytes,
        settings.workdirs_free_bytes,
    )
    disk = f"{size(free_bytes)} of {size(total_bytes)} are free, {size(wanted_bytes)} wanted"
    terminal.print("disk ", _bar(total_bytes - free_bytes, total_bytes), disk, soft_wrap=True)
    quota_bytes, taken_bytes = settings.workdirs_quota_bytes, found.trees_bytes + found.caches_bytes
    if quota_bytes is not None:
        told = f"{size(taken_bytes)} of {size(quota_bytes)}"
        terminal.print("quota", _bar(taken_bytes, quota_bytes), told, soft_wrap=True)


def _show_groups(terminal: Terminal, title: str, groups: Mapping[str, int]) -> None:
    if not groups:
        return
    terminal.print()
    terminal.print(Text(title, style="bold"))
    most_bytes = max(groups.values())
    grid = Table(box=None, pad_edge=False, show_header=False)
    for name, size_bytes in sorted(groups.items(), key=lambda group: -group[1]):
        grid.add_row(Text(plain(name)), _bar(size_bytes, most_bytes), _size(size_bytes))
    terminal.print(grid)


def _size(size_bytes: int) -> Text:
    return Text(size(size_bytes), justify="right")


def _bar(part: int, whole: int) -> Text:
    filled = min(BAR, round(BAR * part / whole)) if whole > 0 else 0
    return Text.assemble(("█" * filled, "red" if part > whole else "cyan"), ("░" * (BAR - filled), "dim"))
