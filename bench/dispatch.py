"""Dispatches, one after the other, up to the start of an agent that answers at once."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from claude_agent_sdk import ClaudeAgentOptions
from prometheus_client import REGISTRY

from bench.plan import turned
from everturn import Runtime, WorkItem
from everturn.clock import ManualClock, SystemClock
from everturn.model import Holder
from everturn.registry import SqliteRegistry
from everturn.testing import InstantAgent

CASES = ("new", "stale", "lost", "resumed")
STALE_S = 25 * 3600.0

Times = dict[str, float]


class Worker:
    """A worker with a registry of its own.

    Args:
        folder: Where it keeps things.
        store: The URL of its store; a folder of its own if it is `None`.
    """

    def __init__(self, folder: Path, store: str | None) -> None:
        self._desk = folder / "desk"
        self._desk.mkdir()
        self._agent = InstantAgent(folder / "agent")
        self._registry = folder / "registry.db"
        self._store = store or (folder / "store").as_uri()
        self._options = ClaudeAgentOptions(cli_path=self._agent.path, cwd=self._desk, env={"HOME": str(folder)})
        self._runtime = Runtime.open(
            state=folder / "state", store=self._store, registry=f"sqlite://{self._registry}", sweep_on_start=False
        )
        self._prepare: dict[str, Callable[[WorkItem], None]] = {
            "stale": lambda work: self._know(work, STALE_S),
            "lost": lambda work: self._know(work, 0.0),
        }

    async def dispatch(self, case: str, work: WorkItem) -> Times:
        """Dispatch a work item, and return how long it took from the call to the agent's start, and from the claim to
        the fence."""
        if case in self._prepare:
            self._prepare[case](work)
        elif case == "resumed":
            await self._run(work)
        before_s, began = _dispatched_s(), time.monotonic()
        await self._run(work)
        start = self._agent.starts[-1]
        if start.resumed != (case == "resumed"):
            raise RuntimeError(f"{work.key} should not have been resumed, or should have been: {case}")
        return {"start_s": start.at_s - began, "fence_s": _dispatched_s() - before_s}

    async def _run(self, work: WorkItem) -> None:
        async for _ in self._runtime.run(work, prompt="Go.", options=self._options):
            pass

    def _know(self, work: WorkItem, ago_s: float) -> None:
        """Have the registry know a session that was used some time ago; nothing of it is stored."""
        clock = ManualClock(SystemClock().now() - ago_s, boot="an earlier one")
        registry = SqliteRegistry(self._registry, clock=clock)
        claim = registry.claim(work, Holder("earlier"), self._store, ttl_s=30)
        registry.confirm(claim, str(self._desk))
        registry.release(claim)


async def dispatches(rounds: int, store: str | None) -> dict[str, Any]:
    """Dispatch each case once in each round, in another order each time; one round before them warms up."""
    found: dict[str, list[Times]] = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory(prefix="everturn-bench-") as folder:
        worker = Worker(Path(folder), store)
        for number in range(rounds + 1):
            for case in turned(CASES, number):
                took = await worker.dispatch(case, WorkItem.task(f"{case}-{number}"))
                if number:
                    found[case].append(took)
    return {"cases": {case: _figures(times, found["new"]) for case, times in found.items()}}


def _figures(times: list[Times], new: list[Times]) -> dict[str, Any]:
    """Return the median, between what most lie, and how many times as long a start took as that of the new one of its
    round."""
    figures: dict[str, Any] = {"count": len(times)}
    for name in ("start_s", "fence_s"):
        tenths = quantiles((took[name] for took in times), n=10, method="inclusive")
        figures[name] = {"median": tenths[4], "low": tenths[0], "high": tenths[8]}
    pairs = zip(times, new, strict=True)
    return {**figures, "times_new": median(took["start_s"] / beside["start_s"] for took, beside in pairs)}


def _dispatched_s() -> float:
    return REGISTRY.get_sample_value("everturn_dispatch_seconds_sum") or 0.0
