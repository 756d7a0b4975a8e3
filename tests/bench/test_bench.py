"""The benchmark measures what it says it does: the same entries everywhere, and requests counted at the server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import anyio
import orjson
import pytest
from bench.costs import PRICES, Hour, pace
from bench.counting import Counts
from bench.frames import frames, recordings
from bench.meter import size_in_memory
from bench.plan import TINY, Plan, Row
from bench.sanitise import sanitise
from bench.servers import Server
from bench.summary import Summary

from bench import plots, report, worker
from everturn.testing import LoopbackS3

FRAMES = next(iter(TINY.loads))


class PlanInThisProcess(Plan):
    """The benchmark's plan, without a process for each measurement."""

    def _ask(self, operation: str, kind: str, session: str, **more: Any) -> Row:
        asked = {"operation": operation, "kind": kind, "bucket": kind, "session": session, **more}
        row: Row = anyio.run(worker.OPERATIONS[operation], asked, self.server)
        return row


@pytest.fixture(scope="module")
def measured() -> Iterator[Row]:
    """A whole run of the benchmark at its smallest size."""
    with LoopbackS3.start(wrap=Counts().wsgi) as loopback, pytest.MonkeyPatch.context() as monkeypatch:
        server = Server(loopback.url)
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        plan = PlanInThisProcess(server, TINY)
        for _, step in plan.steps():
            step()
        sizes = {**vars(TINY), "loads": {str(length): repeats for length, repeats in TINY.loads.items()}}
        yield {"samples": dict(plan.samples), "sizes": sizes}


@pytest.fixture
def found(measured: Row) -> Summary:
    return Summary(measured)


@pytest.fixture(scope="module")
def recorded() -> list[dict[str, Any]]:
    """All entries that were recorded."""
    return [entry for conversation in recordings() for frame in conversation for entry in frame.entries()]


# --- What is measured ---------------------------------------------------------------------------------------------


def test_every_way_of_loading_returns_the_same_entries(found: Summary) -> None:
    wanted = sum(len(frame.entries()) for frame in frames(FRAMES))
    for way in ("everturn", "compacted", "baseline", "limit"):
        (row,) = found.samples[f"load {way} {FRAMES}"]
        assert row["entries"] == wanted
    assert found.same_everywhere()


@pytest.mark.parametrize("kind", ["everturn", "baseline", "limit"])
def test_an_append_is_one_put_and_nothing_else(found: Summary, kind: str) -> None:
    (row,) = found.samples[f"append {kind}"]
    requests = Counter(row["requests"])
    del requests["bytes_in"]
    assert requests == {"PUT": len(row["latencies_s"])}


def test_a_compacted_transcript_is_one_object_and_takes_one_get_and_one_list(found: Summary) -> None:
    name = f"compacted {FRAMES}"
    assert found.samples[f"stored {name}"][0]["objects"] == 1
    assert (found.requests(f"load {name}", "GET"), found.requests(f"load {name}", "LIST")) == (1, 1)


def test_the_baseline_gets_every_part(found: Summary) -> None:
    assert found.requests(f"load baseline {FRAMES}", "GET") == FRAMES


@pytest.mark.parametrize("operation", ["list_sessions", "list_session_summaries"])
def test_listing_takes_two_lists_whatever_the_number_of_parts(found: Summary, operation: str) -> None:
    (row,) = found.samples[f"{operation} everturn"]
    assert row["sessions"] == TINY.sessions
    assert row["requests"]["LIST"] <= 2


def test_compacting_makes_a_transcript_smaller_than_its_parts_and_those_smaller_than_the_baseline(
    found: Summary,
) -> None:
    assert found.stored_ratio(FRAMES, "compacted") < found.stored_ratio(FRAMES, "everturn") < 1


# --- What is made of it -------------------------------------------------------------------------------------------


def test_tables_compare_with_every_goal(measured: Row) -> None:
    goals, *others = report.tables(measured)
    assert len(goals.rows) == 10
    assert {row[3] for row in goals.rows} <= {"yes", "**no**"}
    assert all(len(row) == len(table.head) for table in others for row in table.rows)


def test_tables_are_refused_if_something_else_was_loaded(measured: Row) -> None:
    name = f"load limit {FRAMES}"
    other = {**measured, "samples": {**measured["samples"], name: [{**measured["samples"][name][0], "digest": ""}]}}
    with pytest.raises(RuntimeError, match="same entries"):
        report.tables(other)


def test_tables_go_between_the_markers_of_a_page(measured: Row, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n{report.BEGIN}\nold\n{report.END}\nbelow\n", encoding="utf-8")
    report.put_into(page, report.tables(measured), "Run on a quiet machine.")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("above\n")
    assert text.endswith("\nbelow\n")
    assert "### Goals" in text
    assert "old" not in text


def test_plots_are_well_formed(measured: Row, tmp_path: Path) -> None:
    plots.write(measured, tmp_path, "tiny")
    pictures = sorted(tmp_path.glob("tiny-*.svg"))
    assert [picture.stem for picture in pictures] == ["tiny-append", "tiny-list", "tiny-load", "tiny-memory"]
    assert all(ElementTree.parse(picture).getroot().tag.endswith("svg") for picture in pictures)


def test_results_are_kept_without_single_latencies(measured: Row) -> None:
    row = report.thinned(measured)["samples"]["append everturn"][0]
    assert "latencies_s" not in row
    assert row["steps"] == TINY.appends - 1
    assert 0 < row["p50_s"] <= row["p99_s"]


def test_a_price_is_requests_and_bytes_at_list_prices() -> None:
    hour = Hour(puts=900, lists=100, gets=1000, sent_bytes=1 << 30, kept_bytes=1 << 30)
    standard, express = (round(hour.dollars(prices), 6) for prices in PRICES)
    assert standard == 0.005 + 0.0004 + 0.023
    assert express == round(0.00113 + 0.00003 + 0.0032 + 0.0006 + 0.11, 6)


def test_lingering_saves_requests(recorded: list[dict[str, Any]]) -> None:
    assert recorded
    assert 0 < pace().lingered < pace().frames


# --- What was recorded --------------------------------------------------------------------------------------------


def test_recordings_hold_hundreds_of_frames_of_many_kinds(recorded: list[dict[str, Any]]) -> None:
    assert sum(len(conversation) for conversation in recordings()) > 500
    assert {"user", "assistant", "attachment", "queue-operation"} <= {entry["type"] for entry in recorded}


def test_more_frames_than_were_recorded_have_fresh_ids() -> None:
    known = sum(len(conversation) for conversation in recordings())
    ids = [entry["uuid"] for frame in frames(known + 50) for entry in frame.entries() if "uuid" in entry]
    assert len(set(ids)) == len(ids)


def test_recordings_name_no_folder_of_a_machine(recorded: list[dict[str, Any]]) -> None:
    folders = {entry["cwd"] for entry in recorded if "cwd" in entry}
    assert folders == {"/home/dev/project"}


def test_sanitising_takes_out_folders_ids_and_instructions_but_not_their_length() -> None:
    instructions = "You are to do as you are told, always."
    entries = [
        {"type": "attachment", "attachment": {"text": instructions}, "uuid": "u"},
        {"type": "user", "cwd": "/somewhere/else", "key": "-somewhere-else", "id": "toolu_1x2", "again": "toolu_1x2"},
    ]
    frames_before = [{"at_s": 0.0, "entries": entries}]
    (frame,) = sanitise(frames_before, {"/somewhere/else": "/home/dev"}, "our own words ", seed=1)
    attachment, user = frame["entries"]
    assert attachment["attachment"]["text"] == ("our own words " * 3)[: len(instructions)]
    assert (user["cwd"], user["key"]) == ("/home/dev", "-home-dev")
    assert user["id"] == user["again"] != "toolu_1x2"


def test_memory_counts_shared_objects_once() -> None:
    text = "x" * 1000
    entries = orjson.loads(orjson.dumps([{"a": text}]))
    twice = [entries[0], entries[0]]
    assert size_in_memory(twice) - size_in_memory(entries) < 100
