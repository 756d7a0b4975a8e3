"""Fewer points for a chart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Point = TypeVar("Point")


def thinned(points: Sequence[Point], most: int) -> tuple[Point, ...]:
    """Return so many points at most, evenly chosen; the last one stays."""
    step = -(-len(points) // most) or 1
    return tuple(points[::-1][::step][::-1])
