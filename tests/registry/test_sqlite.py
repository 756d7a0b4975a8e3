"""What every registry does, shown on each of them; then what is particular to SQLite."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from everturn.clock import Ids, ManualClock
from everturn.errors import Corrupt, Denied, EverturnError, Fenced, Invalid, Unavailable
from everturn.model import Claim, WorkItem
from everturn.registry import Registry, SqliteRegistry, open_registry

START_S = 1_000_000.0
WORK = WorkItem("fixer", "https://example.org/shop", 12)
OTHER = WorkItem.task("nightly")

Connect = Callable[[], Registry]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START_S)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "registry.db"


@pytest.fixture(params=["sqlite"])
def connect(request: pytest.FixtureRequest, clock: ManualClock, path: Path) -> Connect:
    """Each kind of registry in turn; each call is a worker of its own that sees the same rows."""
    kinds: dict[str, Connect] = {"sqlite": lambda: SqliteRegistry(path, clock=clock)}
    return kinds[request.param]


@pytest.fixture
def registry(connect: Connect) -> Registry:
    return connect()


# --- Every registry -----------------------------------------------------------------------------------------------


def test_the_first_claim_makes_a_session_with_epoch_one(registry: Registry) -> None:
    claim = registry.claim(WORK, "w1")
    assert (claim.work, claim.epoch, claim.is_new) == (WORK, 1, True)
    assert uuid.UUID(claim.session_id).version == 4
    assert str(uuid.UUID(claim.session_id)) == claim.session_id


def test_beginning_anew_gives_a_fresh_session_and_the_next_epoch(registry: Registry, connect: Connect) -> None:
    first = registry.claim(WORK, "w1", "s3://bucket/a")
    anew = registry.begin_anew(registry.claim(WORK, "w2", "s3://bucket/a"))
    assert (anew.epoch, anew.is_new, anew.store) == (3, True, "s3://bucket/a")
    assert anew.session_id != first.session_id
    known = connect().get(WORK)
    assert known is not None
    assert (known.session_id, known.epoch) == (anew.session_id, 3)


def test_only_the_holder_of_the_latest_claim_can_begin_anew(registry: Registry) -> None:
    old = registry.claim(WORK, "w1")
    new = registry.claim(WORK, "w2")
    with pytest.raises(Fenced):
        registry.begin_anew(old)
    known = registry.get(WORK)
    assert known is not None
    assert (known.session_id, known.epoch) == (new.session_id, 2)


def test_a_claim_tells_the_store_of_the_last_run_and_a_run_confirms_its_own(registry: Registry) -> None:
    registry.claim(WORK, "w1", "s3://bucket/a")
    claim = registry.claim(WORK, "w2", "s3://bucket/b")
    assert claim.store == "s3://bucket/a"
    registry.confirm(dataclasses.replace(claim, store="s3://bucket/b"), "/desk")
    assert registry.claim(WORK, "w3", "s3://bucket/c").store == "s3://bucket/b"


def test_a_claim_is_stored_before_it_is_returned(registry: Registry, connect: Connect) -> None:
    claim = registry.claim(WORK, "w1")
    record = connect().get(WORK)
    assert record is not None
    assert (record.work_key, record.session_id, record.epoch) == (WORK.key, claim.session_id, 1)
    assert (record.worker, record.cwd) == ("w1", None)
    assert record.created_at == record.last_used_at == START_S


def test_the_second_claim_gets_the_same_session_and_the_next_epoch(registry: Registry, connect: Connect) -> None:
    first = registry.claim(WORK, "w1")
    second = connect().claim(WORK, "w2")
    assert second == Claim(WORK, first.session_id, 2, is_new=False)
    record = registry.get(WORK)
    assert record is not None
    assert (record.epoch, record.worker) == (2, "w2")


def test_a_claim_changes_neither_the_birth_nor_the_last_use_nor_the_directory(
    registry: Registry, clock: ManualClock
) -> None:
    registry.confirm(registry.claim(WORK, "w1"), "/srv/a")
    clock.advance(60)
    registry.claim(WORK, "w2")
    record = registry.get(WORK)
    assert record is not None
    assert (record.created_at, record.last_used_at, record.cwd) == (START_S, START_S, "/srv/a")


def test_confirm_notes_the_directory_and_the_last_use(registry: Registry, clock: ManualClock) -> None:
    claim = registry.claim(WORK, "w1")
    clock.advance(5)
    registry.confirm(claim, "/srv/a")
    clock.advance(5)
    registry.confirm(claim, "/srv/ü b")
    record = registry.get(WORK)
    assert record is not None
    assert (record.cwd, record.created_at, record.last_used_at) == ("/srv/ü b", START_S, START_S + 10)


def test_confirm_with_an_old_epoch_is_fenced_and_changes_nothing(registry: Registry, clock: ManualClock) -> None:
    old = registry.claim(WORK, "w1")
    registry.confirm(registry.claim(WORK, "w2"), "/srv/new")
    before = registry.get(WORK)
    clock.advance(5)
    with pytest.raises(Fenced, match="epoch 1"):
        registry.confirm(old, "/srv/old")
    assert registry.get(WORK) == before


def test_confirm_after_a_drop_is_fenced(registry: Registry) -> None:
    claim = registry.claim(WORK, "w1")
    registry.drop(WORK, claim.session_id, "gone")
    with pytest.raises(Fenced):
        registry.confirm(claim, "/srv/a")
    registry.claim(WORK, "w1")
    with pytest.raises(Fenced):
        registry.confirm(claim, "/srv/a")


def test_an_unknown_work_item_is_none(registry: Registry) -> None:
    assert registry.get(WORK) is None
    registry.claim(OTHER, "w1")
    assert registry.get(WORK) is None


def test_after_a_drop_the_next_claim_makes_another_session(registry: Registry) -> None:
    first = registry.claim(WORK, "w1")
    assert registry.drop(WORK, first.session_id, "no conversation found") is True
    assert registry.get(WORK) is None
    second = registry.claim(WORK, "w1")
    assert second.is_new
    assert second.session_id != first.session_id


def test_a_drop_names_the_session_it_means(registry: Registry) -> None:
    claim = registry.claim(WORK, "w1")
    assert registry.drop(WORK, str(uuid.UUID(int=1, version=4)), "an older one") is False
    assert registry.drop(OTHER, claim.session_id, "another work item") is False
    record = registry.get(WORK)
    assert record is not None
    assert record.session_id == claim.session_id


def test_two_work_items_do_not_meet(registry: Registry) -> None:
    claims = [registry.claim(work, "w1") for work in (WORK, OTHER, WorkItem("fixer", WORK.repo, 13))]
    assert [claim.epoch for claim in claims] == [1, 1, 1]
    assert len({claim.session_id for claim in claims}) == 3
    registry.confirm(claims[0], "/srv/a")
    record = registry.get(OTHER)
    assert record is not None
    assert record.cwd is None
    registry.drop(WORK, claims[0].session_id, "done")
    assert registry.get(OTHER) == record


def test_threads_that_claim_at_once_get_an_epoch_each(registry: Registry) -> None:
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda number: registry.claim(WORK, f"w{number}"), range(24)))
    assert sorted(claim.epoch for claim in claims) == list(range(1, 25))
    assert len({claim.session_id for claim in claims}) == 1
    assert [claim.epoch for claim in claims if claim.is_new] == [1]


# --- SQLite -------------------------------------------------------------------------------------------------------

# Six processes that start together on a file that is not there yet. They are forked from one that has imported
# what it needs, and is no test runner with threads of its own.
CLAIMING = textwrap.dedent(
    """
    import json, multiprocessing, sys
    from pathlib import Path
    from everturn.model import WorkItem
    from everturn.registry import SqliteRegistry

    PROCESSES, CLAIMS = 6, 50

    def claim_all(worker):
        together.wait()
        registry = SqliteRegistry(Path(sys.argv[1]))
        claims = [registry.claim(WorkItem.task("t"), worker) for _ in range(CLAIMS)]
        return [(claim.epoch, claim.session_id, claim.is_new) for claim in claims]

    context = multiprocessing.get_context("fork")
    together = context.Barrier(PROCESSES)
    with context.Pool(PROCESSES) as pool:
        found = pool.map(claim_all, [f"w{number}" for number in range(PROCESSES)], chunksize=1)
    print(json.dumps(found))
    """
)


def test_processes_that_claim_at_once_get_every_epoch_once(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CLAIMING, str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    by_worker = json.loads(done.stdout)
    claims = [tuple(claim) for worker in by_worker for claim in worker]
    assert sorted(epoch for epoch, _, _ in claims) == list(range(1, 301))
    assert len({session_id for _, session_id, _ in claims}) == 1
    assert [epoch for epoch, _, is_new in claims if is_new] == [1]
    assert all([epoch for epoch, _, _ in worker] == sorted(epoch for epoch, _, _ in worker) for worker in by_worker)


def test_looking_for_a_work_item_makes_no_file(path: Path) -> None:
    assert SqliteRegistry(path).get(WORK) is None
    assert not path.parent.exists()


def test_opening_a_registry_makes_no_file(path: Path) -> None:
    open_registry(f"sqlite://{path}")
    assert not path.parent.exists()


def test_a_registry_is_where_its_url_says(path: Path) -> None:
    claim = open_registry(f"sqlite://{path}").claim(WORK, "w1")
    record = SqliteRegistry(path).get(WORK)
    assert record is not None
    assert record.session_id == claim.session_id


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite",
        "sqlite:",
        "sqlite://",
        "sqlite://relative.db",
        "/just/a/path.db",
        "file:///r.db",
        "dynamodb://table",
    ],
)
def test_a_url_that_is_no_registry_is_invalid(url: str) -> None:
    with pytest.raises(Invalid, match="cannot make a registry") as caught:
        open_registry(url)
    assert "sqlite:///" in caught.value.hint


def act_claim(registry: Registry) -> object:
    return registry.claim(WORK, "w1")


def act_get(registry: Registry) -> object:
    return registry.get(WORK)


def act_confirm(registry: Registry) -> object:
    return registry.confirm(Claim(WORK, "s", 1, is_new=False), "/srv/a")


def act_drop(registry: Registry) -> object:
    return registry.drop(WORK, "s", "reason")


ACTS = pytest.mark.parametrize("act", [act_claim, act_get, act_confirm, act_drop])


@ACTS
@pytest.mark.parametrize(
    "content", [b"This is no database, whatever its name says.\n" * 40, b"SQLite format 3\0" * 64]
)
def test_a_file_of_something_else_is_corrupt_and_left_alone(
    path: Path, act: Callable[[Registry], object], content: bytes
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(Corrupt) as caught:
        act(SqliteRegistry(path))
    assert str(path) in caught.value.message
    assert path.read_bytes() == content


def test_a_damaged_registry_is_corrupt(path: Path) -> None:
    SqliteRegistry(path).claim(WORK, "w1")
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)  # every page but the first
    path.write_bytes(data)
    with pytest.raises(Corrupt):
        SqliteRegistry(path).get(WORK)


@ACTS
def test_a_folder_in_the_place_of_the_file_is_denied(path: Path, act: Callable[[Registry], object]) -> None:
    path.mkdir(parents=True)
    with pytest.raises(Denied):
        act(SqliteRegistry(path))
    assert list(path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EverturnError):
        SqliteRegistry(tmp_path / "file" / "registry.db").claim(WORK, "w1")


@ACTS
def test_a_newer_version_is_refused_and_left_alone(path: Path, act: Callable[[Registry], object]) -> None:
    SqliteRegistry(path).claim(OTHER, "w1")
    set_version(path, 2)
    before = rows(path)
    with pytest.raises(Invalid, match="version 2, this release knows version 1"):
        act(SqliteRegistry(path))
    assert rows(path) == before


def test_a_registry_that_is_held_for_too_long_is_unavailable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everturn.registry.sqlite.BUSY_TIMEOUT_S", 0.05)
    registry = SqliteRegistry(path)
    registry.claim(WORK, "w1")
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(Unavailable, match="busy"):
            registry.claim(WORK, "w2")
    finally:
        holder.close()
    assert registry.claim(WORK, "w2").epoch == 2


def test_seeded_ids_reproduce_the_session_ids(tmp_path: Path) -> None:
    def claimed(name: str, seed: int) -> list[str]:
        registry = SqliteRegistry(tmp_path / name, ids=Ids(seed))
        return [registry.claim(work, "w1").session_id for work in (WORK, OTHER)]

    assert claimed("a.db", 7) == claimed("b.db", 7)
    assert claimed("c.db", 8) != claimed("d.db", 7)


def set_version(path: Path, version: int) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()


def rows(path: Path) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT * FROM sessions").fetchall()
    connection.close()
    return found
