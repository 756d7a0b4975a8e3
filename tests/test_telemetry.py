"""Whose a log line is, what it looks like, and counters that begin at nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import structlog
from claude_agent_sdk import ClaudeAgentOptions, SessionKey, SessionStoreEntry
from prometheus_client import CollectorRegistry

from everturn import Invalid, Run, Runtime, Settings, TranscriptStore, WorkItem
from everturn.log.background import start_thread
from everturn.log.objects import Objects
from everturn.log.patience import patience_left_s
from everturn.telemetry import FIRST_FIELDS, Metrics, RunContext, get_logger, name_session
from everturn.testing import Fault, FaultyObjects, Reply, ScriptedModel, Text, ToolUse, cli_environment
from log.troubled import SLOW_DOWN, Troubled, troubled_server

DOCS = Path(__file__).parents[1] / "docs"
OURS = RunContext("task:mill", "run-1", "7df19cb2-f002-4f12-a0f4-5b4be6b08923", 3)
AT_ONCE = """
import sys, threading
from everturn.telemetry import default_metrics
sys.setswitchinterval(1e-5)
together, got = threading.Barrier(8), []
def ask():
    together.wait()
    got.append(default_metrics())
threads = [threading.Thread(target=ask) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(got), len(set(map(id, got))))
"""
NAMES = ("task_id", "run_id", "session_id", "epoch")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    caplog.set_level("DEBUG", "everturn")
    return lambda: [json.loads(record.getMessage()) for record in caplog.records if record.name == "everturn"]


def whose(line: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(line.get(name, "missing") for name in NAMES)


# --- Whose a line is ---------------------------------------------------------------------------------------------


def test_a_line_names_the_run_that_is_bound_and_only_inside(lines: Any) -> None:
    log = get_logger()
    log.info("before")
    with RunContext("task:mill", "run-1").bound():
        log.info("unclaimed")
        with OURS.bound():
            log.info("claimed")
        log.info("unclaimed")
    log.info("after")
    unclaimed = ("task:mill", "run-1", None, None)
    nobody = ("missing",) * 4
    assert [whose(line) for line in lines()] == [
        nobody,
        unclaimed,
        ("task:mill", "run-1", OURS.session_id, 3),
        unclaimed,
        nobody,
    ]


def test_a_run_that_is_bound_in_a_task_is_not_seen_by_its_caller_and_runs_do_not_mix(lines: Any) -> None:
    async def work(number: int) -> None:
        with RunContext(f"task:{number}", f"run-{number}").bound():
            for _ in range(3):
                get_logger().info("working", number=number)
                await anyio.to_thread.run_sync(lambda: get_logger().info("in_a_thread", number=number))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(work, number)
            get_logger().info("calling")
        get_logger().info("calling")

    anyio.run(main)
    assert len(lines()) == 5 * 6 + 2
    for line in lines():
        assert line.get("task_id") == (None if line["event"] == "calling" else f"task:{line['number']}")


def test_a_thread_in_the_background_logs_as_the_run_that_started_it_and_has_patience_of_its_own(lines: Any) -> None:
    left: list[float] = []

    def work() -> None:
        left.append(patience_left_s())
        get_logger().info("working")

    with OURS.bound():
        thread = start_thread(work, "test")
    assert thread is not None
    thread.join()
    assert [whose(line)[1] for line in lines()] == ["run-1"]
    assert left == [float("inf")]


def test_what_a_line_says_itself_goes_first_then_the_run_then_what_the_caller_bound(lines: Any) -> None:
    with structlog.contextvars.bound_contextvars(request="r-1", task_id="the caller's"), OURS.bound():
        get_logger().info("dropped", session_id="another")
    (line,) = lines()
    assert (line["request"], line["task_id"], line["session_id"]) == ("r-1", "task:mill", "another")


LATE_PROGRAM = """
import anyio, sys
from everturn import Settings, TranscriptStore
from everturn.telemetry import RunContext, log_to_stderr
key = {"project_key": "-home-a", "session_id": "7df19cb2-f002-4f12-a0f4-5b4be6b08923"}
async def main():
    with RunContext("task-1", "run-1", key["session_id"], 0).bound():
        store = TranscriptStore.open(sys.argv[1], scope="task-1", settings=Settings.load(linger_s=60))
        await store.append(key, [{"type": "user", "n": 1}])
log_to_stderr("debug")
anyio.run(main)
"""


@pytest.mark.slow
def test_what_is_stored_when_the_program_ends_is_logged_as_the_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LATE_PROGRAM, (tmp_path / "store").as_uri()]
    done = subprocess.run(
        command, check=True, env={"HOME": str(tmp_path)}, timeout=60, capture_output=True, text=True
    )
    (line,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert (line["event"], *whose(line)) == ("part_written", "task-1", "run-1", OURS.session_id, 0)


def test_a_thread_that_was_begun_before_the_claim_says_the_session_of_now(lines: Any) -> None:
    begun, named = threading.Event(), threading.Event()

    def work() -> None:
        get_logger().info("claiming")
        begun.set()
        named.wait()
        get_logger().info("claimed")

    with RunContext("task:mill", "run-1").bound():
        thread = start_thread(work, "test")
        begun.wait()
        name_session("session", 4)
        named.set()
    assert thread is not None
    thread.join()
    name_session("nobody's", 5)  # outside of any run: nothing
    assert [whose(line)[2:] for line in lines()] == [(None, None), ("session", 4)]


# --- What a line looks like --------------------------------------------------------------------------------------


def test_a_line_begins_with_the_same_fields_in_the_same_order(lines: Any) -> None:
    with OURS.bound():
        get_logger().warning("writers_met", seq=1, log="a\nb \ud800")
    (line,) = lines()
    assert tuple(line) == (*FIRST_FIELDS, "seq", "log")
    assert (line["level"], line["event"], line["log"]) == ("warning", "writers_met", "a\nb \ud800")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"])


def test_the_docs_name_the_first_fields_in_their_order() -> None:
    named = re.findall(r"^- `(\w+)`", (DOCS / "logs.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert tuple(named) == FIRST_FIELDS


# --- Nothing of what was said ------------------------------------------------------------------------------------


@pytest.mark.parametrize("unfit", [b"SECRET", {"SECRET": {1, 2}}, {b"SECRET": 1}, [("SECRET",)]])
def test_what_could_not_be_stored_is_told_of_without_its_text(lines: Any, memory_place: Any, unfit: Any) -> None:
    store = TranscriptStore.open(memory_place.url, scope="task-1", settings=memory_place.settings)
    entry: Any = {"type": "user", "content": unfit}
    with pytest.raises(Invalid) as caught:
        anyio.run(store.append, {"project_key": "-a", "session_id": OURS.session_id}, [entry])
    assert [line["event"] for line in lines()] == ["append_failed"]
    assert "SECRET" not in str(lines()) + str(caught.value)


SAID = {
    "prompt": "MARKER-PROMPT",
    "resume prompt": "MARKER-DELTA",
    "answer": "MARKER-ANSWER",
    "tool input": "MARKER-INPUT",
    "tool result": "MARKER-OUTPUT",
    "entry": "MARKER-ENTRY",
}
WORK = WorkItem.task("telemetry")


class TroubledStore(TranscriptStore):
    """A store that cannot write its summaries."""

    def __init__(self, objects: Objects, **given: Any) -> None:
        super().__init__(FaultyObjects(objects, Fault("fail", "put", "summaries/*", times=None)), **given)


class SpoiltStore(TroubledStore):
    """One that is given, once, what nobody could store."""

    spoilt = False

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        if not self.spoilt:
            self.spoilt = True
            unfit: Any = {"type": "user", "content": SAID["entry"].encode()}
            with pytest.raises(Invalid):
                await super().append(key, [unfit])
        await super().append(key, entries)


def answer(request: Any) -> Reply:
    if request.tool_results():
        return Reply(SAID["answer"])
    command = f"echo {SAID['tool input']} $(echo MARKER-TUPTUO | sed s/TUPTUO/OUTPUT/)"
    return Reply(Text("Let me look."), ToolUse("Bash", {"command": command}))


def throttle_now_and_then(trouble: Troubled) -> None:
    asked = iter(range(1_000_000))
    trouble.rule = lambda request: SLOW_DOWN if request["REQUEST_METHOD"] == "PUT" and next(asked) % 7 == 5 else None


async def run_once(runtime: Runtime, **prompts: Any) -> Run:
    run = runtime.run(WORK, **prompts)
    async for _ in run:
        get_logger().info("the caller's")
    return run


@pytest.mark.cli
@pytest.mark.slow
def test_every_line_of_a_run_says_whose_it_is_and_none_has_anything_of_the_transcript(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: Any
) -> None:
    model = ScriptedModel(answer)
    with troubled_server() as (server, trouble), model.serve() as url:
        for name, value in cli_environment(url, tmp_path, path=os.environ["PATH"], tmpdir=tmp_path).items():
            monkeypatch.setenv(name, value)
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        settings = Settings.load(
            state=tmp_path / "state",
            store=f"s3://{server.fresh_bucket()}/runs",
            compact_after_parts=3,
            summary_pause_s=0.1,
        )
        throttle_now_and_then(trouble)
        options = ClaudeAgentOptions(setting_sources=[], permission_mode="bypassPermissions", cwd=tmp_path)
        prompts = {"prompt": SAID["prompt"], "resume_prompt": SAID["resume prompt"], "options": options}
        first = anyio.run(lambda: run_once(Runtime(settings, make_store=SpoiltStore), **prompts))
        second = anyio.run(lambda: run_once(Runtime(settings, make_store=TroubledStore), **prompts))
    assert (first.resumed, second.resumed) == (False, True)

    said = "".join(str(request.messages) for request in model.requests)
    for what in ("prompt", "resume prompt", "answer", "tool input", "tool result"):
        assert SAID[what] in said, what
    assert "MARKER" not in str(lines())

    events = {line["event"] for line in lines()}
    assert events >= {
        *("claimed", "run_started", "part_written", "run_ended", "compacted"),
        *("store_throttles", "summary_failed", "append_failed"),
    }
    of_no_run = ("the caller's", "swept")
    assert {whose(line) for line in lines() if line["event"] in of_no_run} == {("missing",) * 4}
    ours = [line for line in lines() if line["event"] not in of_no_run]
    for number, run in ((1, first), (2, second)):
        of_run = [line for line in ours if line["run_id"] == run.run_id]
        claimed = [line["event"] for line in of_run].index("claimed")
        assert {whose(line) for line in of_run[:claimed]} <= {(WORK.key, run.run_id, None, None)}
        for line in of_run[claimed:]:
            assert whose(line) == (WORK.key, run.run_id, run.session_id, number), line
    assert {line["run_id"] for line in ours} == {first.run_id, second.run_id}


# --- Counters ----------------------------------------------------------------------------------------------------


def test_a_counter_shows_nothing_for_each_value_that_its_label_may_have() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    shown: dict[str, set[str]] = {}
    for family in registry.collect():
        for sample in family.samples:
            if sample.name.endswith("_total"):
                assert sample.value == 0
                shown.setdefault(sample.name, set()).update(sample.labels.values())
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+_total)` \| (counter[^|]*) \| ([^|]*) \|$", text, re.MULTILINE)
    assert {name: set(re.findall(r"`(\w+)`", what)) if "by" in kind else set() for name, kind, what in rows} == shown


@pytest.mark.slow
def test_threads_that_ask_for_the_metrics_at_once_get_the_same() -> None:
    asked = subprocess.run([sys.executable, "-c", AT_ONCE], capture_output=True, text=True, timeout=60, check=False)
    assert (asked.stdout, asked.stderr) == ("8 1\n", "")
