"""Legal holds: a session under one is neither deleted nor expired (docs/format.md, section 12)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from everturn.errors import Conflict, Corrupt, Invalid, NotFound, Unavailable
from everturn.log.names import escape, unescape
from everturn.log.objects import Objects
from everturn.telemetry import get_logger


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a session must stay.

    Attributes:
        reason: For people.
        by: Who said so.
        since: When, as ISO 8601.
    """

    reason: str
    by: str
    since: str


async def place_hold(objects: Objects, scope: str, session_id: str, reason: str, *, by: str, now_s: float) -> Hold:
    """Put a session under a hold. Durable on return.

    Args:
        objects: The store.
        scope: The session's scope.
        session_id: The session. It need not be there.
        reason: For people.
        by: Who says so.
        now_s: The time of day, in seconds since the Unix epoch.

    Raises:
        Conflict: It is under one already, which stays as it is.
        Corrupt: It is under one that cannot be read.
        Invalid: The reason, or who says so, is not valid Unicode.
        Unavailable: The store did not answer, or was busy.
    """
    hold = Hold(reason, by, datetime.fromtimestamp(now_s, UTC).isoformat(timespec="seconds"))
    try:
        record = orjson.dumps({"v": 1, "reason": hold.reason, "by": hold.by, "since": hold.since})
    except TypeError:
        raise Invalid("the reason for the hold is not valid Unicode", hint="say it in other words") from None
    if await objects.create(_key(scope, session_id), record):
        get_logger().info("hold_placed", session_id=session_id, scope=scope, by=by)
        return hold
    if await hold_on(objects, scope, session_id) is None:  # nobody must believe in a hold that is not there
        raise Unavailable(f"the store is busy with {_key(scope, session_id)}", hint="it is safe to try again")
    raise Conflict(f"session {session_id} is under a hold already", hint="lift that one first")


async def lift_hold(objects: Objects, scope: str, session_id: str, *, by: str) -> Hold:
    """Lift a session's hold, and return what it was. It is gone on return; that it was there stands in the log only.

    Args:
        objects: The store.
        scope: The session's scope.
        session_id: The session.
        by: Who lifts it.

    Raises:
        NotFound: There is none.
    """
    hold = await hold_on(objects, scope, session_id)
    if hold is None:
        raise NotFound(f"session {session_id} is under no hold", hint="everturn sessions list shows holds")
    await objects.delete([_key(scope, session_id)])
    get_logger().info("hold_lifted", session_id=session_id, scope=scope, by=by, placed_by=hold.by)
    return hold


async def hold_on(objects: Objects, scope: str, session_id: str) -> Hold | None:
    """Return a session's hold, or `None`.

    Raises:
        Corrupt: There is something in its place that cannot be read. That counts as a hold.
    """
    stored = await objects.get(_key(scope, session_id))
    if stored is None:
        return None
    try:
        record = orjson.loads(stored.data)
        return Hold(str(record["reason"]), str(record["by"]), str(record["since"]))
    except (ValueError, KeyError, TypeError):
        raise Corrupt(
            f"{_key(scope, session_id)} is damaged",
            hint="look whether the session has to stay, then delete the object",
        ) from None


async def held(objects: Objects, scope: str) -> set[str]:
    """Return the ids of the sessions of a scope that are under a hold."""
    names = [item.key.rsplit("/", 1)[-1].removesuffix(".json") for item in await objects.listing(_folder(scope))]
    return {session_id for name in names if (session_id := unescape(name)) is not None}


async def refuse_if_held(objects: Objects, scope: str, session_id: str) -> None:
    """Refuse to delete a session that is under a hold.

    Raises:
        Conflict: It is.
    """
    hold = await hold_on(objects, scope, session_id)
    if hold is not None:
        raise Conflict(
            f"session {session_id} is under a legal hold since {hold.since}: {hold.reason}",
            hint="whoever may, lifts it with everturn sessions hold --lift",
        )


def _folder(scope: str) -> str:
    return f"holds/{escape(scope, 'scope')}"


def _key(scope: str, session_id: str) -> str:
    return f"{_folder(scope)}/{escape(session_id, 'session id')}.json"
