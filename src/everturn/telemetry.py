"""Structured logs, and metrics.

Logs are one JSON object a line, on the standard library's logger `everturn`. A library must not decide where they go,
so nothing is set up on import: a program that configures `logging` gets our lines with its own, and the `everturn`
command calls `log_to_stderr`. No transcript text is ever logged.

Metrics are Prometheus metrics in the default registry, where programs expect those of their libraries.
"""

from __future__ import annotations

import logging
import sys
from functools import cache

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

LOGGER_NAME = "everturn"
APPEND_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40)
RUN_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)


class Metrics:
    """All metrics of a process; `docs/metrics.md` lists them.

    Args:
        registry: Where they are registered. Two of these need two registries.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"everturn_{name}", meaning, labels, registry=registry)

        self.parts_written = counter("parts_written", "Parts that are durable.", "kind")
        self.bytes_written = counter("written_bytes", "Their size, as stored.")
        self.append_seconds = Histogram(
            "everturn_append_seconds",
            "How long appends took until they were durable.",
            buckets=APPEND_BUCKETS_S,
            registry=registry,
        )
        self.store_throttled = counter("store_throttled", "Requests that the store refused: there were too many.")
        self.store_retries = counter("store_retries", "Requests to the store that were made again.")
        self.mirror_failures = counter("mirror_failures", "Appends to transcripts that gave up.")
        self.writers_met = counter("writers_met", "Numbers that another writer had taken.")
        self.fenced = counter("fenced", "Writers that a newer claim has stopped.")
        self.summary_failures = counter("summary_failures", "Summaries that could not be written.")
        self.compactions = counter("compactions", "Compactions, by how they ended.", "outcome")
        self.compacted_objects = counter("compacted_objects", "Parts and segments that were merged.")
        self.freed_objects = counter("freed_objects", "Objects that were deleted as a segment covers them.")
        self._count_runs(registry)

    def _count_runs(self, registry: CollectorRegistry) -> None:
        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(name, meaning, labels, registry=registry)

        def seconds(name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, meaning, buckets=buckets, registry=registry)

        self.runs = counter("everturn_runs", "Runs that have ended, by how.", "outcome")
        self.runs_in_progress = Gauge("everturn_runs_in_progress", "Runs of this process.", registry=registry)
        self.claims = counter("everturn_claims", "Claims, by what came of them.", "outcome")
        self.claim_renewal_failures = counter("everturn_claim_renewal_failures", "Heartbeats that failed.")
        self.claims_lost = counter("everturn_claims_lost", "Claims that ended before their run did.")
        self.resume_failures = counter(
            "claude_session_resume_failures", "Sessions that could not be resumed, as they were not found."
        )
        self.stale_sessions = counter("everturn_stale_sessions", "Sessions that were dropped because of their age.")
        self.dispatch_seconds = seconds(
            "everturn_dispatch_seconds", "From the claim to a fenced transcript.", APPEND_BUCKETS_S
        )
        self.resume_seconds = seconds(
            "everturn_resume_seconds",
            "From the claim of a begun session to its agent's first message.",
            RUN_BUCKETS_S,
        )
        self.shutdown_seconds = seconds(
            "everturn_shutdown_seconds", "From the wish to stop a run to its end.", RUN_BUCKETS_S
        )
        self.shutdowns_overrun = counter(
            "everturn_shutdowns_overrun", "Runs that took longer than their grace period to let go."
        )
        self.healed_entries = counter("everturn_healed_entries", "Entries appended late, from a local copy.")
        self.tainted_sessions = counter("everturn_tainted_sessions", "Sessions whose transcript could not be healed.")
        self.old_agents = counter("everturn_old_agents_ended", "Processes of earlier runs that had to be ended.")
        self.trace_uploads = counter("everturn_trace_uploads", "Uploads of traces, by how they ended.", "outcome")
        self.sweeps = counter("everturn_sweeps", "Sweeps of the registry, by how they ended.", "outcome")


@cache
def default_metrics() -> Metrics:
    """Return the metrics in Prometheus's default registry."""
    return Metrics(REGISTRY)


def get_logger() -> structlog.stdlib.BoundLogger:
    """Return a logger whose lines carry what was bound with `structlog.contextvars`."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(LOGGER_NAME),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return logger


def log_to_stderr(level: str) -> None:
    """Send the lines to standard error.

    Args:
        level: `debug`, `info`, `warning` or `error`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger(LOGGER_NAME)
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
