"""Sizes are what the disk has to give for it, measured in the background; whoever asks reads what is noted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from everturn.housekeeping import disk
from everturn.housekeeping.disk import Size, Space, measure, newest_change, space_of, usage
from everturn.workdirs.records import CacheRecord, WorkdirRecord
from everturn.workdirs.root import MEASURED
from housekeeping.ground import HOUR_S, Ground, as_json
from polling import wait_until

BLOCK = 4096


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "measured"
    path.mkdir()
    return path


def full(path: Path, kilobytes: int = 100) -> int:
    path.write_bytes(b"x" * 1024 * kilobytes)
    return path.stat().st_blocks * disk.BLOCK_BYTES


def test_a_folder_takes_what_its_files_and_folders_take(folder: Path) -> None:
    (folder / "in").mkdir()
    before = measure(folder)
    taken = full(folder / "a") + full(folder / "in" / "b")
    assert measure(folder) == before + Size(taken, 2)


def test_a_file_with_two_names_counts_once(folder: Path) -> None:
    full(folder / "a")
    before = measure(folder)
    (folder / "b").hardlink_to(folder / "a")
    assert measure(folder) == before


def test_a_hole_takes_no_room(folder: Path) -> None:
    before = measure(folder)
    with (folder / "a").open("wb") as file:
        file.truncate(1 << 30)
    assert measure(folder).bytes - before.bytes < 1 << 20


def test_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    full(outside / "a", 1000)
    (folder / "link").symlink_to(outside)
    (folder / "round").symlink_to(folder)
    assert measure(folder).files == 2
    assert measure(folder).bytes < 1000 * 1024


def test_a_pipe_keeps_nobody_waiting(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert measure(folder).files == 1


def test_a_single_file_and_nothing_at_all_can_be_measured(folder: Path) -> None:
    assert measure(folder / "a") == Size(0, 0)
    assert full(folder / "a") == measure(folder / "a").bytes


def test_files_that_vanish_meanwhile_are_no_matter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("in", "on"):
        (folder / name).mkdir()
        full(folder / name / "file")
    real = os.scandir

    def scan(path: str) -> object:
        for other in {"in": ["on"], "on": ["in"]}.get(Path(path).name, []):
            (folder / other / "file").unlink(missing_ok=True)
            if (folder / other).exists():
                (folder / other).rmdir()
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scan)
        assert measure(folder).files == 1


@pytest.mark.slow
def test_another_file_system_is_not_entered(tmp_path: Path) -> None:
    mounted = Path("/proc/self")
    assert measure(Path("/proc")).bytes == measure(mounted).bytes == 0


def test_the_newest_change_is_that_of_anything_in_it(folder: Path) -> None:
    (folder / "in").mkdir()
    full(folder / "in" / "a")
    for path, at in ((folder / "in" / "a", 3000), (folder / "in", 2000), (folder, 1000)):
        os.utime(path, (at, at))
    assert newest_change(folder) == 3000
    assert newest_change(folder / "nothing") == 0


def test_the_disk_of_a_folder_that_is_not_there_is_that_of_the_one_above(tmp_path: Path) -> None:
    assert space_of(tmp_path / "not" / "there").total_bytes == shutil.disk_usage(tmp_path).total


# --- Measuring ----------------------------------------------------------------------------------------------------


def test_measuring_notes_the_size_and_what_of_it_git_ignores(ground: Ground) -> None:
    workdir = ground.open()
    ground.build(workdir)
    (ground.tree(workdir) / "new.txt").write_bytes(b"x" * 50_000)
    record = ground.measurer.workdir(workdir.name)
    assert record == ground.record(workdir.name)
    assert record is not None
    assert record.size_bytes == measure(ground.tree(workdir)).bytes
    assert record.ignored_bytes == measure(ground.tree(workdir) / "build").bytes
    assert record.measured_at == ground.clock.now()


def test_ignored_files_in_a_folder_that_is_not_tracked_count(ground: Ground) -> None:
    workdir = ground.open()
    (ground.tree(workdir) / "fresh").mkdir()
    taken = full(ground.tree(workdir) / "fresh" / "x.log")
    (ground.tree(workdir) / "fresh" / "x.txt").write_text("x")
    record = ground.measurer.workdir(workdir.name)
    assert record is not None
    assert record.ignored_bytes == taken


def test_a_workdir_in_use_is_not_noted(ground: Ground) -> None:
    run = ground.workdirs.open(ground.work())
    assert ground.measurer.workdir(run.name) is None
    assert ground.record(run.name).size_bytes is None
    run.close()
    assert ground.measurer.workdir(run.name) == ground.record(run.name)
    assert ground.record(run.name).size_bytes


def test_what_cannot_be_looked_at_has_no_known_ignored_size(ground: Ground) -> None:
    workdir = ground.open()
    shutil.rmtree(ground.tree(workdir) / ".git")
    record = ground.measurer.workdir(workdir.name)
    assert record is not None
    assert (record.size_bytes is not None, record.ignored_bytes) == (True, None)


def test_nothing_is_measured_that_is_not_there(ground: Ground) -> None:
    ground.root.prepare()
    assert ground.measurer.workdir("no-such") is None
    assert ground.measurer.cache("no-such") is None


def test_what_was_asked_for_is_measured_in_the_background_with_its_cache(ground: Ground) -> None:
    workdir = ground.open()
    ground.measurer.ask(workdir.name)

    def size() -> int | None:
        cache = CacheRecord.read(ground.root, workdir.cache)
        return cache and cache.size_bytes

    wait_until(size, "the cache is measured")
    assert ground.record(workdir.name).size_bytes
    assert size() == measure(ground.root.caches / workdir.cache).bytes
    wait_until(lambda: ground.count("everturn_workdirs_bytes", kind="trees"), "the metric shows it")


def test_one_that_is_in_use_is_measured_after_a_later_call(ground: Ground) -> None:
    run, other = ground.workdirs.open(ground.work("a")), ground.open("b")
    ground.measurer.ask(run.name)
    ground.measurer.ask(other.name)
    wait_until(lambda: ground.record(other.name).size_bytes, "the other one is measured")
    assert ground.record(run.name).size_bytes is None
    run.close()
    ground.measurer.ask(other.name)
    wait_until(lambda: ground.record(run.name).size_bytes, "it is measured, too")


def test_one_that_went_meanwhile_is_forgotten(ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
    other = ground.open()
    ground.measurer.ask("no-such")
    ground.measurer.ask(other.name)
    wait_until(lambda: ground.record(other.name).size_bytes, "the other one is measured")
    assert "workdir_not_measured" not in caplog.text


def test_refreshing_measures_what_was_used_since(ground: Ground) -> None:
    old, used = ground.open("a", days_ago=2), ground.open("b", days_ago=2)
    ground.measurer.refresh()
    measured_at = ground.clock.now()
    ground.clock.advance(HOUR_S)
    ground.age(used.name, 0)
    ground.measurer.refresh()
    assert ground.record(old.name).measured_at == measured_at
    assert ground.record(used.name).measured_at == ground.clock.now()


# --- Usage --------------------------------------------------------------------------------------------------------


def test_usage_adds_up_what_is_noted(ground: Ground) -> None:
    one, two, three = ground.open("a"), ground.open("b"), ground.open("a", "tools")
    ground.build(one)
    (ground.tree(two) / "new.txt").write_text("new\n")
    ground.removal().remove(two.name, "reset")
    ground.measurer.refresh()
    found = usage(ground.root, lambda _: Space(1000, 10))
    sizes = {name: ground.record(name).size_bytes for name in (one.name, three.name)}
    assert found.workdirs == dict(sorted(sizes.items()))
    assert found.trees_bytes == sum(size or 0 for size in sizes.values())
    assert found.ignored_bytes == ground.record(one.name).ignored_bytes
    assert found.caches_bytes == sum(size or 0 for size in found.caches.values()) > 0
    assert sum(found.by_repository.values()) == found.trees_bytes + found.caches_bytes
    assert set(found.by_repository) == {str(ground.folder / "shop"), str(ground.folder / "tools")}
    assert found.by_agent == {"a": found.trees_bytes}
    assert found.quarantine_bytes == sum(found.quarantine.values()) > 0
    assert (found.disk_total_bytes, found.disk_free_bytes, found.unmeasured) == (1000, 10, 0)
    assert found.measured_at == ground.clock.now()
    assert ground.count("everturn_workdirs_bytes", kind="quarantine") == found.quarantine_bytes


def test_usage_reads_notes_only(ground: Ground) -> None:
    workdir = ground.open()
    ground.measurer.refresh()
    before = usage(ground.root, lambda _: Space(1, 1))
    ground.build(workdir, 1000)
    assert usage(ground.root, lambda _: Space(1, 1)) == before


def test_usage_says_how_many_were_never_measured(ground: Ground) -> None:
    ground.open()
    found = usage(ground.root)
    assert (found.unmeasured, found.trees_bytes, found.measured_at) == (2, 0, None)


def test_a_root_that_is_not_there_takes_no_room(ground: Ground) -> None:
    found = usage(ground.root)
    assert (found.trees_bytes, found.workdirs, found.unmeasured) == (0, {}, 0)
    assert as_json(found.facts())


def test_notes_that_are_damaged_count_as_none(ground: Ground) -> None:
    workdir = ground.open()
    (ground.root.path / MEASURED).write_text('{"quarantine": [], "trash_bytes": "x"}')
    WorkdirRecord.file(ground.root, workdir.name).write_text("{")
    assert usage(ground.root).quarantine_bytes == usage(ground.root).trash_bytes == 0
