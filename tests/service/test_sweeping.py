"""The service sweeps at its start and once a day. Restarts, crashes and wrong clocks skip none and double none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from everturn.errors import Conflict, Denied, Unavailable
from everturn.git import locks
from everturn.housekeeping.sweeping import SWEEP_LOCK, Report
from everturn.logbook.logbook import Logbook
from everturn.model import Holder, SessionRecord, WorkItem
from everturn.registry import SqliteRegistry
from everturn.runner.sweeping import Sweeper
from everturn.service.sweeping import PAUSE_S, DailySweep
from everturn.telemetry import Metrics
from everturn.workdirs.root import SWEPT
from housekeeping.ground import DAY_S, HOUR_S, Ground, as_json, make_remote

WORKS = [WorkItem.task(f"t-{number}") for number in range(4)]


class Moody(SqliteRegistry):
    """A registry that does not always answer."""

    is_away = False

    def sweep(self, *, dry_run: bool = False) -> list[SessionRecord]:
        if self.is_away:
            raise Unavailable("the registry does not answer", hint="wait")
        return super().sweep(dry_run=dry_run)


class Yard:
    """What a service sweeps. Each `service` is one that has just started."""

    def __init__(self, folder: Path, origin: Path) -> None:
        self.ground = Ground(folder, origin)
        self.clock = self.ground.clock
        ages = self.ground.registry._ages  # type: ignore[attr-defined]
        self.registry = Moody(folder / "registry.db", clock=self.clock, ages=ages)
        self.ground.registry = self.registry
        self.logbooks: list[Logbook] = []
        self.metrics = self.ground.metrics
        self.workdirs = self.ground.sweeper()

    def service(self, *, interval_s: float = DAY_S, on_start: bool = True) -> DailySweep:
        logbook = Logbook(self.ground.folder / "state" / "logbook.db", clock=self.clock)
        self.logbooks.append(logbook)
        self.metrics = Metrics(CollectorRegistry())
        return DailySweep(
            Sweeper(self.registry, self.metrics),
            self.workdirs,
            logbook,
            clock=self.clock,
            interval_s=interval_s,
            metrics=self.metrics,
            on_start=on_start,
        )

    def noted(self) -> list[tuple[str, str]]:
        """Return the reasons and the ends of all sweeps, the first one first."""
        return [(entry.reason, entry.state) for entry in reversed(self.logbooks[-1].sweeps.page(100))]

    def last_shown(self) -> float | None:
        return self.metrics.registry.get_sample_value("everturn_last_sweep_timestamp_seconds")

    def make_stale(self, work: WorkItem) -> str:
        """Have a session that is too old to be resumed."""
        session_id = self.ground.session(work, Path("/srv"))
        self.clock.advance(DAY_S + 1)
        return session_id


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_remote(tmp_path_factory.mktemp("remotes"))


@pytest.fixture
def yard(tmp_path: Path, origin: Path) -> Iterator[Yard]:
    made = Yard(tmp_path, origin)
    yield made
    for logbook in made.logbooks:
        logbook.close()


# --- The start ----------------------------------------------------------------------------------------------------


def test_the_start_drops_every_stale_session_however_short_ago_the_last_sweep_was(yard: Yard) -> None:
    yard.service().at_start()
    for work in WORKS[:3]:
        yard.ground.session(work, Path("/srv"))
    yard.clock.advance(DAY_S + 1)
    yard.service().at_start()
    stale = [yard.make_stale(work) for work in WORKS[3:]]
    held = yard.registry.claim(WORKS[0], Holder("w1"), ttl_s=60)
    result = yard.service().at_start()
    assert result is not None
    assert [each.session_id for each in result.dropped] == stale
    assert [record.session_id for record in yard.registry.records()] == [held.session_id]
    assert yard.noted() == [("start", "done")] * 3
    assert yard.last_shown() == yard.clock.now()
    assert as_json(result.facts()) == result.facts()
    assert result.details() == ("session task:t-3 dropped: it was too old",)


@pytest.mark.slow
def test_the_start_sweeps_workdirs_only_if_that_is_due(yard: Yard) -> None:
    yard.ground.open(days_ago=8)
    first = yard.service().at_start()
    assert first is not None
    assert isinstance(first.workdirs, Report)
    assert yard.ground.names("trees") == []
    yard.ground.open(days_ago=8)
    again = yard.service().at_start()
    assert again is not None
    assert again.workdirs is None
    assert len(yard.ground.names("trees")) == 1


def test_a_start_that_is_not_to_sweep_does_what_is_due_and_no_more(yard: Yard) -> None:
    yard.service(on_start=False).at_start()
    assert yard.noted() == [("daily", "done")]
    yard.make_stale(WORKS[0])
    yard.clock.advance(-1 - DAY_S / 2)
    assert yard.service(on_start=False).at_start() is None
    assert len(yard.registry.records()) == 1
    assert yard.last_shown() == pytest.approx(yard.clock.now() - DAY_S / 2)


# --- Once a day ---------------------------------------------------------------------------------------------------


def test_a_restart_neither_skips_nor_doubles_the_daily_sweep(yard: Yard) -> None:
    yard.service().at_start()
    for _ in range(5):
        yard.clock.advance(DAY_S / 6)
        assert yard.service(on_start=False).if_due() is None
    yard.clock.advance(DAY_S / 6)
    for _ in range(3):
        yard.service(on_start=False).if_due()
    assert yard.noted() == [("start", "done"), ("daily", "done")]


def test_a_service_that_runs_on_sweeps_once_a_day(yard: Yard) -> None:
    sweeps = yard.service()
    sweeps.at_start()
    for _ in range(3 * 24 * 6):
        yard.clock.advance(HOUR_S / 6)
        sweeps.if_due()
    assert yard.noted() == [("start", "done")] + [("daily", "done")] * 3
    assert sweeps.next_at() == yard.clock.now() + DAY_S


def test_the_sweep_of_workdirs_by_a_run_counts_for_the_service_too(yard: Yard) -> None:
    yard.ground.open()
    sweeps = yard.service()
    sweeps.at_start()
    yard.clock.advance(DAY_S / 2)
    yard.workdirs.sweep()
    yard.clock.advance(DAY_S / 2)
    daily = sweeps.if_due()
    assert daily is not None
    assert daily.workdirs is None  # a run has swept them half a day ago
    yard.clock.advance(DAY_S / 2)
    due_before = sweeps.if_due()
    assert due_before is not None
    assert due_before.workdirs is not None


def test_an_interval_of_nothing_is_never(yard: Yard) -> None:
    sweeps = yard.service(interval_s=0)
    assert sweeps.if_due() is None
    assert sweeps.next_at() is None
    yard.make_stale(WORKS[0])
    result = sweeps.at_start()  # which is another matter
    assert result is not None
    assert len(result.dropped) == 1
    assert sweeps.if_due() is None


def test_a_sweep_that_was_interrupted_is_made_up_for_at_the_next_start(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die() -> Report:
        raise Killed

    sweeps = yard.service()
    sweeps.at_start()
    yard.clock.advance(DAY_S)
    monkeypatch.setattr(yard.workdirs, "sweep_if_due", die)
    with pytest.raises(Killed):
        sweeps.if_due()
    monkeypatch.undo()
    assert yard.noted()[-1] == ("daily", "begun")
    assert yard.service(on_start=False).if_due() is not None
    assert yard.noted() == [("start", "done"), ("daily", "begun"), ("daily", "done")]


# --- Clocks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [-400, -1, 1, 400])
def test_a_clock_that_is_put_right_blocks_nothing_and_doubles_no_more_than_once(yard: Yard, days: int) -> None:
    sweeps = yard.service()
    sweeps.at_start()
    yard.clock.advance(HOUR_S)
    yard.clock.jump(days * DAY_S)
    for _ in range(12):
        yard.clock.advance(HOUR_S)
        sweeps.if_due()
    assert yard.noted() == [("start", "done"), ("daily", "done")]


# --- What fails ---------------------------------------------------------------------------------------------------


def test_what_failed_is_tried_again_after_a_while_and_not_at_every_call(yard: Yard) -> None:
    sweeps = yard.service()
    yard.registry.is_away = True
    assert sweeps.at_start() is not None  # the workdirs could be looked at
    for _ in range(9):
        yard.clock.advance(60)
        assert sweeps.if_due() is None
    assert yard.noted() == [("start", "failed")]
    assert sweeps.next_at() == pytest.approx(yard.clock.now() + PAUSE_S - 9 * 60)
    yard.clock.advance(60)
    yard.registry.is_away = False
    assert sweeps.if_due() is not None
    assert yard.noted() == [("start", "failed"), ("daily", "done")]
    assert yard.last_shown() == yard.clock.now()


@pytest.mark.parametrize("interval_s", [0, DAY_S])
def test_a_start_that_failed_is_made_up_for_although_nothing_is_due(yard: Yard, interval_s: float) -> None:
    yard.service().at_start()
    yard.make_stale(WORKS[0])
    yard.service().if_due()
    yard.ground.session(WORKS[1], Path("/srv"))
    yard.clock.advance(HOUR_S)
    sweeps = yard.service(interval_s=interval_s)
    yard.registry.is_away = True
    sweeps.at_start()
    yard.registry.is_away = False
    assert sweeps.if_due() is None
    assert sweeps.next_at() == yard.clock.now() + PAUSE_S
    yard.clock.advance(PAUSE_S)
    assert sweeps.if_due() is not None
    assert sweeps.if_due() is None
    assert yard.noted()[-2:] == [("start", "failed"), ("daily", "done")]


def test_what_can_be_swept_is_swept_beside_what_cannot(yard: Yard) -> None:
    yard.ground.open(days_ago=8)
    yard.registry.is_away = True
    result = yard.service().now()
    assert result.problems == ("the registry does not answer",)
    assert result.workdirs is not None
    assert yard.logbooks[-1].sweeps.page(1)[0].facts["problems"] == ["the registry does not answer"]


def test_a_start_at_which_nothing_can_be_swept_does_not_keep_the_service_from_starting(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Report:
        raise Unavailable("the disk is gone", hint="look for it")

    yard.registry.is_away = True
    monkeypatch.setattr(yard.workdirs, "sweep_if_due", fail)
    assert yard.service().at_start() is None
    assert yard.noted() == [("start", "failed")]
    assert yard.last_shown() == 0


def test_a_logbook_that_cannot_be_used_is_tried_again_after_a_while(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise Unavailable("the logbook is busy", hint="wait")

    sweeps = yard.service()
    monkeypatch.setattr(yard.logbooks[0].sweeps, "last", fail)
    assert sweeps.at_start() is None
    for _ in range(9):
        yard.clock.advance(60)
        assert sweeps.if_due() is None
    assert caplog.text.count("sweep_failed") == 1
    monkeypatch.undo()
    yard.clock.advance(60)
    assert sweeps.if_due() is not None


def test_a_lock_that_cannot_be_written_is_said_and_keeps_nothing_from_starting(yard: Yard, tmp_path: Path) -> None:
    sweeps = yard.service()
    (tmp_path / "state" / "sweep.lock").mkdir(parents=True)
    assert sweeps.at_start() is None
    with pytest.raises(Denied, match="cannot write to"):
        sweeps.now()


# --- Several at once ----------------------------------------------------------------------------------------------


def test_of_two_services_on_a_machine_one_sweeps(yard: Yard) -> None:
    one, two = yard.service(), yard.service()
    one.at_start()
    yard.clock.advance(DAY_S)
    lock = locks.take(yard.ground.folder / "state" / "sweep.lock", clock=yard.clock)
    assert lock is not None
    assert one.if_due() is None
    with pytest.raises(Conflict, match="another sweep"):
        one.now()
    assert one.now(dry_run=True).dry_run  # nothing is done by that
    lock.release()
    assert one.if_due() is not None
    assert two.if_due() is None
    assert yard.noted() == [("start", "done"), ("daily", "done")]
    assert yard.last_shown() == yard.clock.now()  # by the one that has never swept


def test_a_run_that_is_sweeping_the_workdirs_is_not_waited_for(yard: Yard) -> None:
    yard.ground.open()
    lock = yard.ground.root.try_workdir(SWEEP_LOCK)
    assert lock is not None
    result = yard.service().at_start()
    assert result is not None
    assert result.workdirs is None
    assert result.problems == ()
    asked = yard.service().now()
    assert asked.problems == ("another process is sweeping the workdirs",)
    lock.release()


# --- On request ---------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_done_and_notes_nothing(yard: Yard) -> None:
    workdir = yard.ground.open(days_ago=8)
    yard.make_stale(WORKS[0])
    result = yard.service().now(dry_run=True)
    assert result.dry_run
    assert [each.work_key for each in result.dropped] == [WORKS[0].key]
    assert result.workdirs is not None
    assert f"workdir {workdir.name} would be removed: expired" in result.details()
    assert yard.noted() == []
    assert not (yard.ground.root.path / SWEPT).exists()
    assert len(yard.registry.records()) == 1
    assert yard.ground.names("trees") == [workdir.name]


def test_a_sweep_on_request_counts_as_the_daily_one(yard: Yard) -> None:
    sweeps = yard.service()
    sweeps.now()
    yard.clock.advance(DAY_S - 1)
    assert sweeps.if_due() is None
    assert yard.noted() == [("admin", "done")]
    yard.clock.advance(1)
    assert sweeps.if_due() is not None
