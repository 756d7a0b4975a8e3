"""What compaction did, as log lines and counts."""

from __future__ import annotations

from everturn.log.compaction import Outcome
from everturn.telemetry import Metrics, get_logger


class CompactionReport:
    """A `CompactionObserver` that logs and counts.

    Args:
        metrics: What is counted.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._log = get_logger().bind()

    def compacted(self, folder: str, outcome: Outcome, freed: int, seconds: float) -> None:
        """Parts were merged, or freed."""
        self._metrics.compactions.labels("done").inc()
        self._metrics.compacted_objects.inc(outcome.merged)
        self._metrics.freed_objects.inc(freed)
        self._log.info(
            "compacted",
            log=folder,
            merged=outcome.merged,
            segments=len(outcome.segments),
            freed=freed,
            size_bytes=outcome.size_bytes,
            seconds=round(seconds, 3),
        )

    def compaction_failed(self, folder: str, error: Exception) -> None:
        """A compaction gave up. The log is as whole as before."""
        self._metrics.compactions.labels("failed").inc()
        self._log.warning("compaction_failed", log=folder, error=str(error))
