"""What is particular to the registry in an SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from everturn.clock import Ids
from everturn.errors import Corrupt, Denied, EverturnError, Invalid, Unavailable
from everturn.model import Claim
from everturn.registry import Registry, SqliteRegistry, open_registry
from registry.places import OTHER, TTL_S, WORK, claim, used


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
        "dynamodb://table",
    ],
)
def test_a_url_that_is_no_registry_is_invalid(url: str) -> None:
    with pytest.raises(Invalid, match="cannot make a registry") as caught:
        open_registry(url)
    assert "sqlite:///" in caught.value.hint


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
    monkeypatch.setattr("everturn.registry.sqlite.BUSY_TIMEOUT_S", 0.05)
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
