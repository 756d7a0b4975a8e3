"""`everturn sweep`: what it drops, what it says, and what it leaves alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from everturn.cli.app import _run
from everturn.cli.output import age
from everturn.clock import ManualClock
from everturn.model import Holder, WorkItem
from everturn.registry import Registry, SqliteRegistry, open_registry

HOUR_S = 3600.0
Sweep = Callable[..., list[str]]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry with sessions last used 50, 25 and 1 h ago, and one that somebody holds."""
    monkeypatch.chdir(tmp_path)
    url = f"sqlite://{tmp_path / 'registry.db'}"
    monkeypatch.setenv("EVERTURN_REGISTRY", url)
    monkeypatch.setenv("EVERTURN_STATE", str(tmp_path / "state"))
    for name, hours in (("older", 50), ("old", 25), ("young", 1)):
        then = ManualClock(time.time() - hours * HOUR_S, boot=f"of {name}")
        used = SqliteRegistry(tmp_path / "registry.db", clock=then)
        claim = used.claim(WorkItem.task(name), Holder("worker \x1b[31m7"), ttl_s=30)
        used.confirm(claim, "/desk")
        used.release(claim)
    open_registry(url).claim(WorkItem.task("held"), Holder("another"), ttl_s=HOUR_S)
    return open_registry(url)


@pytest.fixture
def sweep(capsys: pytest.CaptureFixture[str]) -> Sweep:
    """The command, run in this process; what it printed, by lines."""

    def call(*arguments: str, code: int = 0) -> list[str]:
        returned = _run(["sweep", *arguments])
        output, complaint = capsys.readouterr()
        assert returned == code, output + complaint
        return (output if code == 0 else complaint).splitlines()

    return call


def left(registry: Registry) -> list[str]:
    return [record.work_key for record in registry.records()]


def sweeps(outcome: str) -> float:
    return REGISTRY.get_sample_value("everturn_sweeps_total", {"outcome": outcome}) or 0.0


def test_what_is_too_old_is_dropped_and_told(registry: Registry, sweep: Sweep) -> None:
    done = sweeps("done")
    header, *rows, verdict = sweep()
    assert header.split()[:3] == ["work", "item", "session"]
    assert [row.split()[0] for row in rows] == ["task:old", "task:older"]
    assert "25 h" in rows[0]
    assert "2 d" in rows[1]
    assert "worker" in rows[0]
    assert "\x1b" not in "".join(rows)
    assert verdict == "2 sessions dropped"
    assert left(registry) == ["task:held", "task:young"]
    assert sweeps("done") == done + 1
    assert sweep() == ["0 sessions dropped"]


def test_a_dry_run_says_the_same_and_drops_nothing(registry: Registry, sweep: Sweep) -> None:
    done = sweeps("done")
    before = left(registry)
    assert sweep("--dry-run")[-1] == "2 sessions would be dropped"
    assert left(registry) == before
    assert sweeps("done") == done


def test_programs_get_one_object_a_session(registry: Registry, sweep: Sweep) -> None:
    for arguments, dropped in ((["--dry-run", "--json"], False), (["--json"], True)):
        records: list[dict[str, Any]] = [json.loads(line) for line in sweep(*arguments)]
        assert [(each["work"], each["dropped"]) for each in records] == [
            ("task:old", dropped),
            ("task:older", dropped),
        ]
        assert 25 * HOUR_S <= records[0]["unused_s"] < 26 * HOUR_S
        assert records[0].keys() == {
            "work", "session_id", "agent", "worker", "store", "last_used", "unused_s", "dropped",
        }  # fmt: skip
    assert sweep("--json") == []


def test_the_age_is_the_setting(registry: Registry, sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERTURN_MAX_SESSION_AGE_MS", "null")
    assert sweep() == ["0 sessions dropped"]
    monkeypatch.setenv("EVERTURN_MAX_SESSION_AGE_MS", "0")
    assert sweep()[-1] == "3 sessions dropped"
    assert left(registry) == ["task:held"]


def test_without_a_registry_there_is_nothing_to_sweep_and_none_is_made(tmp_path: Path, sweep: Sweep) -> None:
    assert sweep("--registry", f"sqlite://{tmp_path}/some/registry.db") == ["0 sessions dropped"]
    assert not (tmp_path / "some").exists()


def test_a_registry_that_is_damaged_is_told_and_counted(registry: Registry, sweep: Sweep, tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_bytes(b"?" * 4096)
    before = sweeps("failed")
    (complaint,) = sweep(code=2)
    assert "is damaged" in complaint
    assert sweeps("failed") == before + 1


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "0 s"), (59, "59 s"), (119, "119 s"), (600, "10 min"), (90_000, "25 h"), (180_000, "2 d"), (1e7, "116 d")],
)
def test_ages_are_shown_in_their_largest_unit(seconds: float, shown: str) -> None:
    assert age(seconds) == shown
