"""Writes that wait are committed together, and each of them is answered for itself."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from everturn.clock import Ids, ManualClock
from everturn.errors import Invalid, Unavailable
from everturn.logbook.file import LogbookFile
from everturn.logbook.logbook import Logbook
from everturn.logbook.writing import LIMIT, Writer
from polling import wait_until


class CountingFile(LogbookFile):
    """Counts commits."""

    commits = 0

    def open_to_write(self) -> sqlite3.Connection:
        connection = super().open_to_write()
        connection.set_trace_callback(self._count)
        return connection

    def _count(self, statement: str) -> None:
        self.commits += statement == "COMMIT"


class Gate:
    """A write that holds up all others until it is opened."""

    def __init__(self, writer: Writer) -> None:
        self._entered, self._opened = threading.Event(), threading.Event()
        self.written = writer.submit(self._work)
        assert self._entered.wait(20)

    def _work(self, database: sqlite3.Connection) -> None:
        self._entered.set()
        assert self._opened.wait(20)

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def file(path: Path, clock: ManualClock) -> CountingFile:
    return CountingFile(path, clock, Ids(1))


@pytest.fixture
def writer(file: CountingFile) -> Iterator[Writer]:
    made = Writer(file)
    yield made
    made.close()


def note(name: str) -> Callable[[sqlite3.Connection], str]:
    def work(database: sqlite3.Connection) -> str:
        database.execute("INSERT INTO samples VALUES (1, ?, 1)", (name,))
        return name

    return work


def names(file: LogbookFile) -> set[str]:
    return {name for (name,) in file.rows("SELECT name FROM samples")}


def test_what_waits_meanwhile_is_committed_together(writer: Writer, file: CountingFile) -> None:
    gate = Gate(writer)
    futures = [writer.submit(note(f"n-{number}")) for number in range(100)]
    gate.open()
    assert [future.result() for future in futures] == [f"n-{number}" for number in range(100)]
    assert file.commits == 2


def test_a_future_has_its_result_only_when_others_see_what_was_written(writer: Writer, file: CountingFile) -> None:
    seen = []
    for number in range(20):
        future = writer.submit(note(f"n-{number}"))
        future.add_done_callback(lambda _: seen.append(len(names(file))))
        future.result()
    wait_until(lambda: len(seen) == 20, "all were told")
    assert seen == list(range(1, 21))


def test_a_write_that_fails_undoes_itself_and_not_its_neighbours(writer: Writer, file: CountingFile) -> None:
    def half(database: sqlite3.Connection) -> None:
        note("half")(database)
        raise ValueError("no more")

    def twice(database: sqlite3.Connection) -> None:
        note("before")(database)

    gate = Gate(writer)
    futures: list[Any] = [writer.submit(work) for work in (note("before"), half, twice, note("after"))]
    gate.open()
    assert futures[0].result() == "before"
    for failed in futures[1:3]:
        with pytest.raises(Invalid):
            failed.result()
    assert futures[3].result() == "after"
    assert names(file) == {"before", "after"}
    assert file.commits == 2


def test_writes_survive_a_power_cut_as_each_commit_is_synced(file: CountingFile) -> None:
    connection = file.open_to_write()
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: the log is synced after each commit
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


@pytest.mark.slow
def test_too_many_that_wait_are_refused_but_not_our_own(writer: Writer, file: CountingFile) -> None:
    gate = Gate(writer)
    waiting = [writer.submit(note(f"n-{number}")) for number in range(LIMIT)]
    refused = writer.submit(note("refused"))
    with pytest.raises(Unavailable, match="too busy"):
        refused.result(0)
    own = writer.submit(note("own"), must=True)
    gate.open()
    assert own.result() == "own"
    assert all(future.result() for future in waiting)
    assert "refused" not in names(file)


def test_what_somebody_no_longer_waits_for_is_not_written(writer: Writer, file: CountingFile) -> None:
    gate = Gate(writer)
    left, kept = writer.submit(note("left")), writer.submit(note("kept"))
    assert left.cancel()
    gate.open()
    assert kept.result() == "kept"
    assert names(file) == {"kept"}


def test_all_that_is_left_alone_does_not_end_the_thread(writer: Writer) -> None:
    gate = Gate(writer)
    assert writer.submit(note("left")).cancel()
    gate.open()
    gate.written.result()
    assert writer.submit(note("next")).result() == "next"


def test_closing_writes_what_waits_and_leaves_no_thread(writer: Writer, file: CountingFile) -> None:
    before = threading.active_count()
    gate = Gate(writer)
    futures = [writer.submit(note(f"n-{number}")) for number in range(1200)]
    gate.open()
    writer.close()
    writer.close()
    assert all(future.done() for future in futures)
    assert len(names(file)) == 1200
    assert threading.active_count() <= before  # those of earlier tests may end meanwhile
    with pytest.raises(Unavailable, match="closed"):
        writer.submit(note("late"), must=True).result(0)


def test_nothing_runs_until_something_is_written(path: Path) -> None:
    before = threading.active_count()
    logbook = Logbook(path)
    logbook.deliveries.page(1)
    assert threading.active_count() <= before  # those of earlier tests may end meanwhile
    logbook.close()


def test_what_was_written_is_told_to_a_loop_that_waits(logbook: Logbook) -> None:
    async def ask() -> list[str]:
        puts = (logbook.deliveries.put("github", f"d-{number}", "push", {}) for number in range(50))
        return await asyncio.gather(*(asyncio.wrap_future(each) for each in puts))

    assert asyncio.run(ask()) == ["queued"] * 50


FORK = """
import os, sys, threading
from pathlib import Path
from everturn.logbook.logbook import Logbook

logbook = Logbook(Path(sys.argv[1]))
stop = threading.Event()
def stream():
    number = 0
    while not stop.is_set():
        logbook.deliveries.put("github", f"parent-{number}", "push", {}).result()
        number += 1
thread = threading.Thread(target=stream)
thread.start()
for fork in range(8):
    child = os.fork()
    if not child:
        puts = [logbook.deliveries.put("github", f"child-{fork}-{number}", "push", {}) for number in range(5)]
        answers = {put.result() for put in puts}
        logbook.close()
        os._exit(0 if answers == {"queued"} else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stop.set()
thread.join()
assert logbook.deliveries.put("github", "last", "push", {}).result() == "queued"
logbook.close()
"""


@pytest.mark.slow
def test_children_that_are_forked_while_it_is_written_use_the_file_too(path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORK, str(path)]
    done = subprocess.run(command, env={}, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    ids = [entry.delivery_id for entry in Logbook(path).deliveries.page(100_000)]
    assert sum(each.startswith("child-") for each in ids) == 40
    assert "last" in ids
    assert LogbookFile(path, ManualClock(), Ids()).rows("PRAGMA integrity_check") == [("ok",)]


def test_a_file_that_was_moved_away_is_not_written_any_more(logbook: Logbook, path: Path) -> None:
    logbook.deliveries.put("github", "d-1", "push", {}).result()
    path.replace(path.with_name("moved.db"))
    logbook.deliveries.put("github", "d-2", "push", {}).result()
    assert [entry.delivery_id for entry in logbook.deliveries.page(9)] == ["d-2"]
