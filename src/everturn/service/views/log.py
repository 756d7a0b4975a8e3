"""What came in and what was done: webhooks, admin requests and sweeps of the logbook, merged by time."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from everturn.errors import Invalid
from everturn.logbook.entries import Act, DeliveryEntry, SweepEntry
from everturn.logbook.logbook import Logbook
from everturn.model import repository_name
from everturn.service.views.values import LogEntry, LogPage

LogKind = Literal["webhook", "admin", "sweep"]

KINDS: tuple[LogKind, ...] = ("webhook", "admin", "sweep")
MOST = 200
_PLACE = re.compile(r"(\d{1,18})\.(\d{1,18})\.(\d{1,18})")
_NOWHERE = "0"  # in a place: nothing of this kind was shown yet
_TITLES = {
    "change_closed": "change {number} was closed",
    "branch_deleted": "branch {branch} was deleted",
    "issue_closed": "issue {number} was closed",
}
_NOTHING = ("nothing was held by it",)
_REASONS = {"start": "at the start", "daily": "the daily one", "admin": "asked for by an admin"}


def page(logbook: Logbook, kind: LogKind | None, limit: int, before: str | None) -> LogPage:
    """Return a page of the log; see `Desk.log`."""
    if kind is not None and kind not in KINDS:
        raise Invalid(f"there is no log of {kind!r}", hint=f"it is one of {', '.join(KINDS)}")
    shown = _shown(before)
    found = {each: list(_entries(logbook, each, limit + 1, shown[each])) for each in KINDS if kind in (None, each)}
    merged = list(heapq.merge(*found.values(), key=lambda entry: entry.at, reverse=True))
    entries = tuple(merged[:limit])
    for entry in entries:
        shown[entry.kind] = entry.number
    has_more = len(merged) > limit
    return LogPage(entries, ".".join(str(shown[each] or _NOWHERE) for each in KINDS) if has_more else None)


def _shown(before: str | None) -> dict[LogKind, int | None]:
    """Return the number of the last one of each kind that was shown."""
    if before is None:
        return dict.fromkeys(KINDS)
    found = _PLACE.fullmatch(before)
    if found is None:
        raise Invalid(f"{before[:40]!r} is no place in the log", hint="take what the page before says in `older`")
    return {kind: int(number) or None for kind, number in zip(KINDS, found.groups(), strict=True)}


def _entries(logbook: Logbook, kind: LogKind, limit: int, before: int | None) -> Iterator[LogEntry]:
    if kind == "webhook":
        yield from map(_webhook, logbook.deliveries.page(limit, before))
    elif kind == "admin":
        yield from map(_act, logbook.acts.page(limit, before))
    else:
        yield from map(_sweep, logbook.sweeps.page(limit, before))


def _webhook(entry: DeliveryEntry) -> LogEntry:
    return LogEntry(
        number=entry.number,
        kind="webhook",
        at=entry.accepted_at,
        title=title_of(entry.event, entry.facts),
        state=entry.state,
        details=entry.details or (_NOTHING if entry.state == "done" else ()),
        done_at=entry.done_at,
        source=entry.forge,
    )


def title_of(event: str, facts: Mapping[str, Any] | None) -> str:
    """Return what a webhook was about, for people."""
    form = _TITLES.get(str((facts or {}).get("kind")))
    if facts is None or form is None:
        return event
    repos = facts.get("repo")
    repo = f" in {repository_name(str(repos[0]))}" if isinstance(repos, list | tuple) and repos else ""
    return form.format(number=facts.get("number"), branch=facts.get("branch")) + repo


def _act(act: Act) -> LogEntry:
    asked = ", ".join(_asked(name, value) for name, value in act.asked.items() if value not in (None, False, ""))
    return LogEntry(
        number=act.number,
        kind="admin",
        at=act.at,
        title=f"{act.action}: {asked}" if asked else act.action,
        state="queued" if act.state == "begun" else act.state,
        details=act.details,
        done_at=act.done_at,
        source=act.source,
    )


def _asked(name: str, value: Any) -> str:
    words = name.replace("_", " ")
    return words if value is True else f"{words} {value}"


def _sweep(sweep: SweepEntry) -> LogEntry:
    return LogEntry(
        number=sweep.number,
        kind="sweep",
        at=sweep.begun_at,
        title=f"sweep, {_REASONS.get(sweep.reason, sweep.reason)}",
        state="queued" if sweep.state == "begun" else sweep.state,
        details=tuple(_facts(sweep.facts)),
        done_at=sweep.done_at,
        source=sweep.reason,
    )


def _facts(facts: Mapping[str, Any]) -> Iterator[str]:
    """Say what a sweep noted: numbers by their names, texts as they are."""
    for name, value in facts.items():
        label = name.replace("_", " ")
        if isinstance(value, str) and value:
            yield f"{label}: {value}"
        elif isinstance(value, list | tuple):
            yield from (f"{label}: {each}" for each in value if isinstance(each, str))
        elif isinstance(value, int | float):
            yield f"{label}: {value:,}"
