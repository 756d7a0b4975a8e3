"""`everturn workdirs list`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from everturn.cli.options import JsonOption
from everturn.cli.output import Terminal, age, plain, print_json, size
from everturn.cli.progress import in_parallel
from everturn.cli.workdirs.common import Reached, reach, table
from everturn.model import repository_name
from everturn.workdirs.records import WorkdirRecord

NOTING_S = 0.1  # whoever notes a size has the lock for a moment
LIVE, IDLE, GONE = "live", "idle", "gone"


def command(
    unsaved: Annotated[
        bool, typer.Option("--unsaved", help="Look what is unsaved in each. Takes a moment for each.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List workdirs, the one that was used last first."""
    reached = reach()
    records = sorted(WorkdirRecord.all(reached.workshop.root), key=lambda each: each.last_used_at, reverse=True)
    if unsaved:
        facts = in_parallel("looking", records, lambda each: _facts(reached, each, look=True), quiet=as_json)
    else:
        facts = [_facts(reached, each, look=False) for each in records]
    if as_json:
        for each in facts:
            print_json(each)
        return
    _show(facts)


def _facts(reached: Reached, record: WorkdirRecord, *, look: bool) -> dict[str, Any]:
    root = reached.workshop.root
    tree = record.tree(root)
    lock = root.try_workdir(record.name, NOTING_S)
    try:
        state = LIVE if lock is None else IDLE if tree.is_dir() else GONE
        reasons = reached.workshop.rescuer.look(record).reasons() if look and state == IDLE else None
    finally:
        if lock is not None:
            lock.release()
    return {
        **record.facts(),
        "path": str(tree),
        "state": state,
        "unused_s": max(round(root.clock.now() - record.last_used_at), 0),
        **({"unsaved": reasons} if look else {}),
    }


def _show(facts: list[dict[str, Any]]) -> None:
    terminal = Terminal(highlight=False)
    if not facts:
        terminal.print(Text("there are no workdirs", style="dim"))
        return
    shown = table("workdir", "repository", "branch", "state", "size", "unused for")
    for each in facts:
        state = Text(each["state"], style={LIVE: "green", GONE: "red"}.get(each["state"], ""))
        if each.get("unsaved"):
            state = Text("unsaved", style="yellow")
        shown.add_row(
            Text(plain(each["name"])),
            Text(plain(repository_name(each["repo"]))),
            Text(plain(each["branch"] or "default")),
            state,
            "?" if each["size_bytes"] is None else size(each["size_bytes"]),
            age(each["unused_s"]),
        )
    terminal.print(shown)
    for each in facts:
        if each.get("unsaved"):
            said = Text.assemble((plain(each["name"]), "bold"), plain(f": {'; '.join(each['unsaved'])}"))
            terminal.print(said, soft_wrap=True)
