"""`everturn mirrors list`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from everturn.cli.mirrors.common import mirrors_of
from everturn.cli.options import JsonOption, StoreOption, settings_for
from everturn.cli.output import Terminal, counted, plain, print_json, size
from everturn.errors import EverturnError
from everturn.journal.reading import Journals
from everturn.mirrors.base import Mirror
from everturn.mirrors.keeping import behind
from everturn.opening import open_journals

_STYLES = {"up to date": "green", "behind": "yellow"}
_WORDS = {
    "missing": "not built",
    "fold_changed": "of another release",
    "corrupt": "damaged",
    "other_store": "of another store",
}


def command(
    store: StoreOption = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the store how far behind they are.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the mirrors of a store on this machine. One that cannot be used is rebuilt by the next search."""
    settings = settings_for(store)
    journals = None if offline else open_journals(settings)
    facts = [_facts(each, journals) for each in mirrors_of(settings)]
    if as_json:
        for each in facts:
            print_json(each)
        return
    _show(facts)


def _facts(mirror: Mirror, journals: Journals | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"mirror": mirror.name, "path": str(mirror.path), "state": None}
    try:
        reason = mirror.unusable()
        if reason is not None:
            return {**facts, "state": _WORDS[reason]}
        extent = mirror.extent()
        runs_behind = None if journals is None else behind(journals, mirror)
    except EverturnError as error:
        return {**facts, "state": "unknown", "problem": str(error)}
    state = "built" if runs_behind is None else "behind" if runs_behind else "up to date"
    return {
        **facts,
        "state": state,
        "runs": extent.runs,
        "events": extent.events,
        "size_bytes": extent.size_bytes,
        "runs_behind": runs_behind,
    }


def _show(facts: list[dict[str, Any]]) -> None:
    terminal = Terminal(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("mirror", "state", "runs", "events", "size", "behind"):
        right = column not in ("mirror", "state")
        table.add_column(column, no_wrap=True, justify="right" if right else "left")
    for each in facts:
        state = Text(each["state"], style=_STYLES.get(each["state"], "red"))
        runs_behind = each.get("runs_behind")
        table.add_row(
            each["mirror"],
            state,
            *(f"{each[name]:,}" if name in each else "" for name in ("runs", "events")),
            size(each["size_bytes"]) if "size_bytes" in each else "",
            "" if runs_behind is None else counted(runs_behind, "run", "runs"),
        )
    terminal.print(table)
    for each in facts:
        terminal.print(Text(plain(f"{each['mirror']}: {each['path']}"), style="dim"), soft_wrap=True)
        if "problem" in each:
            terminal.print(Text(plain(each["problem"]), style="red"), soft_wrap=True)
