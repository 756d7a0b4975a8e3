"""`everturn journal show` and `list`: what happened to a work item, as a person or a program reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cli.console import Done
from everturn.cli.app import _run
from everturn.journal.events import (
    Assistant,
    Ended,
    Event,
    Prompt,
    Result,
    Started,
    ToolResult,
    ToolUse,
    User,
)
from journals import (
    FIRST,
    SECOND,
    SESSION,
    WORK,
    JournalStore,
    killed,
    recorded,
    resumed,
    said,
    started,
    streamed,
)
from recorded import keep

HOSTILE = "\x1b[31mred\x1b]0;owned\x07\x1b[2J\x9b1m\x08\r\u202e[bold]not markup[/bold]"
CONTROLS = {*map(chr, (*range(9), *range(11, 32), *range(127, 160)))}


Command = Callable[..., Done]


@pytest.fixture
def journal(capsys: pytest.CaptureFixture[str], store: JournalStore, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, on the store in this test's folder."""
    monkeypatch.setenv("EVERTURN_STATE", str(store.settings.state))
    monkeypatch.setenv("COLUMNS", "100")

    def call(name: str, *arguments: str) -> Done:
        code = _run(["journal", name, "--store", store.url, *arguments])
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return call


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


@pytest.mark.slow
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
    assert "died" in journal("list").out.splitlines()[2]


@pytest.mark.parametrize(("columns", "sizes"), [("80", ""), ("120", "events parts")])
def test_a_narrow_terminal_leaves_the_names_their_room(
    journal: Command, told: JournalStore, monkeypatch: pytest.MonkeyPatch, columns: str, sizes: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    heading, *lines = journal("list").out.splitlines()
    assert " ".join(heading.split()) == f"run began (UTC) work item worker claim outcome {sizes}".strip()
    assert all(WORK in line for line in lines)


def test_an_empty_store_has_no_journals(journal: Command, store: JournalStore) -> None:
    assert journal("list").out == "there are no journals\n"
    assert journal("list", "--json").out == ""


def test_journals_that_were_deleted_are_not_there(journal: Command, told: JournalStore) -> None:
    told.delete(FIRST)
    assert [record["run_id"] for record in journal("list", "--json").records] == [SECOND]
    assert f"run {FIRST}" not in journal("show", WORK).out
    told.delete(SECOND)
    assert journal("show", WORK).err.startswith(f"error: the journals of {WORK} were deleted")
