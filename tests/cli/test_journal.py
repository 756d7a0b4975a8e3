"""`everturn journal show` and `list`: what happened to a work item, as a person or a program reads it."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from cli.conftest import Everturn
from everturn.cli.app import _run
from everturn.cli.journal.following import Follower, Watcher, follow
from everturn.conversations.runs import LocalJournals, Named, Runs
from everturn.errors import Corrupt
from everturn.journal.events import (
    Assistant,
    Ended,
    Event,
    Prompt,
    Result,
    Started,
    TextDelta,
    ToolResult,
    ToolUse,
    User,
)
from everturn.journal.journal import Journal
from everturn.journal.lines import Recorded
from everturn.journal.reading import Journals, RunRef
from everturn.log.objects import Objects
from everturn.telemetry import LOGGER_NAME
from everturn.testing import Fault, FaultyObjects, kill_machine
from journals import (
    FIRST,
    SECOND,
    SESSION,
    WORK,
    JournalStore,
    journal_of,
    killed,
    recorded,
    resumed,
    said,
    started,
    streamed,
)
from polling import wait_until
from recorded import keep

HOSTILE = "\x1b[31mred\x1b]0;owned\x07\x1b[2J\x9b1m\x08\r\u202e[bold]not markup[/bold]"
CONTROLS = {*map(chr, (*range(9), *range(11, 32), *range(127, 160)))}


@dataclass
class Done:
    """What a command has said."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Command = Callable[..., Done]


@pytest.fixture
def store(tmp_path: Path) -> JournalStore:
    return JournalStore(tmp_path)


@pytest.fixture
def journal(
    capsys: pytest.CaptureFixture[str], store: JournalStore, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Command]:
    """The command, on the store in this test's folder. What it sets up in the process is taken back."""
    logger = logging.getLogger(LOGGER_NAME)
    before = (logger.handlers, logger.level, logger.propagate)
    monkeypatch.setenv("EVERTURN_STATE", str(store.settings.state))
    monkeypatch.setenv("COLUMNS", "100")

    def call(name: str, *arguments: str) -> Done:
        code = _run(["journal", name, "--store", store.url, *arguments])
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    yield call
    logger.handlers, logger.level, logger.propagate = before


@pytest.fixture
def told(store: JournalStore) -> JournalStore:
    """A store with a run that was killed and the one that went on."""
    store.keep(FIRST, killed())
    store.keep(SECOND, resumed())
    return store


# --- As a conversation ----------------------------------------------------------------------------------------------


def test_the_whole_story_is_shown_across_runs_and_workers(journal: Command, told: JournalStore) -> None:
    done = journal("show", WORK)
    assert (done.code, done.err) == (0, "")
    lines = [line.rstrip("━─ ") for line in done.out.splitlines()]
    assert lines[:2] == [WORK, f"{SESSION} · m"]
    assert [line.partition(" · 20")[0] for line in lines if line.startswith("run ")] == [
        f"run {FIRST}  claim 1 · w1",
        f"run {SECOND}  claim 2 · w2 · took over from run 11111111",
    ]
    words = ("▌ Mend the tap.", "  Let me look.", "  I see that the washer is", "▌ Go on.", "  The washer is worn.")
    places = [lines.index(line) for line in words]
    assert places == sorted(places)
    assert [lines.count(line) for line in words] == [1] * len(words)
    assert "  · cut off the rest of this never came" in lines
    assert any(line.startswith("✗ died, or lost its claim: run 22222222 took over") for line in lines)
    assert "■ completed" in lines
    assert "runs        2" in lines


@pytest.mark.parametrize("word", [WORK, "tap", FIRST, "111", SESSION, SESSION[:8]])
def test_a_work_item_is_found_by_its_key_its_task_a_run_or_its_session(
    journal: Command, told: JournalStore, tmp_path: Path, word: str
) -> None:
    keep(tmp_path / "store", [{"type": "user", "uuid": "u", "message": {"content": "Hi."}}], scope=WORK)
    done = journal("show", word)
    assert done.code == 0
    assert done.out.startswith(f"{WORK}\n")
    assert f"run {FIRST}" in done.out
    assert (f"run {SECOND}" in done.out) == (not word.startswith("1"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "error: there is no journal for nothing in"),
        ([""], "error: no work item was named"),
        ([WORK, "--run", "3"], f"error: {WORK} has no run 3"),
        ([WORK, "--turn", "1"], "error: --turn is given for several runs"),
        (["1", "--turn", "7"], f"error: run {FIRST} has no turn 7"),
        ([WORK, "--turn", "1", "--last", "1"], "error: --turn is given with --last"),
        ([WORK, "--turn", "1", "--follow"], "error: --turn is given with --last or --follow"),
    ],
)
def test_what_is_not_there_is_refused_with_a_hint(
    journal: Command, told: JournalStore, arguments: list[str], message: str
) -> None:
    done = journal("show", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(message)
    assert done.err.endswith(")\n")
    assert done.err.count("\n") == 1


def test_a_word_that_stands_for_several_runs_is_refused(journal: Command, store: JournalStore) -> None:
    for run_id in ("abc1", "abc2"):
        store.keep(run_id, [Started(run_id, WORK, SESSION, 1, "w", "/")])
    done = journal("show", "abc")
    assert (done.code, done.out) == (2, "")
    assert "abc stands for 2 runs: abc1 (task:tap), abc2 (task:tap)" in done.err


def test_a_run_or_a_turn_of_it_is_shown_by_itself(journal: Command, told: JournalStore) -> None:
    out = journal("show", WORK, "--run", SECOND[:4], "--turn", "1").out
    assert "The washer is worn." in out
    assert "Mend the tap." not in out


def test_only_the_last_turns_are_shown_if_so_wished(journal: Command, told: JournalStore) -> None:
    out = journal("show", WORK, "--last", "1").out
    assert "… 1 other turn\n" in out
    assert "Mend the tap." not in out
    assert "turns       2" in out
    assert [record["run_id"] for record in journal("show", WORK, "--last", "1", "--json").records] == [SECOND] * len(
        resumed()
    )


def test_tool_calls_and_subagents_are_shown_as_for_sessions(journal: Command, store: JournalStore) -> None:
    events = [
        started(FIRST),
        Prompt("Go.", resumed=False),
        ToolUse("a", "Agent", {"description": "Count washers"}, "m1", "m"),
        *said("There are four.", "s1", parent="a"),
        ToolResult("a", "four"),
        ToolUse("b", "Bash", {"command": "exit 1"}, "m1", "m"),
        ToolResult("b", "no", is_error=True),
        Result("success", False, "", 1, 10, 5, cost_usd=0.5),
        Ended("failed", "the store was away"),
    ]
    store.keep(FIRST, events)
    out = journal("show", WORK).out
    assert "  ◆ Agent Count washers\n" in out
    assert "  ✗ Bash exit 1\n    no\n" in out
    assert "■ failed: the store was away\n" in out
    assert "cost        $0.50\n" in out
    assert "There are four." not in out
    assert "      There are four.\n" in journal("show", WORK, "--subagents").out
    assert "command: exit 1" in journal("show", WORK, "--full").out


def test_nothing_in_a_journal_controls_the_terminal(journal: Command, store: JournalStore) -> None:
    hostile = Started(FIRST, WORK, HOSTILE, 1, HOSTILE, HOSTILE)
    events: list[Event] = [
        hostile,
        Prompt(HOSTILE, resumed=False),
        Assistant(HOSTILE, "m", HOSTILE),
        *streamed(HOSTILE, "m2"),
        User(HOSTILE),
        ToolUse(HOSTILE, HOSTILE, {HOSTILE: HOSTILE}),
        Ended(HOSTILE, HOSTILE),
    ]
    store.keep(FIRST, events)
    for options in ([], ["--full", "--subagents"], ["--deltas"], ["--json"], ["--raw"]):
        out = journal("show", WORK, *options).out
        assert not CONTROLS & {*out}
        assert "\u202e" not in out
    assert not CONTROLS & {*journal("list").out}
    assert journal("show", WORK, "--json").records[0]["worker"] == HOSTILE


# --- Event by event -------------------------------------------------------------------------------------------------


def test_json_has_one_record_for_each_event_with_its_run(journal: Command, told: JournalStore) -> None:
    records = journal("show", WORK, "--json").records
    wanted = [(FIRST, each) for each in recorded(killed())] + [(SECOND, each) for each in recorded(resumed())]
    assert [(record["run_id"], record["seq"], record["type"]) for record in records] == [
        (run_id, each.seq, each.type) for run_id, each in wanted
    ]
    assert records[1]["text"] == "Mend the tap."


def test_raw_has_the_lines_as_they_are_stored(journal: Command, told: JournalStore) -> None:
    lines = [record | {"at_ms": 0} for record in journal("show", FIRST, "--raw").records]
    assert lines == [each.raw | {"at_ms": 0} for each in recorded(killed())]


def test_deltas_are_shown_one_by_one_with_their_times(journal: Command, told: JournalStore) -> None:
    lines = journal("show", FIRST, "--deltas").out.splitlines()
    assert lines[0] == f"run {FIRST}"
    assert len(lines) == 1 + len(killed())
    pieces = [line.split()[2:] for line in lines if "text_delta" in line]
    assert pieces[:2] == [["text_delta", '"Let', '"'], ["text_delta", '"me', '"']]


def test_what_is_missing_is_told_and_a_damaged_journal_keeps_no_other_from_being_shown(
    journal: Command, told: JournalStore, tmp_path: Path
) -> None:
    part = next((tmp_path / "store" / "journal").glob(f"*/{FIRST}/*1.jsonl.zst"))
    part.write_bytes(part.read_bytes()[:-5] + b"junk!")
    done = journal("show", WORK)
    assert done.code == 1
    assert "✗ cannot be read:" in done.out
    assert "The washer is worn." in done.out
    as_json = journal("show", WORK, "--json")
    assert as_json.code == 1
    assert f"the journal of run {FIRST} cannot be read" in as_json.err
    assert len(as_json.records) == len(resumed())
    assert [record["outcome"] for record in journal("list", "--json").records] == ["damaged", "completed"]


def test_a_folder_with_nothing_in_it_is_no_run(journal: Command, told: JournalStore, tmp_path: Path) -> None:
    part = next((tmp_path / "store" / "journal").glob(f"*/{FIRST}/*1.jsonl.zst"))
    part.unlink()
    done = journal("show", WORK)
    assert FIRST not in done.out
    assert (done.code, "The washer is worn." in done.out) == (0, True)


# --- The list -------------------------------------------------------------------------------------------------------


def test_the_list_has_every_run_with_how_it_ended(journal: Command, told: JournalStore) -> None:
    told.keep("3" * 20, [Started("3" * 20, "task:other", SESSION, 1, "w9", "/")], work="task:other")
    records = journal("list", "--json").records
    assert [(record["work"], record["run_id"][0], record["outcome"], record["events"]) for record in records] == [
        ("task:other", "3", "no end yet", 1),
        (WORK, "1", "died", len(killed())),
        (WORK, "2", "completed", len(resumed())),
    ]
    assert [record["run_id"][0] for record in journal("list", "tap", "--json").records] == ["1", "2"]
    table = journal("list").out.splitlines()
    assert table[0].split() == [
        "run",
        "began",
        "(UTC)",
        "work",
        "item",
        "worker",
        "claim",
        "outcome",
        "events",
        "parts",
    ]
    assert "died" in table[2]


def test_an_empty_store_has_no_journals(journal: Command, store: JournalStore) -> None:
    assert journal("list").out == "there are no journals\n"
    assert journal("list", "--json").out == ""


def test_journals_that_were_deleted_are_not_there(journal: Command, told: JournalStore) -> None:
    told.delete(FIRST)
    assert [record["run_id"] for record in journal("list", "--json").records] == [SECOND]
    assert f"run {FIRST}" not in journal("show", WORK).out
    told.delete(SECOND)
    assert journal("show", WORK).err.startswith(f"error: the journals of {WORK} were deleted")


# --- Following ------------------------------------------------------------------------------------------------------


class Screen:
    """The command as a process of its own, and what it has printed so far."""

    def __init__(self, everturn: Everturn, *arguments: str) -> None:
        self.process = everturn.start("journal", "show", *arguments, "--follow", "--interval", "0.1")
        self.out = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            kill_machine(self.process.pid)
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while piece := os.read(self.process.stdout.fileno(), 65536):
            self.out += piece.decode()

    def sees(self, text: str) -> None:
        wait_until(lambda: text in self.out, f"{text!r} is printed")

    def interrupt(self) -> tuple[int, str]:
        """Interrupt it as Ctrl-C does, and return its exit code and its complaints."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(20)
        self._reader.join(20)
        assert self.process.stderr is not None
        return code, self.process.stderr.read()


@pytest.mark.slow
def test_following_prints_each_piece_as_it_comes_from_another_machine_and_ends_at_ctrl_c(
    everturn: Everturn, store: JournalStore
) -> None:
    first, second = store.open(FIRST), store.open(SECOND)
    write(first, *killed()[:2])
    with Screen(everturn, WORK, "--store", store.url) as screen:
        screen.sees("▌ Mend the tap.")
        so_far: dict[str | None, str] = {}
        for event in killed()[2:]:
            write(first, event)
            if isinstance(event, TextDelta):
                text = so_far[event.message_id] = so_far.get(event.message_id, "") + event.text
                screen.sees(text)
        write(second, *resumed())
        screen.sees("■ completed")
        assert screen.interrupt() == (130, "")
    for text in ("Let me look.", "I see that the washer is", "The washer is worn."):
        assert screen.out.count(text) == 1
    assert screen.out.index("· cut off") < screen.out.index("✗ died") < screen.out.index(f"run {SECOND}")
    first.close(10)
    second.close(10)


@pytest.mark.slow
def test_following_as_json_prints_each_event_once(everturn: Everturn, store: JournalStore) -> None:
    store.keep(FIRST, killed())
    second = store.open(SECOND)
    with Screen(everturn, WORK, "--json", "--store", store.url) as screen:
        screen.sees(FIRST)
        for event in resumed():
            write(second, event)
        screen.sees('"outcome":"completed"')
        assert screen.interrupt() == (130, "")
    seen = [(record["run_id"], record["seq"]) for record in map(json.loads, screen.out.splitlines())]
    assert seen == [*numbers(FIRST, killed()), *numbers(SECOND, resumed())]
    second.close(10)


@pytest.mark.slow
def test_on_the_same_machine_events_are_seen_before_they_are_in_the_store(
    everturn: Everturn, store: JournalStore
) -> None:
    folder = everturn.state / "runs" / SECOND
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"task_id": WORK, "store": store.url}))
    store.keep(FIRST, killed())
    with Screen(everturn, WORK, "--store", store.url) as screen:
        screen.sees("I see that the washer is")
        whole = b"".join(json.dumps(each.raw).encode() + b"\n" for each in recorded(resumed()[:-1]))
        (folder / "journal.jsonl").write_bytes(whole + b'{"v":1,"seq":99,"type":"tex')
        screen.sees("The washer is worn.")
        assert screen.interrupt() == (130, "")
    assert screen.out.count("The washer is worn.") == 1
    shown = everturn("journal", "show", WORK, "--store", store.url)
    assert shown.stdout.count("The washer is worn.") == 1


@pytest.mark.slow
def test_whoever_reads_the_output_may_go(everturn: Everturn, told: JournalStore) -> None:
    with everturn.start("journal", "show", WORK, "--follow", "--store", told.url) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(20) == 141


class Onlooker:
    """Takes events until it has seen enough, then interrupts."""

    def __init__(self, enough: int) -> None:
        self.seen: list[tuple[str, int]] = []
        self.passed: list[tuple[str, int]] = []
        self.told: list[str] = []
        self._enough = enough

    def take(self, ref: RunRef, events: Sequence[Recorded]) -> None:
        self.seen += [(ref.run_id, each.seq) for each in events]
        if len(self.seen) >= self._enough:
            raise KeyboardInterrupt

    def pass_over(self, ref: RunRef, events: Sequence[Recorded]) -> None:
        self.passed += [(ref.run_id, each.seq) for each in events]

    def tell(self, ref: RunRef, text: str) -> None:
        self.told.append(text)


def follow_to(store: JournalStore, objects: Objects, onlooker: Onlooker, *, last: int | None = None) -> int:
    runs = Runs(Journals(objects, store.url), LocalJournals(store.settings.runs_path(), store.url))
    return follow(runs, Named(WORK), onlooker, interval_s=0.01, last=last)


def test_following_goes_on_when_the_store_is_away_for_a_while_and_says_so(
    told: JournalStore, capsys: pytest.CaptureFixture[str]
) -> None:
    onlooker = Onlooker(len(killed()) + len(resumed()))
    faults = [Fault("fail", "list_folders", times=3), Fault("fail", "get", times=2, after=1)]
    faulty = FaultyObjects(told.objects, *faults)
    assert follow_to(told, faulty, onlooker) == 130
    assert onlooker.seen == [*numbers(FIRST, killed()), *numbers(SECOND, resumed())]
    complaints = capsys.readouterr().err.splitlines()
    assert [complaint.split(":")[0] for complaint in complaints] == ["warning", "note"]


def test_following_ends_with_what_time_will_not_mend(told: JournalStore, tmp_path: Path) -> None:
    part = next((tmp_path / "store" / "journal").glob(f"*/{FIRST}/*1.jsonl.zst"))
    part.write_bytes(b"junk")
    with pytest.raises(Corrupt):
        follow_to(told, told.objects, Onlooker(1))


def test_the_run_that_goes_on_is_asked_for_each_time_and_a_dead_one_rarely(store: JournalStore) -> None:
    store.keep(SECOND, killed())  # which comes behind the other one in a listing
    live = store.open(FIRST)
    live.write(started(FIRST, 2, SECOND))
    live._shipper.settle(10)
    local = LocalJournals(store.settings.runs_path(), store.url)
    watcher = Watcher(Runs(Journals(store.objects, store.url), local), Named(WORK), 1)
    assert {journal.ref.run_id for journal in watcher.look()} == {FIRST, SECOND}
    for number in range(5):
        live.write(TextDelta("m", 0, f"{number}"))
        live._shipper.settle(10)
        assert [(journal.ref.run_id, len(journal.events)) for journal in watcher.look()] == [(FIRST, 1)]
    live.close(10)


def test_following_from_the_last_turns_passes_over_the_others(told: JournalStore) -> None:
    onlooker = Onlooker(len(resumed()))
    assert follow_to(told, told.objects, onlooker, last=1) == 130
    assert [run_id for run_id, _ in onlooker.passed] == [FIRST] * len(killed())
    assert onlooker.seen == numbers(SECOND, resumed())


def test_events_that_come_late_are_printed_once_after_they_were_told_to_be_missing() -> None:
    onlooker = Onlooker(99)
    follower = Follower(onlooker)
    follower.take([journal_of(killed(), without=(3, 4, 5))])
    follower.take([journal_of(killed(), without=(4,))])
    follower.take([journal_of(killed())])
    follower.take([journal_of(killed())])
    assert onlooker.told == ["events 3 to 5 are missing"]
    assert sorted(onlooker.seen) == numbers(FIRST, killed())


def write(journal: Journal, *events: Event) -> None:
    """Write events, and have them in the store."""
    for event in events:
        journal.write(event)
    journal._shipper.settle(10)


def numbers(run_id: str, events: Sequence[Event]) -> list[tuple[str, int]]:
    return [(run_id, seq) for seq in range(1, len(events) + 1)]
