"""What happens to transcripts, as log lines, and as counts the runner asks for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from everturn.errors import Fenced
from everturn.log.format import Header
from everturn.telemetry import Metrics, default_metrics, get_logger
from everturn.transcripts.ledger import Ledger


@dataclass
class StoreObserver:
    """Logs what happens to a store's logs and remembers what a run must react to.

    Failures are counted here, where they happen: the SDK may drop its own report of them when its buffer is full.

    Attributes:
        parts_written: How many parts with entries are durable.
        failed_appends: How many appends gave up.
        ledger: What was handed over and is not known to be stored.
        metrics: What is counted for the whole process.
        fenced: The error that ended this store's right to write, if one did.
    """

    parts_written: int = 0
    failed_appends: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    metrics: Metrics = field(default_factory=default_metrics)
    fenced: Fenced | None = None

    def __post_init__(self) -> None:
        self._log = get_logger().bind()  # bound once: an unbound logger binds itself anew at every line

    def wrote(self, folder: str, header: Header, size_bytes: int, seconds: float) -> None:
        """A part is durable."""
        self.parts_written += header.kind == "data"
        self.ledger.settled(header.write_id)
        self.metrics.parts_written.labels(header.kind).inc()
        self.metrics.bytes_written.inc(size_bytes)
        self.metrics.append_seconds.observe(seconds)
        if not self._log.isEnabledFor(logging.DEBUG):
            return
        self._log.debug(
            "part_written",
            log=folder,
            kind=header.kind,
            seq=header.span.first,
            epoch=header.epoch,
            entries=header.count,
            size_bytes=size_bytes,
            seconds=round(seconds, 6),
        )

    def passed(self, folder: str, other: Header | None) -> None:
        """Two writers met on one log."""
        self.metrics.writers_met.inc()
        self._log.warning(
            "writers_met",
            log=folder,
            seq=other.span.first if other else None,
            other_writer=other.writer if other else None,
            other_epoch=other.epoch if other else None,
        )

    def failed(self, folder: str, count: int, error: Exception) -> None:
        """An append gave up."""
        self.failed_appends += 1
        self.metrics.mirror_failures.inc()
        self._log.error("append_failed", log=folder, entries=count, error=str(error))

    def stopped(self, error: Fenced) -> None:
        """A newer owner has taken over."""
        if self.fenced is None:
            self.metrics.fenced.inc()
            self._log.error("fenced", error=str(error))
        self.fenced = error

    def too_large(self, warnings: Sequence[str]) -> None:
        """A session that is about to be resumed is larger than is good for the agent."""
        for warning in warnings:
            self._log.warning("transcript_large", message=warning)

    def healed(self, log: str, count: int) -> None:
        """Entries were appended late, from a local copy."""
        self.metrics.healed_entries.inc(count)
        self._log.info("healed", log=log, entries=count)

    def not_healed(self, log: str, count: int, reason: str) -> None:
        """Entries are missing, or may be, and cannot be appended."""
        self._log.error("not_healed", log=log, entries=count, reason=reason)

    def summary_failed(self, session_id: str, error: Exception) -> None:
        """A summary was not written. It is derived: the next one, or a reader, makes up for it."""
        self.metrics.summary_failures.inc()
        self._log.warning("summary_failed", session_id=session_id, error=str(error))
