"""Processes that claim the same work at the same moment: one gets it, at each try."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from everturn.model import WorkItem
from everturn.registry import open_registry
from everturn.settings import inherited_environment
from registry.dynamo import Dynamo, DynamoPlace

ROUNDS = 100

# Two workers in lockstep: for each work item they wait for each other, then both claim it, and who has it renews it,
# is in nobody's way, and lets go. Each says what it got.
WORKER = """
import json, sys
from everturn.errors import Held
from everturn.model import Holder, WorkItem
from everturn.registry import open_registry
from everturn.settings import Settings

url, name, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
registry = open_registry(url, settings=Settings.load())
registry.get(WorkItem.task("warm up"))
got = []
for number in range(rounds):
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        claim = registry.claim(WorkItem.task(f"t-{number}"), Holder(name, name), ttl_s=60)
        registry.renew(claim, 60)
        got.append(["claimed", claim.epoch, claim.session_id])
    except Held as held:
        got.append(["held", held.epoch, held.holder])
print(json.dumps(got), flush=True)
"""


def race(url: str, environment: dict[str, str], workers: int = 2) -> list[list[list[object]]]:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, url, f"w{number}", str(ROUNDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**inherited_environment(), **environment},
        )
        for number in range(workers)
    ]
    try:
        for _ in range(ROUNDS):
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
        return [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def assert_one_each(found: list[list[list[object]]], url: str, **opening: object) -> None:
    records = {record.work_key: record for record in open_registry(url, **opening).records()}  # type: ignore[arg-type]
    for number, results in enumerate(zip(*found, strict=True)):
        assert Counter(kind for kind, *_ in results) == {"claimed": 1, "held": len(results) - 1}, results
        (winner,) = [worker for worker, (kind, *_) in enumerate(results) if kind == "claimed"]
        record = records[WorkItem.task(f"t-{number}").key]
        assert (record.worker, record.epoch) == (f"w{winner}", 1)
        assert results[winner] == ["claimed", 1, record.session_id]
        assert all(rest == [1, f"w{winner}"] for kind, *rest in results if kind == "held")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_of_processes_that_claim_at_once_on_one_file_one_gets_it(path: Path, workers: int) -> None:
    url = f"sqlite://{path}"
    assert_one_each(race(url, {}, workers), url)


@pytest.mark.slow
def test_of_processes_that_claim_at_once_on_one_table_one_gets_it(
    dynamodb_place: DynamoPlace, dynamo: Dynamo
) -> None:
    dynamo.time = None
    url = f"dynamodb://{dynamodb_place.table}?region=us-east-1"
    found = race(url, {"AWS_ENDPOINT_URL": dynamo.url})
    assert_one_each(found, url, settings=dynamo.settings)
