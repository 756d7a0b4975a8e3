"""What the commands of this group share: how they reach the workdirs, and how fates are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from everturn.cli.output import Terminal, counted, plain, size
from everturn.housekeeping.removal import Fate
from everturn.registry import open_registry
from everturn.settings import Settings
from everturn.telemetry import log_to_stderr
from everturn.workshop import Workshop

_STYLES = {"kept": "yellow", "quarantined": "yellow", "removed": "green", "shrunk": "green"}


@dataclass(frozen=True)
class Reached:
    """What a command works with."""

    settings: Settings
    workshop: Workshop


def reach(registry: str | None = None) -> Reached:
    """Return what looks after the workdirs that the settings name.

    Raises:
        Invalid: A setting is wrong.
    """
    settings = Settings.load(registry=registry)
    log_to_stderr(settings.log_level if "log_level" in settings.model_fields_set else "error")
    opened = open_registry(settings.registry_url(), ages=settings.session_ages(), settings=settings)
    return Reached(settings, Workshop.open(settings, opened))


def table(*columns: str) -> Table:
    """Return a table; the first column is never cut short, and numbers stand at the right."""
    made = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for number, column in enumerate(columns):
        right = column in ("size", "freed", "unused for")
        made.add_column(
            column,
            no_wrap=True,
            overflow="ellipsis" if number else "fold",
            justify="right" if right else "left",
            ratio=None if number == 0 or right else 1,
        )
    return made


def show_fates(terminal: Terminal, fates: Sequence[Fate], *, dry_run: bool) -> None:
    """Print what became of things, or what would."""
    if not fates:
        terminal.print(Text("there is nothing to do", style="dim"))
        return
    for fate in fates:
        would = "would be " if dry_run and fate.action != "kept" else ""
        freed = f", {size(fate.freed_bytes)}" if fate.freed_bytes else ""
        line = Text.assemble((f"{would}{fate.action}", _STYLES.get(fate.action, "")), f" {fate.kind} ")
        line.append(plain(fate.name), style="bold")
        line.append(plain(f": {'; '.join(fate.reasons)}" if fate.reasons else "") + freed)
        terminal.print(line, soft_wrap=True)
        if fate.path is not None:
            terminal.print(Text(plain(f"    in {fate.path}"), style="dim"), soft_wrap=True)


def summed(fates: Sequence[Fate], *, dry_run: bool) -> str:
    """Return what it comes to, in one line."""
    gone = sum(fate.is_gone for fate in fates)
    kept = sum(fate.action == "kept" for fate in fates)
    freed_bytes = sum(fate.freed_bytes for fate in fates)
    would = "would be " if dry_run else ""
    return f"{counted(gone, 'thing', 'things')} {would}removed, {kept} kept, {size(freed_bytes)} {would}freed"
