"""Room is made by what is least recently used: what was built, workdirs, caches. What somebody needs stays."""

from __future__ import annotations

import pytest

from everturn.housekeeping.disk import Space, measure
from everturn.housekeeping.removal import Fate
from everturn.workdirs.records import CacheRecord, WorkdirRecord
from housekeeping.ground import Ground

pytestmark = pytest.mark.slow

MB = 1 << 20


def told(fates: tuple[Fate, ...]) -> list[tuple[str, str]]:
    return [(fate.name, fate.action) for fate in fates]


def taken(ground: Ground) -> int:
    return measure(ground.root.trees).bytes + measure(ground.root.caches).bytes


def test_nothing_goes_while_there_is_room(ground: Ground) -> None:
    ground.open(days_ago=30)
    found = ground.evictor(quota_bytes=10 * MB, free_bytes=1).evict()
    assert (found.fates, found.freed_bytes, found.missing_bytes) == ((), 0, 0)


def test_a_root_that_is_not_there_needs_no_room(ground: Ground) -> None:
    assert ground.evictor(quota_bytes=0, free_bytes=10**15).evict().missing_bytes == 0
    assert not ground.root.path.exists()


def test_what_was_built_goes_first_least_recently_used_first_and_only_until_there_is_room(ground: Ground) -> None:
    old, older, new = ground.open("a", days_ago=2), ground.open("b", days_ago=3), ground.open("c", days_ago=1)
    for workdir in (old, older, new):
        ground.build(workdir, 1024)
    quota_bytes = taken(ground) - MB - MB // 2
    found = ground.evictor(quota_bytes=quota_bytes).evict()
    assert told(found.fates) == [(older.name, "shrunk"), (old.name, "shrunk")]
    assert found.missing_bytes == 0
    assert (ground.tree(new) / "build" / "out.bin").exists()
    assert (ground.tree(older) / "a.txt").exists()
    assert taken(ground) <= quota_bytes


def test_then_workdirs_go_and_then_caches_without_any(ground: Ground) -> None:
    one, two, other = (
        ground.open("a", days_ago=2),
        ground.open("b", days_ago=3),
        ground.open("a", "tools", days_ago=9),
    )
    found = ground.evictor(quota_bytes=0).evict()
    assert told(found.fates) == [
        (other.name, "removed"),
        (two.name, "removed"),
        (one.name, "removed"),
        (other.cache, "removed"),
        (one.cache, "removed"),
    ]
    assert found.missing_bytes == 0
    assert ground.names("trees") == ground.names("caches") == ground.names("trash") == []
    assert ground.count("everturn_workdirs_removed_total", reason="evicted") == 5


def test_the_free_space_of_the_disk_counts_as_it_is_after_each_removal(ground: Ground) -> None:
    workdirs = [ground.open(agent, days_ago=days) for agent, days in (("a", 4), ("b", 3), ("c", 2))]
    ground.free = lambda _: Space(
        100 * MB, 10 * MB + (3 - len(ground.names("trees"))) * MB - len(ground.names("trash"))
    )
    found = ground.evictor(free_bytes=12 * MB).evict()
    assert told(found.fates) == [(workdirs[0].name, "removed"), (workdirs[1].name, "removed")]
    assert found.missing_bytes == 0


def test_a_run_unsaved_work_and_quarantine_stay_even_if_there_is_too_little_room(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    unsaved, quarantined = ground.open("a", days_ago=9), ground.open("b", days_ago=9)
    for workdir in (unsaved, quarantined):
        (ground.tree(workdir) / "new.txt").write_text("new\n")
    ground.removal().remove(quarantined.name, "reset")
    run = ground.workdirs.open(ground.work("c"))
    ground.build(ground.record(run.name))
    ground.age(run.name, 9)
    ground.measurer.refresh()
    found = ground.evictor(quota_bytes=0, free_bytes=0).evict()
    assert sorted(told(found.fates)) == sorted((name, "kept") for name in (unsaved.name, run.name, unsaved.cache))
    assert found.missing_bytes > 0
    assert found.reasons[0] == "workdirs in use, or with unsaved work: 2"
    assert found.reasons[1] == "caches that are needed: 1"
    assert "in quarantine" in found.reasons[2]
    assert '"event": "workdirs_need_room"' in caplog.text
    assert (run.path / "build" / "out.bin").exists()
    assert (ground.tree(unsaved) / "new.txt").exists()
    assert len(ground.names("quarantine")) == 1
    run.close()


def test_unsaved_work_stays_but_not_what_was_built_beside_it(ground: Ground) -> None:
    workdir = ground.open(days_ago=9)
    ground.build(workdir)
    (ground.tree(workdir) / "new.txt").write_text("new\n")
    found = ground.evictor(quota_bytes=0).evict()
    assert told(found.fates)[:2] == [(workdir.name, "shrunk"), (workdir.name, "kept")]
    assert (ground.tree(workdir) / "new.txt").exists()


def test_sizes_are_measured_anew_for_what_goes(ground: Ground) -> None:
    workdir = ground.open(days_ago=9)
    workdir.but(size_bytes=10**12, measured_at=1.0).write(ground.root)
    found = ground.evictor(quota_bytes=10**9).evict()
    assert 0 < found.freed_bytes < 10**9


def test_what_was_never_measured_counts_with_its_size(ground: Ground) -> None:
    workdir = ground.open(days_ago=9)
    (ground.tree(workdir) / "a.txt").write_bytes(b"x" * MB)
    assert ground.evictor(quota_bytes=MB).evict(dry_run=True).missing_bytes > 0


def test_a_dry_run_says_what_would_go_and_counts_nothing_twice(ground: Ground) -> None:
    workdir = ground.open(days_ago=9)
    ground.build(workdir, 1024)
    before_bytes = measure(ground.tree(workdir)).bytes
    found = ground.evictor(quota_bytes=0).evict(dry_run=True)
    assert told(found.fates) == [(workdir.name, "shrunk"), (workdir.name, "removed"), (workdir.cache, "kept")]
    assert found.freed_bytes == before_bytes == measure(ground.tree(workdir)).bytes
    assert WorkdirRecord.read(ground.root, workdir.name)
    assert CacheRecord.read(ground.root, workdir.cache)


def test_a_dry_run_goes_on_from_what_is_taken_to_have_been_done(ground: Ground) -> None:
    workdir = ground.open(days_ago=9)
    ground.measurer.refresh()
    gone = Fate("workdir", workdir.name, "removed", freed_bytes=ground.record(workdir.name).size_bytes or 0)
    cache = CacheRecord.read(ground.root, workdir.cache)
    assert cache is not None
    assert ground.evictor(quota_bytes=cache.size_bytes).evict(dry_run=True, after=[gone]).fates == ()


def test_one_that_fails_does_not_keep_the_others(ground: Ground) -> None:
    bad, good = ground.open("a", days_ago=9), ground.open("b", days_ago=8)
    for name in (bad.name, f"cache-{bad.cache}"):
        (ground.root.path / "locks" / f"{name}.lock").unlink()
        (ground.root.path / "locks" / f"{name}.lock").mkdir()
    found = ground.evictor(quota_bytes=0).evict()
    assert [fate.action for fate in found.fates if fate.name == good.name] == ["removed"]
    assert [fate.action for fate in found.fates if fate.name == bad.name] == ["kept"]
