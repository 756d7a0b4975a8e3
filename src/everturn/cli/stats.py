"""`everturn stats`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from everturn.cli.asking import SINCE_HELP, AgentOption, OfflineOption, RepoOption, ask
from everturn.cli.options import JsonOption, StoreOption, settings_for
from everturn.cli.output import Terminal, print_json, printing
from everturn.cli.times import moment_ms
from everturn.clock import SystemClock
from everturn.conversations.wording import duration, one_line, plural, short
from everturn.mirrors.hits import Filters
from everturn.mirrors.stats import By, Stat, stats, totals

_OVERVIEW = (By.DAY, By.AGENT, By.MODEL, By.TOOL)
_SHOWN_IN_OVERVIEW = 7
_BAR_WIDTH = 12
_BLOCKS = " ▏▎▍▌▋▊▉█"


def command(  # one parameter for each option
    by: Annotated[By | None, typer.Option("--by", help="What to group runs by; default: an overview.")] = None,
    since: Annotated[str | None, typer.Option(help=f"Runs that began at this time or later, {SINCE_HELP}")] = None,
    until: Annotated[str | None, typer.Option(help="Runs that began before this time.")] = None,
    agent: AgentOption = None,
    repo: RepoOption = None,
    store: StoreOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what runs took and came to: turns, tokens, cost, tool calls and failures."""
    clock = SystemClock()
    filters = Filters(
        agent=agent,
        repo=repo,
        since_ms=None if since is None else moment_ms(since, clock),
        until_ms=None if until is None else moment_ms(until, clock),
    )
    groups = _OVERVIEW if by is None else (by,)
    found = ask(settings_for(store), partial(_ask, groups=groups, filters=filters), offline=offline, quiet=as_json)
    if as_json:
        _print_json(found)
        return
    with printing():
        most = _SHOWN_IN_OVERVIEW if by is None else None
        show(Terminal(highlight=False), found.total, found.groups, most=most)


@dataclass(frozen=True, slots=True)
class _Found:
    total: Stat
    groups: dict[By, list[Stat]]


def _ask(database: sqlite3.Connection, groups: Sequence[By], filters: Filters) -> _Found:
    return _Found(totals(database, filters), {by: stats(database, by, filters) for by in groups})


def _print_json(found: _Found) -> None:
    for by, rows in found.groups.items():
        for stat in rows:
            print_json({"type": "group", "by": by, "key": stat.key, **stat.record()})
    print_json({"type": "summary", **found.total.record()})


def show(terminal: Terminal, total: Stat, groups: Mapping[By, list[Stat]], *, most: int | None) -> None:
    """Print a table for each group.

    Args:
        terminal: Where to.
        total: What all runs came to.
        groups: What they came to, group by group.
        most: How many rows of each; the total comes first then. `None`: all, and the total comes last.
    """
    if not total.runs:
        terminal.print(Text("there are no runs", style="dim"))
        return
    if most is not None:
        terminal.print(_summary(total))
    for by, rows in groups.items():
        shown = rows if most is None else rows[-most:] if by is By.DAY else rows[:most]
        if not shown:
            continue
        if most is not None:
            terminal.print()
        terminal.print(_table(by, shown, total if most is None else None, terminal))
        if len(shown) < len(rows):
            terminal.print(Text(f"{len(rows) - len(shown)} more: everturn stats --by {by}", style="dim"))
    if total.unpriced_runs:
        runs = plural(total.unpriced_runs, "run")
        terminal.print()
        terminal.print(Text(f"≥ at least: {runs} ended before all of the cost was told", style="dim"))


def _summary(total: Stat) -> Table:
    table = Table.grid(padding=(0, 2))
    tokens = [(total.input_tokens, "in"), (total.output_tokens, "out")]
    tokens += [(total.cache_read_tokens, "from cache"), (total.cache_write_tokens, "to cache")]
    table.add_row(Text("runs", style="bold"), _with_failures(total.runs, total.failed, "failed", total.died, "died"))
    table.add_row(Text("turns", style="bold"), f"{total.turns or 0:,}")
    table.add_row(Text("tokens", style="bold"), " · ".join(f"{short(count or 0)} {what}" for count, what in tokens))
    table.add_row(Text("cost", style="bold"), _cost(total))
    table.add_row(
        Text("tool calls", style="bold"), _with_failures(total.tool_calls or 0, total.tool_failures, "failed")
    )
    return table


def _with_failures(count: int, *failures: int | str | None) -> Text:
    text = Text(f"{count:,}")
    for number, what in zip(failures[::2], failures[1::2], strict=True):
        if number:
            text.append(f" · {number:,} {what}", style="red")
    return text


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    value: Callable[[Stat], str]
    style: str = ""


def _count(name: str) -> Callable[[Stat], str]:
    return lambda stat: short(getattr(stat, name) or 0)


def _failures(stat: Stat) -> str:
    return f"{stat.failed + stat.died:,}" if stat.failed + stat.died else ""


def _failed_calls(stat: Stat) -> str:
    if not stat.tool_failures or not stat.tool_calls:
        return ""
    return f"{stat.tool_failures:,} ({stat.tool_failures / stat.tool_calls:.0%})"


_RUNS = (_Column("runs", lambda stat: f"{stat.runs:,}"), _Column("failed", _failures, "red"))
_TURNS = _Column("turns", lambda stat: f"{stat.turns or 0:,}")
_TOKENS = _Column("tokens", lambda stat: short(stat.tokens or 0))
_TOKENS_APART = (
    _Column("in", _count("input_tokens")),
    _Column("out", _count("output_tokens")),
    _Column("cached", lambda stat: short((stat.cache_read_tokens or 0) + (stat.cache_write_tokens or 0))),
)
_CALLS = (_Column("calls", lambda stat: f"{stat.tool_calls or 0:,}"), _Column("failed", _failed_calls, "red"))
_ROOM_FOR_ALL = 100  # a terminal of this width has room for tokens apart from each other


def _columns(by: By, width: int) -> list[_Column]:
    if by is By.TOOL:
        return [_RUNS[0], *_CALLS, _Column("time", lambda stat: duration((stat.tool_ms or 0) / 1000))]
    tokens = _TOKENS_APART if width >= _ROOM_FOR_ALL else (_TOKENS,)
    cost = _Column("cost", _cost)
    if by is By.MODEL:
        return [_RUNS[0], *tokens, cost]
    return [*_RUNS, _TURNS, *tokens, cost, *(_CALLS if width >= _ROOM_FOR_ALL else _CALLS[:1])]


def _table(by: By, rows: Sequence[Stat], total: Stat | None, terminal: Terminal) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", show_footer=total is not None, footer_style="bold")
    columns = _columns(by, terminal.width)
    counted = [*rows, total] if total is not None else rows
    widths = [max(len(column.title), *(len(column.value(stat)) for stat in counted)) for column in columns]
    draw = _bars(by, rows) if terminal.is_terminal else None
    room = terminal.width - sum(widths) - 2 * len(widths) - (2 + _BAR_WIDTH if draw is not None else 0)
    table.add_column(by, "all", no_wrap=True)
    for column, width in zip(columns, widths, strict=True):
        footer = column.value(total) if total is not None else ""
        table.add_column(column.title, footer, justify="right", min_width=width, style=column.style)
    if draw is not None:
        table.add_column("", min_width=_BAR_WIDTH, style="cyan")
    for stat in rows:
        cells = [column.value(stat) for column in columns]
        table.add_row(_name(by, stat, room), *cells, *([] if draw is None else [draw(stat)]))
    return table


def _name(by: By, stat: Stat, room: int) -> Text:
    """Return what a group is called; of names that are too long the end, which tells most about work."""
    name = one_line(stat.key or f"(no {by})")
    name = name.partition("://")[2] or name if by is By.REPO else name
    return Text(name if len(name) <= max(room, 8) else "…" + name[1 - max(room, 8) :])


def _bars(by: By, rows: Sequence[Stat]) -> Callable[[Stat], str]:
    """Return what draws a bar: of the cost if any is known, else of tokens; of calls for tools."""

    def amount(stat: Stat) -> float:
        if by is By.TOOL:
            return stat.tool_calls or 0
        return stat.cost_usd or 0 if has_cost else stat.tokens or 0

    has_cost = any(stat.cost_usd for stat in rows)
    largest = max(map(amount, rows))
    return lambda stat: bar(amount(stat) / largest if largest else 0)


def bar(part: float, width: int = _BAR_WIDTH) -> str:
    """Return a bar that is as long as a part of the width, to an eighth of a character.

    Args:
        part: From 0 to 1. What is not zero can be seen.
        width: Characters.
    """
    eighths = max(round(part * width * 8), 1 if part > 0 else 0)
    return _BLOCKS[8] * (eighths // 8) + _BLOCKS[eighths % 8].strip()


def _cost(stat: Stat) -> str:
    """Return a cost as people read it; `≥` if some of it is not known."""
    mark = "≥ " if stat.unpriced_runs else ""
    if stat.cost_usd is None:
        return "?" if stat.unpriced_runs else "-"
    return mark + (f"${stat.cost_usd:,.2f}" if stat.cost_usd >= 0.01 or not stat.cost_usd else "<$0.01")
