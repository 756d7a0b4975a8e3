"""What one operation costs its process, and how large its result is."""

from __future__ import annotations

import gc
import hashlib
import re
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson

from bench.servers import Server

Result = TypeVar("Result")

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass
class Figures:
    """What was measured.

    Attributes:
        wall_s: Time that passed.
        cpu_s: Processor time of all threads of this process, user and system.
        peak_bytes: By how much resident memory rose at its highest.
        requests: What the server counted, by kind.
        latencies_s: Of single steps, if there were several.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    requests: dict[str, int] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)


async def measure(server: Server, operation: Callable[[], Awaitable[Result]]) -> tuple[Result, Figures]:
    """Carry out an operation and measure it."""
    server.take_counts()
    gc.collect()
    before_bytes = _begin_peak()
    cpu_s, started = _cpu_s(), time.perf_counter()
    result = await operation()
    wall_s, used_s = time.perf_counter() - started, _cpu_s() - cpu_s
    peak_bytes = max(0, _peak() - before_bytes)
    return result, Figures(wall_s, used_s, peak_bytes, server.take_counts())


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _begin_peak() -> int:
    """Begin to watch for the highest resident memory, and return what there is now.

    Linux can forget an older peak; elsewhere the highest ever has to do, which is the same in a fresh process.
    """
    if not _CLEAR.exists():
        return _peak()
    _CLEAR.write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    if _STATUS.exists():
        return _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(name: str) -> int:
    match = re.search(rf"{name}:\s+(\d+) kB", _STATUS.read_text())
    assert match is not None
    return int(match[1]) * 1024


def size_of_lines(entries: list[Any]) -> int:
    """Return how many bytes entries take as lines of JSON."""
    return sum(len(orjson.dumps(entry)) + 1 for entry in entries)


def size_in_memory(entries: list[Any]) -> int:
    """Return how many bytes a list takes with everything in it, each object counted once."""
    seen: set[int] = set()
    waiting: list[Any] = [entries]
    total = 0
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        total += sys.getsizeof(item)
        if isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            waiting += item
    return total


def digest(entries: list[Any]) -> str:
    """Return a fingerprint of entries, whatever the order of their keys."""
    found = hashlib.sha256()
    for entry in entries:
        found.update(orjson.dumps(entry, option=orjson.OPT_SORT_KEYS) + b"\n")
    return found.hexdigest()
