"""How runs are put into words."""

from __future__ import annotations

from collections.abc import Sequence

from everturn.cli.output import when
from everturn.conversations import wording
from everturn.conversations.conversation import Turn
from everturn.conversations.retelling import timestamp
from everturn.conversations.story import End, Facts
from everturn.journal.events import Ended
from everturn.journal.lines import Recorded
from everturn.journal.reading import RunRef
from everturn.log.entries import as_json

SHORT = 8
LINE_LENGTH = 160
_GOOD = ("completed",)
_SHORT_ENDS = {"silent": "unknown", "open": "no end yet"}
# What tells most about an event, in the order in which it is looked for.
_TELLING = (
    "text",
    "name",
    "outcome",
    "status",
    "subtype",
    "reason",
    "error",
    "content",
    "session_id",
    "kind",
    "event",
)


def title(ref: RunRef) -> str:
    """Return what to call a run."""
    return f"run {ref.run_id}"


def beginning(facts: Facts) -> list[str]:
    """Return how a run began, as far as that is known."""
    found: list[str] = []
    if facts.started is None:
        found.append("its beginning is missing")
    else:
        found += [f"claim {facts.started.epoch}", facts.started.worker]
    if facts.resumed is not None:
        before = "" if facts.resumed.previous_run_id is None else f" run {facts.resumed.previous_run_id[:SHORT]}"
        found.append(f"took over from{before}" if facts.resumed.took_over else f"went on from{before}")
    if facts.began_anew is not None:
        found.append(f"began anew: session {facts.began_anew.instead_of[:SHORT]} was lost")
    if facts.first_at_ms is not None:
        found.append(moment(facts.first_at_ms))
    return found


def ending(facts: Facts, end: End, successor: str | None = None) -> tuple[str, str]:
    """Return how a run ended, in words, and the style for them."""
    if facts.ended is not None:
        return _ended(facts, facts.ended)
    last = "" if facts.last_at_ms is None else f"; its last event is of {moment(facts.last_at_ms)}"
    follower = "" if successor is None else f" run {successor[:SHORT]}"
    if end == "died":
        return f"✗ died, or lost its claim:{follower} took over{last}", "bold red"
    if end == "silent":
        return f"✗ nothing tells how it ended:{follower} came after it{last}", "yellow"
    return f"… no end yet{last}", "yellow"


def outcome(facts: Facts, end: End) -> str:
    """Return how a run ended, in a word or two."""
    return facts.ended.outcome if facts.ended is not None else _SHORT_ENDS.get(end, end)


def gap(first: int, last: int) -> str:
    """Return which events are missing."""
    return f"event {first} is missing" if first == last else f"events {first} to {last} are missing"


def unreadable(lines: int) -> str:
    """Return that lines of a journal cannot be read."""
    return wording.plural(lines, "line is no event", "lines are no events")


def turn_facts(turn: Turn) -> str:
    """Return what a turn came to, in one line."""
    return " · ".join(wording.facts(turn))


def event_line(recorded: Recorded) -> str:
    """Return an event in one line: its number, when it was written, what it is and what it says."""
    clock = wording.clock(timestamp(recorded.at_ms))
    said = next((recorded.raw[name] for name in _TELLING if recorded.raw.get(name) is not None), None)
    text = "" if said is None else wording.cut(as_json(said), LINE_LENGTH)
    return f"{recorded.seq:>6} {clock}.{recorded.at_ms % 1000:03} {recorded.type:<16} {text}".rstrip()


def problem(text: str) -> str:
    """Return that a journal cannot be read."""
    return f"✗ cannot be read: {text}"


def moment(at_ms: int) -> str:
    """Return a time for people, whatever it is.

    Args:
        at_ms: Milliseconds since the Unix epoch.
    """
    return "a time that no calendar has" if timestamp(at_ms) is None else when(at_ms)


def models(turns: Sequence[Turn]) -> list[str]:
    """Return the models that answered."""
    return [*dict.fromkeys(model for turn in turns for model in turn.models)]


def _ended(facts: Facts, ended: Ended) -> tuple[str, str]:
    words = ended.outcome
    if facts.shutdown is not None:
        words += f" ({facts.shutdown.reason})"
    if ended.error is not None:
        words += f": {ended.error}"
    return (f"■ {words}", "green") if ended.outcome in _GOOD else (f"■ {words}", "yellow")
