"""`everturn sessions compact`."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer
from rich.text import Text

from everturn.cli.options import JsonOption, StoreOption
from everturn.cli.output import Terminal, complain, counted, print_json
from everturn.cli.progress import in_parallel
from everturn.cli.sessions.common import ScopeOption, open_store, upkeep_of
from everturn.errors import EverturnError
from everturn.log.objects import run
from everturn.transcripts.archive import SessionRef
from everturn.upkeep.tending import Compacted, Upkeep


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
    refs = run(archive.refs(scope)) if not session else [run(archive.find(each, scope)) for each in session]
    refs = list(dict.fromkeys(refs))  # an id and its beginning may mean the same
    terminal = Terminal(highlight=False, quiet=as_json)
    done = [
        each for each in in_parallel("compacting", refs, partial(_compact, upkeep), quiet=as_json) if each is not None
    ]
    if as_json:
        for each in done:
            print_json({**asdict(each.ref), **_counts(each)})
    written = counted(sum(each.segments for each in done), "segment", "segments")
    freed = counted(sum(each.freed for each in done), "object", "objects")
    terminal.print(f"{counted(len(refs), 'session', 'sessions')}: {written} written, {freed} freed")
    waiting = sum(each.waiting for each in done)
    if waiting:
        more = counted(waiting, "object", "objects")
        terminal.print(Text(f"{more} can be freed in two minutes: run it again then", style="dim"))
    return 0 if len(done) == len(refs) else 1


def _compact(upkeep: Upkeep, ref: SessionRef) -> Compacted | None:
    """Compact one session; say what went wrong, and let the others go on."""
    try:
        return run(upkeep.compact(ref))
    except EverturnError as error:
        complain(f"{ref.session_id}: {error.message}", error.hint)
        return None


def _counts(done: Compacted) -> dict[str, int]:
    return {name: value for name, value in asdict(done).items() if name != "ref"}
