"""Which log lines are counted, and when that is an alarm (docs/logs.md, docs/alarms.md).

It imports nothing, so that a test can hold it against the package's log lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["page", "ticket"]

SWEEPS_LOOKED_AT_H = 6  # how long one period of the sweeper's alarm is


@dataclass(frozen=True, slots=True)
class Counted:
    """Log lines that are counted.

    Args:
        metric: The metric's name.
        event: The lines' `event`.
        field: The field that has the number which a line counts as; None: it counts as one.
    """

    metric: str
    event: str
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """When there is an alarm.

    Args:
        name: Its name, which is also its heading in docs/alarms.md.
        metric: The metric it goes by.
        severity: Whether somebody is woken.
        says: What has happened, in a sentence.
        threshold: How many there have to be in one period.
        minutes: How long a period is.
        periods: How many periods in a row there have to be.
    """

    name: str
    metric: str
    severity: Severity
    says: str
    threshold: int = 1
    minutes: int = 5
    periods: int = 1


COUNTED = (
    Counted("MirrorFailures", "append_failed"),
    Counted("ResumeFailures", "session_not_found"),
    Counted("FencedWriters", "fenced"),
    Counted("TaintedSessions", "session_tainted"),
    Counted("ShutdownsOverrun", "shutdown_overrun"),
    Counted("ClaimsLost", "claim_lost"),
    Counted("Sweeps", "swept"),
    Counted("RunsEnded", "run_ended"),
    Counted("HealedEntries", "healed", "entries"),
)

RULES = (
    Rule("EverturnMirrorFailures", "MirrorFailures", "ticket", "Appends to transcripts gave up."),
    Rule(
        "EverturnMirrorKeepsFailing",
        "MirrorFailures",
        "page",
        "Appends to transcripts have been giving up for ten minutes.",
        periods=2,
    ),
    Rule("EverturnSessionsTainted", "TaintedSessions", "page", "A transcript lacks something that was said."),
    Rule(
        "EverturnResumeFailures",
        "ResumeFailures",
        "ticket",
        "Three sessions within an hour could not be found when they were to be resumed.",
        threshold=3,
        minutes=60,
    ),
    Rule("EverturnWritersFenced", "FencedWriters", "ticket", "A worker wrote on after another one had taken over."),
    Rule("EverturnClaimsLost", "ClaimsLost", "ticket", "A claim ended while its run was in progress."),
    Rule(
        "EverturnClaimsLostWidely",
        "ClaimsLost",
        "page",
        "Five claims ended within ten minutes while their runs were in progress.",
        threshold=5,
        minutes=10,
    ),
    Rule(
        "EverturnShutdownsOverrun",
        "ShutdownsOverrun",
        "ticket",
        "A run that was to stop took longer than shutdown_grace_s.",
    ),
)
SWEEPER = Rule("EverturnSweeperStopped", "Sweeps", "ticket", "No sweep of the registry has gone well for too long.")
