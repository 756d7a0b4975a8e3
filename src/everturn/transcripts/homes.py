"""One home per session: the project key it was first written under (docs/format.md, section 8).

The SDK derives the project key from the working directory, so a session that is resumed elsewhere arrives under
another one. The note that says where it lives is created once and never changed, which also settles it when two
writers begin the same session under two keys at the same time.
"""

from __future__ import annotations

import orjson

from everturn.errors import Conflict, Corrupt, Unavailable
from everturn.log.names import names_in
from everturn.log.objects import Objects
from everturn.log.reader import log_exists
from everturn.transcripts.layout import Layout


async def find_home(objects: Objects, layout: Layout, session_id: str, arriving: str) -> str | None:
    """Return the project key a session lives under, or `None` if it has not been written yet.

    Args:
        objects: The store.
        layout: The scope's layout.
        session_id: The session.
        arriving: The project key it was asked for under; preferred where plain stores wrote it under several.

    Raises:
        Conflict: Plain stores wrote it under several project keys, and not under this one.
    """
    noted = await noted_home(objects, layout, session_id)
    return noted if noted is not None else await _unnoted_home(objects, layout, session_id, arriving)


async def _unnoted_home(objects: Objects, layout: Layout, session_id: str, arriving: str) -> str | None:
    found = [
        project_key
        for project_key in names_in(await objects.list_folders(layout.projects))
        if await log_exists(objects, layout.log(project_key, session_id, None))
    ]
    if arriving in found:
        return arriving
    if len(found) > 1:
        raise Conflict(
            f"session {session_id} was written under {len(found)} project keys: {', '.join(found)}",
            hint="load it with a plain store (any_cwd=False) from one of the directories it was written in",
        )
    return found[0] if found else None


async def noted_home(objects: Objects, layout: Layout, session_id: str) -> str | None:
    """Return the project key that is noted for a session, or `None` if none is. One request.

    A session of a claim has its note before anything is said in it, so without one nothing of it is stored.
    """
    key = layout.home(session_id)
    note = await objects.get(key)
    return None if note is None else _project_key(note.data, key)


async def settle_home(
    objects: Objects, layout: Layout, session_id: str, arriving: str, *, is_new: bool = False
) -> str:
    """Return the project key a session lives under, making it the arriving one if it has none.

    Durable on return. May be done twice: the note is created once, whoever comes first.

    Args:
        objects: The store.
        layout: The scope's layout.
        session_id: The session.
        arriving: The project key it was asked for under.
        is_new: Nobody can know the session yet, so it need not be looked for.
    """
    noted = None if is_new else await noted_home(objects, layout, session_id)
    if noted is not None:
        return noted
    home = None if is_new else await _unnoted_home(objects, layout, session_id, arriving)
    home = home or arriving
    if await objects.create(layout.home(session_id), orjson.dumps({"v": 1, "project_key": home})):
        return home
    noted = await noted_home(objects, layout, session_id)
    if noted is None:
        raise Unavailable(f"the store is busy with {layout.home(session_id)}", hint="it is safe to try again")
    return noted


async def forget_home(objects: Objects, layout: Layout, session_id: str, project_key: str) -> None:
    """Delete the note of a session that was deleted, unless it says that the session lives under another key."""
    key = layout.home(session_id)
    try:
        note = await objects.get(key)
        goes = note is not None and _project_key(note.data, key) == project_key
    except Corrupt:
        goes = True  # it is made anew from where the session lies, if it lies anywhere
    if goes:
        await objects.delete([key])


def _project_key(data: bytes, key: str) -> str:
    try:
        return str(orjson.loads(data)["project_key"])
    except (ValueError, KeyError, TypeError):
        raise Corrupt(f"{key} is damaged", hint="delete it; it is made anew from where the session lies") from None
