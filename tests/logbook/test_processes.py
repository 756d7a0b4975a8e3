"""Several processes with one file, and processes that are killed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from everturn.logbook.logbook import Logbook
from everturn.settings import inherited_environment
from polling import wait_until

ROUNDS = 300

PUTTER = """
import json, sys
from pathlib import Path
from everturn.logbook.logbook import Logbook

logbook = Logbook(Path(sys.argv[1]))
sys.stdin.readline()
puts = [logbook.deliveries.put("github", f"d-{number}", "push", {}) for number in range(int(sys.argv[2]))]
print(json.dumps([put.result() for put in puts]), flush=True)
logbook.close()
"""

# Puts without end, a few at a time, and says each id that was accepted. Then it is killed.
STREAM = """
import sys
from pathlib import Path
from everturn.logbook.logbook import Logbook

logbook = Logbook(Path(sys.argv[1]))
number = 0
while True:
    puts = {f"{sys.argv[2]}-{number + more}": None for more in range(20)}
    for each in puts:
        puts[each] = logbook.deliveries.put("github", each, "push", {"of": each})
    for each, put in puts.items():
        assert put.result() == "queued"
        print(each, flush=True)
    number += len(puts)
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=inherited_environment()
    )


def test_of_two_processes_that_put_the_same_each_is_answered_that_it_was_queued_once(path: Path) -> None:
    processes = [start(PUTTER, str(path), str(ROUNDS)) for _ in range(2)]
    answers = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        answers.append(json.loads(process.communicate(timeout=60)[0]))
        assert process.returncode == 0
    assert all(sorted(pair) == ["duplicate", "queued"] for pair in zip(*answers, strict=True))
    assert len(Logbook(path).deliveries.page(2 * ROUNDS)) == ROUNDS


@pytest.mark.slow
def test_what_was_accepted_before_a_kill_is_there_and_nothing_twice(path: Path, tmp_path: Path) -> None:
    accepted: list[str] = []
    chance = random.Random(7)
    for round_ in range(6):
        receipts = tmp_path / f"receipts-{round_}"
        with receipts.open("w") as out:
            command = [sys.executable, "-c", STREAM, str(path), f"r{round_}"]
            process = subprocess.Popen(command, stdout=out, env=inherited_environment())
        enough = chance.randrange(1, 3000)
        wait_until(lambda receipts=receipts, enough=enough: receipts.stat().st_size > enough, "some were accepted")  # type: ignore[misc]
        process.kill()
        process.wait()
        accepted += receipts.read_text().rpartition("\n")[0].splitlines()
    logbook = Logbook(path)
    kept = Counter(entry.delivery_id for entry in logbook.deliveries.page(100_000))
    assert set(accepted) <= kept.keys()
    assert set(kept.values()) == {1}
    assert logbook.deliveries.put("github", accepted[0], "push", {}).result() == "duplicate"
    logbook.close()
