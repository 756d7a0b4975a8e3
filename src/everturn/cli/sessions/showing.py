"""`everturn sessions show`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from everturn.cli.options import JsonOption, StoreOption
from everturn.cli.output import Terminal, plain, print_json, printing
from everturn.cli.printer import Printer
from everturn.cli.sessions.common import ScopeOption, SessionArgument, load, open_store
from everturn.conversations import wording
from everturn.conversations.conversation import Conversation, as_data
from everturn.conversations.loading import StoredSession


def command(  # one parameter for each option
    session: SessionArgument,
    store: StoreOption = None,
    scope: ScopeOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Show what was taken back, too.")] = False,
    subagents: Annotated[bool, typer.Option("--subagents", help="Show what subagents said and did.")] = False,
    last: Annotated[int | None, typer.Option(help="Show only so many turns, from the end.", min=1)] = None,
    full: Annotated[bool, typer.Option("--full", help="Unfold tool calls, results and thoughts.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show a session as a conversation to read."""
    archive = open_store(store)
    found = load(archive, session, scope)
    conversation = found.conversation()
    with printing():
        if as_json:
            _show_json(found, conversation, branches=everything, agents=subagents, last=last)
            return
        terminal = Terminal(highlight=False)
        terminal.print(Text(plain(found.ref.session_id), style="bold"), soft_wrap=True)
        terminal.print(Text(wording.one_line(_heading(found, conversation)), style="dim"), soft_wrap=True)
        printer = Printer(terminal, full=full, agents=subagents, branches=everything)
        printer.show(conversation, last=last)
        stored = f"{wording.plural(found.parts, 'part')}, {wording.size(found.size_bytes)}"
        printer.finish([*wording.summary(conversation), ("stored", stored), ("in", archive.label)])


def _heading(found: StoredSession, conversation: Conversation) -> str:
    models = dict.fromkeys(model for turn in conversation.all_turns for model in turn.models)
    return " · ".join([found.ref.scope, *models])


def _show_json(
    found: StoredSession, conversation: Conversation, *, branches: bool, agents: bool, last: int | None
) -> None:
    ref = found.ref
    print_json({"type": "session", "session_id": ref.session_id, "scope": ref.scope, "project_key": ref.project_key})
    for turn in conversation.turns[-last if last else None :]:
        print_json({"type": "turn", **_pruned(as_data(turn), agents)})
    for branch in conversation.branches if branches else ():
        print_json({"type": "branch", **_pruned(as_data(branch), agents)})
    for agent in conversation.agents if agents else ():
        print_json({"type": "subagent", **as_data(agent)})
    print_json(
        {
            "type": "summary",
            "turns": len(conversation.turns),
            "tool_calls": conversation.calls,
            "branches": len(conversation.branches),
            "subagents": sum(1 for _ in conversation.all_agents),
            "usage": as_data(conversation.usage_with_agents),
            "cost_usd": conversation.cost_usd,
            "cost_is_partial": conversation.cost_is_partial,
            "first_at": conversation.first_at,
            "last_at": conversation.last_at,
            "seconds": conversation.seconds,
            "entries": conversation.entries,
            "unknown": conversation.unknown,
            "broken_links": conversation.broken_links,
            "parts": found.parts,
            "size_bytes": found.size_bytes,
        }
    )


def _pruned(record: dict[str, Any], agents: bool) -> dict[str, Any]:
    """Leave what subagents said out of a turn or branch, but for where it lies."""
    if agents:
        return record
    for turn in record.get("turns", [record]):
        for step in turn["steps"]:
            if step.get("agent"):
                step["agent"] = {name: step["agent"][name] for name in ("name", "subpath", "usage")}
    return record
