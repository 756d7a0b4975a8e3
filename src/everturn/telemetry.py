"""Structured logs, and metrics.

Logs are one JSON object a line, on the standard library's logger `everturn`. A library must not decide where they go,
so nothing is set up on import: a program that configures `logging` gets our lines with its own, and the `everturn`
command calls `log_to_stderr`. No transcript text is ever logged.

Every line of a run says whose it is. What is bound lives in a context variable, because runs share the connection to
the store, the registry and the workdirs: only whoever makes a call knows on whose behalf it is.

Metrics are Prometheus metrics in the default registry, where programs expect those of their libraries.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    import structlog

LOGGER_NAME = "everturn"
FIRST_FIELDS = ("timestamp", "level", "event", "task_id", "run_id", "session_id", "epoch")
APPEND_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40)
RUN_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)


class Metrics:
    """All metrics of a process; `docs/metrics.md` lists them.

    Args:
        registry: Where they are registered. Two of these need two registries.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

        def counter(name: str, meaning: str, **values: tuple[str, ...]) -> Counter:
            return _counter(f"everturn_{name}", meaning, registry, values)

        self.parts_written = counter("parts_written", "Parts that are durable.", kind=("data", "fence", "truncate"))
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
        self.compactions = counter("compactions", "Compactions, by how they ended.", outcome=("done", "failed"))
        self.compacted_objects = counter("compacted_objects", "Parts and segments that were merged.")
        self.freed_objects = counter("freed_objects", "Objects that were deleted as a segment covers them.")
        self._count_runs(registry)
        self._count_workdirs(registry)
        self._count_journals(registry)
        self._count_service(registry)

    def _count_runs(self, registry: CollectorRegistry) -> None:
        def counter(name: str, meaning: str, **values: tuple[str, ...]) -> Counter:
            return _counter(name, meaning, registry, values)

        def seconds(name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, meaning, buckets=buckets, registry=registry)

        self.runs = counter(
            "everturn_runs",
            "Runs that have ended, by how.",
            outcome=("completed", "failed", "stopped", "lost", "refused"),
        )
        self.runs_in_progress = Gauge("everturn_runs_in_progress", "Runs of this process.", registry=registry)
        self.claims = counter(
            "everturn_claims", "Claims, by what came of them.", outcome=("new", "resumed", "taken_over", "refused")
        )
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
        self.trace_uploads = counter(
            "everturn_trace_uploads", "Uploads of traces, by how they ended.", outcome=("done", "failed", "late")
        )
        self.sweeps = counter(
            "everturn_sweeps", "Sweeps of the registry, by how they ended.", outcome=("done", "failed")
        )

    def _count_workdirs(self, registry: CollectorRegistry) -> None:
        def counter(name: str, meaning: str, **values: tuple[str, ...]) -> Counter:
            return _counter(f"everturn_{name}", meaning, registry, values)

        self.workdir_opens = counter(
            "workdir_opens", "Workdirs that were opened, by what was there.", outcome=("new", "reused", "kept")
        )
        self.workdir_open_seconds = Histogram(
            "everturn_workdir_open_seconds",
            "From the wish for a workdir until an agent can work in it.",
            buckets=RUN_BUCKETS_S,
            registry=registry,
        )
        self.fetches = counter(
            "git_fetches", "Fetches into a cache, by how they ended.", outcome=("done", "skipped", "failed")
        )
        self.cache_repairs = counter("cache_repairs", "Caches that were found damaged, and mended.")
        self.rescues = counter(
            "workdir_rescues",
            "Workdirs with unsaved work that had to go, by how it was kept.",
            how=("quarantine", "push"),
        )
        self.workdirs_removed = counter(
            "workdirs_removed",
            "Workdirs and caches that were removed.",
            reason=("expired", "evicted", "reset", "broken"),
        )
        self.workdir_sweeps = counter(
            "workdir_sweeps", "Sweeps of the workdirs, by how they ended.", outcome=("done", "failed")
        )
        self.workdirs_bytes = Gauge(
            "everturn_workdirs_bytes", "Room they take on the disk, when last measured.", ("kind",), registry=registry
        )
        self.workdirs_missing_bytes = Gauge(
            "everturn_workdirs_missing_bytes", "Room that should be free, and cannot be made.", registry=registry
        )
        for kind in ("trees", "caches", "quarantine"):
            self.workdirs_bytes.labels(kind)

    def _count_journals(self, registry: CollectorRegistry) -> None:
        def counter(name: str, meaning: str, **values: tuple[str, ...]) -> Counter:
            return _counter(f"everturn_{name}", meaning, registry, values)

        self.journal_write_failures = counter("journal_write_failures", "Events that could not be written.")
        self.journal_ship_failures = counter("journal_ship_failures", "Attempts to store events that gave up.")
        self.journal_lines_damaged = counter(
            "journal_lines_damaged", "Lines of dead runs' journals that were torn or could not be read."
        )
        self.journal_unshipped_bytes = Gauge(
            "everturn_journal_unshipped_bytes",
            "Events that are not in the store yet.",
            registry=registry,
        )
        self.mirror_events = counter(
            "mirror_events", "Events that mirrors have taken in.", outcome=("folded", "unknown", "unreadable")
        )
        self.mirror_rebuilds = counter(
            "mirror_rebuilds",
            "Mirrors that were thrown away and rebuilt, by why.",
            reason=("missing", "fold_changed", "corrupt", "other_store", "asked"),
        )
        self.mirror_update_failures = counter(
            "mirror_update_failures", "Attempts to keep a mirror up to date that gave up."
        )

    def _count_service(self, registry: CollectorRegistry) -> None:
        def counter(name: str, meaning: str, **values: tuple[str, ...]) -> Counter:
            return _counter(f"everturn_{name}", meaning, registry, values)

        def gauge(name: str, meaning: str) -> Gauge:
            return Gauge(f"everturn_{name}", meaning, registry=registry)

        self.webhooks = counter(
            "webhooks",
            "Webhooks, by what they were answered.",
            outcome=("queued", "duplicate", "ignored", "refused", "failed"),
        )
        self.webhook_seconds = Histogram(
            "everturn_webhook_seconds",
            "How long webhooks took to be answered.",
            buckets=APPEND_BUCKETS_S,
            registry=registry,
        )
        self.deliveries = counter(
            "deliveries", "Webhooks that were done, by what came of them.", outcome=("freed", "nothing", "failed")
        )
        self.deliveries_waiting = gauge("deliveries_waiting", "Webhooks that are not done yet.")
        self.oldest_delivery_seconds = gauge("oldest_delivery_seconds", "How old the oldest of them is.")
        self.admin_calls = counter(
            "admin_calls", "Admin requests, by how they ended.", outcome=("done", "refused", "failed")
        )
        self.access_refused = counter(
            "access_refused", "Requests that brought a wrong token.", door=("read", "admin")
        )
        self.dashboard_streams = gauge("dashboard_streams", "Browsers that are told of news.")
        self.last_sweep = gauge("last_sweep_timestamp_seconds", "When the service last swept; 0: it never did.")


def _counter(name: str, meaning: str, registry: CollectorRegistry, values: dict[str, tuple[str, ...]]) -> Counter:
    """Return a counter that shows 0 for each value of its label: to Prometheus, what begins with 1 has not grown."""
    made = Counter(name, meaning, tuple(values), registry=registry)
    for label, known in values.items():
        for value in known:
            made.labels(**{label: value})
    return made


def default_metrics() -> Metrics:
    """Return the metrics in Prometheus's default registry, which refuses to have them twice. Any thread may ask."""
    if not _default:
        with _making:
            if not _default:
                _default.append(Metrics(REGISTRY))
    return _default[0]


_default: list[Metrics] = []
_making = threading.Lock()


@dataclass(slots=True)
class RunContext:
    """What every log line of a run says: whose it is.

    One object for the whole run: a thread that was begun before the session was known, or before it was exchanged for
    another one, says the right one all the same.

    Attributes:
        task_id: The key of the work item.
        run_id: This run; another one of the same work item has another id.
        session_id: The conversation; `None` until the work item is claimed.
        epoch: The claim's number; `None` until there is one.
    """

    task_id: str
    run_id: str
    session_id: str | None = None
    epoch: int | None = None

    @contextmanager
    def bound(self) -> Iterator[None]:
        """Make the lines say so that are logged inside the block, and in the tasks and threads begun there.

        For a task of one's own: in a generator, the block would go on in its caller between two values. Blocks may
        stand in each other; the innermost goes.
        """
        outer = _current_run.get()
        _current_run.set(self)
        try:
            yield
        finally:
            # Not reset with a token: that would fail where a block is left in another context than it was entered.
            _current_run.set(outer)


_current_run: ContextVar[RunContext | None] = ContextVar("everturn-run", default=None)


def name_session(session_id: str, epoch: int) -> None:
    """Have the lines of the run that is bound say from now on which session, under which claim, it is at work on."""
    context = _current_run.get()
    if context is not None:
        context.session_id, context.epoch = session_id, epoch


def carrying_run(work: Callable[[], None]) -> Callable[[], None]:
    """Return work that logs as the run of now, wherever it is done: in a thread, or when the program ends.

    Nothing else of the context goes along. The patience of an operation, for one, ends with the operation.
    """
    context = _current_run.get()
    if context is None:
        return work

    def work_for_run() -> None:
        with context.bound():
            work()

    return work_for_run


def _name_run(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = _current_run.get()
    if context is not None:
        line.setdefault("task_id", context.task_id)
        line.setdefault("run_id", context.run_id)
        line.setdefault("session_id", context.session_id)
        line.setdefault("epoch", context.epoch)
    return line


def _in_order(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    first = {name: line.pop(name) for name in FIRST_FIELDS if name in line}
    return {**first, **line}


def get_logger() -> structlog.stdlib.BoundLogger:
    """Return a logger whose lines carry the run that is bound, and what was bound with `structlog.contextvars`.

    A field that is given with a line goes before both, and the run's go before those of the caller.
    """
    # Imported here: it brings all that colours a terminal, which no import of ours should wait for.
    import structlog  # noqa: PLC0415

    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(LOGGER_NAME),
        processors=[
            structlog.stdlib.filter_by_level,
            _name_run,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _in_order,
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
