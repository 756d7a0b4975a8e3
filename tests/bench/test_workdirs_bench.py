"""The benchmark of workdirs measures places that are what an agent needs, on a repository that is always the same."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from bench.plan import Row
from bench.run import machine
from bench.workdirs import report
from bench.workdirs.evicting import Evicting
from bench.workdirs.plan import AGAIN, MAIN_WAYS, OTHER_WAYS, TINY, Plan
from bench.workdirs.repository import ONE_SERVICE, Origin, Shape, run
from bench.workdirs.summary import Summary
from bench.workdirs.ways import WAYS, Ours, Way

pytestmark = pytest.mark.slow

SMALL = Shape(files=60, file_bytes=500, commits=2, changed=5)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Row:
    """A whole run of the benchmark at its smallest size."""
    plan = Plan(tmp_path_factory.mktemp("bench"), TINY)
    for step in plan.steps():
        step.run()
    facts = {"date": "2026-01-01", "seconds": 60, "git": "git 2"}
    return {**facts, **machine(), "sizes": TINY.as_row(), "samples": dict(plan.samples)}


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    found = Origin(tmp_path / "shop.git", SMALL)
    found.make()
    return found


# --- The repository -----------------------------------------------------------------------------------------------


def test_the_repository_is_always_the_same_one(origin: Origin, tmp_path: Path) -> None:
    again = Origin(tmp_path / "again.git", SMALL)
    again.make()
    assert again.head() == origin.head()
    assert again.push(3) == origin.push(3)


def test_the_repository_has_the_files_and_commits_that_were_asked_for(origin: Origin) -> None:
    names = run(["ls-tree", "-r", "--name-only", "HEAD"], origin.path).splitlines()
    assert len(names) == SMALL.files + 1  # and what is ignored
    assert run(["rev-list", "--count", "HEAD"], origin.path) == str(1 + SMALL.commits)
    assert len(run(["diff", "--name-only", "HEAD~1", "HEAD"], origin.path).splitlines()) == SMALL.changed
    services = [name for name in names if name.startswith(f"{ONE_SERVICE}/")]
    assert 0.03 < len(services) / len(names) < 0.07


def test_a_push_is_a_commit_on_top(origin: Origin) -> None:
    before = origin.head()
    assert run(["rev-parse", f"{origin.push(7)}~1"], origin.path) == before
    assert len(run(["diff", "--name-only", "HEAD~1", "HEAD"], origin.path).splitlines()) == 7


# --- What is measured ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WAYS)
def test_each_way_makes_places_that_show_what_the_remote_has(origin: Origin, tmp_path: Path, name: str) -> None:
    way: Way = WAYS[name](origin, tmp_path / name)
    paths = [way.open(number) for number in range(2)]
    assert len(set(paths)) == 2
    for path in paths:
        assert run(["rev-parse", "HEAD"], path) == origin.head()
        assert (path / ONE_SERVICE).is_dir()
        assert (path / "services" / "orders").is_dir() == (name != "sparse")


@pytest.mark.slow
def test_everything_is_measured_as_often_as_was_asked_for(measured: Row) -> None:
    counts = {name: len(rows) for name, rows in measured["samples"].items()}
    assert {counts[f"open {way}"] for way in MAIN_WAYS} == {TINY.agents}
    assert {counts[f"open {way}"] for way in OTHER_WAYS} == {TINY.few}
    assert {counts[f"again {name}"] for name in AGAIN if name != "unsaved"} == {TINY.agents * TINY.again}
    assert counts["again unsaved"] == TINY.few
    waits = [len(row["latencies_s"]) for row in measured["samples"]["at once workdirs cold"]]
    assert waits == [TINY.at_once] * TINY.repeats


@pytest.mark.slow
def test_linked_worktrees_and_workdirs_take_less_room_than_clones(measured: Row) -> None:
    room = {way: measured["samples"][f"room {way}"][0]["bytes"] for way in MAIN_WAYS}
    assert room["sparse"] < room["workdirs"] < room["clones"]


def test_a_place_that_is_not_clean_ends_the_run(origin: Origin, tmp_path: Path) -> None:
    plan = Plan(tmp_path, TINY)
    path = WAYS["clones"](origin, tmp_path / "clones").open(0)
    plan._origin = origin
    plan._verify(path)
    (path / "notes.txt").touch()
    with pytest.raises(RuntimeError, match="not clean"):
        plan._verify(path)


@pytest.mark.slow
def test_eviction_frees_to_its_quota_and_touches_nothing_that_has_to_stay(measured: Row) -> None:
    (row,) = measured["samples"]["eviction"]
    assert row["after_bytes"] <= row["quota_bytes"] < row["before_bytes"]
    assert (row["removed"], row["precious"]) == (1, 2)


def test_an_eviction_that_touches_unsaved_work_ends_the_run(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Ours(origin, tmp_path / "ours")
    unsaved = ours.path(1)
    monkeypatch.setattr("everturn.housekeeping.eviction.Evictor.evict", lambda _: (unsaved / "notes.txt").unlink())
    with pytest.raises(RuntimeError, match="touched"):
        Evicting(ours, agents=4, built_bytes=1000).run()


# --- What is made of it -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_tables_compare_with_every_goal(measured: Row) -> None:
    goals, *others = report.tables(measured)
    assert len(goals.rows) == 6
    assert {row[3] for row in goals.rows} <= {"yes", "**no**"}
    assert all(len(row) == len(table.head) for table in others for row in table.rows)
    assert "101 files" in report.circumstances(measured)


@pytest.mark.slow
def test_clones_are_as_fast_as_clones(measured: Row) -> None:
    found = Summary(measured)
    assert found.times_faster("clones") == found.times_faster_later("clones") == 1


@pytest.mark.slow
def test_plots_are_well_formed(measured: Row, tmp_path: Path) -> None:
    report.plots(measured, tmp_path, "tiny")
    pictures = sorted(tmp_path.glob("tiny-*.svg"))
    assert [picture.stem for picture in pictures] == ["tiny-again", "tiny-disk", "tiny-time"]
    assert all(ElementTree.parse(picture).getroot().tag.endswith("svg") for picture in pictures)
