"""How much room workdirs take: what is noted, how that went, and what a sweep would free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from everturn.clock import ManualClock
from everturn.service.views.disk import MOST_POINTS, SAMPLE_S, DiskWatch
from everturn.service.views.thinning import thinned
from everturn.workdirs.records import WorkdirRecord
from polling import wait_until
from service.ground import Fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, workdirs_quota_bytes=5000)
    yield fleet
    fleet.close()


def add_workdir(fleet: Fleet, name: str, size_bytes: int | None, agent: str = "fixer") -> None:
    root = fleet.parts.workshop.root
    root.prepare()
    record = WorkdirRecord(name, "https://forge.example/acme/web", 1.0, 2.0, size_bytes, 3.0, "task:t", agent, "b")
    record.write(root)


def test_workdirs_are_shown_the_largest_first(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DiskWatch, "try_sweep", lambda _: None)  # it would measure the new one, sooner or later
    for name, size_bytes in (("small", 100), ("large", 900), ("new", None)):
        add_workdir(fleet, name, size_bytes)
    found = fleet.desk.disk()
    assert [each.name for each in found.workdirs] == ["large", "small", "new"]
    assert (found.trees_bytes, found.unmeasured, found.quota_bytes) == (1000, 1, 5000)
    assert (found.by_agent, found.by_repo) == ({"fixer": 1000}, {"https://forge.example/acme/web": 1000})
    assert found.disk_total_bytes >= found.disk_free_bytes > 0


def test_what_a_sweep_would_free_is_found_out_in_the_background(fleet: Fleet) -> None:
    wait_until(lambda: fleet.desk.disk().sweep_tried_at, "it was tried")
    found = fleet.desk.disk()
    assert (found.sweep_frees_bytes, found.sweep_removes) == (0, 0)


def test_a_sweep_is_tried_once_in_ten_minutes(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []
    monkeypatch.setattr(DiskWatch, "try_sweep", lambda _: tries.append(1))
    for _ in range(5):
        fleet.desk.disk()
    wait_until(lambda: tries, "it was tried")
    assert len(tries) == 1


def test_samples_make_a_trend_that_ends_now(fleet: Fleet) -> None:
    add_workdir(fleet, "small", 100)
    fleet.desk._disk.sample()
    wait_until(lambda: fleet.parts.logbook.samples.since(0), "it is noted")
    add_workdir(fleet, "large", 900)
    sample, now = fleet.desk.disk().trend
    assert (sample.trees_bytes, sample.caches_bytes) == (100, 0)
    assert (now.trees_bytes, now.caches_bytes) == (1000, 0)
    assert sample.disk_free_bytes > 0


def test_a_desk_that_starts_takes_a_sample_and_another_one_soon_after_does_not(fleet: Fleet) -> None:
    fleet.desk.start()
    wait_until(lambda: fleet.parts.logbook.samples.since(0), "it is noted")
    again = DiskWatch(fleet.settings, fleet.parts.workshop, fleet.parts.logbook, fleet.parts.clock, list)
    assert again._until_due() > 3000


def test_a_sample_of_the_future_keeps_no_others_from_being_taken(fleet: Fleet) -> None:
    fleet.desk._disk.sample()
    earlier = DiskWatch(fleet.settings, fleet.parts.workshop, fleet.parts.logbook, ManualClock(), list)
    assert earlier._until_due() == SAMPLE_S


def test_a_long_trend_is_thinned_and_ends_with_the_last_sample(fleet: Fleet) -> None:
    assert len(thinned(range(721), MOST_POINTS)) <= MOST_POINTS
    assert thinned(range(721), MOST_POINTS)[-1] == 720
    assert thinned([1, 2], MOST_POINTS) == (1, 2)
    assert thinned([], MOST_POINTS) == ()
