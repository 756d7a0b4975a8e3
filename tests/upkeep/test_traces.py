"""A run's trace is written as things happen, gets into the store once, and never troubles the run."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import AssistantMessage, ResultMessage, SystemMessage, TextBlock, ToolUseBlock
from claude_agent_sdk.types import StreamEvent
from prometheus_client import CollectorRegistry

from everturn import Settings
from everturn.clock import Ids, ManualClock
from everturn.errors import Conflict, Denied, Invalid, Unavailable
from everturn.log.encryption import Key, as_stored
from everturn.log.objects import Objects, run
from everturn.log.stores import connect
from everturn.telemetry import Metrics
from everturn.testing import Fault, FaultyObjects
from everturn.transcripts.archive import Archive
from everturn.upkeep import traces
from everturn.upkeep.traces import Trace, upload
from support import StorePlace

SCOPE = "acme/web#12"
OBJECT = "traces/acme!2fweb!2312/run-1.jsonl.gz"
FULL_DISK = Path("/dev/full")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.jsonl"


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def written(path: Path, count: int = 3) -> Path:
    trace = Trace(path, ManualClock())
    for number in range(count):
        trace.note("step", n=number, text="x" * 50)
    trace.close()
    return path


def put(objects: Objects, path: Path, **more: Any) -> bool:
    return run(upload(objects, SCOPE, "run-1", path, clock=ManualClock(), ids=Ids(1), **more))


def stored(objects: Objects) -> bytes:
    found = run(objects.get(OBJECT))
    assert found is not None
    return found.data


# --- Writing --------------------------------------------------------------------------------------------------------


def test_each_line_is_there_as_soon_as_it_is_noted(path: Path) -> None:
    trace = Trace(path, ManualClock(1_700_000_000.5))
    trace.note("claimed", epoch=3, cwd=Path("/srv/a"), type="shadow")
    assert lines(path) == [{"at": "2023-11-14T22:13:20.500+00:00", "type": "claimed", "epoch": 3, "cwd": "/srv/a"}]
    trace.note("ended")
    assert [line["type"] for line in lines(path)] == ["claimed", "ended"]
    assert path.stat().st_mode & 0o777 == 0o600
    trace.close()


def test_messages_are_kept_with_their_blocks_and_without_what_is_still_to_come(path: Path) -> None:
    trace = Trace(path)
    trace.message(SystemMessage("init", {"session_id": "s"}))
    trace.message(StreamEvent("u", "s", {"delta": "x"}))
    trace.message(AssistantMessage([TextBlock("Hi"), ToolUseBlock("t", "Bash", {"command": "ls"})], "m"))
    trace.message(ResultMessage("success", 1, 1, False, 1, "s"))
    trace.close()
    init, said, result = lines(path)
    assert (init["type"], init["subtype"], init["data"]) == ("SystemMessage", "init", {"session_id": "s"})
    assert said["content"] == [
        {"type": "TextBlock", "text": "Hi"},
        {"type": "ToolUseBlock", "id": "t", "name": "Bash", "input": {"command": "ls"}},
    ]
    assert (result["type"], result["subtype"]) == ("ResultMessage", "success")


def test_what_json_cannot_hold_leaves_a_line_all_the_same(path: Path) -> None:
    class Unspeakable:
        def __str__(self) -> str:
            raise RuntimeError

    deep: list[Any] = []
    deep.append(deep)
    trace = Trace(path)
    for value in (float("nan"), deep, Unspeakable(), "\ud800", {1: object}):
        trace.note("odd", value=value)
    trace.close()
    assert [line.get("left_out", False) for line in lines(path)] == [True, True, True, False, False]


def test_a_full_disk_ends_the_trace_and_not_the_run(caplog: pytest.LogCaptureFixture) -> None:
    trace = Trace(FULL_DISK)
    for _ in range(3):
        trace.note("step")
    trace.close()
    (line,) = [json.loads(record.message) for record in caplog.records]
    assert (line["event"], line["level"], line["error"]) == ("trace_stopped", "warning", "No space left on device")


def test_a_folder_that_is_gone_ends_the_trace_and_not_the_run(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "gone" / "trace.jsonl")
    trace.note("step")
    trace.close()
    trace.note("late")
    assert not (tmp_path / "gone").exists()


def test_a_trace_does_not_grow_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(traces, "LIMIT_BYTES", 500)
    written(path, 100)
    assert 300 < path.stat().st_size <= 500
    assert caplog.text.count("trace_stopped") == 1


# --- Into the store -------------------------------------------------------------------------------------------------


def test_a_trace_gets_into_any_store_once(place: StorePlace, path: Path) -> None:
    objects = connect(place.url, place.settings)
    assert put(objects, written(path)) is True
    assert put(objects, path) is True
    assert gzip.decompress(stored(objects)) == path.read_bytes()
    assert run(Archive(objects, place.url).scopes()) == []
    assert [item.key for item in run(objects.listing("traces"))] == [OBJECT]


@pytest.mark.slow
@pytest.mark.parametrize("effect", ["fail", "lose_reply", "busy"])
def test_lost_answers_do_not_matter(path: Path, effect: Any) -> None:
    registry = Metrics(CollectorRegistry())
    objects = FaultyObjects(connect("memory://", Settings.load()), Fault(effect, "create", times=2))
    assert put(objects, written(path), metrics=registry) is True
    assert gzip.decompress(stored(objects)) == path.read_bytes()
    assert registry.trace_uploads.labels("done")._value.get() == 1


@pytest.mark.parametrize("timeout_s", [traces.DEADLINE_S, 3.0])
def test_a_store_that_stays_away_is_told_and_the_trace_is_uploaded_later(path: Path, timeout_s: float) -> None:
    registry = Metrics(CollectorRegistry())
    objects = FaultyObjects(connect("memory://", Settings.load()), Fault("lose_reply", "create", times=None))
    clock = ManualClock()

    class Waiting(FaultyObjects):
        async def wait(self, seconds: float) -> None:
            clock.advance(seconds)

    away = Waiting(objects)
    written(path)
    with pytest.raises(Unavailable):
        run(upload(away, SCOPE, "run-1", path, timeout_s=timeout_s, clock=clock, ids=Ids(1), metrics=registry))
    assert clock.elapsed() - ManualClock().elapsed() <= timeout_s
    assert registry.trace_uploads.labels("failed")._value.get() == 1
    objects.faults.clear()
    assert put(objects, path, metrics=registry, late=True) is True
    assert registry.trace_uploads.labels("late")._value.get() == 1


def test_an_encrypted_store_holds_no_trace_in_plain_text(path: Path) -> None:
    key = Key("k", bytes(range(32)))
    objects = connect("memory://", Settings.load(), lambda _: key)
    written(path)
    for _ in range(2):  # sealed anew each time, and still the same
        assert put(objects, path) is True
    raw = stored(as_stored(objects))
    assert b"step" not in raw
    assert raw[:2] != b"\x1f\x8b"
    assert gzip.decompress(stored(objects)) == path.read_bytes()


def test_a_line_that_was_cut_off_is_left_out(path: Path) -> None:
    whole = written(path).read_bytes()
    path.write_bytes(whole + b'{"at": "torn' + b"x" * 3_000_000)
    objects = connect("memory://", Settings.load())
    assert put(objects, path) is True
    assert gzip.decompress(stored(objects)) == whole


@pytest.mark.parametrize("content", [None, b"", b"torn"])
def test_where_there_is_no_trace_nothing_is_uploaded(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.write_bytes(content)
    registry = Metrics(CollectorRegistry())
    objects = connect("memory://", Settings.load())
    assert put(objects, path, metrics=registry) is False
    assert run(objects.listing("traces")) == []
    assert all(registry.trace_uploads.labels(outcome)._value.get() == 0 for outcome in ("done", "failed", "late"))


def test_the_same_trace_by_another_compressor_is_the_same(path: Path) -> None:
    objects = connect("memory://", Settings.load())
    run(objects.put(OBJECT, gzip.compress(written(path).read_bytes(), 1, mtime=7)))
    assert put(objects, path) is True


@pytest.mark.parametrize(
    "other",
    [
        gzip.compress(b"{}\n", mtime=0),
        b"no gzip",
        b"\x1f\x8b\x08garbage",
        gzip.compress(b"x" * 99, mtime=0)[:20],  # the time would make it a test of another name each second
    ],
)
def test_another_trace_of_the_run_is_not_overwritten(path: Path, other: bytes) -> None:
    objects = connect("memory://", Settings.load())
    run(objects.put(OBJECT, other))
    with pytest.raises(Conflict):
        put(objects, written(path))
    assert stored(objects) == other


def test_what_cannot_be_read_or_named_is_refused(tmp_path: Path) -> None:
    objects = connect("memory://", Settings.load())
    with pytest.raises(Denied):
        put(objects, tmp_path)
    with pytest.raises(Invalid):
        run(upload(objects, SCOPE, "../x", tmp_path / "t"))


def test_the_compressed_trace_is_the_same_every_time(path: Path) -> None:
    first, second = (connect("memory://", Settings.load()) for _ in range(2))
    put(first, written(path, 1000))
    os.utime(path, (1, 1))
    put(second, path)
    assert stored(first) == stored(second)
