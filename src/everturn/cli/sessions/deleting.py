"""`everturn sessions delete` and `everturn sessions expire`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from everturn.cli.options import JsonOption, StoreOption
from everturn.cli.output import Terminal, complain, consent, counted, plain, print_json, short_ids, size, when
from everturn.cli.progress import in_parallel, progress
from everturn.cli.sessions.common import ScopeOption, SessionArgument, open_store, upkeep_of
from everturn.cli.times import milliseconds
from everturn.errors import Conflict, EverturnError
from everturn.log.objects import run
from everturn.transcripts.holds import refuse_if_held
from everturn.upkeep.tending import Found, Upkeep

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def delete(
    session: SessionArgument,
    subpath: Annotated[str | None, typer.Option(help="Delete this sub-transcript alone.")] = None,
    store: StoreOption = None,
    scope: ScopeOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> int:
    """Delete a session with all its sub-transcripts, for good. Nobody who wrote it before can bring it back."""
    archive = open_store(store)
    upkeep = upkeep_of(archive)
    ref = run(archive.find(session, scope))
    found = run(upkeep.look(ref) if subpath is None else upkeep.look_at(ref, subpath))
    terminal = Terminal(highlight=False, quiet=as_json)
    _show(terminal, [found])
    run(refuse_if_held(archive.objects, ref.scope, ref.session_id))
    if not dry_run:
        what = f"session {ref.session_id}" if subpath is None else f"{subpath} of session {ref.session_id}"
        consent(f"Delete {what} for good?", yes=yes, quiet=as_json)
        run(upkeep.delete(ref, subpath))
    _conclude(terminal, [(found, not dry_run)], dry_run=dry_run, as_json=as_json)
    return 0


def expire(
    older_than: Annotated[str, typer.Option(help="The age of a session's last entry: 90d, 12h, 2w, 30m.")],
    store: StoreOption = None,
    scope: ScopeOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> int:
    """Delete the sessions whose last entry is older than this, but for those under a legal hold.

    The traces that deletions leave behind go too, when they are a week old at least.
    """
    age_ms = milliseconds(older_than)
    archive = open_store(store)
    upkeep = upkeep_of(archive)
    scopes = [scope] if scope is not None else run(archive.scopes())
    terminal = Terminal(highlight=False, quiet=as_json)
    by_scope = in_parallel("looking", scopes, lambda name: run(upkeep.expired(name, age_ms)), quiet=as_json)
    found = list(chain.from_iterable(by_scope))
    _show(terminal, found)
    going = [each for each in found if not each.is_held]
    if going and not dry_run:
        consent(f"Delete {counted(len(going), 'session', 'sessions')} for good?", yes=yes, quiet=as_json)
        deleted, failed = _expire_all(upkeep, going, quiet=as_json)
    else:
        deleted, failed = set(), 0
    _conclude(terminal, [(each, each in deleted) for each in found], dry_run=dry_run, as_json=as_json)
    return 1 if failed else 0


def _expire_all(upkeep: Upkeep, going: Sequence[Found], *, quiet: bool) -> tuple[set[Found], int]:
    """Delete what has expired; return what was deleted, and how often that failed."""
    deleted: set[Found] = set()
    failed = 0
    with progress("deleting", len(going), quiet=quiet) as step:
        for each in going:
            try:
                if run(upkeep.expire(each)):
                    deleted.add(each)
            except Conflict as error:  # a hold that came in between
                complain(f"{each.ref.session_id} stays: {error.message}", error.hint)
            except EverturnError as error:
                failed += 1
                complain(f"{each.ref.session_id}: {error.message}", error.hint)
            step(1)
    return deleted, failed


def _show(terminal: Terminal, found: Sequence[Found]) -> None:
    if not found:
        return
    short = short_ids([each.ref.session_id for each in found])
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("session", no_wrap=True)
    table.add_column("last entry (UTC)", no_wrap=True)
    table.add_column("objects", justify="right", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("scope", no_wrap=True, overflow="ellipsis", ratio=1)
    for each in sorted(found, key=lambda each: each.modified_ms):
        scope = Text.assemble(_remark(each), plain(each.ref.scope))
        times = when(each.modified_ms)
        table.add_row(short[each.ref.session_id], times, f"{each.objects:,}", size(each.size_bytes), scope)
    terminal.print(table)


def _remark(found: Found) -> Text:
    if found.is_held:
        return Text("held, stays: ", style="yellow")
    if found.subpath is not None:
        return Text(plain(f"{found.subpath} of "), style="dim")
    return Text("traces of a deletion: " if found.is_remains else "", style="dim")


def _conclude(terminal: Terminal, done: Sequence[tuple[Found, bool]], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        for found, deleted in done:
            print_json({**_record(found), "deleted": deleted})
        return
    gone = sum(deleted for _, deleted in done)
    if dry_run:
        terminal.print("nothing was deleted, as you asked")
    elif done and done[0][0].subpath is not None:
        terminal.print("1 sub-transcript deleted")
    else:
        terminal.print(f"{counted(gone, 'session', 'sessions')} deleted")


def _record(found: Found) -> dict[str, Any]:
    subpath = {} if found.subpath is None else {"subpath": found.subpath}
    return {
        "session_id": found.ref.session_id,
        **subpath,
        "scope": found.ref.scope,
        "project_key": found.ref.project_key,
        "objects": found.objects,
        "size_bytes": found.size_bytes,
        "modified": when(found.modified_ms),
        "held": found.is_held,
        "remains": found.is_remains,
    }
