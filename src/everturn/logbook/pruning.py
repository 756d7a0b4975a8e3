"""What goes with age."""

from __future__ import annotations

import sqlite3
from concurrent.futures import Future

from everturn.clock import Clock
from everturn.logbook.writing import Writer

ROWS = 1000  # of a table in one transaction, so that webhooks need not wait for long
DAY_S = 86400.0
ID_S = 8 * DAY_S  # GitHub sends again what is up to 3 days old, GitHub Enterprise Server 7
ALL_S, HOURLY_S, DAILY_S = 2 * DAY_S, 14 * DAY_S, 400 * DAY_S  # how long samples are kept, and one for each hour, day

_OLD_DELIVERIES = """
DELETE FROM deliveries WHERE number IN (SELECT number FROM deliveries WHERE done_at < ? LIMIT ?)
"""
_OLD_ACTS = "DELETE FROM acts WHERE number IN (SELECT number FROM acts WHERE at < ? ORDER BY number LIMIT ?)"
_OLD_SWEEPS = """
DELETE FROM sweeps WHERE number IN (SELECT number FROM sweeps WHERE begun_at < ? AND number IS NOT
    (SELECT max(number) FROM sweeps WHERE state = 'done') ORDER BY number LIMIT ?)
"""
_OLD_SAMPLES = "DELETE FROM samples WHERE at < ?"
_THIN = """
DELETE FROM samples WHERE at < :before AND at NOT IN
    (SELECT min(at) FROM samples WHERE at < :before GROUP BY CAST(at / :every_s AS INTEGER))
"""


def prune(writer: Writer, clock: Clock, keep_s: float) -> Future[int]:
    """See `Logbook.prune`."""
    pruned: Future[int] = Future()
    pruned.set_running_or_notify_cancel()

    def work(database: sqlite3.Connection) -> tuple[int, bool]:
        return _prune(database, clock.now(), keep_s)

    def go_on(before: int) -> None:
        def then(step: Future[tuple[int, bool]]) -> None:
            error = step.exception()
            if error is not None:
                pruned.set_exception(error)
                return
            gone, more = step.result()
            if more:
                go_on(before + gone)
            else:
                pruned.set_result(before + gone)

        writer.submit(work, must=True).add_done_callback(then)

    go_on(0)
    return pruned


def _prune(database: sqlite3.Connection, now: float, keep_s: float) -> tuple[int, bool]:
    """Return how many rows went, and whether there are more."""
    counts = [
        database.execute(_OLD_DELIVERIES, (now - max(keep_s, ID_S), ROWS)).rowcount,
        database.execute(_OLD_ACTS, (now - keep_s, ROWS)).rowcount,
        database.execute(_OLD_SWEEPS, (now - keep_s, ROWS)).rowcount,
    ]
    gone = sum(counts) + database.execute(_OLD_SAMPLES, (now - DAILY_S,)).rowcount
    for age_s, every_s in ((ALL_S, 3600.0), (HOURLY_S, DAY_S)):
        gone += database.execute(_THIN, {"before": now - age_s, "every_s": every_s}).rowcount
    return gone, max(counts) == ROWS
