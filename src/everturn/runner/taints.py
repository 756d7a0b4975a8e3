"""What is missing of a transcript, as the registry keeps it: one reason for each run that could not store something.

Each run adds its own, and takes away no other: what one machine has stored late says nothing of what another one
has lost.
"""

from __future__ import annotations

_BETWEEN = "; "


def reason_of(run_id: str, reasons: tuple[str, ...]) -> str:
    """Return in one sentence why a run's transcript is not whole."""
    told = ", ".join(reasons) or "the store could not be reached at its end"
    return f"{told.replace(_BETWEEN, ', ')} (run {run_id})"


def with_reason(tainted: str | None, reason: str) -> str:
    """Return what is missing when there is one reason more."""
    return _BETWEEN.join(dict.fromkeys([*_split(tainted), reason]))


def without_reason(tainted: str | None, reason: str | None) -> str | None:
    """Return what is still missing when a reason has gone; `None`: nothing."""
    return _BETWEEN.join(each for each in _split(tainted) if each != reason) or None


def _split(tainted: str | None) -> list[str]:
    return tainted.split(_BETWEEN) if tainted else []
