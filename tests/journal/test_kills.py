"""A worker is killed while its agent speaks: whatever was seen is in the journal, and the story has no gap.

Fifty kills at random moments, with the real agent command: chains of runs in which each but the last is killed.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from everturn import Settings, WorkItem
from everturn.conversations.conversation import Text
from everturn.conversations.story import tell
from everturn.journal.events import Assistant, Prompt, Resumed, Started, TextDelta
from everturn.journal.reading import Journals, RunJournal
from everturn.log.objects import run
from everturn.log.stores import connect
from everturn.testing import ModelRequest, Reply, ScriptedModel, ToolUse, cli_environment, kill_machine
from journal.viewer import TASK
from polling import wait_until

pytestmark = [pytest.mark.cli, pytest.mark.slow, pytest.mark.timeout(400)]

VIEWER = Path(__file__).with_name("viewer.py")
KEY = WorkItem.task(TASK).key
WORDS = 150
TIMEOUT_S = 60.0
LATEST_S = 1.0  # after the first word; an answer takes half as long again


class Speaker:
    """A model that counts slowly. No two of its words are alike, whichever answer they are in."""

    def __init__(self) -> None:
        self.answers = 0

    def __call__(self, request: ModelRequest) -> Reply:
        self.answers += 1
        words = " ".join(f"{self.answers}:{number}" for number in range(WORDS))
        if self.answers % 3 == 2:  # now and then it works in between
            return Reply(words, ToolUse("Bash", {"command": "echo seven"}), chunk_delay_s=0.005)
        return Reply(words, chunk_delay_s=0.01)


class Pasture:
    """Machines that are killed, one after the other."""

    def __init__(self, folder: Path, model_url: str, **settings: str) -> None:
        self.folder = folder
        self.model_url = model_url
        self.settings = settings
        self.store = (folder / "store").as_uri()
        self.seen = folder / "seen.jsonl"

    def start(self, machine: str) -> subprocess.Popen[bytes]:
        place = self.folder / machine
        for name in ("home", "tmp", "desk"):
            (place / name).mkdir(parents=True, exist_ok=True)
        with (place / "stderr.log").open("ab") as stderr:
            return subprocess.Popen(
                [sys.executable, str(VIEWER), str(self.seen)],
                cwd=place / "desk",
                env={
                    **cli_environment(self.model_url, place / "home", tmpdir=place / "tmp"),
                    "EVERTURN_STATE": str(place / "state"),
                    "EVERTURN_STORE": self.store,
                    "EVERTURN_REGISTRY": f"sqlite://{self.folder / 'registry.db'}",
                    "EVERTURN_WORKER": machine,
                    **self.settings,
                },
                stdin=subprocess.DEVNULL,
                stderr=stderr,
            )

    def kill_while_it_speaks(self, machine: str, after_s: float) -> None:
        before = len(self.sights())
        with self.start(machine) as process:
            try:
                wait_until(lambda: len(self.sights()) > before or process.poll() is not None, "a word", TIMEOUT_S)
                deadline = time.monotonic() + after_s
                wait_until(lambda: time.monotonic() > deadline or process.poll() is not None, "the moment", TIMEOUT_S)
            finally:
                kill_machine(process.pid)

    def finish(self, machine: str) -> None:
        with self.start(machine) as process:
            try:
                assert process.wait(TIMEOUT_S) == 0, (self.folder / machine / "stderr.log").read_text()[-3000:]
            finally:
                kill_machine(process.pid)

    def sights(self) -> list[tuple[str, str]]:
        """Return what was seen, whole lines of it: in which run, and what."""
        if not self.seen.exists():
            return []
        whole = self.seen.read_text().rpartition("\n")[0]
        return [(run_id, text) for run_id, text in map(json.loads, whole.splitlines())]

    def journals(self) -> list[RunJournal]:
        """Return the journals of all runs, in order."""
        journals = Journals(connect(self.store, Settings.load()), self.store)
        found = [run(journals.read(ref)) for ref in run(journals.runs(KEY))]
        return sorted(found, key=lambda each: started(each).epoch)


def started(journal: RunJournal) -> Started:
    first = journal.events[0].event
    assert isinstance(first, Started)
    return first


def deltas(journal: RunJournal) -> list[str]:
    return [each.event.text for each in journal.events if isinstance(each.event, TextDelta)]


@pytest.fixture
def model_url() -> Iterator[str]:
    speaker = Speaker()
    model = ScriptedModel(speaker)
    with model.serve() as url:
        yield url
    assert model.script_errors == []


def assert_the_story_is_whole(pasture: Pasture, kills: int) -> None:
    journals = pasture.journals()
    assert len(journals) == kills + 1
    assert [each.missing for each in journals] == [()] * len(journals)
    assert [each.unreadable for each in journals] == [0] * len(journals)
    before = None
    for journal in journals:  # each names the one before, and goes on with its conversation
        assert started(journal).previous_run_id == before
        if before is not None:
            second = journal.events[1].event
            assert second == Resumed(started(journals[0]).session_id, before, took_over=True)
        before = started(journal).run_id
        assert any(isinstance(each.event, Prompt) for each in journal.events)
    assert [each.events[-1].type == "ended" for each in journals] == [False] * kills + [True]
    assert_all_that_was_seen_is_in_it(pasture, journals)
    assert_no_gap_and_no_repetition(journals)
    assert_the_story_says_it_all_once(journals)


def assert_all_that_was_seen_is_in_it(pasture: Pasture, journals: list[RunJournal]) -> None:
    seen: dict[str, list[str]] = {started(journal).run_id: [] for journal in journals}
    for run_id, text in pasture.sights():
        seen[run_id].append(text)
    for journal in journals:
        mine = seen[started(journal).run_id]
        assert mine
        assert deltas(journal)[: len(mine)] == mine
    assert deltas(journals[-1]) == seen[started(journals[-1]).run_id]


def assert_no_gap_and_no_repetition(journals: list[RunJournal]) -> None:
    """Every answer is there from its first word on, word by word, and each word once."""
    words = [word for journal in journals for word in "".join(_spoken(journal)).split()]
    assert len(set(words)) == len(words)
    by_answer: dict[int, list[int]] = {}
    for word in words:
        answer, _, number = word.partition(":")
        by_answer.setdefault(int(answer), []).append(int(number or -1))
    for numbers in by_answer.values():
        whole = numbers if len(numbers) == WORDS else numbers[:-1]  # the last word may be cut off
        assert whole == list(range(len(whole)))
    for journal in journals:
        whole_blocks = [each.event.text for each in journal.events if isinstance(each.event, Assistant)]
        assert all("".join(deltas(journal)).count(block) == 1 for block in whole_blocks)


def assert_the_story_says_it_all_once(journals: list[RunJournal]) -> None:
    """What people read is what the pieces say together, those of answers that were cut off, too."""
    story = tell(KEY, journals).conversation()
    steps = [step for turn in story.turns for step in turn.steps]
    read = [step.text for step in steps if isinstance(step, Text)]
    pieces = [piece for journal in journals for piece in deltas(journal)]
    assert "".join(read) == "".join(pieces)


def _spoken(journal: RunJournal) -> Iterator[str]:
    answer = None
    for each in journal.events:
        if isinstance(each.event, TextDelta):
            yield (" " if each.event.message_id != answer else "") + each.event.text
            answer = each.event.message_id
    yield " "


@pytest.mark.parametrize("seed", range(4))
def test_ten_kills_one_after_the_other_on_one_machine(tmp_path: Path, model_url: str, seed: int) -> None:
    moments = random.Random(seed)
    pasture = Pasture(tmp_path, model_url)
    for _ in range(10):
        pasture.kill_while_it_speaks("a", moments.uniform(0, LATEST_S))
    pasture.finish("a")
    assert_the_story_is_whole(pasture, kills=10)


def test_ten_kills_each_on_a_machine_that_never_comes_back(tmp_path: Path, model_url: str) -> None:
    moments = random.Random(99)
    pasture = Pasture(
        tmp_path,
        model_url,
        EVERTURN_JOURNAL_DURABILITY="store",
        EVERTURN_CLAIM_TTL_S="1",
        EVERTURN_CLAIM_WAIT_S="20",
    )
    for number in range(10):
        pasture.kill_while_it_speaks(f"m{number}", moments.uniform(0, LATEST_S))
    pasture.finish("last")
    assert_the_story_is_whole(pasture, kills=10)
