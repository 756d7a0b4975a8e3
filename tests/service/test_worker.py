"""What webhooks ask for is done once each, whatever fails or is killed meanwhile."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from everturn import databases
from everturn.clock import Ids, ManualClock
from everturn.errors import Unavailable
from everturn.forges.base import Happening
from everturn.logbook.entries import DeliveryEntry
from everturn.logbook.logbook import Logbook
from everturn.service.worker import BATCH, FIRST_RETRY_S, GIVE_UP_S, LAST_RETRY_S, DeliveryWorker
from everturn.settings import inherited_environment
from everturn.telemetry import Metrics
from polling import wait_until
from service.fake_freeing import FileFreeing


class Desk:
    """A logbook, a fake Freeing, and a worker."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "trees").mkdir()
        self.clock = ManualClock()
        self.registry = CollectorRegistry()
        self.logbook = Logbook(folder / "logbook.db", clock=self.clock)
        self.freeing = FileFreeing(folder / "trees")
        self.metrics = Metrics(self.registry)
        self.worker = self.new_worker()

    def new_worker(self) -> DeliveryWorker:
        return DeliveryWorker(self.logbook, self.freeing, self.metrics, self.clock, Ids(1))

    def put(self, *numbers: str, **facts: Any) -> None:
        puts = []
        for number in numbers:
            happening = Happening("issue_closed", ("https://forge/a/b",), number)
            puts.append(self.logbook.deliveries.put("github", number, "issues", {**happening.facts(), **facts}))
        assert {put.result() for put in puts} == {"queued"}
        self.worker.wake()

    def entry(self, number: str) -> DeliveryEntry:
        return next(entry for entry in self.logbook.deliveries.page(10_000) if entry.delivery_id == number)

    def after(self, number: str, *, attempts: int = 1) -> DeliveryEntry:
        """Wait for an attempt, and return the entry."""
        wait_until(lambda: self.entry(number).attempts >= attempts, f"attempt {attempts} of {number}")
        return self.entry(number)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.worker.wake()

    def count(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"everturn_{name}", labels)

    def shows(self, waiting: int) -> Callable[[], bool]:
        return lambda: self.count("deliveries_waiting") == waiting

    def close(self) -> None:
        assert self.worker.stop(20)
        self.logbook.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with closing(Desk(tmp_path / "state")) as made:
        yield made


def test_what_a_webhook_asks_for_is_done_and_noted(desk: Desk) -> None:
    desk.freeing.hold("7")
    desk.put("7", "8")
    desk.worker.start()
    entry = desk.after("7")
    assert (entry.state, entry.freed, entry.attempts) == ("done", 1, 1)
    assert entry.details == ("workdir 7 removed: its issue was closed",)
    assert (desk.after("8").state, desk.after("8").details) == ("done", ())
    for outcome in ("freed", "nothing"):
        wait_until(lambda outcome=outcome: desk.count("deliveries_total", outcome=outcome) == 1, "it was counted")  # type: ignore[misc]
    wait_until(desk.shows(0), "nothing waits")
    assert desk.freeing.looks == 1


@pytest.mark.slow
def test_a_webhook_that_comes_while_it_works_is_done_at_once(desk: Desk) -> None:
    desk.worker.start()
    for number in range(20):
        desk.put(str(number))
        assert desk.after(str(number)).state == "done"


def test_what_waits_for_a_run_is_tried_again_until_that_ends(desk: Desk) -> None:
    desk.freeing.hold("7", busy=True)
    desk.put("7")
    desk.worker.start()
    waits = []
    for attempt in range(1, 9):
        entry = desk.after("7", attempts=attempt)
        assert (entry.state, entry.details, entry.failing_since) == (
            "waiting",
            ("it is tried again: 7: a run",),
            None,
        )
        assert entry.next_at is not None
        waits.append(entry.next_at - desk.clock.now())
        assert wait_until(desk.shows(1), "one waits")
        desk.advance(waits[-1])
    assert 0.9 * FIRST_RETRY_S <= waits[0] <= FIRST_RETRY_S
    assert 0.9 * LAST_RETRY_S <= waits[-1] <= LAST_RETRY_S
    assert waits[:5] == sorted(waits[:5])
    desk.freeing.end_run("7")
    desk.after("7", attempts=9)
    desk.advance(LAST_RETRY_S)
    wait_until(lambda: desk.entry("7").state == "done", "it is done")
    assert desk.entry("7").details == ("workdir 7 removed: its issue was closed",)
    wait_until(lambda: desk.count("deliveries_total", outcome="freed") == 1, "it was counted")


def test_it_waits_for_a_run_for_as_long_as_that_takes(desk: Desk) -> None:
    desk.freeing.hold("7", busy=True)
    desk.put("7")
    desk.worker.start()
    desk.after("7")
    desk.advance(3 * GIVE_UP_S)
    assert desk.after("7", attempts=2).state == "waiting"


def test_an_error_is_tried_again_and_given_up_after_a_day(desk: Desk) -> None:
    desk.freeing.failure = Unavailable("the registry does not answer", hint="try again")
    desk.put("7")
    desk.worker.start()
    entry = desk.after("7")
    began_at = desk.clock.now()
    assert (entry.state, entry.failing_since) == ("waiting", began_at)
    assert entry.details == ("it is tried again: the registry does not answer (try again)",)
    desk.advance(GIVE_UP_S - 60)
    assert desk.after("7", attempts=2).state == "waiting"
    desk.freeing.failure = KeyError("sessions")
    desk.advance(LAST_RETRY_S)
    failed = desk.after("7", attempts=3)
    assert (failed.state, failed.details) == ("failed", ("given up after a day: KeyError: 'sessions'",))
    assert desk.logbook.deliveries.waiting().count == 0
    wait_until(lambda: desk.count("deliveries_total", outcome="failed") == 1, "it was counted")


def test_an_error_that_passes_is_forgotten(desk: Desk) -> None:
    desk.freeing.hold("7", busy=True)
    desk.freeing.failure = OSError("the disk has gone away")
    desk.put("7")
    desk.worker.start()
    desk.after("7")
    desk.freeing.failure = None
    desk.advance(GIVE_UP_S + 60)
    assert desk.after("7", attempts=2).failing_since is None
    desk.freeing.failure = OSError("the disk has gone away")
    desk.advance(LAST_RETRY_S)
    assert desk.after("7", attempts=3).state == "waiting"


def test_a_look_that_fails_puts_all_off_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise Unavailable("the registry does not answer", hint="try again")

    monkeypatch.setattr(desk.freeing, "look", fail)
    desk.put("7", "8")
    desk.worker.start()
    assert {desk.after(number).state for number in ("7", "8")} == {"waiting"}
    monkeypatch.undo()
    desk.advance(FIRST_RETRY_S)
    assert {desk.after(number, attempts=2).state for number in ("7", "8")} == {"done"}


@pytest.mark.parametrize(
    "facts", [{"since": "tomorrow"}, {"kind": "repository_archived"}, {"kind": ["odd"]}], ids=["more", "kind", "odd"]
)
def test_what_another_release_noted_fails_with_the_reason(desk: Desk, facts: dict[str, Any]) -> None:
    desk.put("6", **facts)
    desk.put("7")
    desk.worker.start()
    assert desk.after("7").state == "done"
    entry = desk.after("6")
    assert (entry.state, len(entry.details)) == ("failed", 1)
    assert "this release" in entry.details[0]


@pytest.mark.slow
def test_fifteen_thousand_that_end_nothing_are_done_quickly(desk: Desk) -> None:
    numbers = [str(number) for number in range(15_000)]
    for start in range(0, len(numbers), 3000):
        desk.put(*numbers[start : start + 3000])
    desk.worker.start()
    wait_until(lambda: desk.count("deliveries_total", outcome="nothing") == len(numbers), "all are done and counted")
    assert desk.freeing.looks == len(numbers) / BATCH
    assert not desk.logbook.deliveries.waiting().count


def test_what_was_freed_is_noted_before_the_next_is_begun(desk: Desk) -> None:
    for number in ("1", "2", "3"):
        desk.freeing.hold(number)
    seen = []
    desk.freeing.before_free = lambda happening: seen.append(desk.logbook.deliveries.waiting().count)
    desk.put("1", "x", "2", "3")
    desk.worker.start()
    wait_until(lambda: not desk.logbook.deliveries.waiting().count, "all are done")
    assert seen == [4, 3, 3, 1]


def test_an_old_look_is_not_believed(desk: Desk) -> None:
    desk.freeing.before_free = lambda happening: desk.clock.advance(6)
    desk.put("1", "2", "3", "4")
    desk.worker.start()
    wait_until(lambda: not desk.logbook.deliveries.waiting().count, "all are done")
    assert desk.freeing.looks == 2


def test_it_stops_after_the_delivery_that_is_being_done(desk: Desk) -> None:
    for number in ("1", "2"):
        desk.freeing.hold(number)
    entered, go_on = threading.Event(), threading.Event()

    def wait(_: Happening) -> None:
        entered.set()
        assert go_on.wait(20)

    desk.freeing.before_free = wait
    desk.put("1", "2")
    desk.worker.start()
    assert entered.wait(20)
    assert not desk.worker.stop(0.01)
    go_on.set()
    assert desk.worker.stop(20)
    assert [desk.entry(number).state for number in ("1", "2")] == ["done", "queued"]
    desk.worker = desk.new_worker()
    desk.worker.start()
    assert desk.after("2").state == "done"


def test_of_two_workers_one_stands_by_until_the_other_has_gone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everturn.service.worker.TICK_S", 0.05)
    desk.put("1")
    desk.worker.start()
    desk.after("1")
    other = desk.new_worker()
    freed_by = []
    desk.freeing.before_free = lambda happening: freed_by.append(threading.current_thread())
    other.start()
    for number in range(10):
        desk.put(f"a{number}")
        other.wake()
        desk.after(f"a{number}")
    assert len(set(freed_by)) == 1
    assert desk.worker.stop(20)
    desk.worker = other
    desk.put("2")
    assert desk.after("2").state == "done"
    assert len(set(freed_by)) == 2


def test_one_that_was_never_started_stops(desk: Desk) -> None:
    assert desk.new_worker().stop(0)


def test_the_gauges_say_how_old_the_oldest_is(desk: Desk) -> None:
    desk.freeing.hold("7", busy=True)
    desk.put("7")
    desk.worker.start()
    desk.after("7")
    desk.clock.advance(400)
    desk.put("8")
    desk.after("7", attempts=2)
    wait_until(lambda: desk.count("oldest_delivery_seconds") == 400, "its age is shown")
    assert desk.count("deliveries_waiting") == 1


def test_a_logbook_that_cannot_be_written_for_a_while_stops_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everturn.service.worker.TICK_S", 0.01)
    monkeypatch.setattr("everturn.databases.BUSY_TIMEOUT_S", 0.05)
    desk.freeing.hold("7")
    desk.put("7")
    with closing(databases.connect(desk.logbook.path, "rw")) as holder:
        holder.execute("BEGIN IMMEDIATE")
        desk.worker.start()
        wait_until(lambda: desk.freeing.looks >= 2, "it was tried again")
        assert desk.entry("7").state == "queued"
    entry = desk.after("7")
    assert (entry.state, entry.attempts) == ("done", 1)


def test_a_row_that_cannot_be_read_is_told_once_and_work_goes_on_when_it_is_mended(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("everturn.service.worker.TICK_S", 0.01)
    desk.put("7")
    with closing(databases.connect(desk.logbook.path, "rw")) as connection:
        connection.execute("UPDATE deliveries SET facts = '{'")
        looks = []
        monkeypatch.setattr(desk.logbook.deliveries, "due", watched(desk.logbook.deliveries.due, looks))
        desk.worker.start()
        wait_until(lambda: len(looks) >= 3, "it was tried again")
        connection.execute(
            "UPDATE deliveries SET facts = ?", (json.dumps(Happening("issue_closed", ("r",)).facts()),)
        )
    assert desk.after("7").state == "done"
    assert sum("deliveries_stuck" in record.getMessage() for record in caplog.records) == 1


def watched(look: Callable[..., Any], looks: list[int]) -> Callable[..., Any]:
    def due(*arguments: Any) -> Any:
        looks.append(1)
        return look(*arguments)

    return due


# A service that is killed again and again: it accepts webhooks and does them. Each third one frees something.
SERVICE = """
import os, sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from everturn.clock import Ids, SystemClock
from everturn.forges.base import Happening
from everturn.logbook.logbook import Logbook
from everturn.service.worker import DeliveryWorker
from everturn.telemetry import Metrics
from service.fake_freeing import FileFreeing

folder, name = Path(sys.argv[1]), sys.argv[2]
freed = os.open(folder / "freed", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
freeing = FileFreeing(folder / "trees", lambda number: os.write(freed, f"{number}\\n".encode()))
logbook = Logbook(folder / "logbook.db")
worker = DeliveryWorker(logbook, freeing, Metrics(CollectorRegistry()), SystemClock(), Ids())
worker.start()
number = 0
while name:
    puts = {}
    for _ in range(10):
        number += 1
        issue = f"{name}-{number}"
        if number % 3 == 0:
            freeing.hold(issue)
        facts = Happening("issue_closed", ("https://forge/a/b",), issue).facts()
        puts[issue] = logbook.deliveries.put("github", issue, "issues", facts)
    for issue, put in puts.items():
        assert put.result() == "queued"
        print(issue, flush=True)
    worker.wake()
sys.stdin.readline()
assert worker.stop(20)
"""

# Whatever ends a delivery is seen by the database itself.
WITNESS = (
    "CREATE TABLE ends (number INTEGER)",
    """
    CREATE TRIGGER witness AFTER UPDATE OF done_at ON deliveries WHEN NEW.done_at IS NOT NULL
    BEGIN INSERT INTO ends VALUES (NEW.number); END
    """,
)


class Service:
    """The processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "trees").mkdir(parents=True)
        self.logbook = Logbook(folder / "logbook.db")
        self.logbook.check().result()
        with closing(databases.connect(self.logbook.path, "rw")) as connection:
            for statement in WITNESS:
                connection.execute(statement)
        self.accepted: list[str] = []

    def start(self, name: str, out: int | None = None) -> subprocess.Popen[str]:
        environment = {**inherited_environment(), "PYTHONPATH": str(Path(__file__).parents[1])}
        command = [sys.executable, "-c", SERVICE, str(self.folder), name]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, text=True, env=environment)

    def run_and_kill(self, name: str, after_bytes: int) -> None:
        receipts = self.folder / f"receipts-{name}"
        with receipts.open("w") as out:
            process = self.start(name, out.fileno())
        try:
            wait_until(lambda: receipts.stat().st_size > after_bytes, "some were accepted")
        finally:
            process.kill()
            process.communicate()
        self.accepted += receipts.read_text().rpartition("\n")[0].splitlines()

    def finish(self) -> None:
        processes = [self.start("") for _ in range(2)]
        try:
            wait_until(lambda: not self.logbook.deliveries.waiting().count, "all are done")
        finally:
            for process in processes:
                process.communicate("end\n", timeout=30)
        assert [process.returncode for process in processes] == [0, 0]


@pytest.mark.slow
def test_each_accepted_webhook_is_done_once_however_often_the_service_is_killed(tmp_path: Path) -> None:
    service = Service(tmp_path / "state")
    chance = random.Random(11)
    for round_ in range(8):
        service.run_and_kill(f"r{round_}", chance.randrange(1, 4000))
    service.finish()
    entries = service.logbook.deliveries.page(100_000)
    states = {entry.delivery_id: entry.state for entry in entries}
    assert set(service.accepted) <= states.keys()
    assert set(states.values()) == {"done"}
    with closing(databases.connect(service.logbook.path, "ro")) as connection:
        ends = Counter(number for (number,) in connection.execute("SELECT number FROM ends"))
    assert ends == {entry.number: 1 for entry in entries}
    freed = Counter((service.folder / "freed").read_text().split())
    assert set(freed.values()) <= {1}
    held = {name for name in states if int(name.rpartition("-")[2]) % 3 == 0}
    assert freed.keys() <= held
    assert not {path.name for path in (service.folder / "trees").iterdir()} & states.keys()
    service.logbook.close()
