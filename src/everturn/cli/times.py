"""Times as people type them."""

from __future__ import annotations

from datetime import UTC, datetime

from everturn.cli.sessions.deleting import milliseconds
from everturn.clock import Clock
from everturn.errors import Invalid

_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999  # of the years 1 and 9999, in UTC


def moment_ms(text: str, clock: Clock) -> int:
    """Return a time, in milliseconds since the Unix epoch.

    Args:
        text: How long ago, as in `2h` or `3d`; or a day or a time as ISO 8601 has it, in UTC if it does not say.
        clock: Tells the time.

    Raises:
        Invalid: It is neither.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        pass
    else:
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return min(max(int(moment.timestamp() * 1000), _FIRST_MS), _LAST_MS)
    try:
        return int(clock.now() * 1000) - milliseconds(text)
    except Invalid:
        raise Invalid(f"{text!r} is no time", hint="say how long ago, as in 2h or 3d, or when: 2026-11-01") from None
