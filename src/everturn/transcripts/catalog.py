"""A project's summaries in one object: listing them must not cost a request for each (docs/format.md, section 9).

It is derived: whoever lists many sessions, and had to fetch many of their summaries, leaves them there for the next
one. Each is kept with the modification time it had, and used only as long as that is still the one in the listing.
Stores tell times in whole seconds, so a summary that is younger than the newest one by less than `SETTLED_MS` might
be written over within its second, and is not kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from everturn.errors import Corrupt, EverturnError
from everturn.log.names import names_in
from everturn.log.objects import Item, Objects, Stored, get_each
from everturn.transcripts.layout import Layout
from everturn.transcripts.summaries import decode_summary

if TYPE_CHECKING:
    from claude_agent_sdk import SessionSummaryEntry

WORTH_KEEPING = 32  # so many summaries that had to be fetched are worth a catalog
SETTLED_MS = 5_000


async def summary_items(objects: Objects, layout: Layout, project_key: str) -> dict[str, Item]:
    """Return where the summaries of a project are, and when they were written, by session id."""
    items = await objects.listing(layout.summaries(project_key))
    by_segment = {item.key.rsplit("/", 1)[-1].removesuffix(".json"): item for item in items}
    return {name: by_segment[segment] for segment in by_segment for name in names_in([segment])}


async def stored_summaries(
    objects: Objects, layout: Layout, project_key: str, written: Mapping[str, Item]
) -> dict[str, SessionSummaryEntry]:
    """Return the summaries of a project by session id; one that is damaged is left out.

    Args:
        objects: The store.
        layout: The scope's layout.
        project_key: The project.
        written: Which summaries there are, and when they were written.
    """
    known = await _kept(objects, layout, project_key, written) if len(written) >= WORTH_KEEPING else {}
    wanted = [session_id for session_id in written if session_id not in known]
    stored = await get_each(objects, [written[session_id].key for session_id in wanted], Corrupt)
    fetched: dict[str, SessionSummaryEntry] = {}
    for session_id, object_ in zip(wanted, stored, strict=True):
        summary = decode_summary(object_) if isinstance(object_, Stored) else None
        if summary is not None:
            # By the listing's clock, as `list_sessions` has it: some stores tell whole seconds when they are read.
            fetched[session_id] = {**summary, "mtime": written[session_id].modified_ms}
    if len(wanted) >= WORTH_KEEPING:
        with suppress(EverturnError):  # the next one to list does it
            await _keep(objects, layout, project_key, {**known, **fetched}, written)
    return {**known, **fetched}


async def _kept(
    objects: Objects, layout: Layout, project_key: str, written: Mapping[str, Item]
) -> dict[str, SessionSummaryEntry]:
    """Return the catalog's summaries that are still those in the store."""
    try:
        stored = await objects.get(layout.catalog(project_key))
        rows: Any = json.loads(stored.data)["summaries"] if stored is not None else {}
        return {
            session_id: {"session_id": session_id, "mtime": row[0], "data": row[1]}
            for session_id, row in rows.items()
            if session_id in written and row[0] == written[session_id].modified_ms and isinstance(row[1], dict)
        }
    except (Corrupt, ValueError, LookupError, TypeError, AttributeError):
        return {}


async def _keep(
    objects: Objects,
    layout: Layout,
    project_key: str,
    summaries: Mapping[str, SessionSummaryEntry],
    written: Mapping[str, Item],
) -> None:
    """Write the catalog. If a session was deleted in the meantime, nothing of it may stay."""
    newest_ms = max(item.modified_ms for item in written.values())
    rows = {
        session_id: [summary["mtime"], summary["data"]]
        for session_id, summary in summaries.items()
        if summary["mtime"] <= newest_ms - SETTLED_MS
    }
    if not rows:
        return
    key = layout.catalog(project_key)
    await objects.put(key, json.dumps({"v": 1, "summaries": rows}, separators=(",", ":")).encode())
    if not rows.keys() <= (await summary_items(objects, layout, project_key)).keys():
        await objects.delete([key])
