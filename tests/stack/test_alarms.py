"""Log lines of real failures on the stack, through its own metric filters, into its own alarms.

The server keeps metric filters, and does not apply them: what CloudWatch Logs does is done here, for the one form of
pattern that the stack has, and what comes of it is put as a metric. Alarms are the server's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from claude_agent_sdk import ClaudeAgentOptions, Message, SessionKey, SessionStoreEntry

from everturn import EverturnError, Run, Runtime, Settings, TranscriptStore, WorkItem
from everturn.clock import SystemClock
from everturn.model import Holder
from everturn.registry import open_registry
from everturn.runner.sweeping import Sweeper
from everturn.telemetry import default_metrics
from everturn.testing import InstantAgent
from polling import PAUSE_S, WAIT_S
from stack.conftest import become
from stack.deployed import Deployed

pytestmark = pytest.mark.slow

PATTERN = re.compile(r'\{ \$\.event = "(\w+)" \}')
KEY: SessionKey = {"project_key": "-home-ada", "session_id": "20000000-0000-4000-8000-000000000000"}
FAILURES = {
    "EverturnMirrorFailures",
    "EverturnSessionsTainted",
    "EverturnWritersFenced",
    "EverturnResumeFailures",
    "EverturnClaimsLost",
    "EverturnShutdownsOverrun",
}
EVENTS = {
    "append_failed",
    "session_not_found",
    "fenced",
    "session_tainted",
    "claim_lost",
    "shutdown_overrun",
    "swept",
}


class DeafStore(TranscriptStore):
    """A store that can be fenced, but takes no entries."""

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        await super().append(key, [*entries, {"type": "never", "stored": object()}])  # type: ignore[typeddict-unknown-key]


async def nothing(_runtime: Runtime, _run: Run, _message: Message) -> None:
    """Happens meanwhile."""


async def dropped(runtime: Runtime, run: Run, _message: Message) -> None:
    """Take the session away from a run, and wait until it knows."""
    if run.stopped is None:
        runtime.registry.drop(WorkItem.task("dropped"), str(run.session_id), "for a test")
        with anyio.fail_after(WAIT_S):
            while run.stopped is None:  # noqa: ASYNC110
                await anyio.sleep(PAUSE_S)


async def stopped(_runtime: Runtime, run: Run, _message: Message) -> None:
    run.stop()


class Worker:
    """Runs of work items by an agent that answers at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.agent = InstantAgent(folder / "agent")

    def run(
        self,
        task: str,
        *,
        make_store: type[TranscriptStore] = TranscriptStore,
        meanwhile: Callable[[Runtime, Run, Message], Awaitable[None]] = nothing,
        **given: Any,
    ) -> None:
        settings = Settings.load(state=self.folder / task, sweep_on_start=False, **given)
        runtime = Runtime(settings, make_store=make_store)
        work = WorkItem.task(task)

        async def main() -> None:
            options = ClaudeAgentOptions(cli_path=self.agent.path, cwd=self.folder)
            run = runtime.run(work, prompt="Hello.", options=options)
            async for message in run:
                await meanwhile(runtime, run, message)

        anyio.run(main)


async def fence(settings: Settings) -> None:
    """Let a worker write on after another one has taken over."""

    def opened(epoch: int) -> TranscriptStore:
        scope = "task:fenced"
        return TranscriptStore.open(settings.store_url(), scope=scope, any_cwd=True, epoch=epoch, settings=settings)

    first = await anyio.to_thread.run_sync(opened, 1)
    await first.take_over(KEY["project_key"], KEY["session_id"], is_new=True)
    await first.append(KEY, [{"type": "user", "uuid": "1"}])
    second = await anyio.to_thread.run_sync(opened, 2)
    await second.take_over(KEY["project_key"], KEY["session_id"])
    with pytest.raises(EverturnError):
        await first.append(KEY, [{"type": "user", "uuid": "2"}])
    for store in (first, second):
        await store.aclose()


def fail_in_many_ways(folder: Path) -> None:
    settings = Settings.load()
    worker, registry = Worker(folder), open_registry(settings.registry_url(), settings=settings)
    with pytest.raises(EverturnError, match="is not whole"):
        worker.run("deaf", make_store=DeafStore)
    for number in range(3):
        claim = registry.claim(WorkItem.task(f"gone-{number}"), Holder("one"), settings.store_url(), ttl_s=30)
        registry.confirm(claim, str(folder))  # an agent has held it, and nothing of it is in the store
        registry.release(claim)
        worker.run(f"gone-{number}")
    with pytest.raises(EverturnError):
        worker.run("dropped", meanwhile=dropped, claim_ttl_s=5.0)
    worker.run("stopped", meanwhile=stopped, shutdown_grace_s=0.001)
    anyio.run(fence, settings)
    Sweeper(registry, default_metrics()).sweep()


@pytest.fixture
def lines(
    stack: Deployed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> list[str]:
    become(monkeypatch, stack.service())
    with caplog.at_level("INFO", "everturn"):
        fail_in_many_ways(tmp_path)
    return [record.message for record in caplog.records if record.name == "everturn"]


def counted(stack: Deployed, lines: list[str]) -> Iterator[tuple[str, str, float]]:
    """Do what CloudWatch Logs does with filters: yield a namespace, a metric and a value for each line."""
    filters = stack.aws.client("logs").describe_metric_filters(logGroupName=stack.outputs["LogGroupName"])
    for each in filters["metricFilters"]:
        pattern = PATTERN.fullmatch(each["filterPattern"])
        assert pattern is not None, each["filterPattern"]
        [made] = each["metricTransformations"]
        name, value = (made["metricNamespace"], made["metricName"]), made["metricValue"]
        for line in map(json.loads, lines):
            if line.get("event") == pattern[1]:
                yield (*name, float(line[value[2:]] if value.startswith("$.") else value))
            else:
                yield (*name, float(made["defaultValue"]))


def alarms(stack: Deployed) -> dict[str, str]:
    found = stack.aws.client("cloudwatch").describe_alarms()["MetricAlarms"]
    return {each["AlarmName"].rpartition("-")[2]: each["StateValue"] for each in found}


def through_the_log_group(stack: Deployed, lines: list[str]) -> list[str]:
    """Put lines into the stack's log group, and return what it has."""
    logs, place = stack.aws.client("logs"), {"logGroupName": stack.outputs["LogGroupName"]}
    logs.create_log_stream(**place, logStreamName="worker")
    now_ms = round(SystemClock().now() * 1000)
    events = [{"timestamp": now_ms, "message": line} for line in lines]
    logs.put_log_events(**place, logStreamName="worker", logEvents=events)
    return [event["message"] for event in logs.filter_log_events(**place)["events"]]


def test_failures_raise_the_alarms_that_are_meant_for_them(stack: Deployed, lines: list[str]) -> None:
    assert {json.loads(line)["event"] for line in lines} >= EVENTS
    before = alarms(stack)
    assert {*FAILURES, "EverturnClaimsLostWidely", "EverturnSweeperStopped"} <= before.keys()
    assert "ALARM" not in before.values()

    cloudwatch = stack.aws.client("cloudwatch")
    for namespace, metric, value in counted(stack, through_the_log_group(stack, lines)):
        cloudwatch.put_metric_data(Namespace=namespace, MetricData=[{"MetricName": metric, "Value": value}])
    after = alarms(stack)
    assert {name for name, state in after.items() if state == "ALARM"} - {"EverturnMirrorKeepsFailing"} == FAILURES
    assert after["EverturnSweeperStopped"] == "OK"
