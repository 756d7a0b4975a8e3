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


class LeftJournal:
    """A journal that a dead run has left on this machine.

    Args:
        objects: The store.
        ref: Whose journal it is.
        path: Where it is on this machine.
        settings: How long to try.
        clock: For deadlines.
        ids: For write ids.
        metrics: What is counted.
    """

    def __init__(
        self,
        objects: Objects,
        ref: RunRef,
        path: Path,
        *,
        settings: Settings,
        clock: Clock | None = None,
        ids: Ids | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._objects = objects
        self._ref = ref
        self._path = path
        self._clock = clock or SystemClock()
        self._metrics = metrics or default_metrics()
        self._appender = Appender(
            objects, ref.folder, settings=settings, clock=self._clock, ids=ids or Ids(), metrics=self._metrics
        )
        self._log = get_logger()

    def ship(self) -> Leftover:
        """Store what the run had written and not stored. Blocks. On return all of its journal is in the store.

        A last line that has no end is cut off. It is safe to call again, and beside a request of the dead run that is
        still on its way: readers take each event once.

        Raises:
            Denied: The file cannot be read or written, or the credentials are refused.
            Unavailable: The store did not answer in time.
            Corrupt: What is stored of the journal is damaged.
        """
        torn_bytes = cut(self._path).torn_bytes
        there = run(Journals(self._objects, "").read(self._ref))
        if there.deleted:  # and must not come back
            return Leftover(0, torn_bytes, 0)
        events, damaged = self._ship_all_but({event.seq for event in there.events})
        if torn_bytes or damaged:
            self._metrics.journal_lines_damaged.inc(damaged + bool(torn_bytes))
            self._log.warning(
                "journal_mended",
                left_by=self._ref.run_id,
                torn_bytes=torn_bytes,
                damaged_lines=damaged,
                path=str(self._path),
            )
        return Leftover(events, torn_bytes, damaged)

    def _ship_all_but(self, stored: set[int]) -> tuple[int, int]:
        """Append the other events; return how many they are, and how many of them stand for damaged lines."""
        events = damaged = 0
        frame = b""
        try:
            for seq, line, is_damaged in _lines(self._path, int(self._clock.now() * 1000)):
                if seq in stored:
                    continue
                events += 1
                damaged += is_damaged
                if frame and len(frame) + len(line) > FRAME_BYTES:
                    self._appender.append(frame)
                    frame = b""
                frame += line
            if frame:
                self._appender.append(frame)
        finally:
            self._appender.close()
        return events, damaged


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
