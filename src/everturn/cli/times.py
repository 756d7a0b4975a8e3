"""Times as people type them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from everturn.clock import Clock
from everturn.errors import Invalid

_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999  # of the years 1 and 9999, in UTC
_UNITS_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}


def milliseconds(age: str) -> int:
    """Return an age like `90d` in milliseconds.

    Raises:
        Invalid: It is not one.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,6})([mhdw])", age.strip())
    if match is None:
        raise Invalid(f"{age!r} is no age", hint="write a number and m, h, d or w: 90d")
    return int(match[1]) * _UNITS_MS[match[2]]


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
