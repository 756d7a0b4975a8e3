"""The benchmark of the journal measures what it says: the same lines in every way, journals that are whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

import pytest
from bench.journal import report, writing
from bench.journal.agent import Agent
from bench.journal.corpus import Made, make_corpus, settings_for, texts_of
from bench.journal.plan import REBUILDS, TINY, WRITES, Plan
from bench.journal.rebuild import measure_inserting, measure_reading, measure_rebuild, mirror_in
from bench.journal.summary import Summary
from bench.plan import Row
from bench.run import machine

from everturn.journal.events import TYPES, Delta, Ended, Started
from everturn.journal.journal import Journal
from everturn.journal.messages import Scribe
from everturn.journal.reading import Journals, RunJournal
from everturn.log.objects import run
from everturn.log.stores import connect
from everturn.testing import LoopbackS3

pytestmark = pytest.mark.slow

FILES = 30
SIZE_BYTES = 400_000


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackS3]:
    """An S3 server, and the environment that makes clients use it."""
    with LoopbackS3.start() as found, pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Made]:
    """Some journals, and what is said of them."""
    folder = tmp_path_factory.mktemp("corpus") / "store"
    return folder, make_corpus(folder, SIZE_BYTES, FILES, processes=1)


@pytest.fixture(scope="module")
def measured(server: LoopbackS3, tmp_path_factory: pytest.TempPathFactory) -> Row:
    """A whole run of the benchmark at its smallest size, as it is stored."""
    bucket = server.fresh_bucket()
    plan = Plan(tmp_path_factory.mktemp("bench"), f"s3://{bucket}/everturn", bucket, TINY)
    for step in plan.steps():
        step.run()
    facts = {"date": "2026-01-01", "seconds": 60, "engine": "moto", "sqlite": "3", **machine()}
    found: Row = json.loads(json.dumps({**facts, "sizes": TINY.as_row(), "samples": plan.samples}))
    return found


def journals_of(folder: Path) -> list[RunJournal]:
    settings = settings_for(folder)
    journals = Journals(connect(settings.store_url(), settings), "")
    return [run(journals.read(ref)) for ref in run(journals.tails())]


# --- What is measured ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_agent_says_the_same_again() -> None:
    first, second = (
        [repr(message) for _, message in Agent(Random(7), texts_of(FILES), "session", "/work").turn()]
        for _ in range(2)
    )
    assert first == second


@pytest.mark.slow
def test_every_message_of_an_agent_is_understood() -> None:
    scribe = Scribe()
    said = [scribe.events(message) for _, message in Agent(Random(3), texts_of(FILES), "session", "/work").turn()]
    kinds = {event.TYPE for events in said for event in events}
    assert "other" not in kinds
    assert {"text_delta", "tool_input_delta", "tool_use", "tool_result", "assistant", "stream", "result"} <= kinds


def test_the_pieces_of_a_block_are_the_block() -> None:
    scribe = Scribe()
    pieces: list[str] = []
    for _, message in Agent(Random(3), texts_of(FILES), "session", "/work").turn():
        for event in scribe.events(message):
            if isinstance(event, Delta):
                pieces.append(event.text)
            elif event.TYPE in ("assistant", "thinking", "tool_use"):
                whole: Any = event
                assert "".join(pieces) if event.TYPE == "tool_use" else "".join(pieces) == whole.text
                pieces.clear()
    assert not pieces


def test_journals_are_whole_ones_and_what_is_said_of_them_is_true(corpus: tuple[Path, Made]) -> None:
    folder, made = corpus
    found = journals_of(folder)
    assert len(found) == made.runs
    assert sum(len(journal.events) for journal in found) == made.lines
    assert made.lines_bytes >= SIZE_BYTES
    for journal in found:
        assert (journal.missing, journal.unreadable) == ((), 0)
        assert isinstance(journal.events[0].event, Started)
        assert all(event.type in TYPES for event in journal.events)
    ended = [journal for journal in found if isinstance(journal.events[-1].event, Ended)]
    assert len(found) - len(ended) == made.killed


def test_the_same_journals_are_made_again(corpus: tuple[Path, Made], tmp_path: Path) -> None:
    again = make_corpus(tmp_path / "store", SIZE_BYTES, FILES, processes=1)
    assert again.as_row() == corpus[1].as_row()


@pytest.mark.parametrize("way", writing.WAYS)
def test_each_way_writes_the_same_lines(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(Path, "unlink", lambda path: written.append(path.read_bytes()))
    place = writing.Place(tmp_path, (tmp_path / "store").as_uri(), "")
    stream = writing.stream_of(1, texts_of(FILES), 200)
    times = writing.measure("flush", way, place, stream, 0)
    assert len(times) == 200
    assert all(time > 0 for time in times)
    (lines,) = written
    assert list(map(_untimed, lines.splitlines())) == list(map(_untimed, b"".join(stream.lines).splitlines()))


def _untimed(line: bytes) -> Any:
    return json.loads(line) | {"at_ms": 0}


@pytest.mark.parametrize(("durability", "settled"), [("flush", 0), ("fsync", 20), ("store", 20)])
def test_what_is_measured_is_as_durable_as_it_says(
    durability: str, settled: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settles: list[None] = []
    settle = Journal.settle
    monkeypatch.setattr(Journal, "settle", lambda journal: settles.append(settle(journal)))
    place = writing.Place(tmp_path, (tmp_path / "store").as_uri(), "")
    writing.measure(durability, "write", place, writing.stream_of(1, texts_of(FILES), 20), 0)
    assert len(settles) == settled


def test_what_a_rebuild_is_compared_with_is_the_same_journals_and_texts(
    corpus: tuple[Path, Made], tmp_path: Path
) -> None:
    folder, made = corpus
    row = measure_rebuild(folder, tmp_path)
    assert (row["runs"], row["events"], row["lines_bytes"]) == (made.runs, made.lines, made.lines_bytes)
    for parsed in (False, True):
        assert measure_reading(folder, parsed=parsed)["lines_bytes"] == made.lines_bytes
    assert measure_inserting(tmp_path, folder)["text_bytes"] == row["text_bytes"] > 0
    with mirror_in(tmp_path, folder).reading() as database:
        outcomes = dict(database.execute("SELECT outcome, count(*) FROM runs GROUP BY outcome"))
    assert outcomes.get(None, 0) == made.killed


@pytest.mark.slow
def test_everything_is_measured_as_often_as_was_asked_for(measured: Row) -> None:
    counts = {name: len(rows) for name, rows in measured["samples"].items()}
    writes = {f"write {pace} {durability} {way}" for pace, durability, ways in WRITES for way in ways}
    assert {counts[name] for name in writes} == {TINY.rounds}
    assert {counts[name] for name in REBUILDS} == {TINY.rebuilds}
    assert set(counts) == writes | {*REBUILDS, "journals", "search"}
    assert measured["samples"]["search"][0]["all"]["searches"] == TINY.queries


# --- What is made of it -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_tables_compare_with_every_goal(measured: Row) -> None:
    goals, *others = report.tables(measured)
    assert len(goals.rows) == 10
    assert {row[3] for row in goals.rows} <= {"yes", "**no**"}
    assert all(len(row) == len(table.head) for table in others for row in table.rows)
    assert "moto" in report.circumstances(measured)


@pytest.mark.slow
def test_a_bare_write_takes_as_long_as_itself(measured: Row) -> None:
    found = Summary(measured)
    assert found.times_bare("flood flush", "bare", "p50_s") == 1
    assert found.times_bare("flood flush", "write", "p50_s") > 0


@pytest.mark.slow
def test_plots_are_well_formed(measured: Row, tmp_path: Path) -> None:
    report.plots(measured, tmp_path, "tiny")
    pictures = sorted(tmp_path.glob("tiny-*.svg"))
    assert [picture.stem for picture in pictures] == ["tiny-search", "tiny-write"]
    assert all(ElementTree.parse(picture).getroot().tag.endswith("svg") for picture in pictures)
