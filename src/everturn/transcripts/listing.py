"""Listing sessions and sub-transcripts without reading them.

A session is found by its folder, so none is missed, and described by its summary, so that listing costs requests in
proportion to sessions, not parts. Only a session whose summary was never written (its worker died first) is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from everturn.errors import Corrupt
from everturn.log.names import Span, names_in, parse_file_name
from everturn.log.objects import Item, Objects
from everturn.log.reader import list_parts, log_exists, read
from everturn.transcripts.catalog import stored_summaries, summary_items
from everturn.transcripts.layout import Layout
from everturn.transcripts.summaries import fold_log

if TYPE_CHECKING:
    from claude_agent_sdk import SessionStoreListEntry, SessionSummaryEntry


async def projects(objects: Objects, layout: Layout) -> list[str]:
    """Return the project keys of a scope."""
    return names_in(await objects.list_folders(layout.projects))


async def list_sessions(objects: Objects, layout: Layout, project_keys: list[str]) -> list[SessionStoreListEntry]:
    """List the sessions of some projects, each with the time of its last change."""
    found: list[SessionStoreListEntry] = []
    for project_key in project_keys:
        for session_id, paused_ms in (await pauses(objects, layout, project_key)).items():
            folder = layout.log(project_key, session_id, None)
            if paused_ms is not None:
                found.append({"session_id": session_id, "mtime": paused_ms})
                continue
            listed = await list_parts(objects, folder)
            if await is_there(objects, folder, listed):
                newest_ms = max(item.modified_ms for item in listed.values())
                found.append({"session_id": session_id, "mtime": newest_ms})
    return found


async def pauses(objects: Objects, layout: Layout, project_key: str) -> dict[str, int | None]:
    """Return when the sessions of a project last paused, in milliseconds since the Unix epoch, by session id.

    Two listings. `None` for a session without a summary: one that never paused, or that was deleted.
    """
    written = await summary_items(objects, layout, project_key)
    session_ids = await _session_ids(objects, layout, project_key)
    return {name: written[name].modified_ms if name in written else None for name in session_ids}


async def list_summaries(objects: Objects, layout: Layout, project_keys: list[str]) -> list[SessionSummaryEntry]:
    """Return the summaries of the sessions of some projects."""
    found: list[SessionSummaryEntry] = []
    for project_key in project_keys:
        written = await summary_items(objects, layout, project_key)
        session_ids = await _session_ids(objects, layout, project_key)
        listed = {name: written[name] for name in session_ids if name in written}
        summaries = await stored_summaries(objects, layout, project_key, listed)
        for session_id in session_ids:
            summary = summaries.get(session_id)
            if summary is None:
                with suppress(Corrupt):  # it is listed; whoever loads it is told what is wrong with it
                    summary = await _summary_of(objects, layout, project_key, session_id)
            if summary is not None:
                found.append(summary)
    return found


async def list_subpaths(
    objects: Objects, layout: Layout, project_key: str, session_id: str, *, all_logs: bool = False
) -> list[str]:
    """Return the subpaths of a session's sub-transcripts. One listing, however many there are.

    Args:
        objects: The store.
        layout: The scope's layout.
        project_key: The session's project key.
        session_id: The session.
        all_logs: Take in those that hold nothing but fences and truncations.
    """
    folder = f"{layout.session(project_key, session_id)}/sub"
    if all_logs:
        return names_in(await objects.list_folders(folder))
    logs: dict[str, dict[Span, Item]] = {}
    for item in await objects.listing(folder):
        segment, _, file_name = item.key.removeprefix(f"{folder}/").partition("/")
        span = parse_file_name(file_name)
        if span is not None:
            logs.setdefault(segment, {})[span] = item
    there = [segment for segment, listed in logs.items() if await is_there(objects, f"{folder}/{segment}", listed)]
    return names_in(there)


async def _session_ids(objects: Objects, layout: Layout, project_key: str) -> list[str]:
    return names_in(await objects.list_folders(layout.sessions(project_key)))


async def _summary_of(
    objects: Objects, layout: Layout, project_key: str, session_id: str
) -> SessionSummaryEntry | None:
    folder = layout.log(project_key, session_id, None)
    summary = fold_log((project_key, session_id), await read(objects, folder))
    if summary is not None:
        summary["mtime"] = await _newest_ms(objects, folder)
    return summary


async def is_there(objects: Objects, folder: str, listed: Mapping[Span, Item] | None = None) -> bool:
    """Tell whether a log exists. One that cannot be read does: whoever loads it is told what is wrong with it."""
    try:
        return await log_exists(objects, folder, listed)
    except Corrupt:
        return True


async def _newest_ms(objects: Objects, folder: str) -> int:
    return max((item.modified_ms for item in (await list_parts(objects, folder)).values()), default=0)
