"""Time and randomness, in the one place that may touch them.

Everything else takes a `Clock` and `Ids` as arguments, so that a test can turn the time by hand and a seed
reproduces a run.
"""

from __future__ import annotations

import random
import time
import uuid
from functools import cache
from pathlib import Path
from typing import Protocol

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """Tells the time and waits."""

    def now(self) -> float:
        """Return seconds since the Unix epoch. It may jump; use it for display and age, never for order."""

    def elapsed(self) -> float:
        """Return seconds since some fixed start. It never goes back, and counts while a machine is suspended."""

    def boot(self) -> str:
        """Return what identifies this machine since it started: processes that see the same may compare what
        `elapsed` told them. Empty if the system does not say."""

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for this many seconds."""


class SystemClock:
    """The real clock of the machine."""

    def now(self) -> float:
        """Return seconds since the Unix epoch."""
        return time.time()

    def elapsed(self) -> float:
        """Return seconds since boot, suspended time included where the system can tell (Linux)."""
        if hasattr(time, "CLOCK_BOOTTIME"):
            return time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.monotonic()

    def boot(self) -> str:
        """Return the id that Linux gives to each of its starts; elsewhere nothing."""
        return _boot_id()

    def sleep(self, seconds: float) -> None:
        """Block the calling thread."""
        time.sleep(seconds)


@cache
def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


class ManualClock:
    """A clock that stands still until it is told to move. Sleeping moves it.

    Args:
        start: The time it shows first.
        boot: What identifies its machine since it started.
    """

    def __init__(self, start: float = 1_700_000_000.0, *, boot: str = "manual") -> None:
        self._now = start
        self._elapsed = start
        self._boot = boot

    def now(self) -> float:
        """Return the time that was set."""
        return self._now

    def elapsed(self) -> float:
        """Return the time that was set, without the jumps."""
        return self._elapsed

    def boot(self) -> str:
        """Return what was given."""
        return self._boot

    def sleep(self, seconds: float) -> None:
        """Move the clock instead of waiting."""
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Move the clock forward by this many seconds."""
        self._now += seconds
        self._elapsed += seconds

    def jump(self, seconds: float) -> None:
        """Set the time of day forward or, if negative, back, as somebody who mends a wrong clock does."""
        self._now += seconds


class Ids:
    """Fresh identifiers and jitter.

    Args:
        seed: Makes every id and every jitter reproducible. `None`, the default, asks the operating system.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._random: random.Random = random.SystemRandom() if seed is None else random.Random(seed)

    def token(self) -> str:
        """Return 16 random hexadecimal digits."""
        return f"{self._random.getrandbits(64):016x}"

    def run_id(self) -> str:
        """Return a random id for a run: 20 hexadecimal digits."""
        return f"{self._random.getrandbits(80):020x}"

    def random_bytes(self, count: int) -> bytes:
        """Return this many random bytes."""
        return self._random.randbytes(count)

    def session_id(self) -> str:
        """Return a random UUID (version 4), the form the agent command takes for session ids."""
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def jitter(self, seconds: float) -> float:
        """Return a random duration between nothing and this many seconds ("full jitter")."""
        return self._random.uniform(0, seconds)
