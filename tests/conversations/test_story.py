"""Journals as one story: every piece once, whatever was killed, lost or is not known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everturn.conversations.conversation import Conversation, Notice, Step, Text, Thinking, ToolCall, Turn
from everturn.conversations.story import RunStory, Story, tell
from everturn.conversations.turning import last_turns, turns_of
from everturn.journal.events import (
    TYPES,
    Assistant,
    BeganAnew,
    Damaged,
    Ended,
    Event,
    MirrorError,
    Prompt,
    RateLimit,
    Result,
    Resumed,
    Shutdown,
    Stream,
    Subagent,
    System,
    TextDelta,
    ThinkingDelta,
    ToolInputDelta,
    ToolResult,
    ToolUse,
    User,
)
from everturn.journal.events import Thinking as Thought
from everturn.journal.lines import Recorded
from everturn.journal.reading import RunJournal, RunRef, put_in_order
from journals import FIRST, SECOND, SESSION, WORK, journal_of, killed, recorded, resumed, said, started, streamed

QUICK = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def run_of(*events: Event, without: tuple[int, ...] = ()) -> RunStory:
    return tell(WORK, [journal_of(events, without=without)]).runs[0]


def steps_of(*events: Event) -> list[Step]:
    story = run_of(started(FIRST), Prompt("Go.", resumed=False), *events)
    return [step for turn in story.conversation.turns for step in turn.steps]


def texts(found: Conversation) -> Iterator[str]:
    """Return what was said and thought, and what tools were called with."""
    for turn in found.turns:
        for step in turn.steps:
            if isinstance(step, Text | Thinking):
                yield step.text
            elif isinstance(step, ToolCall):
                yield step.input if isinstance(step.input, str) else ""


def notices(turns: tuple[Turn, ...]) -> list[tuple[str, str]]:
    return [(step.about, step.text) for turn in turns for step in turn.steps if isinstance(step, Notice)]


# --- Blocks and their pieces ----------------------------------------------------------------------------------------


def test_a_whole_block_takes_the_place_of_its_pieces() -> None:
    assert steps_of(*said("Let me look.")) == [Text("Let me look.")]


def test_a_block_that_was_never_finished_is_shown_as_far_as_it_came() -> None:
    shown, told = steps_of(*streamed("I see that the"))
    assert shown == Text("I see that the")
    assert isinstance(told, Notice)
    assert told.about == "cut off"


def test_a_block_whose_pieces_all_came_is_not_cut_off_though_its_whole_is_not_there() -> None:
    stop = Stream("m1", {"type": "content_block_stop", "index": 0})
    assert steps_of(*streamed("All of it."), stop) == [Text("All of it.")]


def test_several_blocks_of_an_answer_come_in_their_order_with_the_last_one_cut_off() -> None:
    found = steps_of(*said("One.", index=0), *said("Two.", index=1), *streamed("Thr", index=2))
    assert found[:3] == [Text("One."), Text("Two."), Text("Thr")]


def test_the_same_text_twice_in_an_answer_is_shown_twice() -> None:
    assert steps_of(*said("Again.", index=0), *said("Again.", index=1)) == [Text("Again.")] * 2


def test_an_answer_that_breaks_off_and_is_given_anew_is_shown_with_what_came_before() -> None:
    again = Stream("m2", {"type": "message_start", "message": {"id": "m2"}})
    found = steps_of(*streamed("I thi"), again, *said("I think so.", "m2"))
    assert [step.text for step in found if isinstance(step, Text)] == ["I thi", "I think so."]
    assert [step.about for step in found if isinstance(step, Notice)] == ["cut off"]


def test_an_answer_under_the_id_of_one_before_is_another_one() -> None:
    start = Stream("m1", {"type": "message_start", "message": {"id": "m1"}})
    assert steps_of(*said("Yes."), start, *said("No.")) == [Text("Yes."), Text("No.")]


def test_a_block_of_white_space_that_has_no_whole_does_not_take_that_of_the_next_one() -> None:
    assert steps_of(*streamed(" ", index=0), *said("a b", index=1)) == [Text("a b")]


def test_a_whole_block_of_which_pieces_are_missing_is_shown_once() -> None:
    block = said("One two three.")
    assert steps_of(*block[:1], *block[2:]) == [Text("One two three.")]


def test_a_whole_block_without_pieces_is_shown() -> None:
    assert steps_of(Assistant("At once.", "m1", "m")) == [Text("At once.")]


def test_a_whole_block_is_shown_beside_pieces_that_are_not_in_it() -> None:
    found = steps_of(*streamed("What was streamed"), Assistant("Something else.", "m1", "m"))
    assert [step.text for step in found if isinstance(step, Text)] == ["What was streamed", "Something else."]


def test_a_thought_of_which_only_the_signature_was_kept_is_shown_as_it_was_streamed() -> None:
    assert steps_of(ThinkingDelta("m1", 0, "Let me "), ThinkingDelta("m1", 0, "think."), Thought("", "m1", "m")) == [
        Thinking("Let me think.")
    ]


def test_a_tool_call_that_was_cut_off_is_shown_with_what_there_is_of_it() -> None:
    begun = {"type": "tool_use", "id": "c", "name": "Bash"}
    begin = Stream("m1", {"type": "content_block_start", "index": 0, "content_block": begun})
    call, told = steps_of(begin, ToolInputDelta("m1", 0, '{"command": "ls'))
    assert isinstance(call, ToolCall)
    assert (call.name, call.input, call.result) == ("Bash", '{"command": "ls', None)
    assert isinstance(told, Notice)


def test_tool_calls_have_their_results_with_the_patch_of_an_edit() -> None:
    hunk = {"oldStart": 1, "oldLines": 1, "newStart": 1, "newLines": 1, "lines": ["-a", "+b"]}
    (call,) = steps_of(
        ToolInputDelta("m1", 0, '{"file_path": "a"}'),
        ToolUse("c", "Edit", {"file_path": "a"}, "m1", "m"),
        ToolResult("c", "done", details={"structuredPatch": [hunk]}),
    )
    assert isinstance(call, ToolCall)
    assert call.result is not None
    assert (call.input, call.result.text, call.result.patch) == (
        {"file_path": "a"},
        "done",
        ("@@ -1,1 +1,1 @@", "-a", "+b"),
    )


def test_what_a_subagent_said_is_inside_the_call_that_began_it() -> None:
    (call,) = steps_of(
        ToolUse("c", "Agent", {"description": "Count washers", "prompt": "Count."}, "m1", "m"),
        User("Count.", "c"),
        *said("There are ", "s1", parent="c"),
        ToolUse("d", "Bash", {"command": "ls"}, "s1", "m", "c"),
        ToolResult("d", "4", parent="c"),
        *streamed("I was about to", "s2", parent="c"),
    )
    assert isinstance(call, ToolCall)
    assert call.agent is not None
    assert call.agent.name == "Count washers"
    (turn,) = call.agent.turns
    assert turn.prompt == (Text("Count."),)
    assert [step.text for step in turn.steps if isinstance(step, Text)] == ["There are ", "I was about to"]
    assert turn.calls[0].result is not None


def test_a_subagent_whose_call_is_missing_is_shown_by_itself() -> None:
    story = run_of(started(FIRST), Prompt("Go.", resumed=False), *said("Four.", parent="lost"))
    (agent,) = story.conversation.agents
    assert [*texts(agent)] == ["Four."]


# --- Runs -----------------------------------------------------------------------------------------------------------


def test_a_run_that_another_took_over_from_died_and_the_story_goes_on() -> None:
    story = tell(WORK, [journal_of(resumed(), SECOND), journal_of(killed(), FIRST)])
    first, second = story.runs
    assert (first.ref.run_id, first.end, first.successor) == (FIRST, "died", SECOND)
    assert (second.ref.run_id, second.end, second.successor) == (SECOND, "ended", None)
    assert "".join(texts(story.conversation())) == "Let me look.I see that the washer isThe washer is worn."
    assert [turn.claim for turn in story.conversation().turns] == [1, 2]
    assert [turn.resumed for turn in story.conversation().turns] == [False, True]


def test_a_run_without_end_and_without_successor_may_go_on() -> None:
    assert run_of(*killed()).end == "open"


def test_a_run_without_end_that_nobody_took_over_from_is_told_as_such() -> None:
    after = [started(SECOND, 2, FIRST), Prompt("Go.", resumed=False)]
    assert tell(WORK, [journal_of(killed()), journal_of(after, SECOND)]).runs[0].end == "silent"


def test_a_run_that_was_stopped_says_why() -> None:
    run = run_of(started(FIRST), Prompt("Go.", resumed=False), Shutdown("SIGTERM"), Ended("stopped"))
    assert (run.facts.shutdown, run.facts.ended) == (Shutdown("SIGTERM"), Ended("stopped"))
    assert notices(run.conversation.turns) == [("shutdown", "asked to end: SIGTERM")]


def test_a_conversation_that_was_lost_is_told() -> None:
    assert run_of(started(FIRST), BeganAnew(SESSION, "old")).facts.began_anew == BeganAnew(SESSION, "old")


def test_runs_come_in_the_order_of_their_claims_then_of_who_names_whom() -> None:
    chain = [
        journal_of([started(name * 20, 3, before)], name * 20) for name, before in (("a", "c" * 20), ("c", "b" * 20))
    ]
    others = [journal_of([started("b" * 20, 3)], "b" * 20), journal_of([started("d" * 20, 2)], "d" * 20)]
    assert [run.ref.run_id[0] for run in tell(WORK, [*chain, *others]).runs] == ["d", "b", "c", "a"]


def test_a_run_whose_beginning_is_missing_comes_before_the_one_that_names_it() -> None:
    headless = journal_of(killed(), FIRST, without=(1,))
    story = tell(WORK, [journal_of(resumed(), SECOND), headless])
    assert [run.ref.run_id for run in story.runs] == [FIRST, SECOND]
    assert story.runs[0].facts.started is None


def test_runs_that_name_each_other_are_all_there() -> None:
    pair = [journal_of([started(FIRST, 1, SECOND)], FIRST), journal_of([started(SECOND, 1, FIRST)], SECOND)]
    assert len(tell(WORK, pair).runs) == 2


def test_a_run_whose_journal_cannot_be_read_has_its_place() -> None:
    ref = RunRef(WORK, FIRST)
    story = tell(WORK, [RunJournal(ref, (), 0), journal_of(resumed(), SECOND)], {ref: "part 3 is damaged"})
    assert [run.problem for run in story.runs] == ["part 3 is damaged", None]


def test_turns_are_numbered_by_their_prompts_and_what_came_before_is_turn_0() -> None:
    events = [
        started(FIRST),
        MirrorError("no"),
        Prompt("One.", resumed=False),
        User("More."),
        Prompt("Two.", resumed=False),
    ]
    run = run_of(*events)
    assert [turn.number for turn in run.conversation.turns] == [0, 1, 2]
    assert [turn.number for turn in turns_of(journal_of(events))] == [0, 1, 2]


def test_the_last_turns_are_those_of_the_last_runs() -> None:
    journals = [journal_of(killed(), FIRST), journal_of(resumed(), SECOND)]
    assert [extract.ref.run_id for extract in last_turns(journals, 1)] == [SECOND]
    assert [extract.ref.run_id for extract in last_turns(journals, 2)] == [FIRST, SECOND]
    assert [extract.turns for extract in last_turns(journals, None)] == [None, None]
    long = journal_of([started(FIRST), *(Prompt(name, resumed=False) for name in "abc")])
    (extract,) = last_turns([long], 2)
    assert extract.turns == {2, 3}
    assert [recorded.seq for recorded in extract.events] == [3, 4]


# --- What it comes to -----------------------------------------------------------------------------------------------


def test_tokens_are_those_of_the_last_word_on_each_answer_and_cost_that_of_the_last_result() -> None:
    use = {"input_tokens": 10, "output_tokens": 1}
    final = {"type": "message_delta", "usage": {"output_tokens": 40}}
    run = run_of(
        started(FIRST),
        Prompt("Go.", resumed=False),
        Assistant("One.", "m1", "m", usage=use),
        ToolUse("c", "Bash", {}, "m1", "m", usage=use),
        Stream("m1", final),
        Result("success", False, "One.", 1, 10, 5, cost_usd=0.25),
    )
    assert (run.conversation.usage.input_tokens, run.conversation.usage.output_tokens) == (10, 40)
    assert run.conversation.cost_usd == 0.25


def test_what_the_conversation_had_cost_before_is_counted_once() -> None:
    first = [*killed()[:2], Result("success", False, "x", 1, 10, 5, cost_usd=0.25), Ended("completed")]
    begun = [started(SECOND, 2, FIRST), Resumed(SESSION, FIRST, took_over=False, cost_usd=0.25)]
    second = [*begun, Prompt("on", True), Result("success", False, "x", 1, 10, 5, cost_usd=0.75), Ended("completed")]
    story = tell(WORK, [journal_of(first), journal_of(second, SECOND)])
    assert [each.conversation.cost_usd for each in story.runs] == [0.25, 0.5]
    assert story.conversation().cost_usd == 0.75


def test_numbers_that_nobody_can_have_spent_are_passed_over() -> None:
    used = {"m": {"inputTokens": 10**400}}
    events = [
        started(FIRST),
        Resumed(SESSION, SECOND, took_over=False, cost_usd=0.25, model_usage={"m": {"inputTokens": 0.5}}),
    ]
    for cost_usd, models in ((10**400, None), (0.5, used)):
        result = Result("success", False, "x", 1, 10, 5, cost_usd=cost_usd, model_usage=models)
        assert run_of(*events, result).conversation.cost_usd is None


def test_the_cost_is_at_least_that_if_a_run_died_before_it_was_noted() -> None:
    died = [*killed(), Assistant("x", "m9", "m", usage={"input_tokens": 5})]
    paid = [*resumed()[:-1], Result("success", False, "x", 1, 10, 5, cost_usd=0.5), Ended("completed")]
    found = tell(WORK, [journal_of(died), journal_of(paid, SECOND)]).conversation()
    assert (found.cost_usd, found.cost_is_partial) == (0.5, True)


def test_runs_that_came_after_the_registry_lost_the_work_item_are_told_last() -> None:
    old, new, third = "1" * 20, "2" * 20, "3" * 20
    journals = [
        put_in_order(RunRef(WORK, run_id), [line | {"at_ms": at_ms} for line in lines], 1)
        for run_id, at_ms, lines in (
            (old, 1_000, [each.raw for each in recorded([started(old, 5)])]),
            (new, 2_000, [each.raw for each in recorded([started(new, 1)])]),
            (third, 1_500, [each.raw for each in recorded([started(third, 2, new)])]),
            ("0" * 20, 500, [each.raw for each in recorded([started("0" * 20, 1)])]),
        )
    ]
    assert [run.ref.run_id for run in tell(WORK, journals).runs] == ["0" * 20, old, new, third]


# --- What is missing or not known -----------------------------------------------------------------------------------


def test_events_that_are_missing_are_told_where_they_are() -> None:
    run = run_of(
        started(FIRST), Prompt("Go.", resumed=False), *said("One."), *said("Two.", "m2"), without=(3, 4, 5, 6)
    )
    told = notices(run.conversation.turns)
    assert ("missing", "events 3 to 6 are missing") in told
    assert [*texts(run.conversation)] == ["Two."]


def test_events_that_are_not_known_and_lines_that_were_damaged_are_told() -> None:
    newer = Recorded(3, 5, "hologram", None, {})
    journal = journal_of([started(FIRST), Prompt("Go.", resumed=False)])
    events = (*journal.events, newer, *recorded([Damaged("AA==")], 4))
    run = tell(WORK, [RunJournal(journal.ref, events, 1)]).runs[0]
    assert notices(run.conversation.turns) == [
        ("unknown", "an event that this release cannot read: hologram"),
        ("damaged", "the line of event 4 is lost"),
    ]
    assert run.conversation.unknown == {"hologram": 1}


@pytest.mark.parametrize(
    ("event", "about", "text"),
    [
        (MirrorError("the store is away"), "not stored", "the store is away"),
        (RateLimit("rejected"), "rate limit", "rejected"),
        (Subagent("t", "failed", "Count"), "subagent", "failed: Count"),
        (System("compact_boundary"), "compaction", "what came before was summed up for the agent"),
        (Result("error_max_turns", True, None, 1, 1, 1, errors=["too many"]), "result", "error_max_turns: too many"),
        (Assistant("Overloaded", "m", "m", error="overloaded"), "agent command", "Overloaded"),
        (User("[Request interrupted by user]"), "interrupted", "[Request interrupted by user]"),
    ],
)
def test_what_goes_wrong_is_told(event: Event, about: str, text: str) -> None:
    (step,) = steps_of(event)
    assert isinstance(step, Notice)
    assert (step.about, step.text) == (about, text)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "id"]), inner),
    max_leaves=5,
)


@st.composite
def junk_events(draw: st.DrawFn) -> list[Any]:
    """Lines of known types that hold anything."""
    lines = []
    for seq in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from([*TYPES]))
        values = {each.name: draw(JUNK) for each in fields(TYPES[kind])}
        lines.append({"v": 1, "seq": seq + 1, "at_ms": draw(st.integers()), "type": kind, **values})
    return lines


@pytest.mark.slow
@QUICK
@given(st.lists(junk_events(), max_size=3))
def test_whatever_journals_hold_there_is_a_story(runs: list[list[Any]]) -> None:
    journals = [put(lines, f"{number:020}") for number, lines in enumerate(runs)]
    story = tell(WORK, journals)
    assert len(story.runs) == len(runs)
    assert story.conversation() is not None


def put(lines: list[Any], run_id: str) -> RunJournal:
    return put_in_order(RunRef(WORK, run_id), lines, 1)


# --- No gap and no repetition ---------------------------------------------------------------------------------------


@st.composite
def answers(draw: st.DrawFn, parent: str | None) -> list[Event]:
    """The events of one thread: answers of several blocks, each in pieces, of which the last may be cut short."""
    events: list[Event] = []
    for answer in range(draw(st.integers(1, 3))):
        message = f"{parent}-{answer}"
        events.append(Stream(message, {"type": "message_start", "message": {"id": message}}, parent))
        for index in range(draw(st.integers(1, 3))):
            pieces = draw(st.lists(st.text("ab \n", min_size=1, max_size=4), max_size=4))
            whole = "".join(pieces)
            call_id = f"{message}-{index}"
            kind = draw(st.sampled_from(["text", "thinking", "tool_use"]))
            block = {"type": kind, "id": call_id, "name": "Bash"}
            events.append(
                Stream(message, {"type": "content_block_start", "index": index, "content_block": block}, parent)
            )
            match kind:
                case "text":
                    events += [TextDelta(message, index, piece, parent) for piece in pieces]
                    events += [Assistant(whole, message, "m", parent)] if whole.strip() else []
                case "thinking":
                    events += [ThinkingDelta(message, index, piece, parent) for piece in pieces]
                    events.append(Thought(whole if draw(st.booleans()) else "", message, "m", parent))
                case _:
                    events += [ToolInputDelta(message, index, piece, parent) for piece in pieces]
                    events.append(ToolUse(call_id, "Bash", whole, message, "m", parent))
            if draw(st.booleans()):
                events.append(Stream(message, {"type": "content_block_stop", "index": index}, parent))
    return events


@st.composite
def killed_runs(draw: st.DrawFn) -> list[Event]:
    """A run with subagents at work beside it, killed at any moment."""
    parents = [None, *draw(st.lists(st.sampled_from(["c1", "c2"]), unique=True))]
    threads = [draw(answers(parent)) for parent in parents]
    events: list[Event] = [started(FIRST), Prompt("Go.", resumed=False)]
    calls: list[Event] = [ToolUse(parent, "Agent", {}, "calls", "m") for parent in parents if parent is not None]
    mixed: list[Event] = []
    while any(threads):
        thread = draw(st.sampled_from([thread for thread in threads if thread]))
        mixed.append(thread.pop(0))
    everything = [*events, *calls, *mixed]
    return everything[: draw(st.integers(len(events) + len(calls), len(everything)))]


def pieces_of(events: list[Event], parent: str | None) -> str:
    kinds = (TextDelta, ThinkingDelta, ToolInputDelta)
    return "".join(event.text for event in events if isinstance(event, kinds) and event.parent == parent)


@pytest.mark.slow
@settings(QUICK, max_examples=200)
@given(killed_runs())
def test_every_piece_that_was_written_is_in_the_story_once_and_in_its_place(events: list[Event]) -> None:
    run = run_of(*events)
    agents = {agent.subpath: agent for agent in run.conversation.all_agents}
    for parent in (None, "c1", "c2"):
        found = run.conversation if parent is None else agents.get(parent, Conversation())
        assert strip("".join(texts(found))) == strip(pieces_of(events, parent))


def strip(text: str) -> str:
    """Leave out white space: the agent command does not keep blocks that are nothing else."""
    return "".join(text.split())


def test_a_story_of_nothing_is_empty() -> None:
    assert tell(WORK, []) == Story(WORK, ())
