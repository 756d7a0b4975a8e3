"""Folders, registries and machines that are not as they should be."""

from __future__ import annotations

import errno
import fcntl
import shutil
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from everturn.checks import folders, machine
from everturn.checks.doctor import checks_of_settings
from everturn.checks.findings import Check, Finding, examine
from everturn.checks.registry import registry
from everturn.clock import Ids, ManualClock, SystemClock
from everturn.model import Holder, WorkItem
from everturn.registry import DynamoDbRegistry, open_registry, sqlite
from everturn.settings import Settings
from everturn.testing import LoopbackS3


def found(findings: Iterable[Finding]) -> dict[str, Finding]:
    return {each.name.partition(".")[2]: each for each in examine([Check("x.open", lambda: findings)], SystemClock())}


def statuses(findings: dict[str, Finding]) -> dict[str, str]:
    return {name: each.status for name, each in findings.items() if each.status != "pass"}


def looked(url: str) -> dict[str, Finding]:
    return found(registry(Settings.load(registry=url), Ids()))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A registry with a session in it."""
    path = tmp_path / "registry.db"
    open_registry(f"sqlite://{path}").claim(WorkItem.task("tap"), Holder("worker"), ttl_s=30)
    return path


# --- registries ---


def test_a_registry_in_use_is_well_and_stays_as_it_is(file: Path) -> None:
    before = file.read_bytes()
    findings = looked(f"sqlite://{file}")
    assert statuses(findings) == {}
    assert findings.keys() == {"space", "open", "integrity", "write", "locks"}
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("version", [0, 1])
def test_a_registry_of_an_older_release_is_well_and_stays_as_it_is(tmp_path: Path, version: int) -> None:
    file = tmp_path / "registry.db"
    with closing(sqlite3.connect(file)) as connection:
        if version:
            connection.execute(sqlite._VERSION_1)
            connection.execute("PRAGMA user_version = 1")
    before = file.read_bytes()
    assert statuses(looked(f"sqlite://{file}")) == {}
    assert file.read_bytes() == before


@pytest.mark.parametrize("lost", [(), ("-shm",)])
def test_a_registry_whose_last_user_was_killed_is_well_and_keeps_what_that_wrote(
    file: Path, tmp_path: Path, lost: tuple[str, ...]
) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE sessions SET worker = 'killed'")
        connection.commit()
        shutil.copytree(tmp_path, tmp_path / "left")  # as it was when that was killed
    for ending in lost:
        Path(f"{tmp_path}/left/{file.name}{ending}").unlink()
    url = f"sqlite://{tmp_path}/left/{file.name}"
    assert statuses(looked(url)) == {}
    assert [record.worker for record in open_registry(url).records()] == ["killed"]


def test_a_registry_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    findings = looked(f"sqlite://{tmp_path}/some/registry.db")
    assert statuses(findings) == {}
    assert "will be made" in findings["open"].message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_registry_that_somebody_writes_to_is_waited_for(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM sessions")
        asked = Check(
            "registry.open", lambda: registry(Settings.load(registry=f"sqlite://{file}"), Ids()), timeout_s=0.5
        )
        findings = examine([asked], SystemClock())
        other.execute("ROLLBACK")
    assert findings[-1].status == "fail"
    assert "longer than 0.5 s" in findings[-1].message


@pytest.mark.parametrize("damage", ["all of it", "a page"])
def test_a_damaged_registry_fails_and_stays_as_it_is(file: Path, damage: str) -> None:
    content = file.read_bytes()
    spoiled = b"?" * len(content) if damage == "all of it" else content[:4096] + b"\xff" * (len(content) - 4096)
    file.write_bytes(spoiled)
    findings = looked(f"sqlite://{file}")
    assert "fail" in statuses(findings).values()
    (wrong,) = [each for each in findings.values() if each.status == "fail"]
    assert "restore it" in wrong.mend
    assert file.read_bytes() == spoiled


def test_a_registry_of_a_newer_release_fails(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 99")
    findings = looked(f"sqlite://{file}")
    assert statuses(findings) == {"open": "fail"}
    assert "newer release" in findings["open"].mend
    assert f"the registry {file} has version 99" in findings["open"].message


def test_a_registry_of_another_kind_fails_and_its_password_is_not_shown() -> None:
    findings = looked("postgres://me:secret@host/db")
    assert statuses(findings) == {"open": "fail"}
    assert "secret" not in findings["open"].message


def test_a_registry_inside_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert statuses(looked(f"sqlite://{tmp_path}/file/registry.db")) == {"open": "fail"}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A table of DynamoDB on loopback."""
    with LoopbackS3.start() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        name = f"doctor-{Ids().token()}"  # moto keeps its tables by process, not by server
        DynamoDbRegistry(name, settings=Settings.load()).create_table()
        yield name


@pytest.mark.slow
def test_a_registry_on_a_server_is_well_and_stays_empty(table: str) -> None:
    findings = looked(f"dynamodb://{table}")
    assert statuses(findings) == {}
    assert findings.keys() == {"open", "write"}
    assert open_registry(f"dynamodb://{table}", settings=Settings.load()).records() == []


def test_a_table_that_does_not_exist_fails(table: str) -> None:
    assert statuses(looked("dynamodb://nowhere")) == {"open": "fail"}


# --- folders ---


def test_a_folder_is_well_whether_it_exists_or_not_and_stays_as_it_is(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "not" / "yet"):
        findings = found(folders.folder("state", path, "mend", must_execute=True))
        assert statuses(findings) == {}
        assert findings.keys() == {"folder", "space", "locks", "programs"}
    assert list(tmp_path.iterdir()) == []


def without_locks(_file: Any, _operation: int) -> None:
    raise OSError(errno.ENOSYS, "Function not implemented")


def that_lets_everybody_in(_file: Any, _operation: int) -> None:
    """A lock that holds nobody back."""


@pytest.mark.parametrize(
    ("flock", "kind", "status"),
    [
        (fcntl.flock, "ext4", "pass"),
        (fcntl.flock, "nfs4", "warn"),
        (fcntl.flock, "fuse.sshfs", "warn"),
        (without_locks, "fuse.mountpoint-s3", "fail"),
        (that_lets_everybody_in, "ext4", "fail"),
    ],
)
def test_a_mount_without_locks_fails_and_one_that_is_shared_is_a_warning(
    tmp_path: Path, flock: Any, kind: str, status: str
) -> None:
    finding = folders.locks("state.locks", tmp_path, "put `state` on a local disk", flock, kind)
    assert finding.status == status
    assert kind in finding.message or flock is that_lets_everybody_in
    assert ("local disk" in finding.mend) == (status != "pass")


def test_a_file_system_that_never_answers_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "LOCK_TIMEOUT_S", 0.0)
    finding = folders.locks("state.locks", tmp_path, "put `state` on a local disk")
    assert finding.status == "fail"
    assert "had no answer in 0 s" in finding.message


def test_an_interpreter_that_does_not_start_is_not_taken_for_a_lock_that_does_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(broken))
    finding = folders.locks("state.locks", tmp_path, "put `state` on a local disk")
    assert (finding.status, "could not be started" in finding.message) == ("fail", True)


@pytest.mark.parametrize(
    ("little", "least", "status"), [(0, 0, "pass"), (1 << 62, 0, "warn"), (1 << 62, 1 << 61, "fail")]
)
def test_room_is_judged_by_how_much_there_is(tmp_path: Path, little: int, least: int, status: str) -> None:
    finding = folders.space("state.space", tmp_path / "not" / "yet", little=little, least=least)
    assert finding.status == status
    assert "free" in finding.message


# --- the machine ---


def test_a_clock_that_was_never_set_fails() -> None:
    assert found(machine.wall_clock(ManualClock()))["clock"].status == "fail"
    assert found(machine.wall_clock(ManualClock(1_750_000_000.0)))["clock"].status == "pass"


@pytest.mark.parametrize(("limit", "status"), [(64, "warn"), (256, "pass"), (-1, "pass"), (None, "pass")])
def test_few_open_files_are_a_warning(limit: int | None, status: str) -> None:
    assert found(machine.open_files(limit))["files"].status == status


def test_root_is_told_about_sandboxes() -> None:
    assert "IS_SANDBOX=1" in found(machine.user({}, 0))["user"].mend
    assert found(machine.user({"IS_SANDBOX": "1"}, 0))["user"].mend == ""
    assert found(machine.user({}, 1000))["user"].mend == ""


def test_a_system_where_agents_may_outlive_workers_is_a_warning() -> None:
    assert found(machine.processes("darwin"))["processes"].status == "warn"


# --- settings ---


def test_where_settings_come_from_is_told_and_what_they_are_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "everturn.toml").write_text('worker = "very-secret"\n')
    monkeypatch.setenv("EVERTURN_LOG_LEVEL", "error")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    environment = {"EVERTURN_LOG_LEVEL": "error", "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "WORKER": "another's"}
    settings = Settings.load(store="memory://")
    checks = checks_of_settings(settings, frozenset({"store"}), environment, None, SystemClock(), Ids())
    load, store = (
        found(check.look())
        for check in checks
        if check.name in ("settings.load", "store.reachable")
    )  # fmt: skip
    for words in (
        "worker from everturn.toml",
        "aws_endpoint_url, log_level from the environment",
        "store from options",
    ):
        assert words in load["load"].message
    assert "very-secret" not in load["load"].message
    assert statuses(store) == {"reachable": "fail"}
