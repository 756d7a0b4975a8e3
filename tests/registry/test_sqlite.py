"""What is particular to the registry in an SQLite file."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest

from disks import may_mount, mounted, remount
from everturn.clock import Ids, ManualClock
from everturn.errors import Corrupt, Denied, EverturnError, Held, Invalid, Unavailable
from everturn.model import Claim, Holder, WorkItem
from everturn.registry import Registry, SqliteRegistry, open_registry
from registry.places import AGES, DAY_S, HOUR_S, OTHER, START_S, TTL_S, WORK, claim, used


def test_looking_for_a_work_item_makes_no_file(path: Path) -> None:
    registry = SqliteRegistry(path)
    assert registry.get(WORK) is None
    assert registry.find("some session") is None
    assert (registry.records(), registry.sweep()) == ([], [])
    assert not path.parent.exists()


def test_opening_a_registry_makes_no_file(path: Path) -> None:
    open_registry(f"sqlite://{path}")
    assert not path.parent.exists()


def test_a_registry_is_where_its_url_says(path: Path) -> None:
    made = claim(open_registry(f"sqlite://{path}"))
    record = SqliteRegistry(path).get(WORK)
    assert record is not None
    assert record.session_id == made.session_id


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
        "postgres://host/db",
    ],
)
def test_a_url_that_is_no_registry_is_invalid(url: str) -> None:
    with pytest.raises(Invalid, match="cannot make a registry") as caught:
        open_registry(url)
    assert "sqlite:///" in caught.value.hint


@pytest.mark.parametrize(
    "url", ["postgres://me:hush@host/db", "postgres://me:hu/sh@host/db", "postgres://host/db?password=hush"]
)
def test_a_url_that_is_no_registry_is_shown_without_its_password(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        open_registry(url)
    assert "postgres://" in str(caught.value)
    assert not re.search("hu|sh", caught.value.message)


CLAIM = Claim(WORK, "s", 1, is_new=False)
ACTIONS: dict[str, Callable[[Registry], object]] = {
    "claim": claim,
    "renew": lambda registry: registry.renew(CLAIM, TTL_S),
    "release": lambda registry: registry.release(CLAIM),
    "begin_anew": lambda registry: registry.begin_anew(CLAIM),
    "confirm": lambda registry: registry.confirm(CLAIM, "/srv/a"),
    "taint": lambda registry: registry.taint(CLAIM, "reason"),
    "get": lambda registry: registry.get(WORK),
    "find": lambda registry: registry.find("s"),
    "records": lambda registry: registry.records(),
    "drop": lambda registry: registry.drop(WORK, "s", "reason"),
    "sweep": lambda registry: registry.sweep(),
}
ACTS = pytest.mark.parametrize("act", ACTIONS.values(), ids=ACTIONS.keys())


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
    claim(SqliteRegistry(path))
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
        claim(SqliteRegistry(tmp_path / "file" / "registry.db"))


@ACTS
def test_a_newer_version_is_refused_and_left_alone(path: Path, act: Callable[[Registry], object]) -> None:
    claim(SqliteRegistry(path), work=OTHER)
    set_version(path, 3)
    before = rows(path)
    with pytest.raises(Invalid, match="version 3, this release knows version 2"):
        act(SqliteRegistry(path))
    assert rows(path) == before


def test_a_registry_that_is_held_for_too_long_is_unavailable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everturn.databases.BUSY_TIMEOUT_S", 0.05)
    registry = SqliteRegistry(path)
    used(registry)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(Unavailable, match="busy"):
            claim(registry, "w2")
    finally:
        holder.close()
    assert claim(registry, "w2").epoch == 2


def test_seeded_ids_reproduce_the_session_ids(tmp_path: Path) -> None:
    def claimed(name: str, seed: int) -> list[str]:
        registry = SqliteRegistry(tmp_path / name, ids=Ids(seed))
        return [claim(registry, work=work).session_id for work in (WORK, OTHER)]

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


# --- A registry of the first version --------------------------------------------------------------------------------

VERSION_1 = """
CREATE TABLE sessions (
    work_key TEXT PRIMARY KEY, session_id TEXT NOT NULL UNIQUE, epoch INTEGER NOT NULL, worker TEXT NOT NULL,
    store TEXT NOT NULL, cwd TEXT, created_at REAL NOT NULL, last_used_at REAL NOT NULL
) STRICT
"""


@pytest.fixture
def version_1(path: Path) -> Path:
    """Two sessions, last used an hour before the tests begin."""
    path.parent.mkdir()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(VERSION_1)
    for work, session_id, epoch in ((WORK, "session-a", 7), (OTHER, "session-b", 1)):
        values = (work.key, session_id, epoch, "w0", "s3://bucket/a", "/desk", START_S - DAY_S, START_S - HOUR_S)
        connection.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    return path


def test_a_registry_of_version_1_keeps_its_sessions_and_epochs(version_1: Path) -> None:
    registry = SqliteRegistry(version_1, ages=AGES, clock=ManualClock(START_S))
    first, second = registry.records()
    assert (first.work_key, first.session_id, first.epoch, first.agent) == (WORK.key, "session-a", 7, "fixer")
    assert (second.work_key, second.session_id, second.epoch, second.agent) == (OTHER.key, "session-b", 1, None)
    assert {(record.held_until, record.cwd, record.created_at) for record in (first, second)} == {
        (None, "/desk", START_S - DAY_S)
    }
    made = claim(registry)
    assert (made.session_id, made.epoch, made.took_over, made.store) == ("session-a", 8, False, "s3://bucket/a")


def test_sessions_of_version_1_get_stale_as_all_do(version_1: Path) -> None:
    registry = SqliteRegistry(version_1, ages=AGES, clock=ManualClock(START_S + DAY_S))
    assert [record.session_id for record in registry.sweep()] == ["session-a", "session-b"]


def test_a_registry_is_brought_up_to_date_as_a_whole_or_not_at_all(version_1: Path) -> None:
    before = rows(version_1)
    with pytest.raises(Invalid, match="cannot last"):
        claim_with(SqliteRegistry(version_1), ttl_s=0)
    connection = sqlite3.connect(version_1, isolation_level=None)
    connection.execute("CREATE TRIGGER no BEFORE UPDATE ON sessions BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(EverturnError):
        SqliteRegistry(version_1).get(WORK)
    assert (rows(version_1), version_of(version_1)) == (before, 1)
    connection.execute("DROP TRIGGER no")
    connection.close()
    assert SqliteRegistry(version_1).get(WORK) is not None
    assert version_of(version_1) == 2


def test_of_processes_that_open_a_registry_of_version_1_at_once_each_finds_it_whole(version_1: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: SqliteRegistry(version_1).get(WORK), range(16)))
    assert {record.session_id if record else None for record in found} == {"session-a"}


def test_the_database_of_another_program_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(Invalid, match="database of another program"):
        claim(SqliteRegistry(path))
    assert path.read_bytes() == before


def test_a_file_may_have_any_name(path: Path) -> None:
    odd = Path(f"/{path.parent}/{os.fsdecode(b'?%41#' + bytes([255]))}.db")  # it begins with two slashes
    registry = SqliteRegistry(odd)
    assert claim(registry).is_new
    assert registry.get(WORK) is not None
    assert odd.exists()


@pytest.mark.parametrize(
    "look", [lambda found: found.records(), lambda found: found.get(WORK), lambda found: found.find("session-a")]
)
def test_whoever_looks_into_a_registry_that_cannot_be_there_is_told_so(look: Callable[[Registry], object]) -> None:
    with pytest.raises(Denied, match="File name too long"):
        look(SqliteRegistry(Path("/" + "a" * 300)))


def test_a_table_that_lacks_something_is_corrupt(path: Path) -> None:
    claim(SqliteRegistry(path))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("ALTER TABLE sessions DROP COLUMN token")
    connection.close()
    with pytest.raises(Corrupt, match="no such column"):
        SqliteRegistry(path).get(WORK)


# --- Clocks ---------------------------------------------------------------------------------------------------------


def test_after_a_restart_of_the_machine_its_claims_are_over(path: Path) -> None:
    made = claim(SqliteRegistry(path, clock=ManualClock(START_S)))
    restarted = ManualClock(START_S + 5, boot="later")
    again = claim(SqliteRegistry(path, ages=AGES, clock=restarted), "w2")
    assert (again.session_id, again.epoch, again.took_over) == (made.session_id, 2, True)


@pytest.mark.parametrize(("later_s", "stale"), [(HOUR_S, False), (25 * HOUR_S, True), (-25 * HOUR_S, False)])
def test_after_a_restart_ages_go_by_the_time_of_day(path: Path, later_s: float, stale: bool) -> None:
    used(SqliteRegistry(path, clock=ManualClock(START_S)))
    restarted = SqliteRegistry(path, ages=AGES, clock=ManualClock(START_S + later_s, boot="later"))
    assert (restarted.get(WORK) is None) is stale


def test_an_age_is_counted_on_across_a_restart(path: Path) -> None:
    used(SqliteRegistry(path, clock=ManualClock(START_S)))
    clock = ManualClock(START_S + 20 * HOUR_S, boot="later")
    registry = SqliteRegistry(path, ages=AGES, clock=clock)
    registry.release(claim(registry, "w2"))
    clock.jump(-DAY_S)
    clock.advance(3 * HOUR_S)
    assert registry.get(WORK) is not None
    clock.advance(2 * HOUR_S)
    assert registry.get(WORK) is None


def test_where_no_start_of_the_machine_is_known_the_time_of_day_has_to_do(path: Path) -> None:
    clock = ManualClock(START_S, boot="")
    registry = SqliteRegistry(path, ages=AGES, clock=clock)
    made = claim(registry)
    clock.advance(TTL_S - 1)
    with pytest.raises(Held):
        claim(registry, "w2")
    clock.advance(2)
    assert claim(registry, "w2").epoch == made.epoch + 1
    clock.advance(25 * HOUR_S)
    assert registry.get(WORK) is None


# --- Disks ----------------------------------------------------------------------------------------------------------


def test_a_full_disk_in_the_middle_of_a_commit_loses_nothing(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=1m"):
        path = tmp_path / "disk" / "registry.db"
        registry = SqliteRegistry(path)
        made = claim(registry)
        (tmp_path / "disk" / "ballast").write_bytes(b"x" * fitting(tmp_path / "disk"))
        with pytest.raises(Unavailable, match="disk"):
            fill(registry)
        (tmp_path / "disk" / "ballast").unlink()
        assert registry.renew(made, TTL_S).session_id == made.session_id
        assert whole(path)
        claim(registry, work=WorkItem.task("there is room again"))


# In a process of its own: no file may grow any more.
LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from everturn.errors import EverturnError
from everturn.registry import SqliteRegistry
from registry.places import claim
from registry.test_sqlite import fill

path = Path(sys.argv[1])
registry = SqliteRegistry(path)
claim(registry)
resource.setrlimit(resource.RLIMIT_FSIZE, (96 * 1024, resource.RLIM_INFINITY))
try:
    fill(registry)
except EverturnError as error:
    print(type(error).__name__, error.message)
"""


@pytest.mark.slow
def test_a_file_that_may_not_grow_loses_nothing(path: Path) -> None:
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), tests], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Unavailable the registry {path} failed: "), done.stdout
    record = SqliteRegistry(path).get(WORK)
    assert record is not None
    assert whole(path)


def test_what_cannot_be_written_is_denied_and_the_claim_is_still_there_later(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=1m") if may_mount() else nullcontext():
        path = tmp_path / "disk" / "registry.db"
        made = claim(SqliteRegistry(path))
        content = path.read_bytes()
        set_writable(path, False)
        for act in (claim, lambda registry: registry.renew(made, TTL_S), lambda registry: registry.get(WORK)):
            with pytest.raises(Denied):
                act(SqliteRegistry(path))
        assert path.read_bytes() == content
        set_writable(path, True)
        assert SqliteRegistry(path).renew(made, TTL_S).epoch == 1


def set_writable(path: Path, writable: bool) -> None:
    """Who may mount may write everything, so it has to be the disk that is read-only; for others the file will do."""
    if may_mount():
        remount(path.parent, "rw" if writable else "ro")
    else:
        path.chmod(0o600 if writable else 0o400)


def test_more_stale_sessions_are_swept_than_one_transaction_changes(path: Path) -> None:
    clock = ManualClock(START_S)
    registry = SqliteRegistry(path, ages=AGES, clock=clock)
    used(registry)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TEMP TABLE copies AS SELECT * FROM sessions")
    for number in range(1200):
        connection.execute("UPDATE copies SET work_key = ?, session_id = ?", (f"task:{number}", f"s-{number}"))
        connection.execute("INSERT INTO sessions SELECT * FROM copies")
    connection.commit()
    connection.close()
    clock.advance(25 * HOUR_S)
    used(registry, OTHER)
    assert len(registry.sweep()) == 1201
    assert [record.work_key for record in registry.records()] == [OTHER.key]


def claim_with(registry: Registry, ttl_s: float) -> Claim:
    return registry.claim(WORK, Holder("w1"), ttl_s=ttl_s)


def fill(registry: Registry) -> None:
    """Claim until there is no room."""
    for number in range(100_000):
        claim(registry, work=WorkItem.task(f"{number}-" + "x" * 2000))


def fitting(folder: Path) -> int:
    """How much has to be put into a folder to leave a little."""
    return shutil.disk_usage(folder).free - 64 * 1024


def whole(path: Path) -> bool:
    connection = sqlite3.connect(path)
    (found,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    return bool(found == "ok")


def version_of(path: Path) -> int:
    connection = sqlite3.connect(path)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return int(version)


FORK_IN_MID_TRANSACTION = """
import os, sys, threading
from pathlib import Path

from everturn import databases
from everturn.clock import SystemClock
from everturn.model import Holder, WorkItem
from everturn.registry import SqliteRegistry

inside, forking = threading.Event(), threading.Event()


class Slow(SystemClock):
    def now(self):
        inside.set()
        forking.wait()
        return super().now()


databases.BUSY_TIMEOUT_S = 2.0
path = Path(sys.argv[1])
holder = Holder("w", "r")
os.register_at_fork(before=forking.set)
claim = SqliteRegistry(path, clock=Slow()).claim
thread = threading.Thread(target=claim, args=(WorkItem.task("1"), holder), kwargs={"ttl_s": 30})
thread.start()
inside.wait()
child = os.fork()
if not child:
    SqliteRegistry(path).claim(WorkItem.task("2"), holder, ttl_s=30)
    os._exit(0)
thread.join()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
def test_a_child_forked_in_the_middle_of_a_transaction_of_another_thread_can_use_the_file(path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORK_IN_MID_TRANSACTION, str(path)]
    done = subprocess.run(command, env={}, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr.partition("Traceback")[1]) == (0, "")
    assert [record.work_key for record in SqliteRegistry(path).records()] == ["task:1", "task:2"]


def test_a_folder_that_cannot_be_made_is_denied(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Denied, match="cannot use the registry"):
        claim(SqliteRegistry(tmp_path / "file" / "state" / "registry.db"))


def test_a_folder_on_a_disk_that_cannot_be_written_is_denied(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "ro"), pytest.raises(Denied, match="cannot use the registry"):
        claim(SqliteRegistry(tmp_path / "disk" / "state" / "registry.db"))
