"""Following a journal while it is written."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pytest

from cli.conftest import Everturn
from everturn.cli.journal.following import Follower, Watcher, follow
from everturn.conversations.runs import LocalJournals, Named, Runs
from everturn.errors import Corrupt
from everturn.journal.events import (
    Event,
    TextDelta,
)
from everturn.journal.journal import Journal
from everturn.journal.lines import Recorded
from everturn.journal.reading import Journals, RunRef
from everturn.log.objects import Objects
from everturn.testing import Fault, FaultyObjects, kill_machine
from journals import (
    FIRST,
    SECOND,
    WORK,
    JournalStore,
    journal_of,
    killed,
    recorded,
    resumed,
    started,
)
from polling import wait_until


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
