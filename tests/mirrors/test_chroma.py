"""Search by meaning: what is found, and what becomes of a mirror that is damaged, stale or in use."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everturn import Conflict, Corrupt, Denied, Invalid, NotFound, Unavailable
from everturn.mirrors.base import Checkpoint
from everturn.mirrors.chroma import ChromaMirror
from everturn.mirrors.embedding import Embedder
from everturn.mirrors.hits import Filters
from everturn.testing import word_vectors
from mirrors.shelves import (
    FENCE,
    NOON_MS,
    RUNS,
    TAP,
    WINDOW,
    batch,
    checked,
    contents,
    fold_all,
    lines_of,
    long_runs,
    mirror_at,
    rebuild,
    ref_of,
    run_of,
)
from polling import wait_until

CHILD = Path(__file__).with_name("chroma_writer.py")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaMirror]:
    """A mirror that is only asked."""
    found = mirror_at(tmp_path_factory.mktemp("shared") / "mirror")
    rebuild(found, RUNS)
    yield found
    found.close()


def index_of(mirror: ChromaMirror) -> Path:
    return mirror._current().folder / "index"


# --- What is found --------------------------------------------------------------------------------------------------


def test_the_turn_that_is_nearest_comes_first(shared: ChromaMirror) -> None:
    hits = shared.search("green paint for a fence")
    first = hits[0]
    assert (first.work, first.run_id, first.turn) == ("task/fence", "run-fence", 1)
    assert (first.seq, first.kind, first.agent, first.session_id, first.worker) == (
        2,
        "turn",
        "painter",
        "s-fence",
        "w1",
    )
    assert first.repo == "https://forge.example/acme/home.git"
    assert first.at == "2026-11-20T12:00:00.002Z"
    assert "".join(piece.text for piece in first.excerpt).startswith(
        "Paint the garden fence green. Bash: what: step 0"
    )
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert {(hit.run_id, hit.turn) for hit in hits} == {("run-tap", 1), ("run-tap", 2), ("run-fence", 1)}


def test_the_words_of_a_turn_find_it_with_the_highest_score(mirror: ChromaMirror) -> None:
    mirror.fold(batch("window", lines_of(run_of("window")[:1])))
    words = mirror.search(f"{FENCE} Bash: what: step 0 of fence It is done: {FENCE}", limit=1)
    assert words[0].score == pytest.approx(1.0)


def test_a_turn_is_found_once_however_many_of_its_passages_are_near(mirror: ChromaMirror) -> None:
    fold_all(mirror, {"window": run_of("window", " ".join([WINDOW] * 200))})
    hits = mirror.search(WINDOW, limit=3)
    assert [hit.run_id for hit in hits].count("run-window") == 1
    assert len(hits) == 3


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (Filters(agent="painter"), {"fence"}),
        (Filters(agent="nobody"), set()),
        (Filters(repo="home"), {"tap", "fence"}),
        (Filters(repo="https://forge.example/acme/home"), {"tap", "fence"}),
        (Filters(repo="elsewhere"), set()),
        (Filters(work="task/tap"), {"tap"}),
        (Filters(work="fence"), {"fence"}),
        (Filters(tool="Read"), {"tap"}),
        (Filters(tool="Bash", agent="fixer"), {"tap"}),
        (Filters(since_ms=NOON_MS + 4), {"tap"}),
        (Filters(since_ms=NOON_MS + 4, until_ms=NOON_MS + 5), set()),
        (Filters(until_ms=NOON_MS + 5), {"tap", "fence"}),
    ],
)
def test_filters(shared: ChromaMirror, filters: Filters, found: set[str]) -> None:
    assert {hit.work.removeprefix("task/") for hit in shared.search("anything", filters=filters)} == found


@pytest.mark.slow
def test_a_filter_that_lets_little_through_lets_all_of_it_through(mirror: ChromaMirror) -> None:
    fold_all(
        mirror, {f"w{number}": run_of(f"w{number}", f"{WINDOW} {number}", agent="cleaner") for number in range(40)}
    )
    assert [hit.agent for hit in mirror.search(WINDOW, limit=5, filters=Filters(agent="painter"))] == ["painter"]
    assert len(mirror.search(WINDOW, limit=100, filters=Filters(agent="cleaner"))) == 40


@pytest.mark.parametrize("text", ["\ud800 tap", "'; DROP TABLE --", "tap" * 10_000, "\x00", "{}", "-"])
def test_any_text_may_be_looked_for(shared: ChromaMirror, text: str) -> None:
    assert shared.search(text)


def test_nothing_to_look_for_and_kinds_are_refused(shared: ChromaMirror) -> None:
    with pytest.raises(Invalid, match="nothing to look for"):
        shared.search("  ")
    with pytest.raises(Invalid, match="as a whole"):
        shared.search("tap", filters=Filters(kind="prompt"))


def test_a_mirror_that_holds_nothing_finds_nothing(tmp_path: Path) -> None:
    mirror = mirror_at(tmp_path / "mirror")
    rebuild(mirror, {})
    assert mirror.search("tap") == []
    mirror.close()


def test_where_there_is_no_mirror_that_is_said(tmp_path: Path) -> None:
    mirror = mirror_at(tmp_path / "mirror")
    assert mirror.unusable() == "missing"
    with pytest.raises(NotFound, match="no mirror"):
        mirror.search("tap")


# --- Folding --------------------------------------------------------------------------------------------------------


def test_lines_that_leave_a_hole_or_fill_one_are_not_folded(mirror: ChromaMirror) -> None:
    lines = lines_of(run_of("window", WINDOW, "Again."))
    assert mirror.fold(batch("window", lines[:2]))
    assert not mirror.fold(batch("window", lines[4:], 3))  # part 2 has not been read
    assert not mirror.fold(batch("window", lines[4:], None))
    assert mirror.fold(batch("window", lines[4:], 2))  # these lines are missing for good
    assert mirror.checkpoints()[ref_of("window")] == Checkpoint(ref_of("window"), 7, 2, 7)
    assert not mirror.fold(batch("window", lines[2:4], 3))
    mirror.forget([ref_of("window")])
    assert mirror.fold(batch("window", lines, 1))


def test_what_is_folded_already_is_passed_over(mirror: ChromaMirror) -> None:
    before = contents(mirror)
    fold_all(mirror, RUNS)
    assert contents(mirror) == before


def test_lines_of_this_machine_leave_the_part_as_it_is(mirror: ChromaMirror) -> None:
    lines = lines_of(run_of("window", WINDOW))
    mirror.fold(batch("window", lines[:2]))
    mirror.fold(batch("window", lines[2:], None))
    assert mirror.checkpoints()[ref_of("window")] == Checkpoint(ref_of("window"), 4, 1, 2)


def test_a_run_that_is_forgotten_is_gone_and_the_others_stay(mirror: ChromaMirror) -> None:
    mirror.forget([ref_of("tap"), ref_of("never there")])
    assert {hit.work for hit in mirror.search(TAP)} == {"task/fence"}
    assert set(mirror.checkpoints()) == {ref_of("fence")}
    assert mirror.unusable() is None


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([TAP, FENCE, WINDOW, " ".join([TAP] * 60)]), max_size=5), st.integers(1, 7))
def test_live_folding_and_a_rebuild_hold_the_same(tmp_path: Path, turns: list[str], at_once: int) -> None:
    runs = {**RUNS, "more": run_of("more", *turns)}
    live, rebuilt = (mirror_at(tmp_path / os.urandom(4).hex()) for _ in range(2))
    rebuild(live, {})
    fold_all(live, runs, at_once)
    rebuild(rebuilt, runs)
    assert contents(live) == contents(rebuilt)
    assert [hit.run_id for hit in live.search(TAP)] == [hit.run_id for hit in rebuilt.search(TAP)]
    live.close()
    rebuilt.close()


# --- Mirrors that are not as they should be -------------------------------------------------------------------------


def mended(mirror: ChromaMirror) -> None:
    """Rebuild it, and see that it answers as before."""
    mirror.close()
    rebuild(mirror, RUNS, "corrupt")
    assert checked(mirror) is None
    assert mirror.search("green paint for a fence")[0].run_id == "run-fence"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large") / "mirror"
    mirror = mirror_at(folder)
    rebuild(mirror, {**RUNS, **long_runs("many", 10, 110)})
    mirror.close()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["data_level0.bin", "header.bin", "length.bin", "link_lists.bin", "index_metadata.pickle"]
)
@pytest.mark.parametrize("how", ["cut", "gone", "changed"])
def test_an_index_with_a_damaged_file_is_noticed(large: Path, tmp_path: Path, name: str, how: str) -> None:
    shutil.copytree(large, tmp_path / "mirror", symlinks=True)
    mirror = mirror_at(tmp_path / "mirror")
    (file,) = index_of(mirror).glob(f"*/{name}")
    if how == "cut":
        os.truncate(file, file.stat().st_size // 2)
    elif how == "gone":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    assert mirror.unusable() == "corrupt"
    with pytest.raises(Corrupt, match="not as it was written"):
        mirror.search("tap")
    mended(mirror)


def test_a_copy_of_a_mirror_is_one(mirror: ChromaMirror, tmp_path: Path) -> None:
    mirror.close()
    shutil.copytree(mirror._place.folder, tmp_path / "copy", symlinks=True)
    copy = mirror_at(tmp_path / "copy")
    assert copy.unusable() is None
    copy.close()


@pytest.mark.parametrize("name", ["ledger.db", "index/chroma.sqlite3"])
@pytest.mark.parametrize("how", ["text", "empty", "gone", "cut"])
def test_a_database_that_is_none_is_noticed(mirror: ChromaMirror, name: str, how: str) -> None:
    mirror.close()
    file = mirror._current().folder / name
    if how == "text":
        file.write_text("I am a text.\n" * 500, encoding="utf-8")
    elif how == "gone":
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size // 2 if how == "cut" else 0)
    assert checked(mirror) in ({"missing"} if (name, how) == ("ledger.db", "gone") else {"corrupt"})
    mended(mirror)


@pytest.mark.parametrize("what", ["file", "folder", "dangling", "elsewhere"])
def test_something_else_in_its_place_is_no_mirror(tmp_path: Path, what: str) -> None:
    place = tmp_path / "mirror"
    place.mkdir()
    (tmp_path / "valuable").mkdir()
    (tmp_path / "valuable" / "file").touch()
    {
        "file": lambda: (place / "chroma").write_text("text", encoding="utf-8"),
        "folder": lambda: (place / "chroma" / "inside").mkdir(parents=True),
        "dangling": lambda: (place / "chroma").symlink_to("chroma-0123456789abcdef"),
        "elsewhere": lambda: (place / "chroma").symlink_to(tmp_path / "valuable"),
    }[what]()
    mirror = mirror_at(place)
    assert mirror.unusable() == ("missing" if what == "dangling" else "corrupt")
    mended(mirror)
    assert (tmp_path / "valuable" / "file").exists()
    mirror.close()


def test_passages_that_somebody_took_out_are_missed(mirror: ChromaMirror) -> None:
    mirror.close()
    with sqlite3.connect(index_of(mirror) / "chroma.sqlite3") as database:
        database.execute("DELETE FROM embeddings WHERE id = (SELECT min(id) FROM embeddings)")
    database.close()
    assert checked(mirror) == "corrupt"


def test_a_mirror_of_another_store_embedder_or_version_is_stale(
    mirror: ChromaMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.close()
    folder = mirror._place.folder
    assert mirror_at(folder, label="file:///elsewhere").unusable() == "other_store"
    assert mirror_at(folder, embedder=Embedder("others", word_vectors)).unusable() == "fold_changed"
    monkeypatch.setattr("everturn.mirrors.shelf.FOLD_VERSION", 2)
    assert mirror_at(folder).unusable() == "fold_changed"


def test_an_embedder_whose_vectors_have_become_longer_is_refused_until_a_rebuild(mirror: ChromaMirror) -> None:
    mirror.close()
    longer = Embedder("words", lambda texts: [[*vector, 0.5] for vector in word_vectors(texts)])
    changed = mirror_at(mirror._place.folder, embedder=longer)
    assert changed.unusable() is None
    with pytest.raises(Conflict, match="64 numbers for a text, and now 65"):
        changed.search("tap")
    with pytest.raises(Conflict, match="rebuild --only chroma"):
        fold_all(changed, {"window": run_of("window", WINDOW)})
    rebuild(changed, RUNS, "asked")
    assert changed.search("green paint")[0].run_id == "run-fence"
    changed.close()


def test_a_folder_that_cannot_be_made_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "mirror").write_text("a file", encoding="utf-8")
    with pytest.raises(Denied, match="cannot use the mirror"), mirror_at(tmp_path / "mirror").rebuilding("missing"):
        pass


# --- Writers that die, and writers that meet ------------------------------------------------------------------------


def test_a_run_whose_writing_failed_is_read_again(mirror: ChromaMirror, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise Unavailable("the disk is full", hint="free some")

    lines = lines_of(run_of("window", WINDOW))
    mirror.fold(batch("window", lines[:2]))
    with monkeypatch.context() as patch:
        patch.setattr("everturn.mirrors.ledger.Ledger.settle", full)
        with pytest.raises(Unavailable):
            mirror.fold(batch("window", lines[2:], 2))
    assert set(mirror.checkpoints()) == {ref_of("tap"), ref_of("fence")}
    assert checked(mirror) is None
    assert not mirror.fold(batch("window", lines[2:], 2))
    assert mirror.fold(batch("window", lines))
    assert mirror.search(WINDOW, limit=1)[0].run_id == "run-window"


def test_a_rebuild_that_was_cut_short_goes_on_and_readers_keep_their_answers(mirror: ChromaMirror) -> None:
    with suppress(KeyboardInterrupt), mirror.rebuilding("asked") as folding:
        assert folding is not None
        fold_all(folding, {"window": run_of("window", WINDOW)})
        assert mirror.search(WINDOW, limit=1)[0].run_id != "run-window"
        raise KeyboardInterrupt
    assert mirror.search(WINDOW, limit=1)[0].run_id != "run-window"
    with mirror.rebuilding("asked") as folding:
        assert folding is not None
        assert set(folding.checkpoints()) == {ref_of("window")}
    assert [hit.run_id for hit in mirror.search(WINDOW)] == ["run-window"]
    assert len([*mirror._place.folder.glob("chroma-*")]) == 1


def test_what_a_rebuild_has_left_for_another_embedder_is_of_no_use(mirror: ChromaMirror) -> None:
    for embed in (word_vectors, lambda texts: [[1.0, 2.0] for _ in texts]):
        other = mirror_at(mirror._place.folder, embedder=Embedder("words", embed))
        with suppress(KeyboardInterrupt), other.rebuilding("asked") as folding:
            assert folding is not None
            assert folding.checkpoints() == {}
            fold_all(folding, RUNS)
            raise KeyboardInterrupt


def test_two_mirrors_in_one_process_see_what_the_other_writes(mirror: ChromaMirror) -> None:
    other = mirror_at(mirror._place.folder)
    assert other.search(FENCE, limit=1)[0].run_id == "run-fence"
    fold_all(mirror, {"window": run_of("window", WINDOW)})
    assert other.search(WINDOW, limit=1)[0].run_id == "run-window"
    rebuild(mirror, {"fence": RUNS["fence"]}, "asked")
    assert [hit.run_id for hit in other.search(WINDOW)] == ["run-fence"]
    other.close()


def start_writer(folder: Path, name: str, runs: int, turns: int = 2) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, CHILD, folder, name, str(runs), str(turns)],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(CHILD.parents[1])},
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.slow
def test_several_processes_write_and_read_at_once(mirror: ChromaMirror) -> None:
    writers = [start_writer(mirror._place.folder, name, 12) for name in "abc"]
    while any(writer.poll() is None for writer in writers):
        assert mirror.search("green paint for a fence", limit=1)[0].run_id == "run-fence"
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    expected = {f"{name}{number}" for name in "abc" for number in range(12)} | set(RUNS)
    assert set(mirror.checkpoints()) == set(map(ref_of, expected))
    assert checked(mirror) is None
    assert {hit.run_id for hit in mirror.search("windows", limit=100)} == {ref_of(name).run_id for name in expected}


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [3, 4, 6, 9, 13, "written"])
def test_a_writer_that_is_killed_leaves_what_can_be_gone_on_with_or_is_seen_to_be_damaged(
    mirror: ChromaMirror, wanted: int | str
) -> None:
    turns = 120 if wanted == "written" else 2
    writer = start_writer(mirror._place.folder, "k", 20, turns)

    def is_due() -> bool:
        if wanted == "written":  # Chroma writes the files of its index at this moment
            return any(index_of(mirror).glob("*/index_metadata.pickle"))
        return len(mirror.checkpoints()) >= int(wanted)

    try:
        wait_until(lambda: is_due() or writer.poll() is not None, "some runs")
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert writer.returncode == -signal.SIGKILL
    runs = {**RUNS, **long_runs("k", 20, turns)}
    mirror.close()
    found = mirror.unusable()
    assert found in (None, "corrupt")
    if found is None:
        fold_all(mirror, runs)
    else:
        rebuild(mirror, runs)
    fresh = mirror_at(mirror._place.folder.with_name("fresh"))
    rebuild(fresh, runs)
    assert contents(mirror) == contents(fresh)
    fresh.close()
