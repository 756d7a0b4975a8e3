"""`everturn sessions hold`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from everturn.cli.options import JsonOption, StoreOption
from everturn.cli.output import Terminal, plain, print_json
from everturn.cli.sessions.common import ScopeOption, SessionArgument, open_store
from everturn.clock import SystemClock
from everturn.errors import Conflict, Invalid
from everturn.log.objects import run
from everturn.settings import Settings
from everturn.transcripts.holds import lift_hold, place_hold


def command(
    session: SessionArgument,
    reason: Annotated[
        str | None, typer.Option(help="Why the session has to stay; shown to whoever is refused.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who places or lifts it; default: this worker's name.")] = None,
    lift: Annotated[bool, typer.Option("--lift", help="Lift the hold.")] = False,
    store: StoreOption = None,
    scope: ScopeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a session under a legal hold, so that it is neither deleted nor expired, or lift one."""
    if lift == bool(reason):
        raise Invalid("give either --reason or --lift", hint='for example --reason "case 12"')
    archive = open_store(store)
    ref = run(archive.find(session, scope))
    who = by or Settings.load().worker
    if reason:
        now_s = SystemClock().now()
        hold = run(place_hold(archive.objects, ref.scope, ref.session_id, reason, by=who, now_s=now_s))
        if not run(archive.exists(ref)):
            raise Conflict(
                f"session {ref.session_id} was deleted while the hold was placed",
                hint="the hold stands, but there is nothing left under it; restore the session first",
            )
    else:
        hold = run(lift_hold(archive.objects, ref.scope, ref.session_id, by=who))
    if as_json:
        lifted = {"lifted_by": who} if lift else {}
        print_json({"session_id": ref.session_id, "held": not lift, **asdict(hold), **lifted})
        return
    what = "is under a hold" if reason else f"may be deleted again, {who} says; the hold was"
    Terminal(highlight=False).print(
        Text(plain(f"session {ref.session_id} {what}: {hold.reason} ({hold.by}, {hold.since})"))
    )
