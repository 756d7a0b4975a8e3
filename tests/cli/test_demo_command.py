"""`everturn demo`: it shows what it promises, leaves nothing behind, and its verdict is honest."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from everturn.demo import DemoOptions, perform
from everturn.demo.stage import machine_environment
from everturn.errors import EverturnError
from everturn.settings import Settings
from everturn.testing import LoopbackS3
from polling import Started, wait_until

KEYS = {
    "entries_acknowledged",
    "entries_recovered",
    "entries_lost",
    "resumed",
    "session_id",
    "seconds",
    "finished",
}


def assert_nothing_was_lost(last_line: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(last_line)
    assert set(report) >= KEYS
    assert report["entries_lost"] == 0
    assert report["entries_acknowledged"] == report["entries_recovered"] > 0
    assert (report["resumed"], report["finished"]) == (True, True)
    return report


@pytest.mark.cli
@pytest.mark.slow
def test_the_demo_loses_nothing_and_leaves_nothing_behind(everturn: Any) -> None:
    done = everturn("demo", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    [line] = done.stdout.splitlines()
    report = assert_nothing_was_lost(line)
    assert report["killed_processes"] >= 2
    assert 0 < report["seconds"] < 60
    wait_until(lambda: not everturn.processes(), "no process is left")
    assert list(everturn.tmp.iterdir()) == []
    assert everturn.files() == {}


@pytest.mark.cli
@pytest.mark.slow
def test_the_demo_runs_on_s3_and_its_account_ends_with_the_report(everturn: Any, s3_server: LoopbackS3) -> None:
    everturn.variables = s3_server.environment
    store = f"s3://{s3_server.fresh_bucket()}/runs"
    done = everturn("demo", "--store", store)
    assert (done.returncode, done.stderr) == (0, "")
    *account, line = done.stdout.splitlines()
    assert assert_nothing_was_lost(line)["store"] == store
    assert any("SIGKILL" in shown for shown in account)
    assert any("Nothing was lost" in shown for shown in account)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("store", "said"),
    [("ftp://example.org/x", "cannot make a store of"), ("s3://no-such-bucket/runs", "there is no such bucket")],
)
def test_a_bad_store_is_refused_before_anything_happens(
    everturn: Any, s3_server: LoopbackS3, store: str, said: str
) -> None:
    everturn.variables = s3_server.environment
    done = everturn("demo", "--json", "--store", store)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {said}")
    assert line.endswith(")")
    assert list(everturn.tmp.iterdir()) == []


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


class Thief:
    """Follows the demo, and takes a part of the transcript away between the acts."""

    def __init__(self, store: Path, place: int) -> None:
        self.taken: list[str] = []
        self._store = store
        self._place = place

    def tell(self, who: str, event: dict[str, Any]) -> None:
        if (who, event["event"]) == ("demo", "killed"):
            parts = sorted(self._store.glob("sessions/*/*/*/main/*.jsonl.zst"))
            assert len(parts) > 2
            parts[self._place].unlink()
            self.taken.append(parts[self._place].name)


@pytest.mark.cli
@pytest.mark.slow
def test_workers_reach_the_store_by_the_proxy_of_this_machine_and_the_model_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "store.example")
    found = machine_environment(Settings.load(store="s3://bucket"), "http://127.0.0.1:1")
    assert found["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert {"127.0.0.1", "store.example"} < set(found["NO_PROXY"].split(","))


@pytest.mark.slow
def test_the_demo_counts_what_is_missing_at_the_end(tmp_path: Path, temporary: Path, started: Started) -> None:
    thief = Thief(tmp_path / "store", -1)
    report = perform(DemoOptions(store=(tmp_path / "store").as_uri()), thief.tell)
    assert len(thief.taken) == 1
    assert report.entries_lost > 0
    assert report.entries_recovered == report.entries_acknowledged - report.entries_lost
    assert not report.ok
    assert started() == []


@pytest.mark.cli
@pytest.mark.slow
def test_the_demo_does_not_pass_over_what_is_missing_in_the_middle(
    tmp_path: Path, temporary: Path, started: Started
) -> None:
    thief = Thief(tmp_path / "store", 1)
    with pytest.raises(EverturnError, match="has a hole"):
        perform(DemoOptions(store=(tmp_path / "store").as_uri()), thief.tell)
    assert len(thief.taken) == 1
    assert started() == []
    assert list(temporary.iterdir()) == []
