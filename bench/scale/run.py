"""What is simulated, and its figures as JSON."""

from __future__ import annotations

import logging
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

from bench.scale.agent import LABEL, Asked, Hour, simulate
from bench.scale.counting import READS, WRITES, TableClient
from everturn.clock import Ids, ManualClock
from everturn.model import Holder, WorkItem
from everturn.registry import DynamoDbRegistry
from everturn.settings import Settings

Row = dict[str, Any]

SCENARIOS: dict[str, dict[str, Any]] = {
    "eager": {},
    "linger": {"linger_s": 5.0},
    "sparing": {"linger_s": 5.0, "journal_ship_s": 10.0},
}
SWEPT = 1000


@dataclass(frozen=True)
class Plan:
    """How much is simulated.

    Attributes:
        agents: How many agents, for each scenario.
        hour: What of each.
    """

    agents: int
    hour: Hour


FULL = Plan(6, Hour())
PROBE = Plan(1, Hour(seconds=240.0))  # so little that a test can do it again


def results(plan: Plan = FULL, probe: Plan = PROBE) -> Row:
    """Simulate everything, with two processes, and return the figures."""
    return {
        "seconds": plan.hour.seconds,
        "runs": plan.hour.runs,
        "scenarios": figures(plan),
        "probe": figures(probe),
        "sweep": sweep(SWEPT),
    }


def figures(plan: Plan, processes: int = 2) -> dict[str, list[Row]]:
    """Simulate the agents of each scenario, and return what each asked for."""
    asked = {
        name: [(number, replace(plan.hour, settings=given)) for number in range(plan.agents)]
        for name, given in SCENARIOS.items()
    }
    if plan.agents == 1:
        return {name: [row_of(simulate(*each)) for each in of_it] for name, of_it in asked.items()}
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=quiet) as pool:
        waiting = {name: [pool.submit(_simulated, *each) for each in of_it] for name, of_it in asked.items()}
        return {name: [each.result() for each in of_it] for name, of_it in waiting.items()}


def quiet() -> None:
    """Let the library log nothing that is not wrong."""
    logging.disable(logging.WARNING)


def _simulated(number: int, hour: Hour) -> Row:
    return row_of(simulate(number, hour))


def row_of(asked: Asked) -> Row:
    """Return figures as JSON has them."""
    tally = asked.tally
    purposes = sorted({purpose for purpose, _ in tally.requests})
    folders = sorted({folder for folder, _ in tally.folders})
    return {
        "requests": {each: dict(sorted(_of(tally.requests, each).items())) for each in purposes},
        "folders": {each: dict(sorted(_of(tally.folders, each).items())) for each in folders},
        "sent_bytes": sum(tally.sent.values()),
        "fetched_bytes": sum(tally.fetched.values()),
        "writes": _moments(tally.seconds, WRITES, asked.seconds),
        "reads": _moments(tally.seconds, READS, asked.seconds),
        "registry": dict(sorted(asked.requests.items())),
        "units": dict(sorted(asked.units.items())),
        "item_bytes": asked.item_bytes,
        "kept_bytes": dict(sorted(asked.kept_bytes.items())),
        "kept_objects": asked.kept_objects,
        "frames": asked.frames,
        "entries": asked.entries,
        "loaded": asked.loaded,
    }


def _of(counts: Counter[tuple[str, str]], first: str) -> dict[str, int]:
    return {kind: count for (of, kind), count in counts.items() if of == first}


def _moments(seconds: Counter[tuple[int, str]], kinds: tuple[str, ...], duration_s: float) -> dict[str, float]:
    """Return the mean of requests a second, their variance, and the most in one."""
    by_second: Counter[int] = Counter()
    for (second, kind), count in seconds.items():
        if kind in kinds:
            by_second[second] += count
    mean = sum(by_second.values()) / duration_s
    squares = sum(count * count for count in by_second.values()) / duration_s
    return {"mean": mean, "variance": squares - mean * mean, "most": max(by_second.values(), default=0)}


def sweep(rows: int) -> Row:
    """Return what it takes to look for stale sessions in a table of so many, none of which is stale."""
    ids = Ids(0)
    clock = ManualClock(boot=ids.session_id())
    client = TableClient(clock)
    settings = Settings.model_construct()
    registry = DynamoDbRegistry("agents", client=client, ages=settings.session_ages(), clock=clock, ids=ids)
    for number in range(rows):
        holder = Holder("worker-0", ids.run_id(), clock.boot())
        claim = registry.claim(WorkItem.task(f"{number:06}"), holder, LABEL, ttl_s=30)
        registry.confirm(claim, "/home/dev/project")
    client.units.clear()
    client.requests.clear()
    registry.sweep()
    return {"rows": rows, "units": client.units["read"], "requests": client.requests["Scan"]}


def total(row: Row, *kinds: str) -> int:
    """Return how many requests of some kinds a row has."""
    return sum(counts.get(kind, 0) for counts in row["requests"].values() for kind in kinds)
