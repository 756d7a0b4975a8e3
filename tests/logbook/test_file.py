"""What is wrong with the file is said as an error that tells what to do."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from disks import fill, mounted, remount
from everturn import databases
from everturn.clock import ManualClock
from everturn.errors import Corrupt, Denied, Invalid, Unavailable
from everturn.logbook.entries import Done
from everturn.logbook.logbook import Logbook
from everturn.settings import inherited_environment

Act = Callable[[Logbook], Any]

CHECK_WITHOUT_ROOM = """
import resource, signal, sys
from pathlib import Path
from everturn.logbook.logbook import Logbook

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
logbook = Logbook(Path(sys.argv[1]))
logbook.deliveries.put("github", "d-2", "push", {}).result()
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
print(type(logbook.check().exception()).__name__)
"""

_ACTS: dict[str, Act] = {
    "check": lambda logbook: logbook.check().result(),
    "put": lambda logbook: logbook.deliveries.put("github", "d-2", "push", {}).result(),
    "finish": lambda logbook: logbook.deliveries.finish([Done(1, "done")]).result(),
    "due": lambda logbook: logbook.deliveries.due(0, 1),
    "prune": lambda logbook: logbook.prune(1.0).result(),
    "sweeps": lambda logbook: logbook.sweeps.last(),
}
ACTS = pytest.mark.parametrize("act", _ACTS.values(), ids=_ACTS)
ACTS_ON_TABLES = pytest.mark.parametrize("act", list(_ACTS.values())[1:], ids=list(_ACTS)[1:])


@pytest.fixture
def used(path: Path) -> Path:
    with_one = Logbook(path)
    with_one.deliveries.put("github", "d-1", "push", {}).result()
    with_one.close()
    return path


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


def test_the_check_makes_the_file(logbook: Logbook, path: Path) -> None:
    logbook.check().result()
    assert path.exists()
    assert logbook.deliveries.page(1) == []


def test_nobody_else_can_read_it(logbook: Logbook, path: Path) -> None:
    logbook.check().result(10)
    assert {each.stat().st_mode & 0o777 for each in path.parent.glob(f"{path.name}*")} == {0o600}


@ACTS
def test_a_newer_version_is_refused_and_left_alone(used: Path, act: Act, logbook: Logbook) -> None:
    change(used, "PRAGMA user_version = 2")
    before = used.read_bytes()
    with pytest.raises(Invalid, match="version 2, this release knows version 1"):
        act(logbook)
    assert used.read_bytes() == before


@ACTS
@pytest.mark.parametrize(
    "statement", ["CREATE TABLE mine (a)", "PRAGMA user_version = 3", "PRAGMA application_id = 9"]
)
def test_the_database_of_another_program_is_refused_and_left_alone(
    path: Path, act: Act, logbook: Logbook, statement: str
) -> None:
    path.parent.mkdir()
    change(path, statement)
    before = path.read_bytes()
    with pytest.raises(Invalid, match="another program"):
        act(logbook)
    assert path.read_bytes() == before


@ACTS
def test_a_file_that_is_no_database_is_corrupt_and_left_alone(path: Path, act: Act, logbook: Logbook) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(Corrupt, match="damaged"):
        act(logbook)
    assert path.read_bytes() == b"no database " * 1000


def test_a_file_with_a_damaged_page_is_corrupt(used: Path, logbook: Logbook) -> None:
    for number in range(300):
        logbook.deliveries.put("github", f"more-{number}", "push", {"number": number}).result()
    logbook.close()
    with used.open("r+b") as file:
        for page in range(1, used.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    with pytest.raises(Corrupt, match="restore it from a copy"):
        Logbook(used).deliveries.page(100)
    again = Logbook(used)
    with pytest.raises(Corrupt):
        again.deliveries.put("github", "d-9", "push", {}).result()
    again.close()


@ACTS_ON_TABLES
def test_a_table_that_is_missing_is_corrupt(used: Path, act: Act, logbook: Logbook) -> None:
    for table in ("deliveries", "acts", "sweeps", "samples"):
        change(used, f"DROP TABLE {table}")
    with pytest.raises(Corrupt, match="damaged"):
        act(logbook)


@ACTS
def test_a_folder_in_the_place_of_the_file_is_denied(path: Path, act: Act, logbook: Logbook) -> None:
    path.mkdir(parents=True)
    with pytest.raises(Denied):
        act(logbook)


def test_a_folder_that_cannot_be_made_is_denied(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    logbook = Logbook(tmp_path / "file" / "state" / "logbook.db")
    with pytest.raises(Denied, match="cannot use the logbook"):
        logbook.deliveries.put("github", "d-1", "push", {}).result()
    logbook.close()


def test_a_disk_that_is_read_only_is_denied_and_later_used_again(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "size=4m"):
        logbook = Logbook(disk / "logbook.db")
        logbook.check().result()
        logbook.close()
        remount(disk, "ro")
        logbook = Logbook(disk / "logbook.db")
        with pytest.raises(Denied):
            logbook.deliveries.put("github", "d-1", "push", {}).result()
        remount(disk, "rw")
        assert logbook.deliveries.put("github", "d-1", "push", {}).result() == "queued"
        logbook.close()


def test_a_disk_that_is_full_is_unavailable_and_loses_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "size=4m"):
        logbook = Logbook(disk / "logbook.db")
        logbook.deliveries.put("github", "d-0", "push", {}).result()
        filler = fill(disk, 100_000)
        facts = {"branch": "x" * 2000}
        futures = [logbook.deliveries.put("github", f"full-{number}", "push", facts) for number in range(1000)]
        refused = [future.exception() for future in futures]
        accepted = {f"full-{number}" for number, error in enumerate(refused) if error is None}
        assert {type(error) for error in refused if error} == {Unavailable}
        filler.unlink()
        assert logbook.deliveries.put("github", "d-1", "push", facts).result() == "queued"
        assert {entry.delivery_id for entry in logbook.deliveries.page(2000)} == {"d-0", "d-1", *accepted}
        logbook.close()


def test_the_check_finds_that_there_is_no_room(used: Path, logbook: Logbook) -> None:
    """The room runs out for the logbook alone: no page can be added to its log."""
    child = subprocess.run(
        [sys.executable, "-c", CHECK_WITHOUT_ROOM, used],
        env=inherited_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert child.stdout == "Unavailable\n", child
    logbook.check().result()


def test_a_file_that_is_held_for_too_long_is_unavailable(
    used: Path, monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    monkeypatch.setattr("everturn.databases.BUSY_TIMEOUT_S", 0.05)
    logbook = Logbook(used, clock=clock)
    with closing(sqlite3.connect(used, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="busy"):
            logbook.deliveries.put("github", "d-2", "push", {}).result()
        assert len(logbook.deliveries.page(10)) == 1  # whoever looks is not held up
    assert logbook.deliveries.put("github", "d-2", "push", {}).result() == "queued"
    logbook.close()


def test_a_file_with_the_first_of_its_bytes_only_is_made_anew(path: Path, logbook: Logbook) -> None:
    path.parent.mkdir()
    path.touch()
    assert logbook.deliveries.page(1) == []
    assert logbook.deliveries.put("github", "d-1", "push", {}).result() == "queued"


def put_between(monkeypatch: pytest.MonkeyPatch, other: Logbook, statement: str) -> None:
    """Let another logbook be the first to write when the next connection is about to execute a statement."""
    connect = databases.connect

    def opened(*arguments: Any) -> sqlite3.Connection:
        monkeypatch.setattr(databases, "connect", connect)
        connection = connect(*arguments)

        def put(executed: str) -> None:
            if executed == statement:
                connection.set_trace_callback(None)
                other.deliveries.put("github", "d-1", "push", {}).result(20)

        connection.set_trace_callback(put)
        return connection

    monkeypatch.setattr(databases, "connect", opened)


@pytest.mark.parametrize("act", [_ACTS["put"], _ACTS["due"]], ids=["put", "due"])
@pytest.mark.parametrize("statement", ["PRAGMA user_version", "SELECT count(*) FROM sqlite_schema"])
def test_a_file_that_somebody_makes_while_we_open_it_is_ours(
    path: Path, act: Act, logbook: Logbook, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    path.parent.mkdir()
    change(path, "PRAGMA journal_mode = WAL")  # so far somebody has come
    with closing(Logbook(path)) as other:
        put_between(monkeypatch, other, statement)
        act(logbook)
        assert "d-1" in [entry.delivery_id for entry in logbook.deliveries.page(9)]


def test_a_text_that_somebody_has_changed_is_corrupt(used: Path) -> None:
    change(used, "UPDATE deliveries SET details = 'oops'")
    with pytest.raises(Corrupt, match="'oops', which is no JSON"):
        Logbook(used).deliveries.page(1)


def test_every_table_and_column_is_documented_and_no_other(used: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "logbook.md").read_text()
    tables = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", page, re.MULTILINE)
    documented = {name: re.findall(r"`(\w+)`", columns) for name, columns in tables}
    with closing(sqlite3.connect(used)) as connection:
        found = connection.execute(
            "SELECT t.name, c.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c "
            "WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' ORDER BY c.cid"
        ).fetchall()
    assert documented == {table: [name for of, name in found if of == table] for table in {of for of, _ in found}}


def test_a_copy_of_the_file_alone_has_what_was_closed(used: Path, tmp_path: Path) -> None:
    shutil.copy(used, tmp_path / "copy.db")
    assert [entry.delivery_id for entry in Logbook(tmp_path / "copy.db").deliveries.page(9)] == ["d-1"]
