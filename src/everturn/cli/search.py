"""`everturn search`."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer
from rich.padding import Padding
from rich.text import Text

from everturn.cli.asking import SINCE_HELP, AgentOption, OfflineOption, RepoOption, ask, ask_by_meaning
from everturn.cli.options import JsonOption, StoreOption, settings_for
from everturn.cli.output import Terminal, print_json, printing
from everturn.cli.times import moment_ms
from everturn.clock import SystemClock
from everturn.conversations.wording import clean, one_line, plural
from everturn.mirrors.chroma import KIND as TURN
from everturn.mirrors.chroma import ChromaMirror
from everturn.mirrors.hits import Filters, Found, Hit, Kind
from everturn.mirrors.query import parse_query
from everturn.mirrors.search import search
from everturn.settings import Settings

_MARK = "bold yellow"


def command(  # noqa: PLR0913, PLR0917  # one parameter for each option
    text: Annotated[
        list[str],
        typer.Argument(help='Words that are all to be found; "a phrase", begin*, -not. Put it all in single quotes.'),
    ],
    agent: AgentOption = None,
    repo: RepoOption = None,
    work: Annotated[str | None, typer.Option(help="Only this work item: its key, or the id of its task.")] = None,
    tool: Annotated[str | None, typer.Option(help="Only what this tool was given, and answered.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only texts of this kind.")] = None,
    since: Annotated[str | None, typer.Option(help=f"Not before this time, {SINCE_HELP}")] = None,
    limit: Annotated[int, typer.Option(help="How many to show.", min=1, max=1000)] = 10,
    semantic: Annotated[bool, typer.Option("--semantic", help="Search by meaning, not by words.")] = False,
    store: StoreOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Search prompts, answers and what tools were given and answered, in all runs: the best come first."""
    typed = " ".join(text)
    filters = Filters(
        agent=agent,
        repo=repo,
        work=work,
        tool=tool,
        kind=kind,
        since_ms=None if since is None else moment_ms(since, SystemClock()),
    )
    look = _by_meaning if semantic else _by_words
    found = look(settings_for(store), typed, filters, limit, offline=offline, quiet=as_json)
    show_turn = partial(_command, store=store)
    if as_json:
        _print_json(found, show_turn)
    else:
        with printing():
            _print(Terminal(highlight=False), found, show_turn)


def _by_words(settings: Settings, text: str, filters: Filters, limit: int, *, offline: bool, quiet: bool) -> Found:
    query = parse_query(text)
    return ask(settings, partial(search, query=query, filters=filters, limit=limit), offline=offline, quiet=quiet)


def _by_meaning(settings: Settings, text: str, filters: Filters, limit: int, *, offline: bool, quiet: bool) -> Found:
    def nearest(mirror: ChromaMirror) -> list[Hit]:
        return mirror.search(text, limit=limit, filters=filters)

    hits = ask_by_meaning(settings, nearest, offline=offline, quiet=quiet)
    return Found(tuple(hits), len(hits))


def _command(hit: Hit, *, store: str | None) -> str:
    """Return the command that shows the turn."""
    words = ["everturn", "journal", "show", hit.work, "--run", hit.run_id]
    if hit.turn:
        words += ["--turn", str(hit.turn)]
    if store is not None:
        words += ["--store", store]
    return shlex.join(words)


def _print(terminal: Terminal, found: Found, show_turn: Callable[[Hit], str]) -> None:
    for hit in found.hits:
        for line in _heading(hit, terminal.width):
            terminal.print(line, no_wrap=True, overflow="ellipsis")
        terminal.print(Padding(_excerpt(hit), (0, 0, 0, 2)))
        terminal.print(Text(f"  {one_line(show_turn(hit))}", style="cyan"), soft_wrap=True)
        terminal.print()
    terminal.print(Text(_conclusion(found), style="dim"))


def _heading(hit: Hit, width: int) -> list[Text]:
    """Return who it is of, and what it is: in one line if there is room."""
    said = [] if hit.kind == TURN else [_what_it_is(hit)]
    if hit.work.startswith("task:") and hit.agent:
        said.append(f"by {hit.agent}")
    if hit.turn:
        said.append(f"turn {hit.turn}")
    if hit.worker:
        said.append(f"on {hit.worker}")
    if hit.at:
        said.append(hit.at[:19].replace("T", " ") + "Z")
    whose = Text(one_line(hit.work), style="bold")
    facts = Text("  " + one_line(" · ".join(said)), style="dim")
    whole = Text.assemble(whose, facts)
    return [whole] if whole.cell_len <= width else [whose, facts]


def _what_it_is(hit: Hit) -> str:
    """Return what kind of text a hit is, in words."""
    tool = hit.tool or "a tool"
    return {"tool_input": f"{tool} called", "tool_result": f"{tool} answered", "user": "told"}.get(hit.kind, hit.kind)


def _excerpt(hit: Hit) -> Text:
    return Text.assemble(*((clean(piece.text), _MARK if piece.is_match else "") for piece in hit.excerpt))


def _conclusion(found: Found) -> str:
    if not found.is_all:
        if not found.hits:
            return "nothing was found so far back; other words, or fewer filters, reach further"
        return f"the best of the newest {found.looked_at:,}; more words narrow it down"
    if not found.hits:
        return "nothing was found"
    if len(found.hits) < found.looked_at:
        return f"the best {len(found.hits)} of {plural(found.looked_at, 'text')}"
    return plural(len(found.hits), "turn" if found.hits[0].kind == TURN else "text")


def _print_json(found: Found, show_turn: Callable[[Hit], str]) -> None:
    for hit in found.hits:
        print_json({**_record(hit), "command": show_turn(hit)})
    print_json({"type": "summary", "hits": len(found.hits), "compared": found.looked_at, "complete": found.is_all})


def _record(hit: Hit) -> dict[str, Any]:
    record = {"type": "hit", **dataclasses.asdict(hit)}
    record["excerpt"] = "".join(piece.text for piece in hit.excerpt)
    record["matches"] = [piece.text for piece in hit.excerpt if piece.is_match]
    return record
