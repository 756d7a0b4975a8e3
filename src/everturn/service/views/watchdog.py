"""How the fleet is, sign by sign. The thresholds are those of the alarms (docs/alarms.md, docs/http-api.md)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from everturn.conversations.wording import duration, plural
from everturn.logbook.entries import SweepEntry, Waiting
from everturn.service.views.facts import seconds, text_of
from everturn.service.views.values import ClaimView, Light, SessionView, Sign, WatchdogView

PERIOD_S = 86_400.0
HOUR_S, MINUTE_S = 3_600.0, 60.0
RESUME_FAILURES_AN_HOUR = 3
CLAIMS_LOST_IN_TEN_MINUTES = 5
FAILING_S = 6 * MINUTE_S  # so long, and somebody should get up
PAUSE_S = 5 * MINUTE_S  # failures closer than this are one failure that goes on
DELIVERY_WAITS_S = HOUR_S
SWEEP_SLACK_S = HOUR_S

_RESUME_FAILURES = "SELECT started_at FROM runs WHERE began_anew AND started_at >= ?"
_LOST = "SELECT ended_at FROM runs WHERE outcome = 'lost' AND ended_at >= ?"
_MIRROR_FAILURES = """
    SELECT errors.at FROM runs JOIN errors USING (run_id)
    WHERE runs.last_event_at >= :since AND errors.kind = 'transcript' AND errors.at >= :since"""
_LIGHTS: tuple[Light, ...] = ("green", "amber", "red")


@dataclass(frozen=True, slots=True)
class Incidents:
    """What went wrong in runs, and when: the first first.

    Attributes:
        resume_failures: Runs that did not find the conversation that they were to go on with.
        mirror_failures: Appends to transcripts that gave up.
        lost: Runs that were stopped as their claim was lost.
    """

    resume_failures: tuple[float, ...] = ()
    mirror_failures: tuple[float, ...] = ()
    lost: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Reach:
    """Whether something answers.

    Attributes:
        problem: Why it does not; `None`: it does.
        failing_since: Since when.
    """

    problem: str | None = None
    failing_since: float | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """All that the watchdog goes by.

    Attributes:
        now: The time.
        incidents: What went wrong in runs; `None`: nobody knows yet.
        stale: Claims whose time is up.
        tainted: Sessions of which something is missing.
        store: Whether the store answers.
        registry: Whether the registry does.
        sweep: The last sweep that was done, if there was one.
        sweep_failed: Whether a later one failed.
        sweep_interval_s: How often sweeps are due; 0: never.
        waiting: Webhooks that wait.
        failed_deliveries: When webhooks came that were given up.
    """

    now: float
    incidents: Incidents | None = None
    stale: Sequence[ClaimView] = ()
    tainted: Sequence[SessionView] = ()
    store: Reach = Reach()
    registry: Reach = Reach()
    sweep: SweepEntry | None = None
    sweep_failed: bool = False
    sweep_interval_s: float = 0.0
    waiting: Waiting = field(default_factory=Waiting)
    failed_deliveries: Sequence[float] = ()


def incidents(database: sqlite3.Connection, since: float) -> Incidents:
    """Return what went wrong in runs after a time."""
    values = {"since": text_of(since)}
    return Incidents(
        _times(database.execute(_RESUME_FAILURES, (values["since"],))),
        _times(database.execute(_MIRROR_FAILURES, values)),
        _times(database.execute(_LOST, (values["since"],))),
    )


def judge(seen: Seen) -> WatchdogView:
    """Return how the fleet is."""
    signs = (
        _resume_failures(seen),
        _mirror_failures(seen),
        _fenced_writers(seen),
        _tainted(seen),
        _stale_claims(seen),
        _sweeper(seen),
        _webhooks(seen),
        _reachable("store", "Store", seen.store, seen.now, "alarms.md#everturnmirrorkeepsfailing"),
        _reachable("registry", "Registry", seen.registry, seen.now, "alarms.md#everturnclaimslostwidely"),
    )
    worst = max(_LIGHTS.index(sign.light) for sign in signs)
    return WatchdogView(_LIGHTS[worst], signs, seen.now - PERIOD_S)


def _times(rows: sqlite3.Cursor) -> tuple[float, ...]:
    return tuple(sorted(at for row in rows if (at := seconds(row[0])) is not None))


def _resume_failures(seen: Seen) -> Sign:
    name, title, place = "resume_failures", "Resume failures", "alarms.md#everturnresumefailures"
    if seen.incidents is None:
        return _unknown(name, title, place)
    times = seen.incidents.resume_failures
    light: Light = "amber" if _most_within(times, HOUR_S) >= RESUME_FAILURES_AN_HOUR else "green"
    if not times:
        return Sign(name, title, light, 0, "Every conversation that was to be resumed was found.", place)
    what = f"{plural(len(times), 'conversation was', 'conversations were')} not found in the last day"
    more = f", {RESUME_FAILURES_AN_HOUR} or more of them within an hour" if light == "amber" else ""
    return Sign(name, title, light, len(times), f"{what}{more}; each was begun anew.", place)


def _mirror_failures(seen: Seen) -> Sign:
    name, title, place = "mirror_failures", "Transcripts", "alarms.md#everturnmirrorfailures"
    if seen.incidents is None:
        return _unknown(name, title, place)
    times = seen.incidents.mirror_failures
    if not times:
        return Sign(name, title, "green", 0, "Everything that was said in the last day was stored.", place)
    what = plural(len(times), "append")
    if _goes_on(times, seen.now):
        reason = f"{what} to transcripts gave up in the last day, and it goes on."
        return Sign(name, title, "red", len(times), reason, "alarms.md#everturnmirrorkeepsfailing")
    return Sign(name, title, "amber", len(times), f"{what} to transcripts gave up in the last day.", place)


def _fenced_writers(seen: Seen) -> Sign:
    name, title, place = "fenced_writers", "Fenced writers", "alarms.md#everturnwritersfenced"
    if seen.incidents is None:
        return _unknown(name, title, place)
    times = seen.incidents.lost
    if not times:
        return Sign(name, title, "green", 0, "No run lost its claim in the last day.", place)
    recent = tuple(at for at in times if at > seen.now - HOUR_S)
    what = f"{plural(len(times), 'run')} lost {'its claim' if len(times) == 1 else 'their claims'} in the last day"
    if _most_within(recent, 10 * MINUTE_S) >= CLAIMS_LOST_IN_TEN_MINUTES:
        reason = f"{what}, {CLAIMS_LOST_IN_TEN_MINUTES} or more of them within ten minutes, an hour ago at most."
        return Sign(name, title, "red", len(times), reason, "alarms.md#everturnclaimslostwidely")
    return Sign(name, title, "amber", len(times), f"{what}, and {_was(times)} stopped.", place)


def _was(times: Sequence[float]) -> str:
    return "was" if len(times) == 1 else "were"


def _tainted(seen: Seen) -> Sign:
    name, title, place = "tainted_sessions", "Tainted sessions", "alarms.md#everturnsessionstainted"
    count = len(seen.tainted)
    if not count:
        return Sign(name, title, "green", 0, "No session lacks anything that was said.", place)
    recent = sum(1 for each in seen.tainted if each.last_used_at > seen.now - PERIOD_S)
    what = plural(count, "session lacks", "sessions lack")
    if recent:
        reason = f"{what} something that was said, {recent} of them used in the last day."
        return Sign(name, title, "red", count, reason, place)
    return Sign(name, title, "amber", count, f"{what} something that was said, none of them used of late.", place)


def _stale_claims(seen: Seen) -> Sign:
    name, title, place = "stale_claims", "Stale claims", "http-api.md#stale-claims"
    count = len(seen.stale)
    if not count:
        return Sign(name, title, "green", 0, "Whoever began work has finished it, or is at it.", place)
    oldest = seen.now - min(each.held_until for each in seen.stale)
    what = plural(count, "work item was", "work items were")
    reason = f"{what} left by a worker that died, for {_long(oldest)} at most, and nobody has taken over."
    return Sign(name, title, "amber", count, reason, place)


def _sweeper(seen: Seen) -> Sign:
    name, title, place = "sweeper", "Sweeper", "alarms.md#everturnsweepsfailing"
    if not seen.sweep_interval_s:
        return Sign(name, title, "green", None, "Sweeps are switched off.", place)
    last_at = None if seen.sweep is None else seen.sweep.done_at or seen.sweep.begun_at
    if last_at is None:
        reason = "The last sweep failed, and there was none before." if seen.sweep_failed else "It has never swept."
        return Sign(name, title, "amber", None, reason, place)
    age_s = max(0.0, seen.now - last_at)
    when = f"It last swept {_long(age_s)} ago"
    if age_s > 2 * seen.sweep_interval_s + SWEEP_SLACK_S:
        return Sign(name, title, "red", None, f"{when}; it should every {duration(seen.sweep_interval_s)}.", place)
    if age_s > seen.sweep_interval_s + SWEEP_SLACK_S:
        return Sign(name, title, "amber", None, f"{when}; it should every {duration(seen.sweep_interval_s)}.", place)
    if seen.sweep_failed:
        return Sign(name, title, "amber", None, f"{when}, and failed since.", place)
    return Sign(name, title, "green", None, f"{when}.", place)


def _webhooks(seen: Seen) -> Sign:
    name, title, place = "webhooks", "Webhooks", "http-api.md#webhooks-that-wait"
    failed, waiting = len(seen.failed_deliveries), seen.waiting
    age_s = 0.0 if waiting.oldest_at is None else seen.now - waiting.oldest_at
    wait = f"{plural(waiting.count, 'webhook waits', 'webhooks wait')}, the first for {_long(age_s)}"
    if age_s > PERIOD_S + HOUR_S:
        return Sign(name, title, "red", waiting.count, f"{wait}: nobody sees to them.", place)
    if failed:
        reason = f"{plural(failed, 'webhook was', 'webhooks were')} given up in the last day."
        return Sign(name, title, "amber", failed, reason, place)
    if age_s > DELIVERY_WAITS_S:
        return Sign(name, title, "amber", waiting.count, f"{wait}.", place)
    if waiting.count:
        return Sign(name, title, "green", waiting.count, f"{wait}.", place)
    return Sign(name, title, "green", 0, "Every webhook is done.", place)


def _reachable(name: str, title: str, reach: Reach, now: float, place: str) -> Sign:
    if reach.problem is None:
        return Sign(name, title, "green", None, "It answers.", place)
    age_s = max(0.0, now - (reach.failing_since or now))
    light: Light = "red" if age_s > FAILING_S else "amber"
    return Sign(name, title, light, None, f"It has not answered for {_long(age_s)}: {reach.problem}.", place)


def _unknown(name: str, title: str, place: str) -> Sign:
    return Sign(name, title, "green", None, "Nothing is known of runs yet.", place)


def _most_within(times: Sequence[float], period_s: float) -> int:
    """Return how many there were at most within a period."""
    most = start = 0
    for end, at in enumerate(times):
        while at - times[start] > period_s:
            start += 1
        most = max(most, end - start + 1)
    return most


def _goes_on(times: Sequence[float], now: float) -> bool:
    """Tell whether failures follow each other closely until now, and have for long enough."""
    if not times or now - times[-1] > PAUSE_S:
        return False
    first = times[-1]
    for at in reversed(times):
        if first - at > PAUSE_S:
            break
        first = at
    return times[-1] - first > FAILING_S


def _long(seconds: float) -> str:
    """Return a time that goes on, in words that do not change with each second of its beginning."""
    return duration(seconds) if seconds >= 60 else "less than a minute"
