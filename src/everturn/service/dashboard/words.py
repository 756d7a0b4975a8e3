"""How the dashboard puts ages, amounts and names."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite
from urllib.parse import quote, urlencode

from everturn.conversations import conversation
from everturn.conversations.wording import clean, one_line

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))
_BYTES = ("kB", "MB", "GB", "TB", "PB")
_TASK = "task:"
NOTHING = "\u2013"


def age(seconds: float) -> str:
    """Return a duration in its largest unit: `26 h`, `3 d`. The script in the pages says it the same way."""
    if not isfinite(seconds):
        return NOTHING
    for unit_s, unit in _UNITS:
        if seconds >= 2 * unit_s:
            return f"{int(seconds // unit_s)} {unit}"
    return f"{int(max(seconds, 0))} s"


def ago(at: float, now: float) -> str:
    """Return how long ago a time is, or how long it is until then."""
    if not isfinite(at):
        return NOTHING
    return f"in {age(at - now)}" if at > now else f"{age(now - at)} ago"


def machine_time(at: float) -> str:
    """Return a time as programs read it: ISO 8601, in UTC, to the millisecond."""
    return _moment(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def exact_time(at: float) -> str:
    """Return a time as people read it, in UTC, to the second."""
    return f"{_moment(at):%Y-%m-%d %H:%M:%S} UTC"


def size(size_bytes: int | None) -> str:
    """Return a size in three digits or so."""
    if size_bytes is None:
        return NOTHING
    if abs(size_bytes) < 1000:
        return f"{size_bytes} B"
    amount = float(size_bytes)
    for unit in _BYTES:
        amount /= 1000
        if abs(amount) < 999.5 or unit == _BYTES[-1]:
            return f"{amount:.1f} {unit}" if abs(amount) < 99.95 else f"{amount:,.0f} {unit}"
    raise AssertionError("the last unit takes everything")


def cost(cost_usd: float | None, *, partial: bool = False) -> str:
    """Return what something has cost; with a plus if it has cost more than is known."""
    if cost_usd is None or not isfinite(cost_usd):
        return NOTHING
    told = "<$0.01" if 0 < cost_usd < 0.005 else f"${cost_usd:,.2f}"
    return f"{told}+" if partial else told


def count(number: int | None) -> str:
    """Return a number with its thousands apart."""
    return NOTHING if number is None else f"{number:,}"


def work_name(key: str) -> str:
    """Return a work item's name in short: the last two names of its repository, and the issue."""
    if key.startswith(_TASK):
        return one_line(key.removeprefix(_TASK))
    repo, mark, issue = key.partition("@")[2].rpartition("#")
    return f"{repo_name(repo)} #{one_line(issue)}" if mark else one_line(key)


def repo_name(repo: str) -> str:
    """Return the last two names of a repository's URL or path."""
    names = [name for name in clean(repo).replace(":", "/").split("/") if name]
    return one_line("/".join(names[-2:])) or one_line(repo)


def hit_kind(kind: str, tool: str | None) -> str:
    """Return what kind of text was found."""
    name = one_line(tool or "a tool")
    return {"tool_input": f"{name} called", "tool_result": f"{name} answered", "user": "told"}.get(kind, kind)


def moment(text: str) -> float | None:
    """Return a timestamp in seconds since the Unix epoch; `None` if it is none."""
    found = conversation.moment(text)
    return None if found is None else found.timestamp()


def session_address(session_id: str) -> str:
    """Return where a session's page is."""
    return f"/sessions/{quote(clean(session_id), safe='')}"


def turn_address(session_id: str, run_id: str | None, turn: int) -> str:
    """Return where one turn of a run is shown."""
    return anchor_address(session_id, anchor_of(run_id, turn))


def anchor_address(session_id: str, anchor: str) -> str:
    """Return where a turn is shown, on whichever of its session's pages it stands.

    Args:
        session_id: The session.
        anchor: The turn's id.
    """
    told = quote(clean(anchor), safe="")
    return f"{session_address(session_id)}?at={told}#{told}"


def anchor_of(run_id: str | None, turn: int) -> str:
    """Return the id of a turn on its page.

    Args:
        run_id: Its run; `None`: there are no journals.
        turn: Its number in its run.
    """
    return f"turn-{turn}" if run_id is None else f"{run_id}-{turn}"


def address(path: str, **asked: str | int | None) -> str:
    """Return where a page is that is asked for something; what is nothing is left out."""
    told = {name: clean(str(value)) for name, value in asked.items() if value not in (None, "", 0)}
    return f"{path}?{urlencode(told)}" if told else path


def _moment(at: float) -> datetime:
    """Return a time; the nearest that can be told if a clock was far off."""
    return datetime.fromtimestamp(min(max(at, 0.0), 253_402_300_799.0) if at == at else 0.0, UTC)  # noqa: PLR0124
