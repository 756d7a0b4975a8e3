"""The benchmark measures what it says it does: the same entries everywhere, and requests counted at the server."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import anyio
import orjson
import pytest
from bench.compact import freeing_at_once
from bench.costs import PRICES, Hour, hour, phases
from bench.counting import Counts
from bench.dispatch import CASES
from bench.frames import Frame, frames, recordings
from bench.meter import size_in_memory
from bench.plan import DISPATCH_STORES, HOURS, SMALL_BYTES, TINY, Plan, Row, Step
from bench.progress import Estimate, run_all
from bench.replay import groups, pauses, session_of
from bench.sanitise import sanitise
from bench.servers import Server
from bench.summary import Summary
from rich.console import Console

from bench import plots, report, worker
from everturn.log import compaction
from everturn.testing import LoopbackS3

FRAMES = next(iter(TINY.loads))


class PlanInThisProcess(Plan):
    """The benchmark's plan, without a process for each measurement."""

    def _ask(self, operation: str, kind: str, session: str, **more: Any) -> Row:
        asked = {"operation": operation, "kind": kind, "bucket": kind, "session": session, **more}
        row: Row = anyio.run(worker.OPERATIONS[operation], asked, self.server)
        return row


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """An S3 server that counts, and the environment that makes clients use it."""
    with LoopbackS3.start(wrap=Counts().wsgi) as loopback, pytest.MonkeyPatch.context() as monkeypatch:
        found = Server(loopback.url)
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture(scope="module")
def measured(server: Server) -> Row:
    """A whole run of the benchmark at its smallest size."""
    plan = PlanInThisProcess(server, TINY)
    gc.freeze()  # what this process has already is not looked through before each measurement
    for step in plan.steps():
        step.run()
    gc.unfreeze()
    return {"samples": dict(plan.samples), "sizes": TINY.as_row()}


@pytest.fixture
def found(measured: Row) -> Summary:
    return Summary(measured)


@pytest.fixture(scope="module")
def recorded() -> list[dict[str, Any]]:
    """All entries that were recorded."""
    return [entry for conversation in recordings() for frame in conversation for entry in frame.entries()]


# --- What is measured ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("label", "below_bytes"), [(f"{FRAMES}", None), (f"small {FRAMES}", SMALL_BYTES)])
def test_every_way_of_loading_returns_the_same_entries(found: Summary, label: str, below_bytes: int | None) -> None:
    wanted = sum(len(frame.entries()) for frame in frames(FRAMES, below_bytes))
    for way in found.ways(label):
        for row in found.samples[f"load {way} {label}"]:
            assert row["entries"] == wanted
    assert found.same_everywhere()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parts", "everturn", "baseline", "limit"])
def test_an_append_is_one_put_and_nothing_else(found: Summary, kind: str) -> None:
    (row,) = found.samples[f"append {kind}"]
    requests = {name: count for name, count in row["requests"].items() if "bytes" not in name}
    assert requests == {"PUT": len(row["latencies_s"])}


@pytest.mark.slow
def test_a_compacted_transcript_is_one_object_and_takes_one_get_and_one_list(found: Summary) -> None:
    assert found.samples[f"stored compacted {FRAMES}"][0]["objects"] == 1
    name = f"load compacted {FRAMES}"
    assert (found.requests(name, "GET"), found.requests(name, "LIST")) == (1, 1)


@pytest.mark.slow
def test_the_baseline_gets_every_part(found: Summary) -> None:
    assert found.requests(f"load baseline {FRAMES}", "GET") == FRAMES


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["list_sessions", "list_session_summaries"])
def test_listing_takes_two_lists_whatever_the_number_of_parts(found: Summary, operation: str) -> None:
    (row,) = found.samples[f"{operation} everturn"]
    assert row["sessions"] == TINY.sessions
    assert row["requests"]["LIST"] <= 2


@pytest.mark.slow
def test_compacting_makes_a_transcript_smaller_than_its_parts_and_those_smaller_than_the_baseline(
    found: Summary,
) -> None:
    label = f"{FRAMES}"
    assert found.stored_ratio(label, "compacted") < found.stored_ratio(label, "parts") < 1


@pytest.mark.slow
@pytest.mark.parametrize("name", HOURS)
def test_a_replayed_session_is_loaded_whole(measured: Row, name: str) -> None:
    (row,) = measured["samples"][f"hour {name}"]
    assert row["entries_loaded"] == row["entries"] > 0


@pytest.mark.slow
def test_a_replay_makes_one_put_for_each_group_of_frames_and_one_for_the_summary(measured: Row) -> None:
    eager, lingering = (measured["samples"][f"hour {name}"][0] for name in ("parts", "linger"))
    assert eager["phases"]["appends"]["PUT"] == eager["frames"]
    assert lingering["phases"]["appends"]["PUT"] == lingering["groups"] < lingering["frames"]
    assert eager["phases"]["summaries"]["PUT"] == lingering["phases"]["summaries"]["PUT"] == 1


@pytest.mark.slow
def test_a_session_that_is_compacted_by_command_asks_for_more_and_keeps_less(measured: Row) -> None:
    left, compacted = (measured["samples"][f"hour {name}"][0] for name in ("everturn", "compacted"))
    assert hour(compacted, 60.0).puts > hour(left, 60.0).puts
    assert hour(compacted, 60.0).kept_bytes < hour(left, 60.0).kept_bytes


@pytest.mark.slow
def test_background_compaction_merges_and_frees_while_a_replay_goes_on(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    server.make_bucket("long")
    given = {"kind": "everturn", "bucket": "long", "session": "long", "seconds": 120.0}
    without = anyio.run(worker.OPERATIONS["hour"], {**given, "settings": {"compact_after_parts": 0}}, server)
    row = anyio.run(worker.OPERATIONS["hour"], {**given, "session": "other"}, server)
    background = phases(row, without)["background compaction"]
    assert background["PUT"] >= 1
    assert background["DELETE"] >= 1
    assert row["phases"]["resume"]["GET"] < without["phases"]["resume"]["GET"]


def test_freeing_at_once_ends_with_the_block() -> None:
    usual_ms = compaction.FREE_AFTER_MS
    with freeing_at_once():
        assert compaction.FREE_AFTER_MS < 0
    assert usual_ms == compaction.FREE_AFTER_MS


@pytest.mark.slow
def test_every_kind_of_dispatch_is_measured_as_often_as_the_others(found: Summary) -> None:
    for store in DISPATCH_STORES:
        for case in CASES:
            figures = found.dispatch(store, case)
            assert figures["count"] == TINY.dispatches
            assert 0 < figures["fence_s"]["median"] < figures["start_s"]["median"]
        assert found.dispatch(store, "new")["times_new"] == 1.0


# --- What is made of it -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_tables_compare_with_every_goal(measured: Row) -> None:
    goals, *others = report.tables(measured)
    assert len(goals.rows) == 20
    assert {row[3] for row in goals.rows} <= {"yes", "**no**"}
    assert all(len(row) == len(table.head) for table in others for row in table.rows)


@pytest.mark.slow
def test_tables_are_refused_if_something_else_was_loaded(measured: Row) -> None:
    name = f"load limit {FRAMES}"
    other = {**measured, "samples": {**measured["samples"], name: [{**measured["samples"][name][0], "digest": ""}]}}
    with pytest.raises(RuntimeError, match="same entries"):
        report.tables(other)


@pytest.mark.slow
def test_tables_go_between_the_markers_of_a_page(measured: Row, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"above\n{report.BEGIN}\nformer tables\n{report.END}\nbelow\n", encoding="utf-8")
    report.put_into(page, report.tables(measured), "Run on a quiet machine.")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("above\n")
    assert text.endswith("\nbelow\n")
    assert "### Goals" in text
    assert "former" not in text


@pytest.mark.slow
def test_plots_are_well_formed(measured: Row, tmp_path: Path) -> None:
    plots.write(measured, tmp_path, "tiny")
    pictures = sorted(tmp_path.glob("tiny-*.svg"))
    assert [picture.stem for picture in pictures] == ["tiny-append", "tiny-list", "tiny-load", "tiny-memory"]
    assert all(ElementTree.parse(picture).getroot().tag.endswith("svg") for picture in pictures)


@pytest.mark.slow
def test_results_are_kept_without_single_latencies(measured: Row) -> None:
    row = report.thinned(measured)["samples"]["append everturn"][0]
    assert "latencies_s" not in row
    assert row["steps"] == TINY.appends - 1
    assert 0 < row["p50_s"] <= row["p99_s"]


def test_a_price_is_requests_and_bytes_at_list_prices() -> None:
    asked = Hour(puts=900, lists=100, gets=1000, sent_bytes=1 << 30, fetched_bytes=1 << 30, kept_bytes=1 << 30)
    standard, express = (round(asked.dollars(prices), 6) for prices in PRICES)
    assert standard == 0.005 + 0.0004 + 0.023
    assert express == round(0.00113 + 0.00003 + 0.0032 + 0.0006 + 0.11, 6)


def frame(at_s: float, subpath: str | None = None) -> Frame:
    return Frame(at_s, subpath, b"[{}]")


def test_frames_of_a_log_that_come_within_the_linger_time_of_the_first_share_a_group() -> None:
    found = groups([frame(0), frame(0.4, "sub"), frame(0.9), frame(1.0), frame(1.3, "sub"), frame(1.5)], 1.0)
    assert [(group.subpath, [each.at_s for each in group.frames]) for group in found] == [
        (None, [0, 0.9, 1.0]),
        ("sub", [0.4, 1.3]),
        (None, [1.5]),
    ]


def test_without_linger_every_frame_stands_alone() -> None:
    assert len(groups([frame(0), frame(0), frame(0)], 0.0)) == 3


def test_a_summary_is_due_when_the_main_log_was_quiet_for_longer_than_the_pause() -> None:
    frames_of_it = [frame(0), frame(29), frame(60), frame(61, "sub"), frame(95, "sub"), frame(200, "sub"), frame(210)]
    assert pauses(groups(frames_of_it, 0.0), 30.0) == {2, 4}


@pytest.mark.slow
def test_a_session_is_as_long_as_was_asked_for_and_its_rounds_have_subagents_of_their_own() -> None:
    found = session_of(3600.0)
    assert 3590 < found[-1].at_s <= 3600
    assert [each.at_s for each in found] == sorted(each.at_s for each in found)
    assert len({each.subpath for each in found}) > len({each.subpath for each in found[:600]})


def test_the_time_that_is_left_follows_the_pace_of_what_is_done() -> None:
    steps = [Step("slow", 30.0, lambda: None), Step("slow too", 60.0, lambda: None)]
    estimate = Estimate(steps)
    assert 89 < estimate.left_s() <= 90
    estimate.finished(steps[0])
    assert estimate.left_s() < 1  # it took no time at all


def test_without_a_terminal_each_step_is_a_line_with_the_time_that_is_left() -> None:
    output, done = StringIO(), []
    steps = [Step("one", 1.0, lambda: done.append(1)), Step("two", 64.0, lambda: done.append(2))]
    run_all(steps, Console(file=output, width=100))
    assert done == [1, 2]
    assert output.getvalue().splitlines() == ["1/2 one (about 1:05 left)", "2/2 two (about 1:04 left)"]


# --- What was recorded --------------------------------------------------------------------------------------------


def test_recordings_hold_hundreds_of_frames_of_many_kinds(recorded: list[dict[str, Any]]) -> None:
    assert sum(len(conversation) for conversation in recordings()) > 500
    assert {"user", "assistant", "attachment", "queue-operation"} <= {entry["type"] for entry in recorded}


def test_more_frames_than_were_recorded_have_fresh_ids() -> None:
    known = sum(len(conversation) for conversation in recordings())
    ids = [entry["uuid"] for frame in frames(known + 50) for entry in frame.entries() if "uuid" in entry]
    assert len(set(ids)) == len(ids)


def test_small_frames_are_recorded_ones_below_a_limit() -> None:
    known = {each.text for conversation in recordings() for each in conversation}
    found = [each.text for each in frames(100, SMALL_BYTES)]
    assert len(found) == 100
    assert all(len(text) < SMALL_BYTES and text in known for text in found)


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
