"""Where the registries of these tests are: one file, or one table of a server whose clock is turned by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest

from everturn.clock import ManualClock
from everturn.errors import Held
from everturn.model import Claim, Holder, SessionAges, SessionRecord, WorkItem
from everturn.registry import Registry, SqliteRegistry

START_S = 1_700_000_000.0
TTL_S = 30.0
AFTER_TTL_S = TTL_S + 3  # a registry may let a claim last a little longer, never less
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
AGES = SessionAges(24 * 3_600_000, {"reviewer": None, "hasty": 60_000})

WORK = WorkItem("fixer", "https://example.org/shop", 12)
OTHER = WorkItem.task("nightly")


class Place(Protocol):
    """A registry's place. Each `connect` is a worker of its own that sees the same rows."""

    clock: ManualClock

    def connect(self, ages: SessionAges = AGES) -> Registry: ...


@dataclass
class SqlitePlace:
    path: Path
    clock: ManualClock = field(default_factory=lambda: ManualClock(START_S))

    def connect(self, ages: SessionAges = AGES) -> Registry:
        return SqliteRegistry(self.path, ages=ages, clock=self.clock)


def holder(name: str = "w1", run: str = "") -> Holder:
    """A worker with a run of its own, named after it."""
    return Holder(name, run or f"run-{name}", "boot-1")


def claim(
    registry: Registry, name: str = "w1", *, work: WorkItem = WORK, store: str = "", instead_of: Held | None = None
) -> Claim:
    return registry.claim(work, holder(name), store, ttl_s=TTL_S, instead_of=instead_of)


def used(registry: Registry, work: WorkItem = WORK, name: str = "w1") -> Claim:
    """Claim a work item, use its session now, and let go of it."""
    taken = claim(registry, name, work=work)
    registry.confirm(taken, "/desk")
    registry.release(taken)
    return taken


def known(registry: Registry, work: WorkItem = WORK) -> SessionRecord:
    record = registry.get(work)
    assert record is not None
    return record


def about(seconds: float) -> object:
    """The server of a registry may tell the time in whole seconds."""
    return pytest.approx(seconds, abs=2)


def refusal(registry: Registry, name: str = "w2") -> Held:
    with pytest.raises(Held) as caught:
        claim(registry, name)
    return caught.value
