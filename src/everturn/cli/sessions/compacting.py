"""`everturn sessions compact`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from everturn.cli.output import Terminal, complain
from everturn.cli.sessions.care import counted, progress
from everturn.cli.sessions.common import JsonOption, ScopeOption, StoreOption, open_store, print_json, upkeep_of
from everturn.errors import EverturnError
from everturn.log.objects import run
from everturn.upkeep.tending import Compacted


def command(
    session: Annotated[list[str] | None, typer.Argument(help="Sessions; default: all of the scope or store.")] = None,
    store: StoreOption = None,
    scope: ScopeOption = None,
    as_json: JsonOption = False,
) -> int:
    """Merge the parts of sessions into few segments, and free what has been covered for two minutes.

    What a session says stays as it is. It may run at any time, beside writers and readers.
    """
    archive = open_store(store)
    upkeep = upkeep_of(archive)
    refs = [run(archive.find(each, scope)) for each in session] if session else run(archive.refs(scope))
    terminal = Terminal(highlight=False, quiet=as_json)
    failed = waiting = freed = segments = 0
    with progress("compacting", len(refs), quiet=as_json) as step:
        for ref in refs:
            try:
                done = run(upkeep.compact(ref))
            except EverturnError as error:
                failed += 1
                complain(f"{ref.session_id}: {error.message}", error.hint)
            else:
                waiting, freed, segments = waiting + done.waiting, freed + done.freed, segments + done.segments
                if as_json:
                    print_json(
                        {**asdict(ref), **{name: value for name, value in asdict(done).items() if name != "ref"}}
                    )
            step(1)
    written = counted(segments, "segment", "segments")
    terminal.print(f"{counted(len(refs), 'session', 'sessions')}: {written} written, {freed:,} objects freed")
    if waiting:
        more = counted(waiting, "object", "objects")
        terminal.print(Text(f"{more} can be freed in two minutes: run it again then", style="dim"))
    return 1 if failed else 0


def _counts(done: Compacted) -> dict[str, int]:
    return {name: value for name, value in asdict(done).items() if name != "ref"}
