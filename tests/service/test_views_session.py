"""A session's page: its runs, its turns, what is marked on its timeline, and what it has cost over time."""

from __future__ import annotations

import asyncio

import pytest

from everturn.conversations.conversation import Notice, Text, ToolCall
from everturn.errors import Conflict, Invalid, NotFound, Unavailable
from everturn.journal.events import Assistant, BeganAnew, Ended, Prompt, Shutdown, System, ToolUse
from everturn.journal.lines import line_of
from everturn.model import WorkItem
from everturn.runtime import open_transcripts
from everturn.service.views.session import SessionPage
from mirrored import called, resulted
from service.ground import Fleet, begun, issue, turn

WORK = issue(7)
FIRST, SECOND = "1" * 20, "2" * 20


def kinds(page: SessionPage) -> list[str]:
    return [mark.kind for mark in page.marks]


def test_a_takeover_is_told_run_by_run(fleet: Fleet) -> None:
    killed = fleet.claim(WORK, FIRST, ttl_s=0.001)
    call = ToolUse("c9", "Bash", {"command": "make"}, "m2", "m")
    fleet.keep(killed, [*begun(killed), *turn("the tap"), *turn("the roof", ends=False), call])
    after = fleet.claim(WORK, SECOND, worker="w2")
    begins = begun(after, worker="w2", previous=FIRST, took_over=True)
    fleet.keep(after, [*begins, *turn("the floor", resumed=True), Ended("completed")])
    page = fleet.desk.session(after.session_id)
    assert [(run.run_id, run.worker, run.end, run.turns) for run in page.runs] == [
        (FIRST, "w1", "died", 2),
        (SECOND, "w2", "ended", 1),
    ]
    assert kinds(page) == ["started", "turn", "turn", "died", "took_over", "turn", "ended"]
    assert [placed.position for placed in page.turns] == [1, 2, 3]
    assert [placed.turn.number for placed in page.turns] == [1, 2, 1]
    assert (page.session.work, page.branch, page.cwd, page.source) == (WORK.key, "mend-it", "/desk", "journals")
    assert page.claim is not None


def test_the_cost_grows_from_turn_to_turn_and_from_run_to_run(fleet: Fleet) -> None:
    claim = fleet.claim(WORK, FIRST)
    fleet.keep(claim, [*begun(claim), *turn("a", cost_usd=0.5), *turn("b", cost_usd=0.75), Ended("completed")])
    fleet.parts.registry.release(claim)
    after = fleet.claim(WORK, SECOND)
    fleet.keep(after, [*begun(after, previous=FIRST), *turn("c", cost_usd=0.25, resumed=True), Ended("completed")])
    page = fleet.desk.session(claim.session_id)
    assert [point.cost_usd for point in page.costs] == [0.5, 0.75, 1.0]
    assert [point.turn_cost_usd for point in page.costs] == [0.5, 0.25, 0.25]
    assert [placed.cost_usd for placed in page.turns] == [0.5, 0.25, 0.25]
    assert page.session.cost_usd == 1.0
    assert kinds(page)[-3:] == ["resumed", "turn", "ended"]


def test_what_befell_a_run_is_marked(fleet: Fleet) -> None:
    claim = fleet.claim(WORK, FIRST)
    compacted = System("compact_boundary", {})
    ends = [Shutdown("SIGTERM"), Ended("failed", "the disk is full")]
    fleet.keep(claim, [*begun(claim), *turn("a"), compacted, *ends])
    page = fleet.desk.session(claim.session_id)
    assert kinds(page) == ["started", "turn", "compacted", "shutdown", "failed"]
    assert page.marks[-2].text == "asked to end: SIGTERM"
    assert "the disk is full" in page.marks[-1].text
    assert (page.runs[0].shutdown_reason, page.runs[0].error) == ("SIGTERM", "the disk is full")


def test_a_conversation_that_began_anew_is_another_session_and_says_so(fleet: Fleet) -> None:
    claim = fleet.ran(WORK, FIRST)
    again = fleet.claim(WORK, SECOND)
    fresh = fleet.parts.registry.begin_anew(again)
    begins = begun(again, previous=FIRST)
    fleet.keep(again, [*begins, BeganAnew(fresh.session_id, claim.session_id), *turn("b"), Ended("completed")])
    page = fleet.desk.session(fresh.session_id)
    assert [run.run_id for run in page.runs] == [SECOND]
    assert kinds(page)[0] == "began_anew"
    old = fleet.desk.session(claim.session_id)
    assert [run.run_id for run in old.runs] == [FIRST]
    assert old.session.state == "over"


def test_the_last_turns_are_shown_and_others_when_they_are_asked_for(fleet: Fleet) -> None:
    claim = fleet.claim(WORK, FIRST)
    turns = [event for number in range(90) for event in turn(f"part {number}", cost_usd=None)]
    fleet.keep(claim, [*begun(claim), *turns, Ended("completed")])
    page = fleet.desk.session(claim.session_id)
    assert (page.total, page.offset, len(page.turns), page.turns[-1].position) == (90, 50, 40, 90)
    first = fleet.desk.session(claim.session_id, offset=0, limit=10)
    assert [placed.position for placed in first.turns] == list(range(1, 11))
    assert fleet.desk.session(claim.session_id, offset=500).turns == ()


def test_a_session_is_found_by_its_beginning_its_work_item_and_its_task(fleet: Fleet) -> None:
    claim = fleet.ran(WORK, FIRST)
    task = fleet.ran(WorkItem.task("roof"), SECOND)
    for named in (claim.session_id, claim.session_id[:8], WORK.key):
        assert fleet.desk.session(named).session.session_id == claim.session_id
    assert fleet.desk.session("roof").session.session_id == task.session_id
    with pytest.raises(NotFound):
        fleet.desk.session("no-such")
    with pytest.raises(Invalid):
        fleet.desk.session("  ")


def test_the_beginning_of_several_ids_is_no_name(fleet: Fleet) -> None:
    ids = [fleet.ran(WorkItem.task(f"t{number}"), f"{number:020}").session_id for number in range(17)]
    first = next(each[0] for each in ids if sum(other[0] == each[0] for other in ids) > 1)
    with pytest.raises(Conflict, match="begin with"):
        fleet.desk.session(first)


def test_megabytes_that_a_tool_answered_are_cut_and_said_to_be(fleet: Fleet) -> None:
    claim = fleet.claim(WORK, FIRST)
    long = "x" * 2_000_000
    events = [*begun(claim), Prompt("go", resumed=False), *called("Bash", {"command": "cat it", "more": long}, long)]
    fleet.keep(claim, [*events, resulted(), Ended("completed")])
    page = fleet.desk.session(claim.session_id)
    (call,) = [step for step in page.turns[0].turn.steps if isinstance(step, ToolCall)]
    assert call.result is not None
    assert call.result.text.endswith("… 1,992,000 more characters")
    assert len(call.result.text) + len(str(call.input)) < 20_000
    assert page.turns[0].left_out == 2 * 1_992_000
    assert page.command == f"everturn journal show '{WORK.key}' --full"


def test_a_turn_of_thousands_of_steps_keeps_its_beginning_and_its_end(fleet: Fleet) -> None:
    claim = fleet.claim(WORK, FIRST)
    said = [Assistant(f"word {number}", f"m{number}", "m") for number in range(3000)]
    fleet.keep(claim, [*begun(claim), Prompt("go", resumed=False), *said, Ended("completed")])
    steps = fleet.desk.session(claim.session_id).turns[0].turn.steps
    assert len(steps) == 401
    assert (steps[0], steps[-1]) == (Text("word 0"), Text("word 2999"))
    assert steps[100] == Notice("left out", "2,600 more steps")


def test_a_session_without_journals_is_told_from_its_transcript(fleet: Fleet) -> None:
    claim = fleet.claim(WORK, FIRST)
    store = open_transcripts(fleet.settings, WORK.key)
    entries = [
        {"type": "user", "uuid": "a", "timestamp": "2026-01-01T10:00:00Z", "message": {"content": "Mend it."}},
        {
            "type": "assistant",
            "uuid": "b",
            "parentUuid": "a",
            "timestamp": "2026-01-01T10:00:05Z",
            "message": {"id": "m1", "model": "m", "content": [{"type": "text", "text": "Done."}]},
        },
    ]

    async def write() -> None:
        await store.append({"project_key": "p", "session_id": claim.session_id}, entries)
        await store.aclose()

    asyncio.run(write())
    page = fleet.desk.session(claim.session_id)
    assert (page.source, page.total, page.models) == ("transcript", 1, ("m",))
    assert kinds(page) == ["started", "turn"]
    assert page.command == f"everturn sessions show {claim.session_id} --full"


def test_a_session_of_which_nothing_is_stored_says_so(fleet: Fleet) -> None:
    claim = fleet.claim(WORK, FIRST)
    page = fleet.desk.session(claim.session_id)
    assert (page.source, page.total) == ("nothing", 0)
    assert page.problems == ("neither a journal nor a transcript of it is stored",)


def test_a_journal_that_is_damaged_is_said_to_be_and_the_others_are_shown(fleet: Fleet) -> None:
    claim = fleet.ran(WORK, FIRST)
    fleet.ran(WORK, SECOND)
    fleet.desk.fleet()  # the mirror knows whose it is
    (part,) = sorted((fleet.journals.settings.state.parent / "store" / "journal").rglob(f"{SECOND}/*.zst"))[-1:]
    part.write_bytes(part.read_bytes()[:-20])
    page = fleet.desk.session(claim.session_id)
    assert [run.problem is None for run in page.runs].count(True) == 1
    assert "cannot be read" in page.problems[0]
    assert page.total == 1


def test_a_store_that_does_not_answer_leaves_what_was_read_before(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = fleet.ran(WORK, FIRST)
    assert fleet.desk.session(claim.session_id).total == 1

    def fail(*_: object) -> None:
        raise Unavailable("the bucket is gone", hint="wait")

    monkeypatch.setattr(fleet.desk._upkeep, "journals", fail)
    fleet.desk._news.touch(claim.session_id)
    page = fleet.desk.session(claim.session_id)
    assert page.total == 1


def test_what_is_only_on_this_machine_yet_is_shown(fleet: Fleet) -> None:
    claim = fleet.claim(WORK, FIRST)
    folder = fleet.settings.runs_path() / FIRST
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(
        f'{{"task_id": "{WORK.key}", "store": "{fleet.settings.store_url()}"}}', encoding="utf-8"
    )
    events = [*begun(claim), Prompt("Mend it.", resumed=False)]
    lines = b"".join(line_of(event, seq, 1_763_674_884_000 + seq) for seq, event in enumerate(events, 1))
    (folder / "journal.jsonl").write_bytes(lines)
    page = fleet.desk.session(claim.session_id)
    assert page.turns[0].turn.prompt == (Text("Mend it."),)
