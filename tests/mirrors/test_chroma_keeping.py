"""The mirror for search by meaning follows the store, as the other one does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from disks import fill, mounted, remount
from everturn.errors import Denied, Unavailable
from everturn.journal.events import Assistant, Prompt
from everturn.journal.reading import RunRef
from everturn.mirrors.chroma import ChromaMirror
from everturn.mirrors.keeping import catch_up, rebuild
from mirrors.ground import LABEL, REF, Ground, a_run, lines_of_events
from mirrors.shelves import EMBEDDER, FENCE, contents
from polling import wait_until

MORE = RunRef("task:t", "run-2")


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    ground = Ground(tmp_path)
    ground.store(REF, lines_of_events(a_run()), parts=3)
    return ground


def mirror_of(ground: Ground, name: str = "mirror") -> ChromaMirror:
    return ChromaMirror(ground.folder / name, LABEL, EMBEDDER, metrics=ground.metrics)


@pytest.fixture
def mirror(ground: Ground) -> Iterator[ChromaMirror]:
    found = mirror_of(ground)
    keep_up(ground, found)
    yield found
    found.close()


def keep_up(ground: Ground, mirror: ChromaMirror) -> Any:
    return catch_up(ground.journals, mirror, metrics=ground.metrics)


def found(mirror: ChromaMirror) -> set[str]:
    return {hit.run_id for hit in mirror.search("anything at all", limit=100)}


def let_go(mirror: ChromaMirror, folder: Path) -> None:
    """Close a mirror, and wait until its files are: Chroma closes them a moment later, from a thread of its own."""
    mirror.close()
    wait_until(lambda: not any(str(folder) in target for target in open_files()), "closed files")


def open_files() -> Iterator[str]:
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            yield str(link.readlink())


def test_it_is_built_when_it_is_missing_and_only_what_is_new_is_read(ground: Ground, mirror: ChromaMirror) -> None:
    assert found(mirror) == {"run-1"}
    assert ground.counted("mirror_rebuilds", reason="missing") == 1
    assert keep_up(ground, mirror).runs_to_do == 0
    ground.store(MORE, lines_of_events(a_run("run-2")))
    assert keep_up(ground, mirror).runs == 1
    assert found(mirror) == {"run-1", "run-2"}
    extent = mirror.extent()
    assert (extent.runs, extent.events) == (2, 2 * len(a_run()))
    assert extent.size_bytes > 100_000


def test_a_run_that_grows_and_a_run_that_is_read_at_once_give_the_same(ground: Ground, mirror: ChromaMirror) -> None:
    lines = lines_of_events([*a_run("run-2"), Assistant("a word " * 400), Prompt(FENCE, resumed=True)])
    for start in range(0, len(lines), 2):
        ground.store_part(MORE, lines[start : start + 2])
        keep_up(ground, mirror)
    again = mirror_of(ground, "again")
    keep_up(ground, again)
    assert contents(mirror) == contents(again)
    again.close()


def test_runs_that_are_deleted_or_truncated_go(ground: Ground, mirror: ChromaMirror) -> None:
    ground.store(MORE, lines_of_events(a_run("run-2")))
    keep_up(ground, mirror)
    ground.delete(REF)
    keep_up(ground, mirror)
    assert found(mirror) == {"run-2"}
    ground.truncate(MORE)
    keep_up(ground, mirror)
    assert found(mirror) == set()
    assert keep_up(ground, mirror).runs_to_do == 0
    assert mirror.unusable() is None


def test_one_that_is_damaged_or_of_another_release_is_rebuilt_by_itself(
    ground: Ground, mirror: ChromaMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(mirror)
    mirror.close()
    (mirror.path.resolve() / "index" / "chroma.sqlite3").write_text("a text", encoding="utf-8")
    keep_up(ground, mirror)
    assert contents(mirror) == before
    assert ground.counted("mirror_rebuilds", reason="corrupt") == 1
    monkeypatch.setattr("everturn.mirrors.shelf.FOLD_VERSION", 2)
    other = mirror_of(ground)
    keep_up(ground, other)
    assert contents(other) == before
    assert ground.counted("mirror_rebuilds", reason="fold_changed") == 1
    other.close()


def test_what_somebody_wrote_into_it_is_gone_after_a_rebuild(ground: Ground, mirror: ChromaMirror) -> None:
    before = contents(mirror)
    shelf = mirror._current()
    with shelf._open() as vectors:
        number, _, about, vector = before["passages"][0]
        vectors._collection.upsert(number, vector, {**about, "agent": "nobody"}, "It never happened.")
    assert contents(mirror) != before
    rebuild(ground.journals, mirror, metrics=ground.metrics)
    assert contents(mirror) == before


def test_a_folder_that_cannot_be_written_gives_one_clear_error(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=32m"):
        ground = Ground(tmp_path / "disk")
        ground.store(REF, lines_of_events(a_run()))
        mirror = mirror_of(ground)
        keep_up(ground, mirror)
        let_go(mirror, tmp_path)
        remount(tmp_path / "disk", "ro")
        try:
            for attempt in (lambda: mirror.search("tap"), lambda: keep_up(ground, mirror), mirror.unusable):
                with pytest.raises(Denied, match="mirror") as raised:
                    attempt()
                assert "permissions" in raised.value.hint
        finally:
            remount(tmp_path / "disk", "rw")
        assert found(mirror) == {"run-1"}
        let_go(mirror, tmp_path)


@pytest.mark.slow
def test_a_full_disk_gives_one_clear_error_and_it_goes_on_once_there_is_room(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=32m"):
        ground = Ground(tmp_path / "disk")
        ground.store(REF, lines_of_events(a_run()))
        mirror = mirror_of(ground)
        keep_up(ground, mirror)
        said = [Assistant(os.urandom(4_000).hex()) for _ in range(8)]
        ground.store(MORE, lines_of_events([Prompt("Go", resumed=False), *said]))
        filler = fill(tmp_path / "disk", 40_000)
        with pytest.raises(Unavailable, match="no room"):
            keep_up(ground, mirror)
        with pytest.raises(Unavailable, match="no room"):
            rebuild(ground.journals, mirror, metrics=ground.metrics)
        assert len([*mirror.path.parent.glob("chroma-*")]) == 1
        filler.unlink()
        keep_up(ground, mirror)
        assert found(mirror) == {"run-1", "run-2"}
        again = mirror_of(ground, "again")
        keep_up(ground, again)
        assert contents(mirror) == contents(again)
        again.close()
        let_go(mirror, tmp_path)
