"""The journal of a run whose worker has died: what is whole is kept, and what is missing in the store is stored."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from everturn.clock import Clock, Ids, SystemClock
from everturn.errors import Corrupt
from everturn.journal.events import Damaged
from everturn.journal.file import cut
from everturn.journal.lines import line_of, parse
from everturn.journal.reading import Journals, RunRef
from everturn.journal.shipping import FRAME_BYTES, Appender
from everturn.log.objects import Objects, run
from everturn.settings import Settings
from everturn.telemetry import Metrics, default_metrics, get_logger


@dataclass(frozen=True, slots=True)
class Leftover:
    """What became of a journal that was left behind.

    Attributes:
        events: How many events were stored that had not been.
        torn_bytes: How much was cut off at its end: a line that had no end.
        damaged: How many lines could not be read. They were stored as `damaged` events.
    """

    events: int
    torn_bytes: int
    damaged: int


def ship_leftover(
    objects: Objects,
    ref: RunRef,
    path: Path,
    *,
    settings: Settings,
    clock: Clock | None = None,
    ids: Ids | None = None,
    metrics: Metrics | None = None,
) -> Leftover:
    """Store what a dead run had written and not stored. Blocks. On return all of its journal is in the store.

    It is safe to call again, and beside a request of the dead run that is still on its way: readers take each event
    once.

    Args:
        objects: The store.
        ref: Whose journal it is.
        path: Where it is on this machine. A last line that has no end is cut off.
        settings: How long to try.
        clock: For deadlines.
        ids: For write ids.
        metrics: What is counted.

    Raises:
        Denied: The file cannot be read or written, or the credentials are refused.
        Unavailable: The store did not answer in time.
        Corrupt: What is stored of the journal is damaged.
    """
    clock, metrics = clock or SystemClock(), metrics or default_metrics()
    torn_bytes = cut(path).torn_bytes
    stored = {event.seq for event in run(Journals(objects, "").read(ref)).events}
    appender = Appender(objects, ref.folder, settings=settings, clock=clock, ids=ids or Ids(), metrics=metrics)
    events = damaged = 0
    waiting: list[bytes] = []
    waiting_bytes = 0
    try:
        for seq, line, is_damaged in _lines(path, int(clock.now() * 1000)):
            if seq in stored:
                continue
            events += 1
            damaged += is_damaged
            if waiting and waiting_bytes + len(line) > FRAME_BYTES:
                appender.append(b"".join(waiting))
                waiting, waiting_bytes = [], 0
            waiting.append(line)
            waiting_bytes += len(line)
        if waiting:
            appender.append(b"".join(waiting))
    finally:
        appender.close()
    if torn_bytes or damaged:
        metrics.journal_lines_damaged.inc(damaged + bool(torn_bytes))
        get_logger().warning(
            "journal_mended", left_by=ref.run_id, torn_bytes=torn_bytes, damaged_lines=damaged, path=str(path)
        )
    return Leftover(events, torn_bytes, damaged)


def _lines(path: Path, now_ms: int) -> Iterator[tuple[int, bytes, bool]]:
    """Yield the number of each event and its line, and whether it stands for one that cannot be read."""
    seq = 0
    with path.open("rb") as file:
        for line in file:
            try:
                seq, made = parse(line).seq, line
            except Corrupt:
                seq += 1
                made = line_of(Damaged(base64.b64encode(line).decode()), seq, now_ms)
            yield seq, made, made is not line
